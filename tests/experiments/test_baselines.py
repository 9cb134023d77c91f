"""Which baseline runs there are, that they share the LLM rows' targets, and that choices are the trials'."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from repro import paths
from repro.data import TEST, TRAIN, VALIDATION
from repro.errors import ConfigError
from repro.experiments.baselines import (
    FLOOR,
    MODELS,
    PUBLISHED_HISTORY,
    baseline_runs,
    model_names,
    row_names,
    trials,
)
from repro.experiments.selected_baselines import SELECTED, Chosen
from repro.experiments.table1 import table1_runs
from repro.experiments.tiers import tier_named
from repro.methods.numerics import method_numerics
from repro.pipeline import Workshop

FILES = sorted((paths.results_dir() / "selection" / "baselines").glob("*.json"))


def test_every_model_runs_with_the_llms_history_and_the_published_one() -> None:
    tier = tier_named("gpu")
    runs = baseline_runs(tier, "ml-1m", "rella", None, seeds=5)
    counts = Counter((run.method.name, run.method.n) for run in runs)
    assert [run.method.name for run in runs[:5]] == [
        "rates",
        "rates-20",
        "constant",
        "user-rate",
        "item-rate",
    ]
    for name in MODELS:
        assert counts[(name, tier.n)] == counts[(name, PUBLISHED_HISTORY)] == 5
    assert len(runs) == len(FLOOR) + 2 * 5 * len(MODELS)
    assert {run.seed for run in runs if run.method.trains} == set(range(5))


def test_rows_and_groups() -> None:
    assert row_names("floor,din") == [*FLOOR, "din"]
    assert row_names("din, din ,din-30") == ["din", "din-30"]
    assert model_names("all") == list(MODELS)
    for wrong in ("din-20", "", "sw"):
        with pytest.raises(ConfigError, match="rows"):
            row_names(wrong or "nothing")
    with pytest.raises(ConfigError, match="models"):
        model_names("din,rates")


def test_every_method_has_a_version_and_unknown_ones_have_none() -> None:
    for run in baseline_runs(tier_named("test"), "ml-100k", "dti", None, seeds=1):
        assert run.resolved()["numerics"]["method"] == method_numerics(run.method.name) >= 1
    with pytest.raises(KeyError):
        method_numerics("rates-x")


def test_every_method_trains_and_is_tested_on_the_identical_targets(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path))
    tier = tier_named("test")
    workshop = Workshop()
    place = ("synthetic", "rella")
    configs = [
        *table1_runs(tier, *place, "sw,dti-50", seeds=1),
        *baseline_runs(tier, *place, None, seeds=1),
    ]
    loaded = workshop.load(tier, *place)
    for config in configs:
        task = workshop.task(config, loaded)
        for split, batches in ((TRAIN, task.train), (VALIDATION, task.validation), (TEST, task.test)):
            parts = [part for key in batches.in_order() for part in batches.split(key)]
            rows = np.concatenate([batches.load(part, "cpu").target_row for part in parts])
            assert np.array_equal(np.sort(rows), loaded.data.targets(split)), (config.method.name, split)


def test_trials_are_the_same_settings_for_every_model() -> None:
    found = list(trials(tier_named("cpu"), "ml-100k", "dti"))
    settings = {name: [trial.chosen for trial in found if trial.model == name] for name in MODELS}
    assert all(each == settings["din"] for each in settings.values())
    assert len(set(settings["din"])) == len(settings["din"]) == 8
    for trial in found:
        training = trial.config.training
        assert (training.learning_rate, training.weight_decay) == (
            trial.chosen.learning_rate,
            trial.chosen.weight_decay,
        )
        assert trial.config.method.model.dropout == trial.chosen.dropout
        assert trial.config.tier.subset.test_targets == 1  # next to nothing of the test split is read
        assert trial.config.tier.subset.train_targets == tier_named("cpu").subset.train_targets


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_selected_is_what_the_trials_say(path) -> None:
    rows = json.loads(path.read_text())["rows"]
    tier_name, rest = path.stem.split("-", 1)
    dataset, model = rest.rsplit("-", 1)
    declared = [t.chosen for t in trials(tier_named(tier_name), dataset, "dti") if t.model == model]
    names = ("learning_rate", "weight_decay", "dropout")
    assert [Chosen(*(row[name] for name in names)) for row in rows] == declared
    best = max((row for row in rows if row["validation_auc"] is not None), key=lambda r: r["validation_auc"])
    assert SELECTED[(tier_name, dataset)][model] == Chosen(*(best[name] for name in names))


def test_the_floor_with_the_llms_knowledge_ignores_what_is_older() -> None:
    (run,) = baseline_runs(replace(tier_named("gpu"), n=7), "ml-100k", "dti", "rates-recent", seeds=3)
    assert (run.method.name, run.method.n, run.method.model.recent) == ("rates-7", 7, 7)
    assert "user_all" not in run.method.model.features
