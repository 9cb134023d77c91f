"""ID-based models through the one pipeline: records, restored batch statistics, resumed runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from repro.data import TEST
from repro.evaluation.metrics import evaluate_scores
from repro.experiments.baselines import baseline_runs
from repro.experiments.run_config import RunConfig
from repro.experiments.tiers import tier_named
from repro.pipeline import Workshop
from repro.records.columns import storable
from repro.records.store import RunStore
from repro.training.loop import Trainer

PLACE = ("synthetic", "rella")


@pytest.fixture
def workshop(tmp_path, monkeypatch) -> Workshop:
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    return Workshop(store=RunStore(tmp_path / "runs", tmp_path / "runs" / "targets"))


def config_of(row: str, **training: object) -> RunConfig:
    (config,) = baseline_runs(tier_named("test"), *PLACE, row, seeds=1)
    if not training:
        return config
    return replace(config, method=replace(config.method, training=replace(config.training, **training)))


@pytest.mark.parametrize("row", ["din", "rates"])
def test_a_record_says_what_was_done_without_a_language_model(workshop, row) -> None:
    config = config_of(row)
    run = workshop.run(config)
    record, data = run.record, workshop.load(config.tier, *PLACE).data
    rows = data.targets(TEST)
    stated = evaluate_scores(data.interactions.label[rows], run.scores(), data.interactions.user[rows])
    assert record["metrics"] == stated
    assert record["config"]["backbone"] is record["config"]["k"] is record["data"]["tokens_raw"] is None
    assert "backbone_sha256" not in record["config"]
    assert record["data"]["train_targets"] == 96
    assert (record["time"]["epochs"] > 0) == config.method.trains
    assert not workshop._backbones  # no language model was loaded for it


def test_scores_come_from_the_best_epoch_with_its_batch_statistics(workshop) -> None:
    config = config_of("din", max_epochs=3, patience=3, learning_rate=3e-2)
    loaded = workshop.load(config.tier, *PLACE)
    trainer = Trainer(workshop.task(config, loaded), config.training, config.seed, None, "by hand")
    by_epoch = []
    finish = trainer._finish_epoch

    def keep(metrics) -> None:
        by_epoch.append(trainer.scores(trainer.task.test)[1])
        finish(metrics)

    trainer._finish_epoch = keep  # type: ignore[method-assign]
    progress = trainer.train()
    assert progress.best_epoch < 2, "the last epoch is the best: nothing would be shown"
    assert np.array_equal(trainer.scores(trainer.task.test)[1], by_epoch[progress.best_epoch])
    assert not np.array_equal(by_epoch[-1], by_epoch[progress.best_epoch])


def test_an_interrupted_run_goes_on_to_the_same_scores(workshop, tmp_path, monkeypatch) -> None:
    config = config_of("din", max_epochs=2, checkpoint_every_s=0.0)
    whole = workshop.run(config).scores()
    other = replace(workshop, store=RunStore(tmp_path / "again", tmp_path / "again" / "targets"))
    step, steps = Trainer._step, []

    def interrupted(self, *arguments, **named):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(self, *arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_step", interrupted)
        other.run(config)
    assert np.array_equal(other.run(config).scores(), whole)


def test_seeds_differ_and_repeat(workshop, tmp_path) -> None:
    first, second = baseline_runs(tier_named("test"), *PLACE, "gru4rec", seeds=2)
    scores = workshop.run(first).scores()
    assert not np.array_equal(workshop.run(second).scores(), scores)
    again = replace(workshop, store=RunStore(tmp_path / "again", tmp_path / "again" / "targets"))
    assert np.array_equal(again.run(first).scores(), scores)


def test_stored_scores_are_rounded_to_16_bits() -> None:
    score = np.random.default_rng(0).uniform(0, 1, 10_000).astype(np.float32)
    kept = storable(score)
    assert np.abs(kept / score - 1).max() <= 2.0**-17
    assert np.array_equal(storable(kept), kept)
    assert not np.any(kept.view(np.uint32) & 0x7F)
    edges = np.array([0.0, 0.5, 1.0, np.nextafter(np.float32(1), np.float32(0))], dtype=np.float32)
    assert np.array_equal(storable(edges), np.array([0.0, 0.5, 1.0, 1.0], dtype=np.float32))
