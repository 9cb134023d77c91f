"""BAHE's family through the one pipeline: records, one table for several runs, resumed runs, learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from repro.data import TEST, TRAIN, VALIDATION
from repro.errors import ConfigError
from repro.evaluation.metrics import evaluate_scores
from repro.experiments.bahe import bahe_runs, trials
from repro.experiments.run_config import RunConfig
from repro.experiments.tiers import tier_named
from repro.methods.bahe import filled_table as filled_table_module
from repro.methods.bahe.batches import BaheBatches
from repro.methods.bahe.streaming import StreamingBatches
from repro.pipeline import Workshop
from repro.records.store import RunStore
from repro.reporting.trials import load_bahe_trials
from repro.selection import run_bahe_selection
from repro.training.loop import Trainer

PLACE = ("synthetic", "rella")
ROWS = ("bahe", "llm-ctr", "dti-bahe-10")


@pytest.fixture
def workshop(tmp_path, monkeypatch) -> Workshop:
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    return Workshop(store=RunStore(tmp_path / "runs", tmp_path / "runs" / "targets"))


def config_of(row: str, seed: int = 0, **changes: object) -> RunConfig:
    tier = tier_named("test")
    subset = replace(tier.subset, train_targets=32, validation_targets=16, test_targets=16)
    small = replace(tier, subset=subset)
    config = bahe_runs(small, *PLACE, row, seeds=seed + 1)[seed]
    return replace(config, method=replace(config.method, **changes))


@pytest.mark.parametrize("row", ROWS)
def test_a_record_says_what_was_done(workshop, row) -> None:
    config = config_of(row)
    run = workshop.run(config)
    record, data = run.record, workshop.load(config.tier, *PLACE).data
    rows = data.targets(TEST)
    stated = evaluate_scores(data.interactions.label[rows], run.scores(), data.interactions.user[rows])
    assert record["metrics"] == stated
    assert record["config"]["method"] == config.method.name == row.removesuffix("-10")
    assert record["config"]["tuning"] == "lora"
    assert record["config"]["backbone_settings"]["lora_rank"] == 64
    assert record["data"]["train_targets"] == 32
    assert 0 < record["data"]["tokens_raw"] <= record["data"]["tokens_padded"]
    has_table = row != "llm-ctr"
    assert ("table_build_s" in record["time"]) == has_table
    assert not has_table or record["time"]["table_build_s"] > 0


def test_every_method_trains_and_is_tested_on_the_identical_targets(workshop) -> None:
    tier = tier_named("test")
    loaded = workshop.load(tier, *PLACE)
    for config in bahe_runs(tier, *PLACE, None, seeds=1):
        task = workshop.task(config, loaded)
        for split, batches in ((TRAIN, task.train), (VALIDATION, task.validation), (TEST, task.test)):
            parts = [part for key in batches.in_order() for part in batches.split(key)]
            rows = np.concatenate([batches.load(part, "cpu").target_row for part in parts])
            assert np.array_equal(np.sort(rows), loaded.data.targets(split)), (config.method.name, split)


def test_one_table_serves_all_runs_of_an_encoder(workshop, monkeypatch) -> None:
    pytest.importorskip("lance", reason="without Lance, tables are in memory")
    first = workshop.run(config_of("bahe"))
    fill, filled = filled_table_module.fill, []
    monkeypatch.setattr(filled_table_module, "fill", lambda *given: filled.append(fill(*given)) or filled[-1])
    second = workshop.run(config_of("dti-bahe-10"))
    third = workshop.run(config_of("bahe", pooling="mean"))
    assert filled[0] == 0 < filled[1], "another pooling is another table"
    times = [run.record["time"]["table_build_s"] for run in (first, second, third)]
    assert times[0] == pytest.approx(times[1]) and times[0] != times[2]


def test_an_unknown_cost_of_the_table_is_null(workshop, tmp_path) -> None:
    pytest.importorskip("lance", reason="without Lance, tables are in memory")
    workshop.run(config_of("bahe"))
    (cost,) = (tmp_path / "cache" / "behaviours").glob("*/fillings.json")
    cost.unlink()
    record = workshop.run(config_of("dti-bahe-10")).record
    assert record["time"]["table_build_s"] is None and record["data"]["behaviours_encoded"] > 0


def test_cached_and_uncached_training_end_with_the_same_scores(workshop) -> None:
    cached = workshop.run(config_of("bahe")).scores()
    uncached = workshop.run(config_of("bahe", cached=False)).scores()
    assert np.allclose(cached, uncached, atol=1e-4)


@pytest.mark.parametrize("changes", [{"feature_parallel": False}, {"cached": False, "lower": "trained"}])
def test_variants_train_to_other_scores(workshop, changes) -> None:
    plain, other = workshop.run(config_of("bahe")), workshop.run(config_of("bahe", **changes))
    assert plain.run_id != other.run_id
    assert not np.allclose(plain.scores(), other.scores(), atol=1e-4)


@pytest.mark.parametrize("row", ROWS)
def test_an_interrupted_run_goes_on_to_the_same_scores(workshop, tmp_path, monkeypatch, row) -> None:
    config = config_of(row)
    whole = workshop.run(config).scores()
    other = replace(workshop, store=RunStore(tmp_path / "again", tmp_path / "again" / "targets"))
    step, steps = Trainer._step, []

    def interrupted(self, *arguments, **named):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_step", interrupted)
        other.run(config)
    assert np.array_equal(other.run(config).scores(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_seeds_differ_and_repeat(workshop, tmp_path, row) -> None:
    first, second = (workshop.run(config_of(row, seed)).scores() for seed in (0, 1))
    assert not np.array_equal(first, second)
    again = replace(workshop, store=RunStore(tmp_path / "again", tmp_path / "again" / "targets"))
    assert np.array_equal(again.run(config_of(row)).scores(), first)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_few_targets_are_learned_by_heart(workshop, row) -> None:
    config = config_of(row)
    tier = replace(
        config.tier,
        subset=replace(config.tier.subset, train_targets=16),
        training=replace(config.tier.training, learning_rate=3e-3, max_epochs=25, patience=25),
    )
    config = replace(config, tier=tier)
    loaded = workshop.load(tier, *PLACE)
    trainer = Trainer(workshop.task(config, loaded), tier.training, 0, None, "by heart")
    history = trainer.train().history
    assert history[-1]["train_loss"] < 0.1 < 0.5 < history[0]["train_loss"]


def test_the_search_reads_validation_targets_only_and_writes_every_trial(
    workshop, tmp_path, monkeypatch
) -> None:
    read: set[int] = set()

    def watched(load):
        def loaded(self, key, device):
            batch = load(self, key, device)
            read.update(batch.target_row.tolist())
            return batch

        return loaded

    for batches in (BaheBatches, StreamingBatches):
        monkeypatch.setattr(batches, "load", watched(batches.load))
    few = [t for t in trials(config_of("bahe").tier, *PLACE) if t.family != "llm-ctr"][::3]
    monkeypatch.setattr("repro.experiments.bahe.trials", lambda *given: iter(few))
    (path,) = run_bahe_selection(workshop, few[0].config.tier, *PLACE, tmp_path / "results")
    (content,) = load_bahe_trials(tmp_path / "results").values()
    assert path.name == "test-synthetic.json"
    expected = [(trial.family, trial.learning_rate) for trial in few]
    assert [(row["family"], row["learning_rate"]) for row in content["rows"]] == expected
    assert all(0 <= row["validation_auc"] <= 1 for row in content["rows"])
    data = workshop.load(few[0].config.tier, *PLACE).data
    assert read & set(data.targets(VALIDATION).tolist())
    assert not read & set(data.targets(TEST).tolist())
    assert workshop.store.list() == []


def test_a_cut_that_leaves_no_lower_layer_is_refused(workshop) -> None:
    with pytest.raises(ConfigError, match="layer_cut"):
        workshop.run(config_of("bahe", layer_cut=0.05))
