"""How far rows are above the floor: nothing is called good that is not clearly above it.

The floor is the strongest of the like rates and their parts (`rates`, `rates-20`, user's or item's rate
alone), for each metric on its own: the three rates together have the best AUC of them, yet within one user
the item's rate alone may order the targets better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.evaluation.intervals import LEVEL, Interval, holm
from repro.reporting.cells import Cell
from repro.reporting.claims import ALPHA, ALPHA_TEXT, MIN_SEEDS
from repro.reporting.formatting import ABSENT, bounds, compact, listed, p_value, signed, table
from repro.reporting.methods import FLOOR, id_title, is_floor
from repro.reporting.scores import Metric, difference

NO_FLOOR = "The floor (like rates, `nox -s baselines`) is not run, so no row can be called good."
METRICS: dict[Metric, str] = {"auc": "AUC", "gauc": "GAUC"}
SHORT_LEGEND = (
    "the strongest, by the metric at hand, of the like rates and their parts. Clearly above: in AUC and in "
    f"GAUC, each with a p-value below {ALPHA_TEXT} after Holm's adjustment, and at least {MIN_SEEDS} seeds. "
    "No other row is called good. See [baselines](baselines.md)."
)
LEGEND = (
    "the strongest, by the metric at hand, of a logistic regression on three like rates known before the "
    "target and of these rates alone. Clearly above: AUC and GAUC both higher, each with a p-value below "
    f"{ALPHA_TEXT} (bootstrap over users and seeds, paired, two-sided, Holm-adjusted over the trained rows "
    f"of a device), and at least {MIN_SEEDS} seeds. No other row is called good."
)


@dataclass(frozen=True)
class Gain:
    """A row against the floor.

    Attributes:
        gains: by metric, row minus floor; empty where the floor has no such metric.
        adjusted: by metric, Holm-adjusted p-value over the rows of the table.
    """

    label: str
    num_seeds: int
    gains: dict[Metric, Interval]
    adjusted: dict[Metric, float]

    @property
    def verdict(self) -> str:
        """ "yes", "no", or "needs 3 seeds" where all else says yes."""
        above = [name in self.gains and self.gains[name].mean > 0 for name in METRICS]
        if not all(above) or any(self.adjusted[name] >= ALPHA for name in METRICS):
            return "no"
        return "yes" if self.num_seeds >= MIN_SEEDS else f"needs {MIN_SEEDS} seeds"


def bars(cells: Sequence[Cell]) -> dict[Metric, Cell]:
    """The strongest floor cell of each metric; empty without the like rates themselves."""
    floor = [cell for cell in cells if is_floor(cell.method) and cell.ok]
    if not any(cell.method == FLOOR for cell in floor):
        return {}
    found: dict[Metric, Cell] = {}
    for name in METRICS:
        measured = [cell for cell in floor if cell.mean("metrics", name) is not None]
        if measured:
            found[name] = max(measured, key=lambda cell: (cell.mean("metrics", name), cell.method))
    return found


def gains(rows: Sequence[tuple[str, Cell]], floor: Sequence[Cell]) -> list[Gain]:
    """Trained rows against the strongest floor cells; Holm over these rows, metric by metric."""
    bar = bars(floor)
    rows = [(label, cell) for label, cell in rows if cell.ok] if bar else []
    found: list[dict[Metric, Interval]] = [
        {
            name: difference(cell.ok, bar[name].ok, name)
            for name in bar
            if cell.mean("metrics", name) is not None
        }
        for _, cell in rows
    ]
    adjusted: list[dict[Metric, float]] = [{} for _ in rows]
    for name in bar:
        having = [i for i, each in enumerate(found) if name in each]
        for i, value in zip(having, holm([found[i][name].p_value for i in having]), strict=True):
            adjusted[i][name] = value
    return [
        Gain(label, len(cell.ok), each, p)
        for (label, cell), each, p in zip(rows, found, adjusted, strict=True)
    ]


def floor_sections(rows: Sequence[tuple[str, Cell]], floor: Sequence[Cell]) -> str:
    """Table of the trained rows against the floor, and which are clearly above it.

    Where rows are of several devices, one for each under its name: Holm's adjustment must not grow with
    devices that ran a row.
    """
    devices = dict.fromkeys(cell.device for _, cell in rows)
    if len(devices) < 2:
        return _section(rows, floor)
    parts = []
    for device in devices:
        of_device = [(label, cell) for label, cell in rows if cell.device == device]
        parts += [f"**{device}:**", _section(of_device, floor)]
    return "\n\n".join(parts)


def _section(rows: Sequence[tuple[str, Cell]], floor: Sequence[Cell]) -> str:
    bar, lines = bars(floor), []
    if not bar:
        return NO_FLOOR
    found = gains(rows, floor)
    for gain in found:
        cells = [each for name in METRICS for each in _cells(gain, name)]
        lines.append((gain.label, *cells, gain.verdict))
    interval = f"{100 * LEVEL:.0f} % interval"
    headers = ["row"]
    for title in METRICS.values():
        headers += [f"{title} − {title} of the floor", interval, "p (Holm)"]
    names = [f"{id_title(bar[m].method, bar[m].config['n'])} in {METRICS[m]}" for m in bar]
    good = compact([gain.label for gain in found if gain.verdict == "yes"])
    text = f"Clearly above the floor: {good}." if good else "No row is clearly above the floor."
    return (
        f"Strongest of the floor: {listed(names)}.\n\n{table([*headers, 'clearly above'], lines)}\n\n{text}"
    )


def _cells(gain: Gain, name: Metric) -> tuple[str, str, str]:
    if name not in gain.gains:
        return (ABSENT, ABSENT, ABSENT)
    found = gain.gains[name]
    return signed(found.mean), bounds(found.low, found.high, "+.4f"), p_value(gain.adjusted[name])
