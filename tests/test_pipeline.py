"""One run from configuration to record, and what happens when something in between fails."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro.backbones.spec import BackboneSpec
from repro.data import TEST, VALIDATION, load_prepared, take_subset
from repro.errors import CheckpointError, ConfigError, StorageError
from repro.evaluation.metrics import evaluate_scores
from repro.experiments.run_config import RunConfig, Subset, Tier
from repro.experiments.selection import trials
from repro.experiments.table1 import table1_runs
from repro.experiments.tiers import tier_named
from repro.methods.sum_batches import SumBatches
from repro.methods.sum_model import ModelOutput, SumModel
from repro.pipeline import Workshop, run_own_model
from repro.records.store import RunStore
from repro.selection import run_selection
from repro.training.checkpoint import CheckpointFolder
from repro.training.loop import Trainer

DATASET, PROTOCOL = "synthetic", "rella"


def small(tier: Tier) -> Tier:
    """Half of the `test` tier: 3 steps in each of 2 epochs."""
    return replace(tier, subset=Subset(train_targets=48, validation_targets=24, test_targets=24))


def configs(rows: str, seeds: int = 1) -> list[RunConfig]:
    return table1_runs(small(tier_named("test")), DATASET, PROTOCOL, rows, seeds)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Workshop:
    """Data, tokens and weights, loaded once for this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        workshop = Workshop(
            store=RunStore(tmp_path_factory.mktemp("unused"), tmp_path_factory.mktemp("none"))
        )
        workshop.load(configs("sw")[0].tier, DATASET, PROTOCOL)
    return workshop


@pytest.fixture
def workshop(shared, tmp_path) -> Workshop:
    return replace(shared, store=RunStore(tmp_path / "runs", tmp_path / "runs" / "targets"))


def test_a_record_says_what_was_done(workshop) -> None:
    (config,) = configs("dti-5")
    run = workshop.run(config)
    record, scores = run.record, run.scores()
    data = workshop.load(config.tier, DATASET, PROTOCOL).data
    rows = data.targets(TEST)
    assert record["status"] == "ok"
    assert record["metrics"] == evaluate_scores(
        data.interactions.label[rows], scores, data.interactions.user[rows]
    )
    assert record["data"]["sha256"] == data.sha256
    assert [record["data"][f"{split}_targets"] for split in ("train", "validation", "test")] == [48, 24, 24]
    assert 0 < record["data"]["tokens_raw"] <= record["data"]["tokens_padded"]
    settings = json.loads(json.dumps(config.resolved()))
    assert {key: record["config"][key] for key in settings} == settings
    assert set(record["config"]) - set(settings) == {"data_sha256", "backbone_sha256", "processes"}
    assert len(record["validation"]) == record["time"]["epochs"] == 2
    best = max(record["validation"], key=lambda entry: (entry["auc"], -entry["epoch"]))
    assert record["time"]["best_epoch"] == best["epoch"]
    assert record["time"]["train_to_best_s"] == best["train_s"] <= record["time"]["train_s"]
    assert 0 < record["time"]["test_s"] < record["time"]["eval_s"], "validation is the rest"
    assert record["memory"]["peak_gib"] > 0
    assert record["device"] == {"name": workshop.device_name, "count": 1}
    assert not (workshop.store.runs / "checkpoints" / run.run_id).exists()


def test_targets_carry_their_place_in_the_protocols_test_order(workshop) -> None:
    (config,) = configs("zero-shot")
    targets = workshop.run(config).targets()
    full = load_prepared(DATASET, PROTOCOL, min_context=config.tier.min_context)
    part = take_subset(full, 48, 24, 24)
    chosen = full.targets(TEST)[targets.target]
    assert np.array_equal(chosen, part.targets(TEST))
    assert np.array_equal(full.interactions.label[chosen], targets.label)


def test_every_method_has_the_identical_targets(workshop) -> None:
    runs = [workshop.run(config) for config in configs("zero-shot,sw,dti-minus-5,dti-50")]
    assert len({run.record["data"]["sha256"] for run in runs}) == 1
    assert len({run.record["data"]["test_targets"] for run in runs}) == 1
    assert [run.record["data"]["train_targets"] for run in runs] == [0, 48, 48, 48]
    zero_shot = runs[0].record
    assert zero_shot["time"]["train_s"] is None
    assert zero_shot["validation"] == []
    assert len({tuple(run.scores()) for run in runs}) == 4


def test_same_seed_same_scores_other_seed_other_scores(workshop, tmp_path) -> None:
    first, second = configs("dti-5", seeds=2)
    again = replace(workshop, store=RunStore(tmp_path / "again", tmp_path / "again" / "targets"))
    scores = [workshop.run(first).scores(), again.run(first).scores(), workshop.run(second).scores()]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_training_leaves_the_shared_weights_alone(workshop) -> None:
    (config,) = configs("dti-5")
    backbone = workshop.backbone(config.tier)
    before = [parameter.clone() for parameter in backbone.model.parameters()]
    workshop.run(config)
    assert all(torch.equal(*pair) for pair in zip(before, backbone.model.parameters(), strict=True))


def test_a_finished_run_is_not_trained_again(workshop, monkeypatch) -> None:
    (config,) = configs("dti-5")
    first = workshop.run(config)
    monkeypatch.setattr(SumModel, "forward", lambda *arguments: pytest.fail("trained again"))
    assert workshop.run(config).record == first.record


def fail_in_training(monkeypatch, call: int, failure) -> None:
    """`failure(output)` takes the place of the model's output in its n-th call while training."""
    forward, calls = SumModel.forward, []

    def wrapped(self, batch):
        output = forward(self, batch)
        if self.training:
            calls.append(None)
            return failure(output) if len(calls) == call else output
        return output

    monkeypatch.setattr(SumModel, "forward", wrapped)


def nan_loss(output: ModelOutput) -> ModelOutput:
    return ModelOutput(output.loss_sum * math.nan, output.score)


def out_of_memory(output: ModelOutput) -> ModelOutput:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("failure", "status"), [(nan_loss, "diverged"), (out_of_memory, "out_of_memory")])
@pytest.mark.parametrize(("call", "epochs"), [(1, 0), (5, 1)])
def test_a_failed_run_is_recorded_without_numbers_and_the_next_one_runs(
    workshop, monkeypatch, failure, status, call, epochs
) -> None:
    first, second = configs("dti-10,dti-5")
    fail_in_training(monkeypatch, call, failure)
    failed, following = workshop.run(first), workshop.run(second)
    assert failed.status == status
    assert failed.record["metrics"] == {}
    assert failed.record["time"]["epochs"] == len(failed.record["validation"]) == epochs
    assert sorted(path.name for path in failed.path.iterdir()) == ["record.json"]
    assert following.status == "ok"
    assert not list((workshop.store.runs / "checkpoints").rglob("*.pt"))
    monkeypatch.undo()
    assert workshop.run(first).status == status, "finished: it is not tried again"


def test_scores_that_are_not_finite_end_as_diverged(workshop, monkeypatch) -> None:
    forward = SumModel.forward

    def wrapped(self, batch):
        output = forward(self, batch)
        return output if self.training else ModelOutput(output.loss_sum, output.score * math.nan)

    monkeypatch.setattr(SumModel, "forward", wrapped)
    for config in configs("dti-5,zero-shot"):
        run = workshop.run(config)
        assert run.status == "diverged"
        assert run.record["metrics"] == {}


def test_a_full_disk_in_training_keeps_the_last_checkpoint_and_no_record(workshop, monkeypatch) -> None:
    (config,) = configs("sw")
    save, saved = CheckpointFolder.save, []

    def full(self, name, state):
        saved.append(name)
        if len(saved) > 2:
            raise StorageError(self.folder / name, "writing failed: disk full", "room", "free space")
        save(self, name, state)

    monkeypatch.setattr(CheckpointFolder, "save", full)
    with pytest.raises(StorageError):
        workshop.run(config)
    assert workshop.store.list() == []
    monkeypatch.setattr(CheckpointFolder, "save", save)
    loads, load = [], SumBatches.load
    monkeypatch.setattr(SumBatches, "load", lambda *a: (loads.append(None), load(*a))[1])
    assert workshop.run(config).status == "ok"
    assert len(loads) == (6 - 2) + 2 + 1, "two steps were not taken again"


def test_a_damaged_checkpoint_is_named(workshop, monkeypatch) -> None:
    (config,) = configs("sw")
    fail_in_training(monkeypatch, 3, lambda output: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        workshop.run(config)
    monkeypatch.undo()
    (path,) = (workshop.store.runs / "checkpoints").rglob("state.pt")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError) as caught:
        workshop.run(config)
    assert caught.value.where == str(path)
    assert workshop.store.list() == []


def test_selection_reads_validation_targets_only_and_writes_every_trial(
    workshop, monkeypatch, tmp_path
) -> None:
    read: set[int] = set()
    load = SumBatches.load

    def watched(self, chosen, device):
        batch = load(self, chosen, device)
        read.update(batch.target_row.tolist())
        return batch

    class Watched(Trainer):
        def __init__(self, task, *arguments):
            assert task.test is task.validation, "not even to compile what scores them"
            super().__init__(task, *arguments)

    monkeypatch.setattr(SumBatches, "load", watched)
    monkeypatch.setattr("repro.pipeline.Trainer", Watched)
    few = []
    for trial in list(trials(configs("sw")[0].tier, DATASET, PROTOCOL))[:2]:
        subset = replace(trial.config.tier.subset, validation_targets=24)  # thousands would take a while
        few.append(
            replace(trial, config=replace(trial.config, tier=replace(trial.config.tier, subset=subset)))
        )
    monkeypatch.setattr("repro.experiments.selection.trials", lambda *arguments: iter(few))
    request = (workshop, few[0].config.tier, DATASET, PROTOCOL, tmp_path / "results")
    assert run_selection(*request, share="2/2") == [], "the first trial is still missing"
    (path,) = run_selection(*request, share="1/2")
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(workshop, "validate", lambda config: pytest.fail("this trial was made before"))
        assert run_selection(*request) == [path]
    assert path.read_bytes() == before
    made = []
    with monkeypatch.context() as patched:
        patched.setattr("repro.selection._made_by", lambda: "other sources or versions")
        patched.setattr(workshop, "validate", lambda config: made.append(config))
        run_selection(*request[:-1], tmp_path / "other")
    assert len(made) == len(few), "nothing was taken up"
    rows = json.loads(path.read_text())["rows"]
    assert [row["learning_rate"] for row in rows] == [trial.learning_rate for trial in few]
    assert all(0 <= row["validation_auc"] <= 1 for row in rows)
    data = workshop.load(few[0].config.tier, DATASET, PROTOCOL).data
    assert read & set(data.targets(VALIDATION).tolist())
    assert not read & set(data.targets(TEST).tolist())
    assert workshop.store.list() == []


def test_a_trial_without_memory_is_an_error_and_is_not_kept(workshop, monkeypatch, tmp_path) -> None:
    def full(config):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(workshop, "validate", full)
    with pytest.raises(ConfigError, match="out of memory"):
        run_selection(workshop, configs("sw")[0].tier, DATASET, PROTOCOL, tmp_path / "results")
    assert not list(workshop.store.runs.glob("trials/**/*.json")) and not (tmp_path / "results").exists()


@pytest.mark.parametrize("row", ["sw", "dti-tuned-5", "dti-5"])
def test_a_tiny_model_learns_20_targets_by_heart(workshop, row) -> None:
    """Overfitting: loss near zero and AUC 1 on the training targets themselves."""
    (config,) = configs(row)
    training = replace(
        config.tier.training, learning_rate=5e-3, max_epochs=35, patience=100, weight_decay=0.0
    )
    subset = Subset(train_targets=20, validation_targets=24, test_targets=24)
    tier = replace(config.tier, training=training, subset=subset)
    task = workshop.task(replace(config, tier=tier), workshop.load(tier, DATASET, PROTOCOL))
    assert task.train.num_targets == 20
    trainer = Trainer(task, training, 0, None, row)
    for epoch in range(training.max_epochs):
        for key in task.train.epoch(0, epoch):
            trainer._step(key, counts=True)
    in_training = [task.train.load(key, "cpu") for key in task.train.in_order()]
    with torch.no_grad():
        outputs = [task.model(batch) for batch in in_training]
    loss = sum(float(output.loss_sum) for output in outputs) / 20
    score = np.concatenate([o.score[: b.num_targets] for o, b in zip(outputs, in_training, strict=True)])
    rows = np.concatenate([batch.target_row for batch in in_training])
    assert loss < 0.1
    assert evaluate_scores(task.label[rows], score, task.group[rows])["auc"] == 1.0


def test_an_own_model_in_the_settings_of_a_tier(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("REPRO_RUNS_DIR", str(tmp_path / "runs"))
    own = BackboneSpec("random:tiny-qwen", tuning="lora")
    runs = run_own_model(own, tier="test", dataset="synthetic", rows="zero-shot,sw")
    methods = [run.record["config"]["method"] for run in runs]
    assert methods == ["rates", "rates-4", "constant", "user-rate", "item-rate", "zero-shot", "sw"]
    config = runs[-1].record["config"]
    assert config["tier"] == "test-random-tiny-qwen" and config["tuning"] == "lora"
    assert config["training"]["learning_rate"] == tier_named("test").training.learning_rate
