"""Batches built ahead by a thread are the batches built on demand, in order, errors included."""

from __future__ import annotations

import threading

import pytest
import torch
from toy_task import ToyBatches, toy_task

from repro.training.loop import DivergedError, Trainer
from repro.training.prefetch import loaded
from repro.training.settings import TrainingSettings
from repro.training.task import CompiledBatches

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(learning_rate=1e-2, max_epochs=2, patience=9, checkpoint_every_s=1e6)


class Watched:
    """Batches that note which were asked for, and in which thread."""

    def __init__(self, fails_at: int = -1) -> None:
        self.asked: list[int] = []
        self.threads: set[int] = set()
        self.fails_at = fails_at

    def load(self, key, device):
        self.asked.append(key)
        self.threads.add(threading.get_ident())
        if key == self.fails_at:
            raise ValueError(f"batch {key}")
        return key * 10


@pytest.mark.parametrize("ahead", [0, 1, 2, 50])
def test_every_batch_in_order(ahead) -> None:
    batches = Watched()
    assert list(loaded(batches, range(7), CPU, ahead)) == [10 * key for key in range(7)]
    assert batches.asked == list(range(7))
    assert (threading.get_ident() in batches.threads) == (ahead == 0)


def test_on_a_cpu_nothing_is_built_before_it_is_asked_for() -> None:
    batches = Watched()
    stream = loaded(batches, range(7), CPU)
    assert batches.asked == []
    assert next(stream) == 0
    assert batches.asked == [0]


def test_no_more_is_built_than_was_ordered_ahead() -> None:
    batches = Watched()
    stream = loaded(batches, range(100), CPU, ahead=2)
    next(stream)
    stream.close()
    assert len(batches.asked) <= 3


def test_an_error_in_the_thread_comes_out_at_its_batch() -> None:
    stream = loaded(Watched(fails_at=3), range(7), CPU, ahead=2)
    assert [next(stream) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(ValueError, match="batch 3"):
        next(stream)


def device_like(task) -> Trainer:
    """A trainer that treats the CPU like a GPU: losses are looked at once per stretch of steps."""
    trainer = Trainer(task, SETTINGS, 0, None, "toy")
    trainer._waits = False
    return trainer


def test_losses_looked_at_late_are_the_same_losses() -> None:
    plain, late = Trainer(toy_task(micro=3), SETTINGS, 0, None, "toy"), device_like(toy_task(micro=3))
    histories = [trainer.train().history for trainer in (plain, late)]
    for mine, other in zip(*histories, strict=True):
        assert {**mine, "train_s": 0} == {**other, "train_s": 0}
    assert late.progress.tokens_raw == plain.progress.tokens_raw == 150
    assert late.progress.tokens_padded == plain.progress.tokens_padded == 200


def test_a_stretch_holds_many_steps_and_a_divergence_ends_it_before_anything_is_scored() -> None:
    task = toy_task()
    forward, calls = task.model.forward, []

    def wrapped(batch):
        output = forward(batch)
        calls.append(task.model.training)
        if len(calls) == 4:
            return type(output)(output.loss_sum * float("nan"), output.score)
        return output

    task.model.forward = wrapped
    trainer = device_like(task)
    with pytest.raises(DivergedError, match="at step 3"):
        trainer.train()
    assert len(calls) == 7 and all(calls), "stretches of 1, 2 and 4 steps; nothing was evaluated"


class CompiledToys(ToyBatches):
    """Two padded lengths."""

    def warm_up(self, device):
        return [self.rows[:8], self.rows[:2]]


def test_warming_up_trains_nothing_draws_nothing_and_has_a_clock() -> None:
    results = []
    for kind in (ToyBatches, CompiledToys):
        task = toy_task()
        train = kind(task.train.x, task.train.y, task.train.rows)
        assert isinstance(train, CompiledBatches) == (kind is CompiledToys)
        trainer = Trainer(type(task)(**{**task.__dict__, "train": train}), SETTINGS, 0, None, "toy")
        torch.manual_seed(5)
        history = trainer.train().history
        results.append(([entry["train_loss"] for entry in history], torch.rand(1).item()))
        assert ("compile" in trainer.clocks.seconds) == (kind is CompiledToys)
        assert train.loads == 14 + 2 * (kind is CompiledToys)
    assert results[0] == results[1]


@pytest.mark.parametrize("evaluation", [True, False])
def test_what_scores_validation_and_test_is_warmed_up_too(evaluation) -> None:
    task = toy_task()
    train, validation, test = (
        CompiledToys(split.x, split.y, split.rows) for split in (task.train, task.validation, task.test)
    )
    toys = {"train": train, "validation": validation, "test": test}
    Trainer(type(task)(**{**task.__dict__, **toys}), SETTINGS, 0, None, "toy").warm_up(evaluation)
    assert [split.loads for split in (train, validation, test)] == ([2, 2, 2] if evaluation else [2, 0, 0])
