"""Ctrl-C comes at the end of a block, not inside; and a training interrupted anywhere ends the same."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch
from toy_task import toy_task

from repro.training.checkpoint import CheckpointFolder, snapshot
from repro.training.interrupts import interrupts_held_back
from repro.training.loop import Trainer
from repro.training.settings import TrainingSettings

SETTINGS = TrainingSettings(learning_rate=1e-2, max_epochs=2, patience=9, checkpoint_every_s=1e6)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_block_is_finished_first() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_held_back():
        press_ctrl_c()
        press_ctrl_c()
        done.append("rest of the block")
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_ctrl_c_nothing_happens_and_errors_pass() -> None:
    with interrupts_held_back():
        pass
    with pytest.raises(ValueError, match="own"), interrupts_held_back():
        raise ValueError("own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_ctrl_c_stays_ignored_and_threads_are_left_alone() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_held_back():
            press_ctrl_c()
    finally:
        signal.signal(signal.SIGINT, previous)
    entered = []

    def in_thread() -> None:
        with interrupts_held_back():
            entered.append(True)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert entered


def interrupt_at_call(target, name: str, number: int, after: bool) -> None:
    """Presses Ctrl-C before or after the n-th call of a method of an object."""
    real, calls = getattr(target, name), []

    def wrapped(*arguments, **keywords):
        calls.append(None)
        if len(calls) == number and not after:
            press_ctrl_c()
        answer = real(*arguments, **keywords)
        if len(calls) == number and after:
            press_ctrl_c()
        return answer

    setattr(target, name, wrapped)


PLACES = {  # what is interrupted -> which object's method
    "building a batch": lambda t: (t.task.train, "load"),
    "the backward pass": lambda t: (t.accelerator, "backward"),
    "clipping": lambda t: (t.accelerator, "clip_grad_norm_"),
    "the optimiser": lambda t: (t.prepared_optimizer, "step"),
    "zeroing gradients": lambda t: (t.prepared_optimizer, "zero_grad"),
    "progress": lambda t: (t.show, "step"),
    "evaluation": lambda t: (t.task.validation, "load"),
    "a message": lambda t: (t.show, "event"),
    "a checkpoint": lambda t: (t.checkpoints, "save"),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_interrupted_anywhere_the_result_is_the_same(place, number, after, tmp_path) -> None:
    whole = toy_task()
    expected = Trainer(whole, SETTINGS, 0, None, "whole").train()
    interrupted = Trainer(toy_task(), SETTINGS, 0, CheckpointFolder(tmp_path, "toy"), "toy")
    interrupt_at_call(*PLACES[place](interrupted), number, after)
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    assert (tmp_path / "state.pt").exists()
    assert interrupted.progress.step < 2 * interrupted.total_steps

    task = toy_task()
    trainer = Trainer(task, SETTINGS, 0, CheckpointFolder(tmp_path, "toy"), "toy")
    progress = trainer.train()
    assert progress.step == expected.step
    assert (progress.tokens_raw, progress.tokens_padded) == (expected.tokens_raw, expected.tokens_padded)
    assert len(progress.history) == 2
    for entry, other in zip(progress.history, expected.history, strict=True):
        assert {**entry, "train_s": 0} == {**other, "train_s": 0}
    for name, value in snapshot(whole.model).items():
        assert torch.equal(snapshot(task.model)[name], value), name
    if place not in ("evaluation", "a message", "a checkpoint"):
        assert task.train.loads + interrupted.task.train.loads == 14, "no step is lost or done twice"
