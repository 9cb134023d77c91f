"""Runs grouped into cells: the seeds of one configuration on one device, and nothing else, ever.

Within a table, a row is a method and k; where records of a row differ in any setting, each of them is a cell
of its own, and so is each device.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repro.methods.numerics import TRAINER_NUMERICS, method_numerics
from repro.records.run_id import canonical_json
from repro.records.schema import OK, is_stale
from repro.records.store import Run
from repro.reporting.formatting import plural, summary

STATUS_WORDS = {
    "out_of_memory": "OOM",
    "diverged": "diverged",
    "interrupted": "interrupted",
    "rehearsal": "rehearsal",
}
NOT_RUN = "not run"
# Named by the row, the section or the seed; all else is a setting.
NOT_SETTINGS = (
    *("method", "k", "seed", "numerics", "dataset", "protocol", "tier", "recipe", "n", "tuning"),
    *("backbone", "backbone_settings", "subset"),
)
# What a time depends on besides device and method: precision, compile state, how batches are packed.
TIME_SETTINGS = ("training.precision", "compiled", "batch_sizes.")


@dataclass(frozen=True)
class Cell:
    """Runs of one configuration on one device that differ in nothing but the seed."""

    runs: tuple[Run, ...]  # by seed
    stale: bool  # numbers of code whose numbers have moved since
    superseded: tuple[Run, ...]  # same configuration, older numerics than `runs`; shown, never pooled

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the first run; seed apart, that of every run."""
        return self.runs[0].record["config"]

    @property
    def method(self) -> str:
        """Method as in records."""
        return self.config["method"]

    @property
    def k(self) -> int | None:
        """Targets per streaming prompt."""
        return self.config["k"]

    @property
    def most_epochs(self) -> int:
        """Epochs that training may take; 0 of what is not trained so."""
        return (self.config["training"] or {}).get("max_epochs", 0)

    @property
    def settings(self) -> dict[str, str]:
        """Settings by dotted name, as JSON text; without what row, section and seed say."""
        return flatten({key: value for key, value in self.config.items() if key not in NOT_SETTINGS})

    @property
    def device(self) -> str:
        """Device in words, with the number of them where there are several."""
        device = self.runs[0].record["device"]
        return device["name"] if device["count"] == 1 else f"{device['count']} × {device['name']}"

    @property
    def ok(self) -> list[Run]:
        """Runs with results."""
        return [run for run in self.runs if run.status == OK]

    @property
    def failures(self) -> str:
        """Runs without results in words, e.g. "OOM", "2 diverged, 1 interrupted"; empty if there are none."""
        statuses = [STATUS_WORDS[run.status] for run in self.runs if run.status != OK]
        names = sorted(set(statuses))
        if len(names) == 1 and not self.ok:
            return names[0]
        return ", ".join(f"{statuses.count(name)} {name}" for name in names)

    def values(self, section: str, key: str) -> np.ndarray:
        """A number of the record by seed, e.g. ("metrics", "auc"); NaN where it was not measured."""
        found = [run.record[section].get(key) for run in self.ok]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def mean(self, section: str, key: str) -> float | None:
        """Mean over seeds; None without results or where a seed has no such number."""
        values = self.values(section, key)
        return None if len(values) == 0 or np.isnan(values).any() else float(values.mean())


def pool(runs: Sequence[Run]) -> Cell:
    """One cell from runs of one configuration and device, of the newest numerics among them.

    Raises:
        ValueError: the runs differ in more than seed and numerics.
    """
    if len({_identity(run) for run in runs}) != 1:
        raise ValueError("runs of different configurations or devices do not belong into one cell")
    newest = max(map(_numerics, runs))
    kept = [run for run in runs if _numerics(run) == newest]
    kept.sort(key=lambda run: run.record["config"]["seed"])
    return Cell(
        runs=tuple(kept),
        stale=stale(kept[0]),
        superseded=tuple(run for run in runs if _numerics(run) != newest),
    )


def build_cells(runs: Iterable[Run]) -> list[Cell]:
    """All runs in cells, sorted by configuration."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[_identity(run)].append(run)
    return [pool(group) for _, group in sorted(groups.items())]


def stale(run: Run) -> bool:
    """Whether the run's numerics are not the current ones; a method without a number here is never stale."""
    try:
        current = method_numerics(run.record["config"]["method"])
    except KeyError:
        return False
    return is_stale(run.record, {"method": current, "trainer": TRAINER_NUMERICS})


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables as dotted names and JSON texts: {"a": {"b": 1}} -> {"a.b": "1"}."""
    flat: dict[str, str] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping) and inner:
            flat |= flatten(inner, f"{name}.")
        else:
            flat[name] = json.dumps(inner, sort_keys=True, ensure_ascii=False)
    return flat


def differing(cells: Iterable[Cell]) -> list[str]:
    """Names of the settings that are not the same in all cells, sorted.

    Where one cell has `fixes.reset` = none and another a table of that name, the table's entries are named.
    """
    settings = [cell.settings for cell in cells]
    names = {name for each in settings for name in each}
    tables = {name.rpartition(".")[0] for name in names}
    return sorted(name for name in names - tables if len({each.get(name) for each in settings}) > 1)


def setting_text(cell: Cell, name: str) -> str:
    """Value of a setting for a reader: no quotes, numbers as JSON has them, "none" where there is none.

    Of a checksum the first characters, as in titles: it stands in the names of rows.
    """
    text = plain(cell.settings.get(name, "null"))
    return text[:10] if name.endswith("sha256") else text


def plain(value: str) -> str:
    """JSON text for a reader: "bf16" without its quotes, null as none, true as yes."""
    found = json.loads(value)
    if isinstance(found, str):
        return value[1:-1] if "\n" in found else found  # a line break would end a line of the page
    return {"null": "none", "true": "yes", "false": "no"}.get(value, value)


def closest(cell: Cell, candidates: Sequence[Cell]) -> Cell | None:
    """The candidate with results whose settings differ least from the cell's; None without one.

    Of several, one on the cell's device.
    """
    usable = [each for each in candidates if each.ok and each.stale == cell.stale]
    if not usable:
        return None
    return min(
        usable,
        key=lambda each: (
            len(differing([cell, each])),
            each.device != cell.device,
            canonical_json([each.settings, each.device]),
        ),
    )


def comparable_times(first: Cell, second: Cell) -> bool:
    """Whether a ratio of their times means something: same device, same TIME_SETTINGS."""
    varying = differing([first, second])
    return first.device == second.device and not any(name.startswith(TIME_SETTINGS) for name in varying)


def _identity(run: Run) -> str:
    record = run.record
    config = {key: value for key, value in record["config"].items() if key not in ("seed", "numerics")}
    data = {
        key: record["data"][key] for key in ("sha256", "train_targets", "validation_targets", "test_targets")
    }
    return canonical_json([config, record["device"], data])


def _numerics(run: Run) -> tuple[bool, int, int]:
    numerics = run.record["config"]["numerics"]
    return not stale(run), numerics["method"], numerics["trainer"]


def state_of_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many rows of measurements a page has, of how many models and devices, for the index."""
    models, devices = (row["backbone"] for row in rows), (row["device"] for row in rows)
    return summary(plural(len(rows), "row"), model=models, device=devices) if rows else NOT_RUN
