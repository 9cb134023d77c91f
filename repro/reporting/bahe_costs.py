"""Costs on reports/bahe.md: training and table per row, and what others take beside it."""

from __future__ import annotations

from collections.abc import Sequence

from repro.reporting.bahe_quality_rows import DTI_BAHE, LLM_CTR, Row
from repro.reporting.cells import Cell, comparable_times, differing
from repro.reporting.formatting import ABSENT, compact, duration, ratio, table
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
        tokens, train_s = cell.mean("data", "tokens_raw"), cell.mean("time", "train_s")
        peak = cell.mean("memory", "peak_gib")
        lines.append(
            [
                row.label,
                f"{tokens / data['train_targets']:,.1f}" if tokens else ABSENT,
                f"{_range(cell, 'best_epoch')} of {_range(cell, 'epochs')}",
                duration(train_s),
                duration(_build_s(cell)),
                duration(total_s(cell)),
                *(ratio(total_ratio(rows, partner, cell)) for partner in PARTNERS),
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


def total_ratio(rows: Sequence[Row], partner: str, cell: Cell) -> float | None:
    """Total of a method's row whose times are comparable with the cell's, over the cell's; None without one.

    Of several, one that trains as long, then the one whose settings differ least; never one that trains
    longer than the cell, nor the cell's own method with other epochs.
    """
    own = total_s(cell)
    others = [row.cell for row in rows if row.slot[0] == partner and row.cell.ok and row.cell is not cell]
    others = [each for each in others if each.most_epochs <= cell.most_epochs]
    others = [each for each in others if each.method != cell.method or each.most_epochs == cell.most_epochs]
    totals = [(each, total_s(each)) for each in others if comparable_times(cell, each)]
    found = [
        (each.most_epochs != cell.most_epochs, len(differing([cell, each])), total)
        for each, total in totals
        if total
    ]
    return min(found)[2] / own if found and own else None


def versions_text(rows: Sequence[Row]) -> list[str]:
    """Which rows were trained by which code, where it is not the same for all."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for commit in sorted({run.record["git"]["sha"] or "no git" for run in row.cell.ok}):
            if row.slot[0] != FLOOR:
                found.setdefault(commit[:10], []).append(row.label)
    if len(found) < 2:
        return []
    said = " — ".join(f"`{commit}`: {compact(labels)}" for commit, labels in found.items())
    return [f"Times are of several versions of the code, by commit: {said}."]


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
