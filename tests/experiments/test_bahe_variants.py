"""Which runs make up BAHE's ablations and the open questions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repro.errors import ConfigError
from repro.experiments.bahe import bahe_runs
from repro.experiments.bahe_ablation import ablation_runs
from repro.experiments.bahe_open import LEAKAGE, ROWS, open_rows, open_runs
from repro.experiments.bahe_variants import ABLATIONS, CUTS, NO_DRIFT, STALE
from repro.experiments.tiers import cpu_tier, gpu_tier, tier_named

REQUEST = ("ml-100k", "dti")


def full(tier, seed=0):
    return bahe_runs(tier, *REQUEST, "bahe", seed + 1)[seed]


def test_the_full_row_is_the_quality_page_s_run_and_each_other_changes_one_thing() -> None:
    tier = gpu_tier()
    runs = ablation_runs(tier, *REQUEST, None, 2)
    assert len(runs) == 2 * len(ABLATIONS) and [run.seed for run in runs[:2]] == [0, 1]
    assert runs[:2] == bahe_runs(tier, *REQUEST, "bahe", 2)
    usual = runs[0].resolved()["behaviours"]
    for run in runs[2:]:
        changed = {key for key, value in run.resolved()["behaviours"].items() if value != usual[key]}
        # Nothing can be cached where the lower layers are trained.
        assert len(changed) == 1 or changed == {"lower", "cached"}
        assert run.recipe == "control" and replace(run, method=full(tier).method, recipe="tuned") == replace(
            full(tier, run.seed)
        )


def test_layer_cuts_reach_from_one_to_five_sixths_of_the_layers() -> None:
    for tier, layers, expected in ((gpu_tier(), 30, [5, 10, 15, 20, 25]), (cpu_tier(), 6, [1, 2, 3, 4, 5])):
        runs = open_runs(tier, *REQUEST, "cuts", 1)
        assert [run.tier.backbone.layers or 30 for run in runs] == [layers] * 5
        assert [run.method.num_lower(layers) for run in runs] == expected
        assert {run.training for run in runs} == {full(tier).training}
    assert open_runs(gpu_tier(), *REQUEST, "cut-3-6", 1) == [full(gpu_tier())], "trained once"


def test_a_model_that_cannot_be_cut_to_six_layers_keeps_its_own() -> None:
    assert {run.tier for run in open_runs(tier_named("test"), *REQUEST, "cuts", 1)} == {
        full(tier_named("test")).tier
    }


def test_stale_rows_differ_in_kind_and_refresh_alone() -> None:
    tier = cpu_tier()
    runs = open_runs(tier, *REQUEST, "stale", 1)
    assert runs[0] == full(tier) and len(runs) == 1 + len(STALE) == 9
    drifts = [run.method.drift for run in runs[1:]]
    assert {(each.share, each.changes, each.seed) for each in drifts} == {(0.5, 4, 0)}
    batch = tier.training.batch_targets
    expected = [(kind, None if steps is None else steps * batch) for kind, steps in STALE.values()]
    assert [(each.kind, each.refresh_every) for each in drifts] == expected
    assert len({str(run.resolved()) for run in runs}) == len(runs), "each is a run of its own"


def test_selections() -> None:
    assert open_rows(None) == list(ROWS) == [*CUTS, NO_DRIFT, *STALE, LEAKAGE]
    assert open_rows("leakage,cut-1-6") == [LEAKAGE, "cut-1-6"]
    assert open_runs(cpu_tier(), *REQUEST, LEAKAGE, 1) == []
    for pick in (open_rows, lambda rows: ablation_runs(cpu_tier(), *REQUEST, rows, 1)):
        with pytest.raises(ConfigError, match="'cut-9-6'"):
            pick("cut-9-6")
