"""Everything that pages are made from: runs, statistics of data sets, published values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from repro.records.measurements import Kind, Measurement, list_measurements
from repro.records.schema import (
    Count,
    Environment,
    Name,
    Positive,
    Section,
    Sha256,
    Share,
    parse_json,
    validate,
)
from repro.records.store import Run, RunStore
from repro.reporting.baseline_trials import load_baseline_trials
from repro.reporting.references import (
    BaheClaims,
    PaperScore,
    PaperStatistics,
    PublishedScore,
    bahe_claims,
    paper_hours,
    paper_scores,
    paper_statistics,
    published_baselines,
)
from repro.reporting.trials import load_bahe_trials, load_trials

COMMITTED, YOURS = "committed", "yours"
ORIGINS = (COMMITTED, YOURS)


class StatisticsRow(Section):
    """A data set under a protocol, one row of results/statistics/<dataset>-<protocol>.json."""

    dataset: Name
    title: str
    protocol: Name
    users: Positive  # users, items, samples and sparsity: of the source, before any pruning
    items: Positive
    samples: Positive
    sparsity: Share  # 1 - samples / (users x items)
    items_pruned: Positive  # items that remain after pruning items with few interactions
    train_targets: Count
    validation_targets: Count
    test_targets: Count
    sha256: Sha256  # of the prepared data


class StatisticsFile(Section):
    """One such file."""

    environment: Environment
    rows: list[StatisticsRow]


@dataclass(frozen=True)
class Inputs:
    """What a page may depend on, and nothing else.

    Attributes:
        runs: by origin, "committed" or "yours"; every status.
        statistics: by origin, rows as in `StatisticsRow` plus their file's `environment`, in file order.
        trials: settings tried before the runs, by file, as in `trials.Trial`.
        flops, timing, bahe: measurement files by origin.
        paper_hours: DTI's Table 3, by (data set, method, k).
        baseline_trials: the same for ID-based models, as in `baseline_trials.BaselineTrial`.
        bahe_trials: the same for BAHE's family, as in `trials.Trial`.
    """

    runs: dict[str, list[Run]]
    statistics: dict[str, list[dict[str, Any]]]
    trials: dict[str, dict[str, Any]]
    paper_scores: dict[tuple[str, str, int], PaperScore]
    paper_statistics: dict[str, PaperStatistics]
    baseline_trials: dict[str, dict[str, Any]]
    bahe_trials: dict[str, dict[str, Any]]
    flops: dict[str, list[Measurement]]
    timing: dict[str, list[Measurement]]
    bahe: dict[str, list[Measurement]]
    baseline_speed: dict[str, list[Measurement]]
    leakage: dict[str, list[Measurement]]
    behaviour_table: dict[str, list[Measurement]]
    paper_hours: dict[tuple[str, str, int], float]
    published_baselines: dict[tuple[str, str, str], PublishedScore]
    bahe_claims: BaheClaims


def load_inputs(results_dir: Path, runs_dir: Path | None, reference_dir: Path) -> Inputs:
    """Read the inputs of all pages.

    A user's run that was published, so that the same record is committed, counts as committed only.

    Args:
        results_dir: committed records.
        runs_dir: a user's own; None, or a folder that is not there, for none.

    Raises:
        RecordError, DataError: a file is damaged (named).
    """
    committed = RunStore(results_dir / "runs", results_dir / "targets", writable=False).list()
    own: list[Run] = []
    own_statistics: list[dict[str, Any]] = []
    if runs_dir is not None and runs_dir.is_dir():
        published = {_text(run.record) for run in committed}
        found = RunStore(runs_dir, runs_dir / "targets", writable=False).list()
        own = [run for run in found if _text(run.record) not in published]
        own_statistics = _statistics(runs_dir)
    committed_statistics = _statistics(results_dir)
    known = [_numbers(row) for row in committed_statistics]
    return Inputs(
        runs={COMMITTED: committed, YOURS: own},
        statistics={
            COMMITTED: committed_statistics,
            YOURS: [row for row in own_statistics if _numbers(row) not in known],
        },
        trials=load_trials(results_dir),
        paper_scores=paper_scores(reference_dir),
        paper_statistics=paper_statistics(reference_dir),
        baseline_trials=load_baseline_trials(results_dir),
        bahe_trials=load_bahe_trials(results_dir),
        flops=_measurements("flops", results_dir, runs_dir),
        timing=_measurements("timing", results_dir, runs_dir),
        bahe=_measurements("bahe", results_dir, runs_dir),
        baseline_speed=_measurements("baseline_speed", results_dir, runs_dir),
        leakage=_measurements("leakage", results_dir, runs_dir),
        behaviour_table=_measurements("behaviour_table", results_dir, runs_dir),
        paper_hours=paper_hours(reference_dir),
        published_baselines=published_baselines(reference_dir),
        bahe_claims=bahe_claims(reference_dir),
    )


def only(inputs: Inputs, *origins: str) -> Inputs:
    """The same inputs with what these origins hold and nothing of others; published values stay."""
    kept: dict[str, Any] = {}
    for field in fields(inputs):
        value = getattr(inputs, field.name)
        if isinstance(value, dict) and set(value) == set(ORIGINS):
            kept[field.name] = {name: value[name] if name in origins else [] for name in ORIGINS}
    return replace(inputs, **kept)


def data_title(inputs: Inputs, runs: Iterable[Run]) -> str:
    """What the statistics call the data of these runs, e.g. a copy with other times; empty if unknown."""
    tested = {run.record["data"]["sha256"] for run in runs}
    rows = [row for origin in ORIGINS for row in inputs.statistics[origin]]
    return "; ".join(dict.fromkeys(row["title"] for row in rows if row["sha256"] in tested))


def data_line(inputs: Inputs, runs: Iterable[Run]) -> str:
    """That as a line below the heading of a section."""
    title = data_title(inputs, runs)
    return f"Data set: {title}, see [data](../docs/data.md)." if title else ""


def _measurements(kind: Kind, results_dir: Path, runs_dir: Path | None) -> dict[str, list[Measurement]]:
    """Files of a kind by origin; a user's file with the very rows of the committed one is left out."""
    committed = list_measurements(results_dir, kind)
    known = {each.path.name: each.rows for each in committed}
    own = list_measurements(runs_dir, kind) if runs_dir is not None else []
    return {COMMITTED: committed, YOURS: [each for each in own if known.get(each.path.name) != each.rows]}


def _statistics(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "statistics").glob("*.json")):
        content = parse_json(path.read_bytes(), path)
        validate(StatisticsFile, content, path)
        rows += [row | {"environment": content["environment"]} for row in content["rows"]]
    return rows


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "environment"}


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)
