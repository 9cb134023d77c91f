"""A peer's layer computing with our layer's tensors: gradients and statistics then land under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def call_with(peer: nn.Module, ours: nn.Module, names: Mapping[str, str], *inputs: Any) -> Tensor:
    """peer(*inputs) with the parameters and buffers of our layer.

    Args:
        peer: counters of batches are its own; every other tensor comes from `ours`.
        names: beginnings of our names -> of the peer's, whole parts of a dotted name; "" fits all others.
    """
    own = {**dict(ours.named_parameters()), **dict(ours.named_buffers())}
    return call_with_tensors(peer, ours.training, {_renamed(name, names): own[name] for name in own}, *inputs)


def call_with_tensors(peer: nn.Module, training: bool, tensors: dict[str, Tensor], *inputs: Any) -> Tensor:
    """peer(*inputs) with `tensors` in place of all of its own but its counters of batches."""
    expected = {name for name in peer.state_dict() if not name.endswith("num_batches_tracked")}
    assert set(tensors) == expected, f"{sorted(set(tensors) ^ expected)}"
    return functional_call(peer.train(training), tensors, inputs)


def _renamed(name: str, names: Mapping[str, str]) -> str:
    parts = name.split(".")
    for length in range(len(parts), -1, -1):
        start = ".".join(parts[:length])
        if start in names:
            return ".".join([*filter(None, [names[start]]), *parts[length:]])
    raise AssertionError(f"no peer's name for {name}")
