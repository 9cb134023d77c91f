"""From stored scores to intervals: each run's scores are checked against its record and resampled once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from repro.errors import RecordError
from repro.evaluation.delong import DelongTest, delong_test
from repro.evaluation.intervals import Draws, Interval, draw_metric, interval, paired_difference
from repro.evaluation.metrics import evaluate_scores
from repro.records.store import RECORD_FILE, SCORES_FILE, Run

Metric = Literal["auc", "gauc"]
TOLERANCE = 1e-6  # relative and absolute, between a record's metric and the one that its scores give


@dataclass(frozen=True)
class RunScores:
    """Scores and test targets of one run; equal and hashed by content."""

    digest: str  # sha256 of labels, users and scores
    label: np.ndarray = field(compare=False)  # (T,)
    group: np.ndarray = field(compare=False)  # (T,)
    score: np.ndarray = field(compare=False)  # (T,)


@dataclass(frozen=True)
class Comparison:
    """A method against another one, tested on the same targets."""

    difference: Interval  # of AUC, method minus the other, paired over users
    delong: DelongTest  # on one seed of each
    delong_seeds: tuple[int, int]


def run_scores(run: Run) -> RunScores:
    """Scores of an ok run, checked: they must give the metrics that the record states.

    Raises:
        RecordError: a file is missing or damaged, or scores and metrics do not belong together.
    """
    targets, score = run.targets(), run.scores()
    content = [np.ascontiguousarray(column).tobytes() for column in (targets.label, targets.group, score)]
    scores = RunScores(hashlib.sha256(b"".join(content)).hexdigest(), targets.label, targets.group, score)
    for name, value in _metrics(scores).items():
        stated = run.record["metrics"][name]
        if (value is None) != (stated is None) or not np.isclose(
            np.nan if value is None else value,
            np.nan if stated is None else stated,
            rtol=TOLERANCE,
            atol=TOLERANCE,
            equal_nan=True,
        ):
            raise RecordError(
                f"{run.path / RECORD_FILE}, field metrics.{name}",
                str(stated),
                f"{value}, which the scores in {SCORES_FILE} give",
                "one of the two was edited: restore both from git, or delete the folder and run again",
            )
    return scores


def run_digest(run: Run) -> str:
    """First 10 hex digits of sha256 over a run's test targets and scores: a page that prints it pins them."""
    return run_scores(run).digest[:10]


def metric_draws(runs: Sequence[Run], metric: Metric = "auc") -> Draws:
    """AUC or GAUC of ok runs (the seeds of one configuration) on resampled users, one column per run.

    Raises:
        RecordError: as `run_scores`. DataError: too few users or classes for a bootstrap.
    """
    draws = [_draws(run_scores(run), metric) for run in runs]
    return Draws(
        observed=np.concatenate([each.observed for each in draws]),
        drawn=np.hstack([each.drawn for each in draws]),
        num_users=draws[0].num_users,
        bootstrap_seed=draws[0].bootstrap_seed,
        fingerprint=draws[0].fingerprint,
    )


def auc_interval(runs: Sequence[Run]) -> Interval:
    """Bootstrap interval of the mean AUC over users and seeds."""
    return interval(metric_draws(runs))


def difference(runs: Sequence[Run], others: Sequence[Run], metric: Metric = "auc") -> Interval:
    """Metric of a method minus that of another one on the same targets, paired over users."""
    return paired_difference(metric_draws(runs, metric), metric_draws(others, metric))


def compare(runs: Sequence[Run], others: Sequence[Run]) -> Comparison:
    """Paired comparison of AUC; DeLong takes the first seed that both have, else each one's first."""
    seeds = {run.record["config"]["seed"]: run for run in runs}
    other_seeds = {run.record["config"]["seed"]: run for run in others}
    shared = sorted(seeds.keys() & other_seeds.keys())
    chosen = (shared[0], shared[0]) if shared else (min(seeds), min(other_seeds))
    first, second = run_scores(seeds[chosen[0]]), run_scores(other_seeds[chosen[1]])
    return Comparison(
        difference(runs, others),
        delong_test(first.label, first.score, second.score),
        chosen,
    )


# A table is rendered again after each of its runs: within one process, old runs are not resampled again.
@lru_cache(maxsize=1024)
def _metrics(scores: RunScores) -> dict[str, float | int | None]:
    return evaluate_scores(scores.label, scores.score, scores.group)


@lru_cache(maxsize=1024)
def _draws(scores: RunScores, metric: Metric) -> Draws:
    return draw_metric(scores.label, [scores.score], scores.group, metric)
