"""Which runs stand on BAHE's quality page, in which order, and which are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from repro.data.interactions import DERIVED_SEQUENCES
from repro.evaluation.intervals import Interval, holm
from repro.records.store import Run
from repro.reporting.cells import Cell, build_cells, differing, setting_text
from repro.reporting.formatting import count, listed, plural
from repro.reporting.inputs import ORIGINS, Inputs
from repro.reporting.methods import FLOOR, MODEL_TITLES, is_floor
from repro.reporting.order import place
from repro.reporting.scores import difference
from repro.reporting.sections import DTI, RECIPES, SW

BAHE, LLM_CTR, DTI_BAHE = "bahe", "llm-ctr", "dti-bahe"
DIN, STRONGEST = "din", "strongest"
FAMILY_TITLES = {LLM_CTR: "LLM-CTR", BAHE: "BAHE", DTI_BAHE: "DTI over BAHE"}
LLMS = (SW, DTI, *FAMILY_TITLES)
DTI_K = 50  # of the DTI row that BAHE is set beside

Slot = tuple[str, int | None]  # method and k
Pairs = tuple[tuple[Slot, Slot], ...]
METHOD_PAIRS: Pairs = (
    ((BAHE, None), (LLM_CTR, None)),
    ((BAHE, None), (SW, 1)),
    ((BAHE, None), (DTI, DTI_K)),
    ((BAHE, None), (DIN, None)),
    ((BAHE, None), (STRONGEST, None)),
    ((DTI_BAHE, DTI_K), (BAHE, None)),
    ((DTI_BAHE, DTI_K), (DTI, DTI_K)),
    ((LLM_CTR, None), (DTI, DTI_K)),
    ((LLM_CTR, None), (DIN, None)),
    ((SW, 1), (DTI, DTI_K)),
    ((DTI, DTI_K), (DIN, None)),
    ((DTI, DTI_K), (STRONGEST, None)),
)
K_PAIRS: Pairs = (
    ((DTI_BAHE, 10), (BAHE, None)),
    ((DTI_BAHE, 1), (BAHE, None)),
    ((DTI_BAHE, DTI_K), (DTI_BAHE, 1)),
)


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

    @property
    def names(self) -> tuple[str, str]:
        """Labels; where both are LLMs and the second trains fewer epochs, with how many."""
        one, other = self.first, self.second
        fewer = other.slot[0] in LLMS and other.cell.most_epochs < one.cell.most_epochs
        epochs = f" ({plural(other.cell.most_epochs, 'epoch')})" if fewer and not trains_longer(other) else ""
        return one.label, other.label + epochs


@dataclass(frozen=True)
class Group:
    """Rows tested on the same targets of one tier and data set, by origin.

    Those of BAHE's family are of one device; what they are set beside is of another one where it has no
    record on this one, and says so. Only this device's own rows are judged against the floor here: a verdict
    on another one's would be adjusted over other rows than where it was made.
    """

    title: str
    dataset: str
    protocol: str
    tier: str
    device: str
    train_targets: int
    rows: dict[str, list[Row]]
    floor: dict[str, list[Cell]]  # of any device: nothing in it is random

    def runs(self, origin: str) -> list[Run]:
        """All runs of its rows."""
        return [run for row in self.rows[origin] for run in row.cell.runs]

    def trained(self, origin: str) -> list[tuple[str, Cell]]:
        """Label and cell of this device's rows that the floor is no part of."""
        rows = [row for row in self.rows[origin] if row.slot[0] != FLOOR]
        return [(row.label, row.cell) for row in rows if row.cell.device == self.device]


def groups(inputs: Inputs) -> list[Group]:
    """All groups with a record of BAHE, LLM-CTR or DTI over BAHE, in the order of `place`.

    `control` runs, those of ablations and open questions, belong to other pages; but see `_slot`.
    """
    found: dict[tuple[str, ...], dict[str, list[Cell]]] = {}
    for origin in ORIGINS:
        for cell in build_cells(inputs.runs[origin]):
            found.setdefault(_key(cell), {each: [] for each in ORIGINS})[origin].append(cell)
    result = []
    for key, cells in sorted(found.items(), key=lambda item: (place(item[0][0], int(item[0][4])), item[0])):
        dataset, protocol, tier, _, train, _, test = key
        floor = {origin: [cell for cell in cells[origin] if is_floor(cell.method)] for origin in ORIGINS}
        every = [cell for origin in ORIGINS for cell in cells[origin]]
        for device in sorted({cell.device for cell in every if _is_of_family(cell)}):
            title = f"{dataset}, protocol {protocol}, tier {tier} ({count(int(train))} training, "
            title += f"{count(int(test))} test targets), {device}"
            rows = {origin: _rows(_of_device(cells[origin], device), device) for origin in ORIGINS}
            result.append(Group(title, dataset, protocol, tier, device, int(train), rows, floor))
    return result


def _is_of_family(cell: Cell) -> bool:
    slot = _slot(cell)
    return slot is not None and slot[0] in FAMILY_TITLES


def _of_device(cells: Sequence[Cell], device: str) -> list[Cell]:
    """The device's own, and what they are set beside that it has no record of, from the device with most."""
    own = [cell for cell in cells if cell.device == device]
    known = {_slot(cell) for cell in own}
    others: dict[Slot, list[Cell]] = {}
    for cell in cells:
        slot = _slot(cell)
        if cell.device != device and slot is not None and slot not in known and slot[0] not in FAMILY_TITLES:
            others.setdefault(slot, []).append(cell)
    for found in others.values():
        most = max(sorted({cell.device for cell in found}), key=lambda name: _runs_on(name, found))
        own += [cell for cell in found if cell.device == most]
    return own


def _runs_on(device: str, cells: Sequence[Cell]) -> int:
    return sum(len(cell.ok) for cell in cells if cell.device == device)


def pairs(rows: Sequence[Row]) -> list[Pair]:
    """Comparisons whose rows have results; Holm adjusts over them.

    All pairs in their usual form; rows of the family that read fewer sequences or train longer with the usual
    form of themselves; and rows that train longer by `METHOD_PAIRS`, with rows that train as long where there
    are such.
    """
    having = [row for row in rows if row.cell.ok]
    usual = [row for row in having if is_usual(row)]
    found = [
        (first, second)
        for one, other in (*METHOD_PAIRS, *K_PAIRS)
        for first in usual
        for second in usual
        if (first.slot, second.slot) == (one, other)
    ]
    variants = [row for row in having if not is_usual(row) and row.slot[0] in FAMILY_TITLES]
    found += [(first, second) for first in variants for second in usual if first.slot == second.slot]
    for one, other in METHOD_PAIRS:
        for first in (row for row in having if row.slot == one and _is_longer(row)):
            found += [(first, second) for second in as_long(first, other, having)]
    differences = [difference(first.cell.ok, second.cell.ok) for first, second in found]
    adjusted = holm([each.p_value for each in differences])
    return [Pair(*each, d, p) for each, d, p in zip(found, differences, adjusted, strict=True)]


def as_long(row: Row, slot: Slot, rows: Sequence[Row]) -> list[Row]:
    """Rows of this method and k that train as many epochs at most as the row; without any, the usual ones."""
    others = [other for other in rows if other.slot == slot]
    longer = [other for other in others if _is_longer(other)]
    alike = [other for other in longer if other.cell.most_epochs == row.cell.most_epochs]
    return alike or [other for other in others if is_usual(other)]


def _is_longer(row: Row) -> bool:
    return trains_longer(row) and not reads_fewer(row)


def is_usual(row: Row) -> bool:
    """Whether the row is its method as the page is about it."""
    return not trains_longer(row) and not reads_fewer(row)


def trains_longer(row: Row) -> bool:
    """Whether an LLM's row may train more epochs than its tier says, as those until convergence do."""
    from repro.experiments.tiers import TIERS  # here: importing reports imports nothing that trains

    tier = TIERS.get(row.cell.config["tier"])
    if row.cell.most_epochs < 2 or tier is None or row.slot[0] not in LLMS:
        return False
    return row.cell.most_epochs > tier().training.max_epochs


def reads_fewer(row: Row) -> bool:
    """Whether the row reads some of MovieLens' three user sequences only."""
    read = set((row.cell.config.get("behaviours") or {}).get("sequences") or ())
    return bool(read) and read < set(DERIVED_SEQUENCES)


def _key(cell: Cell) -> tuple[str, ...]:
    config, data = cell.config, cell.runs[0].record["data"]
    targets = (f"{data[name]:>12}" for name in ("train_targets", "validation_targets", "test_targets"))
    return (*(config[name] for name in ("dataset", "protocol", "tier")), data["sha256"], *targets)


def _slot(cell: Cell) -> Slot | None:
    """Where a cell stands; None for what is not on this page.

    Of `control` runs, those of SW and DTI until convergence (table 3) stand beside rows that train as long.
    """
    config, method = cell.config, cell.method
    if method == FLOOR:
        return (FLOOR, None)
    if method in (SW, DTI):
        slot = (method, cell.k)
        ours = method == SW or (config["fixes"]["reset"] is None and config["fixes"]["position"] == "rope")
        if config["recipe"] == "control":
            return slot if slot in ((SW, 1), (DTI, DTI_K)) and ours else None
        return slot if slot == (SW, 1) or (slot == (DTI, DTI_K) and config["recipe"] == "tuned") else None
    if method in MODEL_TITLES:
        return (method if method == DIN else STRONGEST, None) if config["recipe"] in RECIPES else None
    return (method, cell.k) if method in FAMILY_TITLES and config["recipe"] in RECIPES else None


def _rows(cells: Sequence[Cell], device: str) -> list[Row]:
    """Rows in the page's order; ID-based models and SW with the n of the family alone."""
    chosen = [(slot, cell) for cell in cells if (slot := _slot(cell)) is not None]
    read = {cell.config["n"] for slot, cell in chosen if slot[0] in FAMILY_TITLES}
    chosen = [(slot, cell) for slot, cell in chosen if slot[0] == FLOOR or cell.config["n"] in read]
    strongest = _strongest([cell for slot, cell in chosen if slot[0] in (DIN, STRONGEST)])
    chosen = [(slot, cell) for slot, cell in chosen if slot[0] != STRONGEST or cell is strongest]
    rows = [
        Row(slot, MODEL_TITLES[cell.method] if slot[0] == STRONGEST else title(slot), cell)
        for slot, cell in chosen
    ]
    longer = {row.cell.most_epochs for row in rows if row.slot[0] in FAMILY_TITLES and trains_longer(row)}
    rows = [row for row in rows if row.cell.config["recipe"] != "control" or row.cell.most_epochs in longer]
    return sorted((replace(row, label=_label(row, rows, device)) for row in rows), key=order)


def _strongest(cells: Sequence[Cell]) -> Cell | None:
    """The ID-based model with the best validation AUC, mean over seeds: no test score chooses it."""
    having = [cell for cell in cells if cell.ok and all(run.record["validation"] for run in cell.ok)]
    return max(having, key=_validation_auc) if having else None


def _validation_auc(cell: Cell) -> float:
    best = [max(epoch["auc"] for epoch in run.record["validation"]) for run in cell.ok]
    return sum(best) / len(best)


def _label(row: Row, rows: Sequence[Row], device: str) -> str:
    """Its title, what several rows of that form differ in, and in brackets what makes it no usual one."""
    form = _form(row)
    cells = [other.cell for other in rows if other.slot == row.slot and _form(other) == form]
    parts = [row.label, *(f"{name} = {setting_text(row.cell, name)}" for name in differing(cells))]
    if len({cell.config["n"] for cell in cells}) > 1:
        parts.append(f"n = {row.cell.config['n']}")
    if row.cell.device != device and row.slot[0] != FLOOR:
        parts.append(f"on {row.cell.device}")
    return ", ".join(parts) + (f" ({'; '.join(form)})" if form else "")


def _form(row: Row) -> list[str]:
    """What makes the row no usual one, in words."""
    form = [f"up to {row.cell.most_epochs} epochs"] if trains_longer(row) else []
    if reads_fewer(row):
        form.append(f"{listed(row.cell.config['behaviours']['sequences'])} alone")
    return form


def title(slot: Slot) -> str:
    """Name of a method and k on this page."""
    method, k = slot
    names: dict[str, str] = {FLOOR: "Like rates", DIN: "DIN", SW: "SW", DTI: "DTI, our recipe"}
    name = (names | FAMILY_TITLES | {STRONGEST: "strongest ID-based model"})[method]
    return name if method == SW or k is None else f"{name}, k = {k}"


def order(row: Row) -> tuple[int, int, str]:
    """Sort key of the page's rows: method, larger k first, label."""
    methods = (FLOOR, DIN, STRONGEST, *LLMS)
    return methods.index(row.slot[0]), -(row.slot[1] or 0), row.label
