"""Which runs stand on BAHE's quality page, in which order, and which are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from repro.evaluation.intervals import Interval, holm
from repro.reporting.cells import Cell, build_cells, differing, setting_text
from repro.reporting.formatting import count, listed
from repro.reporting.inputs import ORIGINS, Inputs
from repro.reporting.methods import FLOOR, is_floor
from repro.reporting.scores import difference
from repro.reporting.sections import DTI, RECIPES, SW

BAHE, LLM_CTR, DTI_BAHE = "bahe", "llm-ctr", "dti-bahe"
FAMILY_TITLES = {LLM_CTR: "LLM-CTR", BAHE: "BAHE", DTI_BAHE: "DTI over BAHE"}
DTI_K = 50  # of the DTI row that BAHE is set beside

Slot = tuple[str, int | None]  # method and k
PAIRS: tuple[tuple[Slot, Slot], ...] = (
    ((BAHE, None), (LLM_CTR, None)),
    ((BAHE, None), (SW, 1)),
    ((BAHE, None), (DTI, DTI_K)),
    ((BAHE, None), ("din", None)),
    ((DTI_BAHE, DTI_K), (BAHE, None)),
    ((DTI_BAHE, DTI_K), (DTI, DTI_K)),
    ((DTI_BAHE, 10), (BAHE, None)),
    ((DTI_BAHE, 1), (BAHE, None)),
    ((DTI_BAHE, DTI_K), (DTI_BAHE, 1)),
)
# Where the first trains longer: does it then reach the other, as long trained where there is such a row?
LONGER_PAIRS: tuple[tuple[Slot, Slot], ...] = (
    ((BAHE, None), (LLM_CTR, None)),
    ((DTI_BAHE, DTI_K), (BAHE, None)),
    ((DTI_BAHE, DTI_K), (DTI, DTI_K)),
)
# Settings that tell rows of one method apart, as their labels say them.
LABELS = {"training.max_epochs": "up to {} epochs", "behaviours.sequences": "sequences {}"}


@dataclass(frozen=True)
class Row:
    """A line of the page."""

    slot: Slot
    label: str
    cell: Cell


@dataclass(frozen=True)
class Pair:
    """One row against another, on the same targets."""

    first: Row
    second: Row
    difference: Interval  # of AUC, first minus second, paired over users
    holm_p: float


@dataclass(frozen=True)
class Group:
    """Rows tested on the same targets of one tier and data set, by origin."""

    title: str
    dataset: str
    tier: str
    rows: dict[str, list[Row]]
    floor: dict[str, list[Cell]]


def groups(inputs: Inputs) -> list[Group]:
    """All groups with a record of BAHE, LLM-CTR or DTI over BAHE, sorted.

    `control` runs, those of ablations and open questions, belong to other pages.
    """
    found: dict[tuple[str, ...], dict[str, list[Cell]]] = {}
    for origin in ORIGINS:
        for cell in build_cells(inputs.runs[origin]):
            found.setdefault(_key(cell), {each: [] for each in ORIGINS})[origin].append(cell)
    result = []
    for key, cells in sorted(found.items()):
        rows = {origin: _rows(cells[origin]) for origin in ORIGINS}
        if not any(row.slot[0] in FAMILY_TITLES for each in rows.values() for row in each):
            continue
        dataset, protocol, tier, _, train, _, test = key
        title = f"{dataset}, protocol {protocol}, tier {tier} ({count(int(train))} training, "
        title += f"{count(int(test))} test targets)"
        floor = {origin: [cell for cell in cells[origin] if is_floor(cell.method)] for origin in ORIGINS}
        result.append(Group(title, dataset, tier, rows, floor))
    return result


def pairs(rows: Sequence[Row]) -> list[Pair]:
    """Comparisons whose rows have results; Holm adjusts over them.

    `PAIRS` are compared in their usual form, what reads fewer sequences or trains longer with the usual form
    of itself, and what trains longer by `LONGER_PAIRS`.
    """
    having = [row for row in rows if row.cell.ok]
    usual = [row for row in having if is_usual(row, having)]
    variants = [row for row in having if not is_usual(row, having)]
    found = [
        (first, second)
        for one, other in PAIRS
        for first in usual
        for second in usual
        if (first.slot, second.slot) == (one, other)
    ]
    found += [(first, second) for first in variants for second in usual if _place(first) == _place(second)]
    longer = [row for row in variants if trains_longer(row, having)]
    for one, other in LONGER_PAIRS:
        for first in (row for row in longer if row.slot == one):
            alike = [row for row in longer if row.slot == other and _epochs(row) == _epochs(first)]
            others = alike or [row for row in usual if row.slot == other]
            found += [(first, second) for second in others]
    differences = [difference(first.cell.ok, second.cell.ok) for first, second in found]
    adjusted = holm([each.p_value for each in differences])
    return [Pair(*each, d, p) for each, d, p in zip(found, differences, adjusted, strict=True)]


def is_usual(row: Row, rows: Sequence[Row]) -> bool:
    """Whether no other row of its method, k and device reads more sequences or trains fewer epochs."""
    return _size(row) == min(_size(other) for other in rows if _place(other) == _place(row))


def trains_longer(row: Row, rows: Sequence[Row]) -> bool:
    """Whether another row of its method, k and device reads as many sequences and trains fewer epochs."""
    return any(
        _place(other) == _place(row) and _size(other)[0] == _size(row)[0] and _epochs(other) < _epochs(row)
        for other in rows
    )


def _size(row: Row) -> tuple[int, int]:
    sequences = (row.cell.config.get("behaviours") or {}).get("sequences") or ()
    return -len(sequences), _epochs(row)


def _epochs(row: Row) -> int:
    """At most."""
    return (row.cell.config["training"] or {}).get("max_epochs", 0)


def _place(row: Row) -> tuple[Slot, str]:
    return row.slot, row.cell.device


def _key(cell: Cell) -> tuple[str, ...]:
    config, data = cell.config, cell.runs[0].record["data"]
    targets = (f"{data[name]:>12}" for name in ("train_targets", "validation_targets", "test_targets"))
    return (*(config[name] for name in ("dataset", "protocol", "tier")), data["sha256"], *targets)


def _slot(cell: Cell) -> Slot | None:
    """Where a cell stands; None for what is not on this page."""
    config = cell.config
    if cell.method == FLOOR:
        return (FLOOR, None)
    if config["recipe"] not in RECIPES:
        return None
    if cell.method in FAMILY_TITLES or cell.method == "din" or (cell.method, cell.k) == (SW, 1):
        return (cell.method, cell.k)
    tuned = config["recipe"] == "tuned"
    return (DTI, DTI_K) if tuned and (cell.method, cell.k) == (DTI, DTI_K) else None


def _rows(cells: Sequence[Cell]) -> list[Row]:
    """Rows in the page's order; DIN and SW with the n of the family alone."""
    chosen = [(slot, cell) for cell in cells if (slot := _slot(cell)) is not None]
    read = {cell.config["n"] for slot, cell in chosen if slot[0] in FAMILY_TITLES}
    chosen = [(slot, cell) for slot, cell in chosen if slot[0] == FLOOR or cell.config["n"] in read]
    rows = [Row(slot, _title(slot), cell) for slot, cell in chosen]
    return sorted((replace(row, label=_label(row, rows)) for row in rows), key=_order)


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Its title; where several rows have it, all but the only usual one say in what they differ."""
    twins = [other for other in rows if other.slot == row.slot]
    if [other for other in twins if is_usual(other, twins)] == [row]:
        return row.label
    cells = [other.cell for other in twins]
    parts = [row.label, *(_setting(row.cell, name) for name in differing(cells))]
    if len({cell.config["n"] for cell in cells}) > 1:
        parts.append(f"n = {row.cell.config['n']}")
    if len({cell.device for cell in cells}) > 1:
        parts.append(f"on {row.cell.device}")
    return ", ".join(parts)


def _setting(cell: Cell, name: str) -> str:
    text = setting_text(cell, name)
    if name not in LABELS:
        return f"{name} = {text}"
    found = json.loads(cell.settings.get(name, "null"))
    return LABELS[name].format(listed(found) if isinstance(found, list) else text)


def _title(slot: Slot) -> str:
    method, k = slot
    names: dict[str, str] = {FLOOR: "Like rates", "din": "DIN", SW: "SW", DTI: "DTI, recipe tuned"}
    name = (names | FAMILY_TITLES)[method]
    return name if method == SW or k is None else f"{name}, k = {k}"


def _order(row: Row) -> tuple[int, int, str]:
    methods = (FLOOR, "din", SW, DTI, *FAMILY_TITLES)
    return methods.index(row.slot[0]), -(row.slot[1] or 0), row.label
