"""The floor in front of every table's runs."""

from __future__ import annotations

from collections.abc import Callable

from repro.experiments.run_config import RunConfig, Tier

Runs = Callable[[Tier, str, str, str | None, int], list[RunConfig]]


def with_floor(runs_of: Runs) -> Runs:
    """The runs of a table, with the like rates in front: they take seconds, and every table shows them."""

    def runs(tier: Tier, dataset: str, protocol: str, selection: str | None, seeds: int) -> list[RunConfig]:
        own = runs_of(tier, dataset, protocol, selection, seeds)  # a wrong selection ends it here

        from repro.experiments.baselines import baseline_runs  # imports torch

        return [*baseline_runs(tier, dataset, protocol, "floor", seeds), *own]

    return runs
