"""The numbers behind a table's rows: intervals, and comparisons with SW."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from repro.evaluation.intervals import Interval, holm
from repro.records.store import Run
from repro.reporting.cells import NOT_RUN, Cell, closest, comparable_times
from repro.reporting.formatting import count, score
from repro.reporting.scores import Comparison, auc_interval, compare
from repro.reporting.sections import METHOD_TITLES, SW, ZERO_SHOT, Row, Section


@dataclass(frozen=True)
class Line:
    """A row with results, not run, or failed."""

    row: Row
    auc: Interval | None = None
    sw: Line | None = None  # the SW row it is compared with
    to_sw: Comparison | None = None
    holm_p: float | None = None
    to_zero_shot: Comparison | None = None

    @property
    def own(self) -> bool:
        """One of the table's own rows, not a reference."""
        return self.row.slot[0] in METHOD_TITLES

    @property
    def relative_percent(self) -> float | None:
        """100 x (AUC / AUC of SW - 1), as DTI's Table 1 has it; None for SW itself and without a pair."""
        if self.auc is None or self.sw is None or self.sw.auc is None:
            return None
        return 100 * (self.auc.mean / self.sw.auc.mean - 1)

    @property
    def time_ratio(self) -> float | None:
        """Training time of SW over this row's; None unless both clocks ran under the same conditions."""
        if self.row.cell is None or self.sw is None or self.sw.row.cell is None:
            return None
        cell, sw = self.row.cell, self.sw.row.cell
        own, other = cell.mean("time", "train_s"), sw.mean("time", "train_s")
        return other / own if own and other and comparable_times(cell, sw) else None


def section_lines(section: Section, origin: str) -> list[Line]:
    """Every row of the section with its numbers."""
    return compared_lines(section.rows(origin))


def compared_lines(rows: Sequence[Row]) -> list[Line]:
    """Every row with its numbers, beside SW where there is one; Holm adjusts over one device's own rows."""
    lines = [_line(row) for row in rows]
    sws = [line for line in lines if line.row.slot[0] == SW and line.auc is not None]
    zero_shots = [line for line in lines if line.row.slot[0] == ZERO_SHOT and line.auc is not None]
    lines = [_compared(line, sws, zero_shots) for line in lines]
    # Rows for reference stay out of it: what is said of DTI must not depend on which of them have records,
    # nor on whether somebody ran the same rows on another device.
    families: dict[str, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        if line.own and line.to_sw is not None and line.row.cell is not None:
            families[line.row.cell.device].append(place)
    for places in families.values():
        adjusted = holm([lines[i].to_sw.difference.p_value for i in places])  # type: ignore[union-attr]
        for i, value in zip(places, adjusted, strict=True):
            lines[i] = replace(lines[i], holm_p=value)
    return lines


def auc_text(cell: Cell | None) -> str:
    """Mean ± standard deviation over seeds; "n = 1"; or why there is no number."""
    if cell is None:
        return NOT_RUN
    values = cell.values("metrics", "auc")
    if len(values) == 0:
        text = cell.failures
    elif len(values) == 1:
        text = f"{score(values[0])} (n = 1)"
    else:
        text = f"{score(float(values.mean()))} ± {score(float(values.std(ddof=1)))}"
    return f"{text}, stale" if cell.stale else text


def seeds_text(cell: Cell | None) -> str:
    """Number of seeds with results, and what became of the others."""
    if cell is None:
        return "0"
    number = count(len(cell.ok))
    return f"{number} ({cell.failures})" if cell.ok and cell.failures else number


def _line(row: Row) -> Line:
    return Line(row, auc_interval(_ok(row)) if _ok(row) else None)


def _compared(line: Line, sws: Sequence[Line], zero_shots: Sequence[Line]) -> Line:
    if line.auc is None:
        return line
    method = line.row.slot[0]
    sw = None if method == SW else _closest(line, sws)
    zero_shot = _closest(line, zero_shots) if line.own else None
    return replace(
        line,
        sw=sw,
        to_sw=compare(_ok(line.row), _ok(sw.row)) if sw else None,
        to_zero_shot=compare(_ok(line.row), _ok(zero_shot.row)) if zero_shot else None,
    )


def _closest(line: Line, candidates: Sequence[Line]) -> Line | None:
    """The line whose cell is closest in settings to this one's."""
    cells = [each.row.cell for each in candidates if each.row.cell is not None]
    found = closest(line.row.cell, cells) if line.row.cell else None
    return next((each for each in candidates if each.row.cell is found), None) if found else None


def _ok(row: Row) -> list[Run]:
    return row.cell.ok if row.cell else []
