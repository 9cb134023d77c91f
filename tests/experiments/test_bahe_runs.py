"""Which runs BAHE's page has, and that choices are the trials'."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from repro import paths
from repro.errors import ConfigError
from repro.experiments.bahe import FAMILIES, LEARNING_RATES, bahe_runs, learning_rate, trials
from repro.experiments.selected_bahe import SELECTED, UNSEARCHED
from repro.experiments.table1 import table1_runs
from repro.experiments.table3 import MAX_EPOCHS, PATIENCE
from repro.experiments.tiers import TIERS, tier_named

FILES = sorted((paths.results_dir() / "selection" / "bahe").glob("*.json"))
GPU = ("ml-1m", "rella")


def test_the_rows_share_the_tier_and_its_context_length() -> None:
    tier = tier_named("gpu")
    runs = bahe_runs(tier, *GPU, None, seeds=2)
    names = [(run.method.name, run.resolved()["k"]) for run in runs if run.seed == 0]
    assert names == [
        *(("bahe", None), ("llm-ctr", None), ("dti-bahe", 50), ("dti-bahe", 10)),
        *(("sw", 1), ("dti", 50), ("din", None)),
    ]
    assert {run.resolved()["n"] for run in runs} == {tier.n}
    assert {run.recipe for run in runs} == {"tuned", "paper"}
    assert len(runs) == 2 * len(names)
    # The very runs of Table 1, so that none is trained twice.
    shared = {json.dumps(run.resolved()) for run in table1_runs(tier, *GPU, "sw,dti-tuned-50", seeds=2)}
    assert shared <= {json.dumps(run.resolved()) for run in runs}


def test_rows_are_picked_by_name_and_group() -> None:
    tier = tier_named("test")
    assert {run.method.name for run in bahe_runs(tier, *GPU, "own", 1)} == set(FAMILIES)
    assert [run.method.name for run in bahe_runs(tier, *GPU, "din,llm-ctr", 1)] == ["din", "llm-ctr"]
    with pytest.raises(ConfigError, match="rows"):
        bahe_runs(tier, *GPU, "dti-bahe-7", 1)


def test_rows_beyond_the_comparison_change_what_they_say_and_nothing_else() -> None:
    tier = tier_named("gpu")
    recent, single, *longer = bahe_runs(tier, *GPU, "more", 1)
    bahe, llm_ctr, streaming = bahe_runs(tier, *GPU, "bahe,llm-ctr,dti-bahe-50", 1)
    assert recent == replace(llm_ctr, method=replace(llm_ctr.method, sequences=("recent",)))
    assert single.method == replace(streaming.method, k=1) and single.tier == streaming.tier
    for run, short in zip(longer, (bahe, streaming), strict=True):
        assert run.method == short.method
        assert (run.training.max_epochs, run.training.patience) == (MAX_EPOCHS, PATIENCE)
        assert replace(run.training, max_epochs=1, patience=short.training.patience) == short.training


@pytest.mark.parametrize("name", TIERS)
def test_trials_are_the_same_learning_rates_for_every_method(name) -> None:
    tier = tier_named(name)
    found = list(trials(tier, tier.datasets[0], "dti"))
    assert Counter(trial.family for trial in found) == dict.fromkeys(FAMILIES, len(LEARNING_RATES))
    for trial in found:
        assert trial.config.training.learning_rate == trial.learning_rate in LEARNING_RATES
        assert trial.config.method.name == trial.family and trial.config.seed == 0
        subset = trial.config.tier.subset
        assert subset.train_targets == tier.subset.train_targets
        assert subset.test_targets == (None if tier.subset.validation_targets is None else 1)


def test_what_nobody_searched_has_one_common_learning_rate() -> None:
    assert {learning_rate(tier_named("test"), each) for each in FAMILIES} == {UNSEARCHED}


def test_what_is_selected_is_what_the_trials_say() -> None:
    files = {path.stem.removesuffix("-ml-100k"): path for path in FILES}
    assert SELECTED.keys() == files.keys()
    for tier_name, path in files.items():
        rows = json.loads(path.read_text())["rows"]
        declared = [(t.family, t.learning_rate) for t in trials(tier_named(tier_name), "ml-100k", "dti")]
        assert [(row["family"], row["learning_rate"]) for row in rows] == declared
        for family in FAMILIES:
            tried = [row for row in rows if row["family"] == family and row["validation_auc"] is not None]
            best = max(tried, key=lambda row: row["validation_auc"])
            assert SELECTED[tier_name][family] == best["learning_rate"]
