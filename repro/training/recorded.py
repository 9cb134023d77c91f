"""Forward and backward passes as CUDA graphs: recorded once per shape of a batch, then replayed.

A replay costs the host one call instead of some thousand kernel launches. With SmolLM2 those take longer than
the kernels where a step has fewer than about 50,000 tokens.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from repro.training.task import Batch


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Tensors on a device inside of dataclasses, lists and tuples, in a fixed order."""
    if isinstance(value, Tensor):
        if value.device.type != "cpu":
            yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_of(each)


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """A copy of `value` with these in place of `tensors_of(value)`."""
    if isinstance(value, Tensor):
        return next(tensors) if value.device.type != "cpu" else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: with_tensors(getattr(value, f.name), tensors) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    if isinstance(value, list | tuple):
        return type(value)(with_tensors(each, tensors) for each in value)
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
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._recorded: dict[tuple[torch.Size, ...], _Recorded] = {}
        self._pool: Any = None  # shared: only one graph runs at a time, and nothing in it outlives its replay

    def record(self, batch: Batch) -> None:
        """Record the shapes of this batch; gradients are zero afterwards. No other thread may use the device.

        What a step needs is kept apart for all graphs together, so record the largest batch first. A graph
        whose replay gives another loss or gradient than the model itself is not kept.
        """
        gc.collect()  # graphs of an earlier run hold memory
        mine = [tensor.clone() for tensor in tensors_of(batch)]
        own = with_tensors(batch, iter(mine))
        weight = torch.ones((), device=mine[0].device)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # compilation and everything else that happens once
            for _ in range(2):
                (self.model(own).loss_sum * weight).backward()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss_sum = self.model(own).loss_sum
            (loss_sum * weight).backward()
        self._pool = self._pool or graph.pool()
        recorded = _Recorded(graph, mine, weight, loss_sum.detach())
        _zero_gradients(parameters)
        again = self.model(own).loss_sum
        (again * weight).backward()
        expected = [again.detach(), *(_gradient(p).clone() for p in parameters)]
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
            return None
        for own, tensor in zip(found.inputs, given, strict=True):
            own.copy_(tensor, non_blocking=True)
        found.weight.fill_(weight)
        found.graph.replay()
        return found.loss_sum
