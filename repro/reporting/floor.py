"""How far rows are above the floor, the like rates: nothing is called good that is not clearly above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from repro.evaluation.intervals import LEVEL, Interval
from repro.reporting.claims import MIN_SEEDS
from repro.reporting.formatting import ABSENT, bounds, compact, signed, table
from repro.reporting.lines import Line
from repro.reporting.scores import Metric

NO_FLOOR = "The floor (like rates, `nox -s baselines`) is not run, so no row can be called good."


def floor_table(lines: Sequence[Line]) -> str:
    """Differences of every row to the like rates, and which rows are clearly above."""
    compared = [line for line in lines if line.to_floor]
    if not compared:
        return NO_FLOOR
    interval = f"{100 * LEVEL:.0f} % interval"
    headers = (
        "row",
        "AUC − AUC of the floor",
        interval,
        "GAUC − GAUC of the floor",
        interval,
        "clearly above",
    )
    rows = [
        (
            line.row.label,
            *gain_cells(line.to_floor.get("auc")),
            *gain_cells(line.to_floor.get("gauc")),
            verdict(line.to_floor, line.auc.num_seeds if line.auc else 0),
        )
        for line in compared
    ]
    good = [row[0] for row in rows if row[-1] == "yes"]
    text = f"Clearly above the floor: {compact(good)}." if good else "No row is clearly above the floor."
    return f"{table(headers, rows)}\n\n{text}"


def gain_cells(found: Interval | None) -> tuple[str, str]:
    """Difference and interval."""
    return (ABSENT, ABSENT) if found is None else (signed(found.mean), bounds(found.low, found.high, "+.4f"))


def verdict(gains: Mapping[Metric, Interval] | Mapping[str, Interval | None], num_seeds: int) -> str:
    """ "yes", "no", or "needs 3 seeds" where the intervals would say yes."""
    found: list[Interval | None] = [gains.get("auc"), gains.get("gauc")]
    if not all(each is not None and each.low > 0 for each in found):
        return "no"
    return "yes" if num_seeds >= MIN_SEEDS else f"needs {MIN_SEEDS} seeds"
