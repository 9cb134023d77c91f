"""Forward and backward passes as CUDA graphs: recorded once per shape of a batch, then replayed.

A replay costs the host one call instead of some thousand kernel launches. With SmolLM2 those take longer than
the kernels where a step has fewer than about 50,000 tokens.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from repro.training.task import Batch

MOST_OF_DEVICE = 0.48  # of its memory


@cache
def side_stream() -> torch.cuda.Stream:
    """For what happens once before steps are captured: one per process, as cuBLAS keeps memory for each."""
    return torch.cuda.Stream()


def tensors_of(value: Any, host: bool = False) -> Iterator[Tensor]:
    """Tensors on a device, with `host` those in host memory too, in a fixed order.

    Dataclasses, lists and tuples are entered.
    """
    if isinstance(value, Tensor):
        if host or value.device.type != "cpu":
            yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name), host)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_of(each, host)


def with_tensors(value: Any, tensors: Iterator[Tensor], host: bool = False) -> Any:
    """A copy of `value` with these in place of `tensors_of(value, host)`."""
    if isinstance(value, Tensor):
        return next(tensors) if host or value.device.type != "cpu" else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: with_tensors(getattr(value, field.name), tensors, host)
            for field in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **changed)
    if isinstance(value, list | tuple):
        return type(value)(with_tensors(each, tensors, host) for each in value)
    return value


@dataclasses.dataclass(frozen=True)
class _Recorded:
    """A graph, what it reads and what it leaves; gradients are added to the parameters'."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    weight: Tensor
    loss_sum: Tensor


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _zero_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        _gradient(parameter).zero_()


def _same(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Equal but for rounding: loss and gradient as one vector, within 1 % (order of sums, bfloat16)."""
    apart = sum(
        (a.double() - b.double()).square().sum() for a, b in zip(found[1:], expected[1:], strict=True)
    )
    norm = sum(b.double().square().sum() for b in expected[1:])
    of_loss = (found[0] - expected[0]).abs() <= 0.01 * expected[0].abs()
    return bool(of_loss & (torch.as_tensor(apart) <= 1e-4 * torch.as_tensor(norm)))


class RecordedSteps:
    """Loss and gradients of batches whose shapes were recorded before.

    Parameters must stay where they are, and their gradients too: set them to zero, not to None.

    Args:
        model: called with a batch, returns a `ModelOutput`.

    Attributes:
        asked: shapes that were to be recorded. replayed, missed: steps with and without a graph.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._recorded: dict[tuple[torch.Size, ...], _Recorded] = {}
        self.asked = self.replayed = self.missed = 0
        self._pool: Any = None  # shared: only one graph runs at a time, and nothing in it outlives its replay

    @property
    def kept(self) -> int:
        """Shapes that have a graph, of those that `record` was `asked` for."""
        return len(self._recorded)

    def record(self, batch: Batch) -> None:
        """Record the shapes of this batch; gradients are zero afterwards. No other thread may use the device.

        What a step needs is kept apart for all graphs together, so record the largest batch first. A graph
        whose replay gives another loss or gradient than the model itself is not kept, and a step that needs
        half of the device is not recorded: a batch of another shape must find room beside the graphs.
        """
        gc.collect()  # graphs of an earlier run hold memory
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        self.asked += 1
        mine = [tensor.clone() for tensor in tensors_of(batch)]
        own = with_tensors(batch, iter(mine))
        weight = torch.ones((), device=mine[0].device)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        aside = side_stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # compilation and everything else that happens once
            for _ in range(2):
                _zero_gradients(parameters)
                loss_sum = self.model(own).loss_sum
                (loss_sum * weight).backward()
        torch.cuda.current_stream().wait_stream(aside)
        expected = [loss_sum.detach(), *(_gradient(p).clone() for p in parameters)]
        needed = torch.cuda.memory_reserved() - before
        _zero_gradients(parameters)
        if needed > MOST_OF_DEVICE * torch.cuda.get_device_properties(mine[0].device).total_memory:
            return
        del loss_sum
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss_sum = self.model(own).loss_sum
            (loss_sum * weight).backward()
        self._pool = self._pool or graph.pool()
        recorded = _Recorded(graph, mine, weight, loss_sum.detach())
        _zero_gradients(parameters)
        graph.replay()
        found = [recorded.loss_sum, *map(_gradient, parameters)]
        if _same(found, expected):
            self._recorded[tuple(tensor.shape for tensor in mine)] = recorded
        _zero_gradients(parameters)

    def run(self, batch: Batch, weight: float) -> Tensor | None:
        """Add the gradient of weight * loss. The loss, good until the next call; None: not recorded."""
        given = list(tensors_of(batch))
        found = self._recorded.get(tuple(tensor.shape for tensor in given))
        if found is None:
            self.missed += 1
            return None
        self.replayed += 1
        for own, tensor in zip(found.inputs, given, strict=True):
            own.copy_(tensor, non_blocking=True)
        found.weight.fill_(weight)
        found.graph.replay()
        return found.loss_sum
