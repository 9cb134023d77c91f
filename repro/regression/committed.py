"""Committed results: every number again from what it was computed from, every file by its schema."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repro.data import SPLIT_NAMES, TEST, TRAIN, PreparedData, apply_protocol, groceries, take_subset
from repro.data.registry import DATASETS, load_prepared
from repro.errors import ReproError
from repro.evaluation.metrics import evaluate_scores
from repro.records.columns import Targets, anonymous_groups
from repro.records.measurements import ROWS, read_measurement
from repro.records.schema import OK
from repro.records.store import Run
from repro.regression.findings import Finding, Verdict, exact
from repro.regression.floor import FLOOR_TOLERANCE, floor_problems, method_of
from repro.regression.references import read_reference
from repro.regression.tolerance import ROUNDING
from repro.reporting.inputs import COMMITTED, load_inputs

LIKE_ABOVE = 3.0  # of every committed record
EVERYWHERE = ("ml-100k", "synthetic")  # on every machine
OPTIONAL = {"groceries": groceries.PACKAGE}  # data sets in packages that not every machine has
KNOWN_FOLDERS = ("runs", "targets", "statistics", "selection", "references", *ROWS)


@dataclass(frozen=True)
class DataKey:
    """What decides a record's prepared data."""

    dataset: str
    protocol: str
    min_context: int
    subset: tuple[int | None, int | None, int | None]  # targets of training, validation, test


def check_committed(results: Path, published: Path, data_dir: Path | None) -> Iterator[Finding]:
    """All of `results/`: metrics, counts, checksums of data, measurement files.

    Args:
        results: folder of committed results.
        published: folder of the published values.
        data_dir: source files of a data set that no package carries; None leaves such data unchecked.
    """
    try:
        inputs = load_inputs(results, None, published)  # schemas, run ids, places, selection trials
    except ReproError as error:
        yield Finding("committed records", Verdict.DIFFERS, note=str(error))
        return
    runs = inputs.runs[COMMITTED]
    problems = [problem for run in runs for problem in run_problems(run)]
    yield exact("committed records, metrics and counts", f"{len(runs)} files", problems)
    yield from _check_data(runs, inputs.statistics[COMMITTED], data_dir)
    number, problems = _measurement_problems(results)
    yield exact("committed measurements and references", f"{number} files", problems)


def run_problems(run: Run) -> list[str]:
    """Where a run's record is not what its scores and targets give; empty if nowhere."""
    where = run.path
    if run.status != OK:
        return []
    try:
        targets = run.targets()
        metrics = evaluate_scores(targets.label, run.scores(), targets.group)
    except ReproError as error:
        return [str(error)]
    problems = []
    for name, value in metrics.items():
        recorded = run.record["metrics"][name]
        same = recorded == value if None in (recorded, value) else abs(recorded - value) <= ROUNDING
        if not same:
            problems.append(f"{where}: metrics.{name} is {recorded}, its scores give {value}")
    config, data = run.record["config"], run.record["data"]
    if config["data_sha256"] != data["sha256"]:
        problems.append(f"{where}: config.data_sha256 is not data.sha256")
    for name, limit in config["subset"].items():
        if limit is not None and data[name] > limit:
            problems.append(f"{where}: data.{name} is {data[name]}, the subset has {limit}")
    return problems


def folder_for(dataset: str, data_dir: Path | None) -> Path | None:
    """Where a data set is read from; None is its package."""
    return None if dataset in EVERYWHERE or dataset in OPTIONAL else data_dir


def why_not_here(dataset: str, data_dir: Path | None) -> str | None:
    """Why a data set cannot be checked on this machine and what would change that; None if it can."""
    if dataset in OPTIONAL:
        package = OPTIONAL[dataset]
        missing = f"{dataset} is not here; to check it: {package.install}"
        return None if package.is_installed else missing
    if dataset in EVERYWHERE or data_dir is not None:
        return None
    return f"{dataset} is not here; --data-dir names the folder with its files"


def prepare_again(dataset: str, protocol: str, min_context: int, data_dir: Path | None) -> PreparedData:
    """The prepared data from its source files, past the cache: that one may be of an older program.

    Raises:
        ConfigError, DataError: as `load_prepared`.
    """
    if dataset == "synthetic":  # never cached
        return load_prepared(dataset, protocol, min_context=min_context)
    reader = DATASETS[dataset]
    files = reader.find_files(folder_for(dataset, data_dir))
    return apply_protocol(reader.read(files, LIKE_ABOVE), protocol, min_context)


def _check_data(runs: list[Run], rows: list[dict[str, Any]], data_dir: Path | None) -> Iterator[Finding]:
    """Per data set and protocol a line for checksum, counts and test targets of every tier's share of it, and
    one for its floor, fitted again."""
    groups: dict[tuple[str, str], dict[DataKey, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        config = run.record["config"]
        subset = tuple(config["subset"][f"{split}_targets"] for split in SPLIT_NAMES)
        key = DataKey(config["dataset"], config["protocol"], config["min_context"], subset)
        groups[key.dataset, key.protocol][key].append(run)
    statistics = {(row["dataset"], row["protocol"]): row for row in rows}
    for dataset, protocol in sorted({*groups, *statistics}):
        metric = f"data of {dataset}, protocol {protocol}"
        note = why_not_here(dataset, data_dir)
        if note is not None:
            yield Finding(metric, Verdict.NOT_CHECKED, note=note)
            continue
        keys = groups.get((dataset, protocol), {})
        try:
            problems, floor = _data_problems(
                dataset, protocol, keys, statistics.get((dataset, protocol)), data_dir
            )
        except ReproError as error:
            yield Finding(metric, Verdict.NOT_RUN, note=str(error))
            continue
        here = [run for each in keys.values() for run in each]
        yield exact(metric, f"{len(here)} files", problems)
        fitted = [run for run in here if method_of(run)]
        if fitted:
            slip = f"{FLOOR_TOLERANCE:.0e} of a score"
            yield exact(f"floor of {dataset}, protocol {protocol}", f"{len(fitted)} files", floor, slip)


def _data_problems(
    dataset: str,
    protocol: str,
    keys: Mapping[DataKey, list[Run]],
    statistics: Mapping[str, Any] | None,
    data_dir: Path | None,
) -> tuple[list[str], list[str]]:
    """What is wrong with checksums, counts and targets, and with the scores of the floor."""
    problems, floor = [], []
    if statistics is not None:
        data = prepare_again(dataset, protocol, 5, data_dir)
        counts = {f"{name}_targets": len(data.targets(split)) for split, name in enumerate(SPLIT_NAMES)}
        for name, value in ({"sha256": data.sha256} | counts).items():
            if statistics[name] != value:
                problems.append(f"statistics: {name} is {statistics[name]}, the source files give {value}")
    whole: dict[int, PreparedData] = {}
    for key, runs in keys.items():
        if key.min_context not in whole:
            whole[key.min_context] = prepare_again(dataset, protocol, key.min_context, data_dir)
        full = whole[key.min_context]
        data = take_subset(full, *key.subset)
        expected = targets_of(full, data)
        for run in runs:
            recorded = run.record["data"]
            if recorded["sha256"] != data.sha256:
                problems.append(f"{run.path}: data.sha256 is not that of the source files")
            for split, name in enumerate(SPLIT_NAMES):
                count, found = len(data.targets(split)), recorded[f"{name}_targets"]
                if found != count and not (split == TRAIN and found == 0 and is_untrained(run)):
                    problems.append(
                        f"{run.path}: data.{name}_targets is {found}, the source files give {count}"
                    )
            if run.status == OK and not run.targets().same_as(expected):
                problems.append(f"{run.targets_path}: not the test targets of the source files")
            if method_of(run):
                floor += floor_problems(run, data)
    return problems, floor


def is_untrained(run: Run) -> bool:
    """Whether a run is that of a language model as it was loaded: only such a one has no training targets."""
    config, time = run.record["config"], run.record["time"]
    return config["backbone"] is not None and config["training"] is None and time["epochs"] == 0


def targets_of(full: PreparedData, data: PreparedData) -> Targets:
    """The targets file that a tier's share of prepared data must have."""
    rows = data.targets(TEST)
    place = np.searchsorted(full.targets(TEST), rows).astype(np.int32)
    return Targets(place, anonymous_groups(data.interactions.user[rows]), data.interactions.label[rows])


def _measurement_problems(results: Path) -> tuple[int, list[str]]:
    """Number of files that are not runs or targets, and what is wrong with them."""
    folders = [path for path in sorted(results.iterdir()) if path.is_dir()]
    problems = [f"{path}: no check knows this folder" for path in folders if path.name not in KNOWN_FOLDERS]
    files = [
        path
        for folder in folders
        if folder.name not in ("runs", "targets")
        for path in folder.rglob("*")
        if path.is_file()
    ]
    problems += [f"{path}: neither JSON nor a record" for path in files if path.suffix != ".json"]
    for path in files:
        folder = path.parent.relative_to(results).as_posix()  # selection/bahe is no folder of measurements
        try:
            if folder in ROWS:
                read_measurement(path)
            elif folder == "references":
                read_reference(path.parent, path.stem)
        except ReproError as error:
            problems.append(str(error))
    return len(files), problems
