"""Non-finite losses, gradients and scores: the training stops, and the optimiser has not stepped."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from toy_task import ToyOutput, toy_task

from repro.training.checkpoint import snapshot
from repro.training.loop import DivergedError, Trainer
from repro.training.settings import TrainingSettings

SETTINGS = TrainingSettings(learning_rate=1e-2, max_epochs=2, patience=9)


def trainer_that_fails_at(step: int, change) -> Trainer:
    """`change(output)` replaces what the model returns in one training step."""
    task = toy_task()
    forward, calls = task.model.forward, []

    def wrapped(batch):
        output = forward(batch)
        if task.model.training:
            calls.append(None)
            return change(output) if len(calls) == step else output
        return output

    task.model.forward = wrapped
    return Trainer(task, SETTINGS, 0, None, "toy")


class BadGradient(torch.autograd.Function):
    """The identity, with infinity as its gradient."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


@pytest.mark.parametrize(
    "change",
    [
        lambda output: ToyOutput(output.loss_sum * math.nan, output.score),
        lambda output: ToyOutput(output.loss_sum * math.inf, output.score),
        lambda output: ToyOutput(BadGradient.apply(output.loss_sum), output.score),
    ],
    ids=["nan loss", "infinite loss", "infinite gradient"],
)
@pytest.mark.parametrize("step", [1, 4])
def test_the_optimiser_does_not_step_on_it(change, step) -> None:
    good = trainer_that_fails_at(1000, None)
    for key in good.task.train.epoch(0, 0)[: step - 1]:
        good._step(key, counts=True)
    trainer = trainer_that_fails_at(step, change)
    with pytest.raises(DivergedError, match=f"at step {step - 1}"):
        trainer.train()
    assert trainer.progress.step == step - 1
    expected, found = snapshot(good.task.model), snapshot(trainer.task.model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_scores_that_are_not_finite_are_a_divergence() -> None:
    """The last step can break the parameters after a loss that was finite."""
    task = toy_task()
    trainer = Trainer(task, replace(SETTINGS, max_epochs=1), 0, None, "toy")
    forward = task.model.forward

    def wrapped(batch):
        output = forward(batch)
        return output if task.model.training else ToyOutput(output.loss_sum, output.score * math.nan)

    task.model.forward = wrapped
    with pytest.raises(DivergedError, match="scores"):
        trainer.train()
    assert trainer.progress.history == []


def test_a_learning_rate_that_explodes_ends_as_divergence() -> None:
    task = toy_task()
    forward = task.model.forward
    task.model.forward = lambda batch: replace(forward(batch), loss_sum=forward(batch).loss_sum.exp())
    trainer = Trainer(task, replace(SETTINGS, learning_rate=1e4), 0, None, "toy")
    with pytest.raises(DivergedError):
        trainer.train()
    assert all(torch.isfinite(value).all() for value in snapshot(task.model).values())
