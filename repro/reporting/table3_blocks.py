"""The runs until convergence behind reports/table3.md: their times, and which of them reach SW's AUC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any

from repro.records.store import Run
from repro.reporting.cells import Cell, build_cells, differing, setting_text
from repro.reporting.formatting import count, duration, plural
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.lines import Line, compared_lines
from repro.reporting.methods import FLOOR
from repro.reporting.sections import Row

SW, PAPERS, OURS = ("SW", 1), "DTI", "DTI, our recipe"
CLOCKS = ("train_s", "eval_s", "compile_s")
_TIE = 1e-9  # of AUC, as in training: closer than this is rounding

Key = tuple[str, int]  # title and k


@dataclass(frozen=True)
class Reached:
    """When the runs of a row reached an AUC on the validation targets.

    Attributes:
        seconds: training time up to the end of the first such epoch, of every run that got there; None where
            a record does not hold it.
        num_runs: of the row, that ended well.
    """

    seconds: list[float | None]
    num_runs: int

    @property
    def mean_s(self) -> float | None:
        """Mean over the runs that got there; None without one."""
        known = [each for each in self.seconds if each is not None]
        return mean(known) if known and len(known) == len(self.seconds) else None

    @property
    def everywhere(self) -> bool:
        """Whether every run got there."""
        return len(self.seconds) == self.num_runs

    @property
    def text(self) -> str:
        """E.g. "12.8 s (2 of 3)" or "never (0 of 3)"."""
        when = duration(self.mean_s) if self.seconds else "never"
        return f"{when} ({len(self.seconds)} of {self.num_runs})"

    @property
    def claim(self) -> str:
        """E.g. "reaches SW's validation AUC in 2 of 3 seeds"."""
        return f"reaches SW's validation AUC in {len(self.seconds)} of {plural(self.num_runs, 'seed')}"


@dataclass(frozen=True)
class Block:
    """Runs of one tier, data set, model and device, tested on the same targets.

    Attributes:
        device, backbone, tuning, n: what a sweep of `timing` must share to be set beside it.
        rows: by title and k; the seeds of one configuration each.
        floor: the like rates on the same targets.
    """

    title: str
    tier: str
    dataset: str
    device: str
    backbone: str
    tuning: str
    n: int
    rows: dict[Key, Cell]
    floor: Cell | None

    def ok(self, row: Key) -> list[Run]:
        """The row's runs that ended well."""
        cell = self.rows.get(row)
        return cell.ok if cell else []

    def time(self, row: Key, field: str) -> float | None:
        """Mean seconds over the row's runs; None where one has none."""
        return _mean([run.record["time"][field] for run in self.ok(row)])

    def all_clocks(self, row: Key) -> float | None:
        """Mean seconds of training, validation, test and compilation together, as recorded."""
        sums = []
        for run in self.ok(row):
            train_s, eval_s, compile_s = (run.record["time"][clock] for clock in CLOCKS)
            # A run that compiles nothing has no such clock.
            sums.append(None if None in (train_s, eval_s) else train_s + eval_s + (compile_s or 0.0))
        return _mean(sums)

    def auc(self, row: Key) -> float | None:
        """Mean test AUC over the row's runs."""
        good = self.ok(row)
        return mean(run.record["metrics"]["auc"] for run in good) if good else None

    def reduction(self, row: Key) -> float | None:
        """SW's time to the best epoch over the row's."""
        return _ratio(self.time(SW, "train_to_best_s"), self.time(row, "train_to_best_s"))

    def epoch(self, row: Key) -> float | None:
        """Mean training time of one epoch."""
        good = self.ok(row)
        return mean(map(epoch_s, good)) if good else None

    def reduction_of_epoch(self, row: Key) -> float | None:
        """SW's time of an epoch over the row's: without luck in the number of epochs."""
        return _ratio(self.epoch(SW), self.epoch(row))

    def reduction_of_all_clocks(self, row: Key) -> float | None:
        """SW's whole run over the row's, validation, test and compilation included."""
        return _ratio(self.all_clocks(SW), self.all_clocks(row))

    @property
    def sw_validation_auc(self) -> float | None:
        """The lowest of SW's seeds' best validation AUCs: all of its seeds reach it."""
        return min((max(e["auc"] for e in run.record["validation"]) for run in self.ok(SW)), default=None)

    def reached(self, row: Key) -> Reached | None:
        """When the row's runs reached `sw_validation_auc`; None without SW or without runs."""
        target, runs = self.sw_validation_auc, self.ok(row)
        if target is None or not runs:
            return None
        entries = [_first(run.record["validation"], target) for run in runs]
        return Reached([entry.get("train_s") for entry in entries if entry is not None], len(runs))

    def reduction_of_reached(self, row: Key) -> float | None:
        """SW's time until its validation AUC over the row's; None unless all of the row's runs reach it."""
        ours, sw = self.reached(row), self.reached(SW)
        return _ratio(sw.mean_s, ours.mean_s) if ours and sw and ours.everywhere else None

    @cached_property
    def lines(self) -> dict[Key, Line]:
        """Every row with its AUC and its paired difference to SW's, the floor's first."""
        floor = [] if self.floor is None else [((FLOOR, 0), Row((FLOOR, None), "Like rates", self.floor))]
        rows = [(key, Row((cell.method, key[1]), label(key), cell)) for key, cell in self.rows.items()]
        keys = [key for key, _ in [*floor, *rows]]
        return dict(zip(keys, compared_lines([row for _, row in [*floor, *rows]]), strict=True))


def label(row: Key) -> str:
    """Name of a row in a sentence."""
    title, k = row
    return f"{title}, k = {k}"


def epoch_s(run: Run) -> float:
    """Training time of one epoch."""
    return run.record["time"]["train_s"] / run.record["time"]["epochs"]


def blocks(inputs: Inputs) -> list[Block]:
    """Control runs of SW and DTI; each origin, tier, data set, model, device and test set apart."""
    found: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    floors = []
    for origin in ORIGINS:
        for cell in build_cells(inputs.runs[origin]):
            if cell.config["recipe"] == "control" and cell.method in ("sw", "dti"):
                found[(*_place(cell), origin)].append(cell)
            if cell.method == FLOOR and cell.ok:
                floors.append(cell)
    places = sorted(found)
    return [
        _block(place, title, found[place], floors)
        for place, title in zip(places, _titles(places), strict=True)
    ]


def _place(cell: Cell) -> tuple[Any, ...]:
    config, data = cell.config, cell.runs[0].record["data"]
    names = ("train_targets", "validation_targets", "test_targets")
    return (
        *(config["tier"], config["dataset"], config["backbone_settings"]["title"], config["tuning"]),
        *(cell.device, config["protocol"], config["n"], data["sha256"], *(data[name] for name in names)),
    )


def _titles(places: Sequence[tuple[Any, ...]]) -> list[str]:
    """Data set, tier, model and device; with the rest of the place where that is not enough."""
    titles: list[str] = []
    for tier, dataset, model, tuning, device, protocol, n, sha256, train, _, test, origin in places:
        title = f"{dataset}, tier {tier}, {model}, {tuning}, {device}"
        twins = [each for each in places if (*each[:5], each[-1]) == (*places[len(titles)][:5], origin)]
        if len(twins) > 1:
            title += f", protocol {protocol}, n = {n}, {count(train)} training and {count(test)} test targets"
            title += f", data {sha256[:10]}"
        titles.append(title + (f" ({origin})" if origin == YOURS else ""))
    return titles


def _block(place: tuple[Any, ...], title: str, cells: Sequence[Cell], floors: Sequence[Cell]) -> Block:
    tier, dataset, _, tuning, device, _, n, *_ = place
    tested = cells[0].runs[0].record["data"]
    same = ("sha256", "test_targets")
    floor = next(
        (cell for cell in floors if all(cell.runs[0].record["data"][key] == tested[key] for key in same)),
        None,
    )
    backbone = cells[0].config["backbone"]
    return Block(title, tier, dataset, device, backbone, tuning, n, _rows(cells), floor)


def _rows(cells: Sequence[Cell]) -> dict[Key, Cell]:
    """SW first. Of several configurations of a row, the one with most seeds has its name alone."""
    found: dict[Key, list[Cell]] = defaultdict(list)
    for cell in cells:
        found[key_of(cell.config)].append(cell)
    rows: dict[Key, Cell] = {}
    for (title, k), own in sorted(found.items(), key=lambda item: (item[0][0] != SW[0], item[0])):
        names = differing(own)
        for place, cell in enumerate(sorted(own, key=lambda cell: -len(cell.ok))):
            told = [f"{name} = {setting_text(cell, name)}" for name in names] if place else []
            rows[", ".join([title, *told]), k] = cell
    return rows


def key_of(config: dict[str, Any]) -> Key:
    """Title and k: DTI without fixes is our recipe."""
    if config["method"] == "sw":
        return SW
    plain = config["fixes"]["reset"] is None and config["fixes"]["position"] == "rope"
    return (OURS if plain else PAPERS), config["k"]


def _first(entries: Sequence[dict[str, Any]], auc: float) -> dict[str, Any] | None:
    """The first epoch with this validation AUC."""
    return next((entry for entry in entries if entry["auc"] >= auc - _TIE), None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return mean(known) if known and len(known) == len(values) else None


def _ratio(sw: float | None, ours: float | None) -> float | None:
    return sw / ours if sw and ours else None
