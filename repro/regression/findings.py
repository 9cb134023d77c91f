"""What the gate finds: one verdict for each number, and the table of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tabulate import tabulate

from repro.reporting.formatting import ABSENT


class Verdict(StrEnum):
    """How a new value stands to its reference."""

    MATCH = "match"  # equal, within the stated rounding
    WITHIN_NOISE = "within seed noise"  # not equal, but as far off as another seed may be
    WORSE = "worse"
    TOO_GOOD = "too good"  # fails as well: the task has become another one
    MOVED = "moved"  # by less than a seed, but on the reference's own kind of machine and versions
    DIFFERS = "differs"  # of values that no seed moves: checksums, counts, untrained scores, pages
    NOT_RUN = "not run"  # no reference, a stale one, or the run failed
    NOT_CHECKED = "not checked"  # cannot be decided here; does not fail, but is always shown


PASSING = (Verdict.MATCH, Verdict.WITHIN_NOISE, Verdict.NOT_CHECKED)


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        metric: what was checked.
        mean, spread, new: reference mean, reference range and new value, as printed.
        slip: the smallest slip that this line sees, as printed.
        note: what differs and what to do about it; printed below the table.
    """

    metric: str
    verdict: Verdict
    mean: str = ABSENT
    spread: str = ABSENT
    new: str = ABSENT
    slip: str = ABSENT
    note: str = ""

    @property
    def passes(self) -> bool:
        """Whether the gate may stay open."""
        return self.verdict in PASSING


def exact(metric: str, checked: str, problems: list[str], slip: str = "any") -> Finding:
    """The line of a check that allows no difference, or none above `slip`; `checked`: how many of what."""
    verdict = Verdict.DIFFERS if problems else Verdict.MATCH
    new = f"{len(problems)} differ" if problems else "all match"
    return Finding(metric, verdict, spread=checked, new=new, slip=slip, note="\n  ".join(problems))


HEADER = ("metric", "reference mean", "reference range", "new value", "visible slip", "verdict")


def render(findings: Iterable[Finding]) -> str:
    """The table, then the notes, then one line that says how it ended."""
    findings = list(findings)
    rows = [(f.metric, f.mean, f.spread, f.new, f.slip, f.verdict.value) for f in findings]
    lines = [tabulate(rows, HEADER, tablefmt="github", disable_numparse=True), ""]
    lines += [f"{f.metric}: {f.verdict}: {f.note}" for f in findings if f.note]
    failed = [f.metric for f in findings if not f.passes]
    lines.append(f"regression: {len(failed)} of {len(findings)} FAILED" if failed else "regression: ok")
    return "\n".join(lines)
