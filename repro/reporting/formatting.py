"""How numbers, lists and tables look on every page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean

from tabulate import tabulate

ABSENT = "—"


def score(value: float | None) -> str:
    """AUC, log loss, F1, GAUC: four decimals."""
    return ABSENT if value is None else f"{value:.4f}"


def signed(value: float) -> str:
    """Difference of scores: sign and four decimals; what rounds to zero has a plus."""
    return f"{round(value, 4) + 0.0:+.4f}"


def percent(value: float | None) -> str:
    """Relative difference in percent: sign and two decimals."""
    return ABSENT if value is None else f"{round(value, 2) + 0.0:+.2f} %"


def bounds(low: float, high: float, form: str = ".4f") -> str:
    """Interval, e.g. [0.7010, 0.7220]."""
    return f"[{low:{form}}, {high:{form}}]"


def p_value(value: float) -> str:
    """Three decimals; smaller ones as such."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int) -> str:
    """Whole number with thousands separators."""
    return f"{value:,}"


def duration(seconds: float | None) -> str:
    """Time with its unit: 123.6 s, 15.2 min, 6.63 h."""
    if seconds is None:
        return ABSENT
    if seconds < 200:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.2f} h"


def ratio(value: float | None) -> str:
    """Ratio with a multiplication sign."""
    return ABSENT if value is None else f"{value:.2f} ×"


def plural(number: int, noun: str) -> str:
    """1 seed, 3 seeds."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def summary(number: str, names: Iterable[str] = (), **counted: Iterable[str]) -> str:
    """What a page has records of, in a few words: how many rows, of which data sets, how many devices.

    Args:
        number: e.g. "12 rows".
        names: said by name, each once, sorted.
        counted: noun in the singular -> names of which only the number is said.
    """
    named = listed(sorted(set(names)))
    numbers = [plural(len(set(each)), noun) for noun, each in counted.items()]
    return "; ".join([number, *([named] if named else []), *numbers])


def compact(labels: Sequence[str]) -> str:
    """ "DTI, k = 5" and "DTI, k = 10" as "DTI, k = 5, 10"; other labels as they are."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        head, _, k = label.partition(", k = ")
        if k.isdigit():
            groups[head].append(k)
        else:
            groups[label] = []
    return "; ".join(f"{head}, k = {', '.join(ks)}" if ks else head for head, ks in groups.items())


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """GitHub table; every cell as it is given, pipes escaped."""
    text = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(text, headers=list(headers), tablefmt="github", disable_numparse=True)


def folded(summary_text: str, text: str) -> list[str]:
    """Blocks of a part that opens on a click."""
    return [f"<details><summary>{summary_text}</summary>", text, "</details>"]


def page(title: str, session: str, blocks: Iterable[str]) -> bytes:
    """Markdown of a page: title, how to reproduce it, then the blocks with an empty line between them."""
    head = [f"# {title}", f"Reproduce: `nox -s {session}`"]
    return ("\n\n".join([*head, *(block.rstrip() for block in blocks if block)]) + "\n").encode()


def mean_of(values: Sequence[float], form: str) -> str:
    """The mean of repetitions in this format; a dash where there is none."""
    return f"{mean(values):{form}}" if values else ABSENT
