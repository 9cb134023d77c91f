"""Steps recorded as CUDA graphs: what of a batch is copied; on a GPU, the same losses and gradients."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from repro.training.recorded import RecordedSteps, side_stream, tensors_of, with_tensors
from repro.training.task import ModelOutput


@dataclass(frozen=True)
class Part:
    tables: list[Tensor]
    number: int


@dataclass(frozen=True)
class Batch:
    part: Part
    values: Tensor
    on_the_host: Tensor
    missing: Tensor | None
    num_padded_tokens: int = 4


def batch(device: str, fill: float = 1.0, length: int = 4) -> Batch:
    tables = [torch.full((length,), fill, device=device), torch.full((2,), 2 * fill, device=device)]
    return Batch(Part(tables, 7), torch.full((length, 3), fill, device=device), torch.zeros(2), None)


def test_tensors_on_the_device_are_found_and_put_back_in_order() -> None:
    given = batch("meta")
    found = list(tensors_of(given))
    assert [tuple(each.shape) for each in found] == [(4,), (2,), (4, 3)]
    others = [torch.empty(each.shape, device="meta") for each in found]
    copied = with_tensors(given, iter(others))
    assert all(a is b for a, b in zip(tensors_of(copied), others, strict=True))
    assert copied.on_the_host is given.on_the_host and copied.part.number == 7 and copied.missing is None
    assert given.part.tables[0] is found[0], "the batch itself is as it was"


def test_tensors_in_host_memory_are_found_where_they_are_asked_for() -> None:
    given = batch("cpu")
    assert not list(tensors_of(given))
    found = list(tensors_of(given, host=True))
    assert [tuple(each.shape) for each in found] == [(4,), (2,), (4, 3), (2,)]
    copied = with_tensors(given, (each + 1 for each in found), host=True)
    assert torch.equal(copied.on_the_host, torch.ones(2)) and torch.equal(copied.part.tables[1], found[1] + 1)
    assert not given.on_the_host.any(), "the batch itself is as it was"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.wrong = False

    def forward(self, given: Batch) -> ModelOutput:
        out = (self.layer(given.values)[:, 0] * given.part.tables[0]).square().sum()
        return ModelOutput(
            out * (2.0 if self.wrong and torch.cuda.is_current_stream_capturing() else 1.0), out
        )


def test_a_process_has_one_side_stream(monkeypatch) -> None:
    """Memory that cuBLAS keeps for a stream would grow with every model that is recorded."""
    made: list[object] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda: made.append(object()) or made[-1])
    side_stream.cache_clear()
    assert side_stream() is side_stream() and len(made) == 1
    side_stream.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replays_give_the_models_own_losses_and_gradients() -> None:
    model = Model().cuda()
    steps = RecordedSteps(model)
    steps.record(batch("cuda"))
    for fill in (1.0, 3.0):
        for parameter in model.parameters():
            parameter.grad.zero_()
        loss = steps.run(batch("cuda", fill), 0.5)
        ours = [float(loss), *(parameter.grad.clone() for parameter in model.parameters())]
        expected = model(batch("cuda", fill)).loss_sum
        grads = torch.autograd.grad(0.5 * expected, list(model.parameters()))
        assert ours[0] == pytest.approx(float(expected))
        assert all(torch.allclose(a, b) for a, b in zip(ours[1:], grads, strict=True))
    assert steps.run(batch("cuda", length=5), 1.0) is None, "another shape"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recording_makes_no_stream_of_its_own(monkeypatch) -> None:
    steps = RecordedSteps(Model().cuda())
    steps.record(batch("cuda"))  # torch makes one for captures, once
    real = torch.cuda.Stream

    def stream(*arguments, **named):
        assert "stream_id" in named, "another stream"  # with it, it is one that is there: current_stream()
        return real(*arguments, **named)

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    steps.record(batch("cuda", length=5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_that_computes_something_else_is_not_kept() -> None:
    model = Model().cuda()
    model.wrong = True
    steps = RecordedSteps(model)
    steps.record(batch("cuda"))
    assert steps.run(batch("cuda"), 1.0) is None
