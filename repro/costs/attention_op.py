"""Attention as one operator that carries how many (query, key) pairs it visits, for counting alone.

FLOP counters see shapes, and the shapes of a blocked or masked attention are those of its blocks, not of what
a query may see. Inside `counted_attention` the decoder's attention calls go to this operator instead (see
`backbones/attention_hook.py`): the same inputs, an output of the same shape, no values (meta device only).
Both counters have a handler for it; without one they raise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from repro.backbones.attention import ResetKeys
from repro.backbones.attention_hook import replaced


@torch.library.custom_op("repro::attention", mutates_args=(), device_types="cpu")
def _attention(
    query: Tensor, key: Tensor, value: Tensor, others: list[Tensor], pairs: int, products: int
) -> Tensor:
    raise NotImplementedError("repro::attention counts on the meta device; it computes nothing")


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, others: list[Tensor], pairs: int, products: int) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("repro::attention_backward", mutates_args=(), device_types="cpu")
def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, others: list[Tensor], pairs: int, products: int
) -> list[Tensor]:
    raise NotImplementedError("repro::attention_backward counts on the meta device; it computes nothing")


@_attention_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, others: list[Tensor], pairs: int, products: int
) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor in (query, key, value, *others)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, value, others, ctx.pairs, ctx.products = inputs
    ctx.save_for_backward(query, key, value, *others)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    query, key, value, *others = ctx.saved_tensors
    grads = torch.ops.repro.attention_backward(grad, query, key, value, others, ctx.pairs, ctx.products)
    return (*grads[:3], grads[3:], None, None)


_attention.register_autograd(_differentiate, setup_context=_save)

FORWARD, BACKWARD = torch.ops.repro.attention, torch.ops.repro.attention_backward


def forward_flops(pairs: int, products: int, heads: int, head_dim: int) -> int:
    """2 FLOPs (one multiply-add) per pair, head, head dimension and product.

    Plain attention has two products, q k and weight v. With the hidden-state reset (DTI section 4.1) there
    are four: the keys and values of the initial states too.
    """
    return 2 * pairs * products * heads * head_dim


def backward_flops(pairs: int, products: int, heads: int, head_dim: int) -> int:
    """Two products for each of the forward pass: a gradient for either factor.

    Fused kernels compute the scores once more in the backward pass; like every recomputation that an
    implementation chooses, that is not counted here (the usual convention of MFU).
    """
    return 2 * forward_flops(pairs, products, heads, head_dim)


@contextmanager
def counted_attention(**pairs: int) -> Iterator[None]:
    """Inside, attention is the operator above.

    Args:
        pairs: visible pairs in one layer by the name of the queries, as `attend` is told: `text`, `sums`, ...
    """

    def count(queries: str, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
        reset = next((each for each in rest if isinstance(each, ResetKeys)), None)
        others = [] if reset is None else [reset.key_NKD, reset.value_NKD]
        products = 2 if reset is None else 4
        return torch.ops.repro.attention(query, key, value, others, pairs[queries], products)

    with replaced(count):
        yield


class _Redirect(TorchFunctionMode):
    """PyTorch's own attention function, call by call, as the operator with the pairs of that call."""

    def __init__(self, pairs: Sequence[int]) -> None:
        super().__init__()
        self.pairs = itertools.cycle(pairs)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in args[:3])  # (B, H, L, D) -> (B L, H, D)
        out = torch.ops.repro.attention(query, key, value, [], next(self.pairs), 2)
        return out.unflatten(0, (len(args[0]), -1)).transpose(1, 2)


@contextmanager
def redirected_attention(pairs: Sequence[int]) -> Iterator[None]:
    """Inside, `F.scaled_dot_product_attention` is the operator above.

    Args:
        pairs: visible pairs of each call of one forward pass, in order.
    """
    with _Redirect(pairs):
        yield
