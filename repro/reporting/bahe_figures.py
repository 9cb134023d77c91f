"""What the figures of BAHE's pages show, as panels for `figures.figure_files`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from repro.behaviours.drift import KINDS
from repro.evaluation.intervals import Interval
from repro.experiments.bahe_variants import CUTS, stale_name
from repro.reporting.bahe_costs import total_s
from repro.reporting.bahe_quality_rows import LLMS, METHOD_PAIRS, Group, Slot, reads_fewer, title
from repro.reporting.bahe_sweeps import BAHE, LLM_CTR, OOM, Sweep
from repro.reporting.bahe_variants import Group as Variants
from repro.reporting.bahe_variants import comparisons, unchanged
from repro.reporting.cells import Cell
from repro.reporting.figures import COLOURS
from repro.reporting.floor import bars
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.references import BaheClaims
from repro.reporting.scores import difference
from repro.reporting.stale_tables import of_kind
from repro.reporting.table_growth import MIB

Panel = dict[str, Any]
Line = dict[str, Any]
COSTS = {"training time": ("time", "train_s"), "peak memory": ("memory", "peak_gib")}
# What the page compares; a method's colour is its place.
DRAWN = tuple(dict.fromkeys(slot for pair in METHOD_PAIRS for slot in pair))
assert len(DRAWN) <= len(COLOURS), "two methods would look alike"


def quality_panels(groups: Sequence[Group]) -> list[Panel]:
    """AUC above the floor against seconds of training and table, a panel for each device.

    A method's points are joined in the order of their cost: more epochs of the same method. ID-based models,
    whose times are no measure of speed, are lines across.
    """
    return [
        panel
        for group in groups
        for origin in ORIGINS
        if (floor := bars(group.floor[origin]).get("auc")) is not None
        for panel in _quality(group, origin, floor)
    ]


def _quality(group: Group, origin: str, floor: Cell) -> list[Panel]:
    timed: dict[Slot, list[tuple[float, Interval | None]]] = {}
    across: dict[Slot, tuple[str, float]] = {}
    for row in group.rows[origin]:
        if row.slot not in DRAWN or not row.cell.ok or reads_fewer(row):
            continue
        gain, seconds = difference(row.cell.ok, floor.ok), total_s(row.cell)
        if row.slot[0] not in LLMS:
            across[row.slot] = row.label, gain.mean
        elif seconds is not None and row.cell.device == group.device:
            timed.setdefault(row.slot, []).append((seconds, gain))
    if not timed:
        return []
    every = [seconds for found in timed.values() for seconds, _ in found]
    lines = [_differences(title(slot), each) | _colour(slot) for slot, each in timed.items()]
    for slot, (label, height) in across.items():
        ends = [[x, height] for x in (min(every), max(every))]
        lines.append(_line(label, ends, "dashed") | _colour(slot))
    name = f"{group.dataset}, protocol {group.protocol}, tier {group.tier}"
    name += f" ({origin})" if origin == YOURS else ""
    x, y = "training and table, s", "AUC − AUC of the floor"
    return [_panel(f"{name}\n{group.device}", x, y, lines, log_x=True, signed=True)]


def _colour(slot: Slot) -> Line:
    return {"colour": DRAWN.index(slot)}


def cut_panels(groups: Sequence[Variants], reference: str) -> list[Panel]:
    """AUC against the share of frozen layers, and what training costs, as shares of the reference's."""
    x, y = "share of the layers frozen", "AUC − AUC at one half"
    panels = []
    for group in groups:
        if compared := _compared(group, reference):
            gains = [(CUTS[name], each) for name, each in compared.items()]
            line, where = _differences("BAHE", gains), _where(group)
            panels.append(_panel(f"layer cuts: {where}", x, y, [line], signed=True))
            costs = [_cost(group, reference, word, *key) for word, key in COSTS.items()]
            panels.append(_panel("layer cuts: cost of training", x, "times that at one half", costs))
    return panels


def _cost(group: Variants, reference: str, word: str, *key: str) -> Line:
    values = {name: cell.mean(*key) for name, cell in group.cells.items()}
    base = values[reference]
    return _line(word, [[CUTS[name], value / base] for name, value in values.items() if value and base])


def stale_panels(groups: Sequence[Variants]) -> list[Panel]:
    """What an older table loses against what refreshing it encodes, a line for each kind of change."""
    panels = []
    for group in groups:
        lines = []
        for kind in KINDS:
            encoded = {name: cell.mean("data", "behaviours_encoded") for name, cell in group.cells.items()}
            compared = _compared(of_kind(group, kind), stale_name(kind, 1))
            found = [(number, each) for name, each in compared.items() if (number := encoded[name])]
            lines.append(_differences(kind, found))
        x, y = "behaviours encoded", "AUC − AUC refreshed every step"
        panel = _panel(f"tables that age: {_where(group)}", x, y, lines, log_x=True, signed=True)
        panels += [panel] if panel["lines"] else []
    return panels


def _compared(group: Variants, reference: str) -> dict[str, Interval | None]:
    """AUC minus the reference's by variant, None where there is none; empty if nothing is compared."""
    found: dict[str, Interval | None] = {
        name: each for name, (each, _) in comparisons(group, reference).items()
    }
    found |= dict.fromkeys(unchanged(group, reference))
    return found | {reference: None} if found else {}


def growth_panels(inputs: Inputs) -> list[Panel]:
    """Seconds and size of a table on disk against the number of behaviours, for each device."""
    panels = []
    seconds = {"build_s": "build", "first_read_s": "first read", "open_s": "open", "update_s": "update"}
    sizes = {"table_bytes": "table", "export_bytes": "mapped file", "index_bytes": "index in memory"}
    for origin in ORIGINS:
        for file in inputs.behaviour_table[origin]:
            rows = [row for row in file.rows if row["measured"] == "storage" and row["storage"] == "lance"]
            for device in dict.fromkeys(row["device"] for row in rows):
                here = [row for row in rows if row["device"] == device]
                own = f" ({origin})" if origin == YOURS else ""
                panels += [
                    _growth(here, seconds, 1, f"growing table: {device}{own}", "s"),
                    _growth(here, sizes, MIB, "growing table: size", "MiB"),
                ]
    return [panel for panel in panels if panel["lines"]]


def _growth(rows: Sequence[dict[str, Any]], keys: dict[str, str], unit: int, name: str, y: str) -> Panel:
    numbers = sorted({row["behaviours"] for row in rows})
    lines = []
    for key, word in keys.items():
        by_number = {
            number: [row[key] for row in rows if row["behaviours"] == number and row.get(key)]
            for number in numbers
        }
        points = [[number, mean(found) / unit] for number, found in by_number.items() if found]
        lines.append(_line(word, points))
    return _panel(name, "behaviours", y, lines, log=True)


def efficiency_panels(sweep: Sweep, claims: BaheClaims) -> list[Panel]:
    """Step time, memory, their ratios beside the claim, and the time ratio by length of a behaviour."""
    x = "text tokens per sample"
    compared = (("FLOPs", "train_flops_per_sample"), ("time", "step_ms"), ("memory", "peak_gib"))
    ratios = [_line(name, sweep.ratios(key)) for name, key in compared]
    claim = [[length, claims.time] for length in claims.text_tokens if length in sweep.lengths]
    by_size = [_line(f"{size} tokens", sweep.ratios("step_ms", size)) for size in sweep.behaviour_sizes]
    panels = [
        _panel(f"{sweep.title}\ntime of a step", x, "step, ms", _sides(sweep, "step_ms"), log=True),
        _panel("memory", x, "peak, GiB", _sides(sweep, "peak_gib"), log=True),
        _panel("LLM-CTR over BAHE", x, "ratio", [*ratios, _line("claimed", claim, "dashed")], log=True),
        _panel("by length of a behaviour", x, "time ratio", by_size, log=True),
    ]
    return [panel for panel in panels if panel["lines"]]


def _sides(sweep: Sweep, key: str) -> list[Line]:
    """A line of each method, with the lengths at which it ran out of memory."""
    lines = []
    for method, name in ((BAHE, "BAHE"), (LLM_CTR, "LLM-CTR")):
        failed = [length for length in sweep.lengths if sweep.cell(method, length).out_of_memory]
        lines.append(_line(name, sweep.points(method, key)) | ({"failed": {OOM: failed}} if failed else {}))
    return lines


def _where(group: Variants) -> str:
    cell = next(iter(group.cells.values()))
    return f"{cell.config['dataset']}, tier {cell.config['tier']}\n{cell.device}"


def _differences(name: str, found: Sequence[tuple[float, Interval | None]]) -> Line:
    """A line of differences in the order of x; None is what the others are compared with."""
    found = sorted(found, key=lambda each: each[0])
    points = [[x, each.mean if each else 0.0] for x, each in found]
    bounds = [[each.low, each.high] if each else [0.0, 0.0] for _, each in found]
    return _line(name, points) | {"bounds": bounds}


def _line(name: str, points: list[list[Any]], style: str = "line") -> Line:
    return {"name": name, "style": style, "points": points}


def _panel(name: str, x: str, y: str, lines: Sequence[Line], log: bool = False, **axes: bool) -> Panel:
    drawn = [line for line in lines if line["points"] or "failed" in line]
    return {"title": name, "x": x, "y": y, "log": log, "lines": drawn, **axes}
