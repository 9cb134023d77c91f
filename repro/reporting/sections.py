"""The sections of Table 1 and Figure 2: which cells stand in one table, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from repro.records.run_id import canonical_json
from repro.reporting.cells import Cell, build_cells, differing, flatten, plain, setting_text
from repro.reporting.formatting import count
from repro.reporting.inputs import ORIGINS, Inputs
from repro.reporting.methods import FLOOR, MODEL_TITLES, ZERO_SHOT, family, id_title, is_floor
from repro.reporting.order import place

KS = (5, 10, 20, 30, 40, 50)
SW, DTI_MINUS, DTI = "sw", "dti-minus", "dti"
METHOD_TITLES = {SW: "SW", DTI_MINUS: "DTI-", DTI: "DTI"}
# Rows for reference, above the table's own: the floor first.
REFERENCES = (FLOOR, *MODEL_TITLES, ZERO_SHOT)
RECIPES = ("paper", "tuned")  # "control" runs belong to other pages

Slot = tuple[str, int | None]  # method and k


@dataclass(frozen=True)
class SectionKey:
    """What all rows of one table share; runs that differ in any of it never meet in a table."""

    tier: str
    dataset: str
    protocol: str
    recipe: str
    n: int | None
    backbone: str  # canonical JSON of the backbone's settings
    tuning: str | None
    data_sha256: str
    train_targets: int
    validation_targets: int
    test_targets: int

    @property
    def backbone_title(self) -> str:
        """The backbone as reports name it."""
        settings = json.loads(self.backbone)
        return settings.get("title") or settings["name"] or "none"

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key."""
        values = vars(self).values()
        rest = (f"{value:>12}" if isinstance(value, int) else str(value) for value in values)
        return (place(self.dataset, self.train_targets), *rest)


@dataclass(frozen=True)
class Row:
    """A line of the table: a method, k and, where there is a record, its cell."""

    slot: Slot
    label: str
    cell: Cell | None


@dataclass(frozen=True)
class Section:
    """Cells of one table, by origin ("committed", "yours")."""

    key: SectionKey
    title: str
    cells: dict[str, list[Cell]]
    references: dict[str, list[Cell]]
    floor: dict[str, list[Cell]]  # the like rates and their parts on the same targets

    @property
    def origins(self) -> list[str]:
        """Origins that have a record of one of the table's own rows."""
        return [origin for origin in ORIGINS if any(map(self._own, self.cells[origin]))]

    @property
    def all_cells(self) -> list[Cell]:
        """Cells of the table's rows, references apart."""
        return [cell for origin in ORIGINS for cell in self.cells[origin]]

    def slots(self) -> tuple[Slot, ...]:
        """SW, DTI- and DTI at each k, in the paper's order; other k with records among them.

        A recipe other than the paper's need not have a DTI-: without records its lines are left out.
        """
        ks = sorted({*KS, *(cell.k for cell in self.all_cells if cell.method != SW and cell.k is not None)})
        methods = {cell.method for cell in self.all_cells} | {DTI}
        if self.key.recipe == "paper":
            methods |= {DTI_MINUS}
        return ((SW, 1), *((m, k) for m in (DTI_MINUS, DTI) if m in methods for k in ks))

    def rows(self, origin: str) -> list[Row]:
        """The floor, references with records, then every slot: a row per cell, or one that was not run."""
        rows: list[Row] = []
        for method in self._reference_methods(origin):
            found = [cell for cell in self.references[origin] if cell.method == method]
            rows += [Row((method, c.k), _label(c, found, self.key), c) for c in found]
            if method == FLOOR and not found:
                rows.append(Row((FLOOR, None), reference_title(FLOOR, None), None))
        for method, k in self.slots():
            found = [cell for cell in self.cells[origin] if (cell.method, cell.k) == (method, k)]
            everywhere = [cell for cell in self.all_cells if (cell.method, cell.k) == (method, k)]
            rows += [Row((method, k), _label(c, everywhere, self.key, found), c) for c in found]
            if not found:
                rows.append(Row((method, k), f"{METHOD_TITLES[method]}, k = {k}", None))
        return rows

    def _reference_methods(self, origin: str) -> list[str]:
        present = {cell.method for cell in self.references[origin]} | {FLOOR}
        return sorted(present, key=lambda method: (REFERENCES.index(family(method)), method))

    def _own(self, cell: Cell) -> bool:
        return cell.config["recipe"] == self.key.recipe


def build_sections(inputs: Inputs) -> list[Section]:
    """All sections that have a record of SW, DTI- or DTI, sorted."""
    cells = {origin: build_cells(inputs.runs[origin]) for origin in ORIGINS}
    own: dict[SectionKey, dict[str, list[Cell]]] = {}
    for origin in ORIGINS:
        for cell in cells[origin]:
            if cell.method in METHOD_TITLES and cell.config["recipe"] in RECIPES:
                own.setdefault(_key(cell), {each: [] for each in ORIGINS})[origin].append(cell)
    keys = sorted(own, key=lambda key: key.order)
    sections = []
    for key, title in zip(keys, _titles(keys), strict=True):
        for origin in ORIGINS:
            if not any(cell.method == SW for cell in own[key][origin]):
                own[key][origin] = _borrowed_sw(key, cells[origin]) + own[key][origin]
        references = {o: [cell for cell in cells[o] if _is_reference(cell, key)] for o in ORIGINS}
        floor = {
            o: [cell for cell in cells[o] if is_floor(cell.method) and _same_targets(cell, key)]
            for o in ORIGINS
        }
        sections.append(Section(key, title, own[key], references, floor))
    return sections


def _key(cell: Cell) -> SectionKey:
    config, data = cell.config, cell.runs[0].record["data"]
    return SectionKey(
        tier=config["tier"],
        dataset=config["dataset"],
        protocol=config["protocol"],
        recipe=config["recipe"],
        n=config["n"],
        backbone=canonical_json(_backbone(config)),
        tuning=config["tuning"],
        data_sha256=data["sha256"],
        train_targets=data["train_targets"],
        validation_targets=data["validation_targets"],
        test_targets=data["test_targets"],
    )


def _backbone(config: dict[str, Any]) -> dict[str, Any]:
    return {"name": config["backbone"], **(config.get("backbone_settings") or {})}


def _borrowed_sw(key: SectionKey, cells: Iterable[Cell]) -> list[Cell]:
    """SW of another recipe that shares all else: a recipe with no SW of its own is compared with that.

    Not of the `control` runs, which train until convergence: those of DTI are not in the table either.
    """
    return [
        cell
        for cell in cells
        if cell.method == SW
        and cell.config["recipe"] in RECIPES
        and {**vars(_key(cell)), "recipe": None} == {**vars(key), "recipe": None}
    ]


def _is_reference(cell: Cell, key: SectionKey) -> bool:
    """Whether the cell was tested on the section's targets, with the section's LLM and n if it has an LLM."""
    return family(cell.method) in REFERENCES and _same_targets(cell, key)


def _same_targets(cell: Cell, key: SectionKey) -> bool:
    other = _key(cell)
    shared = ["tier", "dataset", "protocol", "data_sha256", "test_targets"]
    shared += [] if cell.config["backbone"] is None else ["backbone", "n"]
    return all(getattr(other, name) == getattr(key, name) for name in shared)


def reference_title(method: str, n: int | None) -> str:
    """Row name of a method that is no [SUM] method, without its n unless that is what it is named after."""
    return "Zero-shot" if method == ZERO_SHOT else id_title(method, n)


def _label(cell: Cell, variants: Sequence[Cell], key: SectionKey, shown: Sequence[Cell] | None = None) -> str:
    """Row name, with whatever tells the cell from its variants, and from those `shown` in the same table."""
    config = cell.config
    parts = [METHOD_TITLES.get(cell.method) or reference_title(cell.method, config["n"])]
    if cell.method in METHOD_TITLES:
        parts.append(f"k = {cell.k}")
    elif config["n"] is not None and config["n"] != key.n:
        parts.append(f"n = {config['n']}")
    recipes = {each.config["recipe"] for each in variants}
    if len(recipes) > 1 or (cell.method in METHOD_TITLES and recipes != {key.recipe}):
        parts.append(f"recipe {config['recipe']}")
    train_targets = [each.runs[0].record["data"]["train_targets"] for each in (cell, *variants)]
    if len(set(train_targets)) > 1:
        parts.append(f"{count(train_targets[0])} training targets")
    parts += [f"{name} = {setting_text(cell, name)}" for name in differing(variants)]
    if len({each.device for each in shown or variants}) > 1:
        parts.append(f"on {cell.device}")
    return ", ".join(parts)


def _titles(keys: Sequence[SectionKey]) -> list[str]:
    """Data set, protocol, tier and recipe, with whatever else tells sections of the same name apart."""
    bases = [f"{key.dataset}, protocol {key.protocol}, tier {key.tier}, recipe {key.recipe}" for key in keys]
    titles = []
    for key, base in zip(keys, bases, strict=True):
        twins = [other for other, text in zip(keys, bases, strict=True) if text == base]
        words = {
            "n": f"n = {key.n}",
            "backbone": _backbone_words(key, twins),
            "tuning": f"tuning {key.tuning}",
            "data_sha256": f"data {key.data_sha256[:10]}",
            "train_targets": f"{count(key.train_targets)} training targets",
            "validation_targets": f"{count(key.validation_targets)} validation targets",
            "test_targets": f"{count(key.test_targets)} test targets",
        }
        told = [text for name, text in words.items() if len({getattr(twin, name) for twin in twins}) > 1]
        titles.append(base + (f" ({', '.join(told)})" if told else ""))
    return titles


def _backbone_words(key: SectionKey, twins: Sequence[SectionKey]) -> str:
    """Title of the backbone, with the settings in which it differs from those of the twins."""
    settings = [flatten(json.loads(each.backbone)) for each in twins]
    names = sorted({name for each in settings for name in each} - {"title", "name"})
    own = flatten(json.loads(key.backbone))
    told = [
        f"{name} = {plain(own.get(name, 'null'))}"
        for name in names
        if len({each.get(name) for each in settings}) > 1
    ]
    return ", ".join([key.backbone_title, *told])
