"""Clocks do not overlap, and a checkpoint holds what they have counted."""

from __future__ import annotations

import time

import pytest
import torch
from toy_task import toy_task

from repro.training import clocks as clocks_module
from repro.training.checkpoint import STATE_FILE, CheckpointFolder
from repro.training.clocks import Clocks
from repro.training.loop import Trainer
from repro.training.settings import TrainingSettings

SETTINGS = TrainingSettings(learning_rate=1e-2, max_epochs=2, patience=9, checkpoint_every_s=0.0)


@pytest.fixture
def fake_time(monkeypatch):
    """A clock that only `advance` moves."""
    now = [100.0]
    monkeypatch.setattr(clocks_module.time, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_an_inner_clock_is_taken_off_the_outer_one(fake_time) -> None:
    clocks = Clocks(torch.device("cpu"), {"train": 5.0})
    with clocks.run("train"):
        fake_time(3.0)
        with clocks.run("data", inside="train"):
            fake_time(1.0)
        fake_time(0.5)
    with pytest.raises(ValueError), clocks.run("eval"):
        fake_time(2.0)
        raise ValueError
    assert clocks.seconds == {"train": 5.0 + 3.5, "data": 1.0, "eval": 2.0}
    assert clocks["compile"] == 0.0


def slow(function, advance, seconds: float):
    def wrapped(*arguments, **keywords):
        advance(seconds)
        return function(*arguments, **keywords)

    return wrapped


def test_every_second_is_on_the_clock_of_its_work(fake_time, tmp_path) -> None:
    """14 steps: 2 s in the model, 1 s in data; 2 evaluations of 5 s; 100 s per checkpoint, on no clock."""
    task = toy_task()
    trainer = Trainer(task, SETTINGS, 0, CheckpointFolder(tmp_path, "toy"), "toy")
    task.train.load = slow(task.train.load, fake_time, 1.0)
    trainer.accelerator.backward = slow(trainer.accelerator.backward, fake_time, 2.0)
    task.validation.in_order = slow(task.validation.in_order, fake_time, 5.0)
    trainer.checkpoints.save = slow(trainer.checkpoints.save, fake_time, 100.0)
    progress = trainer.train()
    assert trainer.clocks.seconds == pytest.approx({"train": 28.0, "data": 14.0, "eval": 10.0})
    assert [entry["train_s"] for entry in progress.history] == pytest.approx([14.0, 28.0])


def test_a_checkpoint_inside_an_epoch_holds_the_seconds_so_far(fake_time, tmp_path) -> None:
    """A run killed between checkpoints loses the seconds after the last one, and no others."""
    seen = []
    for kill_at in (5, 1000):
        task = toy_task()
        trainer = Trainer(task, SETTINGS, 0, CheckpointFolder(tmp_path, "toy"), "toy")
        task.train.load = slow(task.train.load, fake_time, 1.0)
        trainer.accelerator.backward = slow(trainer.accelerator.backward, fake_time, 2.0)
        if kill_at < 1000:
            monkey = trainer._step

            def step(*arguments, trainer=trainer, monkey=monkey, **keywords):
                if trainer.progress.step == 5:
                    raise MemoryError  # as abrupt as a kill: nothing is saved
                monkey(*arguments, **keywords)

            trainer._step = step
            with pytest.raises(MemoryError):
                trainer.train()
            state = CheckpointFolder(tmp_path, "toy").load(STATE_FILE)
            seen.append(state["progress"]["seconds"])
        else:
            trainer.train()
            seen.append(trainer.clocks.seconds)
    assert seen[0] == pytest.approx({"train": 10.0, "data": 5.0})
    assert (seen[1]["train"], seen[1]["data"]) == pytest.approx((28.0, 14.0))


def test_clocks_add_up_to_less_than_the_wall(tmp_path) -> None:
    task = toy_task()
    begin = time.perf_counter()
    trainer = Trainer(task, SETTINGS, 0, CheckpointFolder(tmp_path, "toy"), "toy")
    trainer.train()
    wall = time.perf_counter() - begin
    assert all(seconds > 0 for seconds in trainer.clocks.seconds.values())
    assert sum(trainer.clocks.seconds.values()) <= wall
