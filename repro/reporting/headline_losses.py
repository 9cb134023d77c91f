"""The index's table of what is lost in AUC: one line per data set, device and number of epochs."""

from __future__ import annotations

from collections.abc import Sequence

from repro.reporting.bahe_quality_rows import (
    BAHE,
    DTI_BAHE,
    DTI_K,
    LLM_CTR,
    LLMS,
    Pair,
    Row,
    Slot,
    reads_fewer,
)
from repro.reporting.claims import ALPHA, ALPHA_TEXT, MIN_SEEDS
from repro.reporting.formatting import ABSENT, count, listed, plural, signed, table
from repro.reporting.headline_groups import MainGroup
from repro.reporting.sections import DTI, SW

COMPARED: dict[str, tuple[Slot, Slot]] = {
    "DTI − SW": ((DTI, DTI_K), (SW, 1)),
    "BAHE − LLM-CTR": ((BAHE, None), (LLM_CTR, None)),
    "DTI over BAHE − BAHE": ((DTI_BAHE, DTI_K), (BAHE, None)),
}
LOST = (
    f"AUC on test, each method minus the one it takes the place of, on the same targets; k = {DTI_K}, DTI in "
    f"our recipe. Lower or higher after Holm's adjustment at {ALPHA_TEXT} over all pairs of that section of "
    f"[bahe](bahe.md), which has the intervals; *in these runs* where a side has fewer than {MIN_SEEDS} "
    'seeds. "Not told apart" is no claim of no loss. For BAHE and LLM-CTR fewer settings were tried than '
    "for SW and DTI ([statistics](../docs/statistics.md)). [table1](table1.md) and [table3](table3.md) "
    "adjust over their own rows, so that a verdict there may differ. —: not run."
)


def losses_table(found: Sequence[MainGroup]) -> str:
    """Legend, table, and what is clearly above the floor; empty without a comparison."""
    lines = [line for group in found for line in _lines(group)]
    headers = ("data set", "device", "epochs at most", *COMPARED)
    shown = [f"{LOST}\n\n{table(headers, lines)}"] if lines else []
    return "\n\n".join([*shown, *_floor(found)])


def difference_text(pair: Pair, device: str, sign: int = 1) -> str:
    """The pair's difference and what it says; with sign -1 that of the second row to the first.

    Args:
        device: of the line; a row of another one says so.
    """
    first, second = (pair.first, pair.second)[::sign]
    text, notes = signed(sign * pair.difference.mean), _notes(first, second, device)
    if pair.holm_p >= ALPHA:
        return f"{text}, not told apart{notes}"
    few = min(len(row.cell.ok) for row in (first, second)) < MIN_SEEDS
    side = "higher" if sign * pair.difference.mean > 0 else "lower"
    return f"{text}, {side}{' in these runs' if few else ''}{notes}"


def _notes(first: Row, second: Row, device: str) -> str:
    """In what besides the method the rows differ, and which are of another device."""
    both_llms = first.slot[0] in LLMS and second.slot[0] in LLMS
    said = []
    for row, other in ((first, None), (second, first)):
        notes = []
        if other is not None and both_llms and row.cell.most_epochs != other.cell.most_epochs:
            notes.append(plural(row.cell.most_epochs, "epoch"))
        if row.cell.device != device:
            notes.append(f"on {row.cell.device}")
        name = row.label.partition(",")[0].partition(" (")[0]
        said += [f"{name}: {', '.join(notes)}"] if notes else []
    return f" ({'; '.join(said)})" if said else ""


def _lines(found: MainGroup) -> list[tuple[str, ...]]:
    group, lines = found.group, []
    for epochs in sorted({row.cell.most_epochs for row in found.rows if row.slot[0] in LLMS}):
        cells = [_cell(found, *slots, epochs) for slots in COMPARED.values()]
        if any(cell != ABSENT for cell in cells):
            lines.append((group.dataset, group.device, count(epochs), *cells))
    return lines


def _cell(found: MainGroup, one: Slot, other: Slot, epochs: int) -> str:
    """One row, which trains that long, against the other, whichever of them the page puts first."""
    said = []
    for pair in found.pairs:
        for sign, first, second in ((1, pair.first, pair.second), (-1, pair.second, pair.first)):
            alike = (first.slot, second.slot) == (one, other) and first.cell.most_epochs == epochs
            alike = alike and found.group.device in (first.cell.device, second.cell.device)
            if alike and not reads_fewer(first) and not reads_fewer(second):
                said.append(difference_text(pair, found.group.device, sign))
    return "; ".join(said) or ABSENT


def _floor(found: Sequence[MainGroup]) -> list[str]:
    """Which rows are clearly above it, data set by data set."""
    verdicts: dict[str, dict[str, str]] = {}
    for each in found:
        verdicts.setdefault(each.group.dataset, {}).update(
            {label: told for label, told in each.above_floor.items() if told == "yes"}
        )
    judged = {each.group.dataset for each in found if each.above_floor}
    parts = [f"{name}: {listed(list(good)) or 'no row'}" for name, good in verdicts.items() if name in judged]
    if not parts:
        return []
    text = (
        f"**Clearly above the floor** in AUC and in GAUC, with at least {plural(MIN_SEEDS, 'seed')}, of the "
        f"rows of [bahe](bahe.md): {'; '.join(parts)}. No other row is called good; more ID-based models are "
        "on [baselines](baselines.md)."
    )
    return [text]
