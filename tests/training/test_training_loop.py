"""What one epoch, one step and one schedule of the loop do, against naive versions."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_task import ToyBatches, ToyOutput, toy_task

from repro.errors import ConfigError
from repro.evaluation.metrics import evaluate_scores
from repro.training.checkpoint import CheckpointFolder, snapshot
from repro.training.loop import Trainer
from repro.training.optimizer import cosine_with_warmup
from repro.training.settings import TrainingSettings
from repro.training.state import Progress
from repro.training.task import Task

SETTINGS = TrainingSettings(learning_rate=1e-2, max_epochs=3, patience=2, batch_targets=8)


def trainer_of(task: Task, settings: TrainingSettings = SETTINGS, seed: int = 0, folder=None) -> Trainer:
    checkpoints = None if folder is None else CheckpointFolder(folder, "toy")
    return Trainer(task, settings, seed, checkpoints, "toy")


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def naive_training(task: Task, settings: TrainingSettings, seed: int) -> dict[str, torch.Tensor]:
    """The documented loop in plain torch: mean loss over a batch's targets, AdamW, clipping, cosine."""
    model = copy.deepcopy(task.model)
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=1.0,
        betas=(settings.beta1, settings.beta2),
    )
    epochs = [task.train.epoch(seed, epoch) for epoch in range(settings.max_epochs)]
    total, step = sum(map(len, epochs)), 0
    warmup = math.ceil(settings.warmup_share * total)
    for keys in epochs:
        for key in keys:
            after = (step - warmup) / (total - warmup)
            rate = (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * after))
            for group in optimizer.param_groups:
                group["lr"] = rate * settings.learning_rate
            batch = task.train.load(key, "cpu")
            (model(batch).loss_sum / len(key)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return snapshot(model)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, weight_decay=0.5),
        replace(SETTINGS, clip_norm=0.01),
        replace(SETTINGS, warmup_share=0.5, max_epochs=1),
    ],
)
def test_the_loop_is_the_documented_one(settings) -> None:
    task = toy_task()
    settings = replace(settings, patience=settings.max_epochs + 1)
    expected = naive_training(task, settings, seed=3)
    start = snapshot(task.model)
    trainer = trainer_of(task, settings, seed=3)
    trainer._best = None
    while trainer.progress.epoch < settings.max_epochs:  # without restoring the best epoch
        trainer._epoch()
    assert largest_difference(snapshot(task.model), expected) < 1e-6
    assert largest_difference(snapshot(task.model), start) > 1e-2


def test_each_setting_of_the_comparison_matters() -> None:
    """So that the test above could fail: decay, clipping and warm-up each move the result."""
    task, base = toy_task(), replace(SETTINGS, max_epochs=1)
    plain = naive_training(task, base, 0)
    for other in ({"weight_decay": 0.5}, {"clip_norm": 0.01}, {"warmup_share": 0.5}):
        assert largest_difference(plain, naive_training(task, replace(base, **other), 0)) > 1e-4


@pytest.mark.parametrize("micro", [1, 3, 7])
def test_micro_batches_give_the_gradient_of_the_whole_batch(micro, monkeypatch) -> None:
    gradients = []
    for size in (1000, micro):
        trainer = trainer_of(toy_task(micro=size))
        held: dict[str, torch.Tensor] = {}

        def keep(trainer=trainer, held=held) -> None:
            held.update(
                {n: p.grad.clone() for n, p in trainer.task.model.named_parameters() if p.requires_grad}
            )

        monkeypatch.setattr(trainer.prepared_optimizer, "step", keep)
        trainer._step(trainer.task.train.epoch(0, 0)[0], counts=True)
        gradients.append(held)
    assert largest_difference(*gradients) < 1e-6


def test_schedule_at_its_corners() -> None:
    assert cosine_with_warmup(0, 100, 0.1) == pytest.approx(0.1)  # never a step of size 0
    assert cosine_with_warmup(9, 100, 0.1) == pytest.approx(1.0)  # last step of the warm-up
    assert cosine_with_warmup(10, 100, 0.1) == pytest.approx(1.0)
    assert cosine_with_warmup(55, 100, 0.1) == pytest.approx(0.5)
    assert cosine_with_warmup(100, 100, 0.1) == pytest.approx(0.0)
    assert 0 < cosine_with_warmup(99, 100, 0.1) < 0.001
    assert cosine_with_warmup(0, 1, 0.1) == 1.0
    assert cosine_with_warmup(0, 100, 0.0) == 1.0
    values = [cosine_with_warmup(step, 1000, 0.1) for step in range(1001)]
    assert np.argmax(values) in (99, 100)
    assert np.all(np.diff(values[:100]) > 0)
    assert np.all(np.diff(values[100:]) < 0)


class ScriptedValidation(ToyBatches):
    """One like among ten dislikes; in evaluation e the like is scored above `script[e]` of the ten."""

    def __init__(self, task: Task, script: list[int]) -> None:
        super().__init__(task.validation.x, task.validation.y, np.arange(11))
        self.task, self.script = task, script
        self.seen: list[dict[str, torch.Tensor]] = []  # parameters at each evaluation

    def in_order(self):
        self.seen.append(snapshot(self.task.model))
        return [np.arange(11)]

    def load(self, key, device):
        return replace(super().load(key, device), x=None)


def scripted_task(script: list[int]) -> Task:
    task = toy_task()
    label = task.label.copy()
    label[:11] = [1] + [0] * 10
    task = replace(task, label=label)
    validation = ScriptedValidation(task, script)
    forward = task.model.forward

    def scripted(batch):
        if batch.x is not None:
            return forward(batch)
        rank = script[len(validation.seen) - 1]
        score = torch.tensor([rank - 0.5, *range(10)], dtype=torch.float32)
        return ToyOutput(torch.zeros(()), (score + 1) / 12)

    task.model.forward = scripted
    return replace(task, validation=validation)


def test_an_epoch_that_is_better_by_rounding_alone_is_no_better_one() -> None:
    progress = Progress(best_epoch=0, history=[{"auc": 0.666083916083916}])  # 381 / 572
    assert not progress.is_better(0.6660839160839161)
    assert progress.is_better(381.5 / 572)
    assert Progress().is_better(0.0), "the first epoch is the best so far"


@pytest.mark.parametrize(
    ("script", "epochs", "best"),
    [
        ([6, 8, 7, 7, 9], 4, 1),  # two epochs without a better one: stop before the 9
        ([6, 8, 7, 9, 1, 1, 10], 6, 3),  # the second of two chances
        ([6, 6, 6, 9], 3, 0),  # an equal AUC is no better one; the earlier epoch is kept
        ([1, 2, 3], 3, 2),  # max_epochs
        ([9, 1, 9], 3, 0),
    ],
)
def test_early_stopping_and_the_best_epoch(script, epochs, best, tmp_path) -> None:
    task = scripted_task(script)
    settings = replace(SETTINGS, max_epochs=len(script), patience=2, checkpoint_every_s=0.0)
    trainer = trainer_of(task, settings, folder=tmp_path)
    progress = trainer.train()
    assert len(progress.history) == epochs
    assert progress.best_epoch == best
    assert [entry["auc"] for entry in progress.history] == pytest.approx([s / 10 for s in script[:epochs]])
    assert largest_difference(snapshot(task.model), task.validation.seen[best]) == 0.0
    if best < epochs - 1:
        assert largest_difference(task.validation.seen[best], task.validation.seen[-1]) > 0.0

    # A run that is stopped after its last epoch ends the same when it is taken up again.
    task_again = scripted_task(script)
    again = trainer_of(task_again, settings, folder=tmp_path)
    again.train()
    assert task_again.validation.seen == []
    assert again.progress.history == progress.history
    assert largest_difference(snapshot(task_again.model), task.validation.seen[best]) == 0.0


def test_same_seed_same_result_other_seed_other() -> None:
    results = []
    for seed in (0, 0, 1):
        task = toy_task()
        trainer_of(task, seed=seed).train()
        results.append(snapshot(task.model))
    assert largest_difference(results[0], results[1]) == 0.0
    assert largest_difference(results[0], results[2]) > 1e-5


def test_frozen_parameters_stay_and_are_in_no_group() -> None:
    task = toy_task()
    trainer = trainer_of(task)
    trainer.train()
    assert torch.equal(task.model.frozen, torch.ones(3))
    groups = trainer.optimizer.param_groups
    assert [sum(p.numel() for p in group["params"]) for group in groups] == [24, 5]
    assert [group["weight_decay"] for group in groups] == [SETTINGS.weight_decay, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])


def test_counts_of_targets_tokens_and_steps() -> None:
    task = toy_task(micro=3)
    trainer = trainer_of(task, replace(SETTINGS, patience=9))
    progress = trainer.train()
    assert progress.step == 3 * 7  # ceil(50 / 8) in each of three epochs
    assert trainer.total_steps == 21
    assert (progress.tokens_raw, progress.tokens_padded) == (150, 200)  # one epoch, not three


def test_train_loss_is_the_mean_over_targets_not_over_batches() -> None:
    """50 targets in batches of 8: the last batch holds 2, and weighs 2."""
    task = toy_task()
    trainer = trainer_of(task, replace(SETTINGS, learning_rate=1e-12, max_epochs=1))
    with torch.no_grad():
        whole = task.model(task.train.load(task.train.rows, "cpu")).loss_sum / 50
    assert trainer.train().history[0]["train_loss"] == pytest.approx(float(whole), rel=1e-5)


def test_scores_come_in_row_order_and_give_the_metrics() -> None:
    task = toy_task()
    task = replace(task, test=ToyBatches(task.test.x, task.test.y, task.test.rows[::-1], 7, 2))
    trainer = trainer_of(task)
    row, score = trainer.scores(task.test)
    assert np.array_equal(row, np.sort(task.test.rows))
    with torch.no_grad():
        expected = task.model(task.test.load(row, "cpu")).score.numpy()
    np.testing.assert_allclose(score, expected, atol=1e-6)
    assert score.dtype == np.float32
    assert trainer.evaluate(task.test) == evaluate_scores(task.label[row], score, task.group[row])


class UnevenBatches(ToyBatches):
    """Another number of batches in every epoch, as atomic rows give it."""

    numbers = (3, 5, 1)

    def epoch(self, seed, epoch):
        return np.array_split(super().epoch(seed, epoch)[0], self.numbers[epoch])


def test_epochs_with_different_numbers_of_batches_train_every_batch() -> None:
    task = toy_task()
    train = UnevenBatches(task.train.x, task.train.y, task.train.rows, 50)
    trainer = trainer_of(replace(task, train=train), replace(SETTINGS, patience=9))
    progress = trainer.train()
    assert len(progress.history) == 3
    assert progress.step == trainer.total_steps == 9
    assert train.loads == 9


def test_settings_outside_their_range_are_refused() -> None:
    for wrong in (
        {"learning_rate": 0.0},
        {"max_epochs": 0},
        {"batch_targets": -1},
        {"eval_batch_targets": 0},
        {"clip_norm": 0.0},
        {"precision": "fp16"},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TrainingSettings(**wrong)
