"""Costs on reports/bahe.md: training and table per row, and what others take beside it."""

from __future__ import annotations

from collections.abc import Sequence

from repro.reporting.bahe_quality_rows import DTI_BAHE, LLM_CTR, LLMS, Row
from repro.reporting.cells import Cell, comparable_times, differing
from repro.reporting.formatting import ABSENT, duration, plural, ratio, table
from repro.reporting.methods import FLOOR
from repro.reporting.sections import SW

PARTNERS = {LLM_CTR: "LLM-CTR / row", SW: "SW / row"}  # whose totals stand over a row's


def costs_table(rows: Sequence[Row]) -> str:
    """One line per trained row with results."""
    lines = []
    for row in rows:
        if row.slot[0] == FLOOR or not row.cell.ok:
            continue
        cell, data = row.cell, row.cell.runs[0].record["data"]
        timed = row.slot[0] in LLMS  # runs of the others shared a device
        tokens, train_s = cell.mean("data", "tokens_raw"), cell.mean("time", "train_s") if timed else None
        peak = cell.mean("memory", "peak_gib")
        lines.append(
            [
                row.label,
                f"{tokens / data['train_targets']:,.1f}" if tokens else ABSENT,
                f"{_range(cell, 'best_epoch')} of {_range(cell, 'epochs')}",
                duration(train_s),
                duration(_build_s(cell)),
                duration(total_s(cell) if timed else None),
                *(_ratio_text(rows, partner, cell) if timed else ABSENT for partner in PARTNERS),
                ABSENT if peak is None else f"{peak:.2f} GiB",
            ]
        )
    headers = ["row", "tokens or vectors per target", "best of epochs", "training", "table", "total"]
    return table([*headers, *PARTNERS.values(), "peak memory"], lines)


def _range(cell: Cell, key: str) -> str:
    """Lowest to highest over seeds, epochs counted from 1."""
    found = [run.record["time"][key] + (key == "best_epoch") for run in cell.ok]
    return " to ".join(str(each) for each in sorted({min(found), max(found)}))


def total_s(cell: Cell) -> float | None:
    """Seconds of training and, where there is one, of the behaviour table; mean over seeds.

    None where a table's cost is unknown.
    """
    train_s, has_table = cell.mean("time", "train_s"), (cell.config.get("behaviours") or {}).get("cached")
    build_s = _build_s(cell) if has_table else 0.0
    return None if train_s is None or build_s is None else train_s + build_s


def _ratio_text(rows: Sequence[Row], method: str, cell: Cell) -> str:
    partner, text = partner_of(rows, method, cell), ratio(total_ratio(rows, method, cell))
    if partner is None or partner.most_epochs == cell.most_epochs:
        return text
    return f"{text} ({plural(partner.most_epochs, 'epoch')})"


def total_ratio(rows: Sequence[Row], method: str, cell: Cell) -> float | None:
    """Total of the method's row that the cell is set beside, over the cell's; None without one."""
    partner, own = partner_of(rows, method, cell), total_s(cell)
    other = None if partner is None else total_s(partner)
    return other / own if other and own else None


def partner_of(rows: Sequence[Row], method: str, cell: Cell) -> Cell | None:
    """A row of the method whose total is comparable with the cell's; None without one.

    Of several, one that trains as long, then the one whose settings differ least; never one that trains
    longer than the cell, nor the cell's own method with other epochs.
    """
    others = [row.cell for row in rows if row.slot[0] == method and row.cell.ok and row.cell is not cell]
    others = [each for each in others if each.most_epochs <= cell.most_epochs]
    others = [each for each in others if each.method != cell.method or each.most_epochs == cell.most_epochs]
    others = [each for each in others if total_s(each) and comparable_times(cell, each)]
    return min(
        others,
        key=lambda each: (each.most_epochs != cell.most_epochs, len(differing([cell, each])), total_s(each)),
        default=None,
    )


def larger_k_text(rows: Sequence[Row]) -> list[str]:
    """Whether DTI over BAHE trained in less time with more targets per row, all else equal.

    Each k beside the next smaller one; empty without two.
    """
    timed = [
        (row.slot[1] or 0, row, seconds)
        for row in rows
        if row.slot[0] == DTI_BAHE and (seconds := row.cell.mean("time", "train_s")) is not None
    ]
    said = []
    for k, row, seconds in timed:
        fewer = [
            (other_k, other_s)
            for other_k, other, other_s in timed
            if other_k < k and other.cell.device == row.cell.device and not differing([row.cell, other.cell])
        ]
        if fewer:
            other_k, other_s = max(fewer)
            verdict = "less" if seconds < other_s else "no less"
            said.append(
                f"{row.label} took {verdict} training time than k = {other_k}: {duration(seconds)} against "
                f"{duration(other_s)}."
            )
    return said


def _build_s(cell: Cell) -> float | None:
    return cell.mean("time", "table_build_s")
