"""Ablations of BAHE: what each of its parts is worth, one change at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from repro.experiments.bahe import bahe_runs
from repro.experiments.bahe_variants import ABLATIONS
from repro.experiments.rows import pick_rows
from repro.experiments.run_config import RunConfig, Tier
from repro.methods.bahe.settings import BaheMethod


def ablation_runs(
    tier: Tier, dataset: str, protocol: str, selection: str | None, seeds: int
) -> list[RunConfig]:
    """All runs of the selected rows, row by row; None is all of them.

    The full row is the run of `nox -s bahe`; the others are `control` runs, which other tables leave out.

    Raises:
        ConfigError: an unknown row.
    """
    names = pick_rows(selection, ABLATIONS, {"all": tuple(ABLATIONS)})
    full = bahe_runs(tier, dataset, protocol, "bahe", seeds)
    return [changed(run, ABLATIONS[name].change) for name in names for run in full]


def changed(run: RunConfig, change: Callable[[BaheMethod], BaheMethod]) -> RunConfig:
    """The run with another method: itself if nothing changes, else a `control` run."""
    assert isinstance(run.method, BaheMethod)
    method = change(run.method)
    return run if method == run.method else replace(run, method=method, recipe="control")
