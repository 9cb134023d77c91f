"""Training runs for what BAHE's paper leaves open: where to cut the layers, and how fresh a table must be."""

from __future__ import annotations

from dataclasses import replace

from repro.backbones.spec import SMOLLM2
from repro.behaviours.drift import Drift
from repro.experiments.bahe import bahe_runs
from repro.experiments.bahe_ablation import changed
from repro.experiments.bahe_variants import CUTS, NO_DRIFT, STALE
from repro.experiments.rows import pick_rows
from repro.experiments.run_config import RunConfig, Tier

DRIFT_SHARE = 0.5
LEAKAGE = "leakage"
ROWS = (*CUTS, NO_DRIFT, *STALE, LEAKAGE)
GROUPS = {"cuts": tuple(CUTS), "stale": (NO_DRIFT, *STALE), "all": ROWS}


def open_rows(selection: str | None) -> list[str]:
    """Names of a comma-separated selection of rows and groups; None is all.

    Raises:
        ConfigError: an unknown row.
    """
    return pick_rows(selection, ROWS, GROUPS)


def open_runs(tier: Tier, dataset: str, protocol: str, selection: str | None, seeds: int) -> list[RunConfig]:
    """All training runs of the selected rows, row by row; `leakage` has runs of its own (`leakage.py`).

    Rows: `cut-1-6` to `cut-5-6`, the share of the layers that are frozen; `no-drift`, BAHE as it is;
    `revised-R` and `revealed-R`: the texts of half of the items change and the table is refreshed every R
    steps. A step is `batch_targets` interactions of the data set in order of time, as many as an optimiser
    step has targets. SmolLM2 cut to fewer than six layers has no sixths: it keeps six for the layer cuts.
    """
    six = replace(tier, backbone=replace(tier.backbone, layers=_layers_for_sixths(tier)))
    runs = []
    for name in open_rows(selection):
        if name in CUTS:
            runs += [_cut(run, CUTS[name]) for run in bahe_runs(six, dataset, protocol, "bahe", seeds)]
        elif name != LEAKAGE:
            drift = STALE.get(name)
            runs += [_stale(run, drift) for run in bahe_runs(tier, dataset, protocol, "bahe", seeds)]
    return runs


def _layers_for_sixths(tier: Tier) -> int | None:
    layers = tier.backbone.layers
    return max(6, layers) if layers is not None and tier.backbone.name == SMOLLM2 else layers


def _cut(run: RunConfig, layer_cut: float) -> RunConfig:
    return changed(run, lambda full: replace(full, layer_cut=layer_cut))


def _stale(run: RunConfig, drift: tuple[str, int | None] | None) -> RunConfig:
    if drift is None:
        return run
    kind, steps = drift
    every = None if steps is None else steps * run.training.batch_targets
    return changed(run, lambda full: replace(full, drift=Drift(kind, DRIFT_SHARE, every)))
