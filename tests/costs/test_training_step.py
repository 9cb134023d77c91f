"""The step that is timed: the training loop's own arithmetic, static buffers, and what it allocates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repro.costs.training_step import TrainingStep, peak_bytes
from repro.training.loop import Trainer
from repro.training.settings import TrainingSettings
from repro.training.task import ModelOutput, Task

SETTINGS = TrainingSettings(learning_rate=0.05, clip_norm=0.5, warmup_share=0.25)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Inner:
    label: Tensor


@dataclass(frozen=True)
class FewBatch:
    """Four targets of six numbers; the labels stand one level deeper."""

    x: Tensor
    inner: Inner
    target_row: np.ndarray
    num_targets: int = 4
    num_tokens: int = 4
    num_padded_tokens: int = 4


class FewBatches:
    num_targets = 32

    def epoch(self, seed: int, epoch: int) -> list[int]:
        return list(range(8))

    def count(self, key: int) -> int:
        return 4

    def split(self, key: int) -> list[int]:
        return [key]

    def load(self, key: int, device: torch.device | str) -> FewBatch:
        generator = torch.Generator().manual_seed(key)
        x = torch.randn(4, 6, generator=generator)
        label = (x.sum(1) > 0).float()
        return FewBatch(x.to(device), Inner(label.to(device)), np.arange(4) + 4 * key)


class Probe(nn.Module):
    """Two layers and a vector; weights are the same every time."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(6, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, batch: FewBatch) -> ModelOutput:
        logit = self.layers(batch.x)[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logit, batch.inner.label, reduction="sum")
        return ModelOutput(loss, logit.sigmoid())


def few_batches() -> list[FewBatch]:
    return [FewBatches().load(key, "cpu") for key in range(8)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_takes_the_steps_of_the_training_loop(precision) -> None:
    settings = replace(SETTINGS, precision=precision)
    theirs, ours = Probe(), Probe()
    batches = FewBatches()
    task = Task(theirs, batches, batches, batches, np.zeros(32), np.zeros(32, dtype=np.int64))
    trainer = Trainer(task, settings, 0, None, "probe")
    trainer.train_on(list(range(8)))
    ours.to(trainer.device)  # a GPU, where there is one
    on_device = [batches.load(key, trainer.device) for key in range(8)]
    step = TrainingStep(ours, on_device[0], settings, trainer.total_steps, trainer.device)
    for batch in on_device:
        step(batch)
    start = Probe().state_dict()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
        assert not torch.equal(start[name], value.cpu()), "nothing was learned"


def test_a_batch_of_another_shape_is_refused() -> None:
    odd = FewBatch(torch.zeros(3, 6), Inner(torch.zeros(3)), np.arange(3))
    step = TrainingStep(Probe(), few_batches()[0], SETTINGS, 4, CPU)
    with pytest.raises(AssertionError, match="one shape"):
        step(odd)


def test_peak_is_what_can_be_counted_by_hand() -> None:
    """A wide probe is fullest when the backward pass has just gone through its second layer."""
    width = 65_536
    step = TrainingStep(Probe(width), few_batches()[0], SETTINGS, 8, CPU)
    step.warm_up()
    weights = 4 * sum(parameter.numel() for parameter in step.model.parameters())
    hidden, second_layer = 4 * 4 * width, 4 * width
    # The weights and AdamW's two moments; x W, silu(x W) and its gradient; the second layer's gradient.
    expected = 3 * weights + 3 * hidden + second_layer
    assert expected <= peak_bytes(step) <= expected + 10_000
    assert 3 * weights <= step.standing_bytes() <= 3 * weights + 10_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_captured_step_is_the_same_step() -> None:
    device = torch.device("cuda")
    results = []
    for captured in (False, True):
        batches = [FewBatches().load(key, device) for key in range(8)]
        step = TrainingStep(Probe().to(device), batches[0], SETTINGS, 32, device)
        step.warm_up()
        if captured:
            step.capture()
        for batch in batches:
            step(batch)
        torch.cuda.synchronize()
        results.append([value.clone() for value in step.model.state_dict().values()] + [step.loss.clone()])
    for plain, graph in zip(*results, strict=True):
        torch.testing.assert_close(plain, graph)
