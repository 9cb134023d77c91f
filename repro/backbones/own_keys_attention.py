"""Attention over all places in which [SUM]s read keys of their own: un-rotated, with a bias for distance.

Two passes that write into the same tensors. The kernels of `interval_attention` run over all places first;
those of `sum_intervals` then put what the [SUM]s really attend to in place of their rows. Likewise backwards:
the first pass gives the [SUM]s' rows no weight and zeros for their queries, the second stores the queries'
gradients there and adds those of un-rotated keys and of values to what the first has stored. So [SUM]s cost
what their own kernels cost: nothing is gathered, put back or added up in passes of its own.

Shapes: N places, S [SUM]s (`interval_tables`), H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.backbones.interval_attention import LOG2_E, interval_attention, interval_attention_backward
from repro.backbones.layer_parts import rotate
from repro.backbones.sum_intervals import (
    launch,
    run_backward,
    sum_interval_attention,
    sum_interval_attention_backward,
    sums_grid,
)

NO_RESET = [0.0, 0.0, 0.0, 1.0]


def _keys(projected: list[Tensor], num_kv: int) -> list[Tensor]:
    """Un-rotated keys and values (N, K, D) of what was projected, or of the end of it."""
    value = projected[-1][:, -num_kv:]
    key = projected[-2] if len(projected) > 1 else projected[0][:, -2 * num_kv : -num_kv]
    return [key.to(value.dtype), value]


def _launch(
    turned: Tensor, projected: list[Tensor], num_kv: int, sum_tables: list[Tensor], num_prefix: int
) -> dict[str, Any]:
    """Arguments that the [SUM]s' kernels share. Their queries are scaled already, for scores in base 2."""
    keys, scale = _keys(projected, num_kv), 1 / LOG2_E
    return launch(turned[:, :-num_kv], keys, sum_tables, num_prefix, NO_RESET, scale, in_place=True)


@torch.library.custom_op("repro::own_keys_attention", mutates_args=())
def own_keys_attention(
    projected: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    sum_tables: list[Tensor],
    num_kv: int,
    num_prefix: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `interval_attention`, but of the [SUM]s' rotated queries over un-rotated keys, with the ALiBi bias.

    Args:
        projected, cos, sin, tables, num_kv, num_prefix, scale: as there.
        sum_tables: of `interval_tables.sum_tables`, on the device.

    Returns:
        What that operator returns; and (H, S) float32, log2 of the [SUM]s' softmax's denominator.
    """
    from repro.backbones import sum_kernel

    out, lse, turned = interval_attention(projected, cos, sin, tables, num_kv, num_prefix, scale)
    shared = _launch(turned, projected, num_kv, sum_tables, num_prefix)
    sum_lse = lse.new_empty(out.shape[1], len(sum_tables[0]))
    into = {"out_ptr": out, "lse_ptr": sum_lse, "places_lse_ptr": lse}
    sum_kernel.forward[sums_grid(shared)](**shared, **into)
    return out, lse, turned, sum_lse


@own_keys_attention.register_fake
def _(
    projected: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    sum_tables: list[Tensor],
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out, lse, turned = interval_attention(projected, cos, sin, tables, *rest)
    return out, lse, turned, lse.new_empty(out.shape[1], len(sum_tables[0]))


@torch.library.custom_op("repro::own_keys_attention_backward", mutates_args=())
def own_keys_attention_backward(
    projected: list[Tensor],
    turned: Tensor,
    out: Tensor,
    lse: Tensor,
    sum_lse: Tensor,
    d_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    sum_tables: list[Tensor],
    num_prefix: int,
    scale: float,
) -> list[Tensor]:
    """Gradients of what was projected, in one tensor or in three as that was; the same bits every time.

    Args:
        projected: keys and values of what was projected, or all, if that is one tensor.
        turned, out, lse, sum_lse: results of the forward pass. d_out: gradient of `out`.
    """
    num_heads, d_out, settings = out.shape[1], d_out.contiguous(), (num_prefix, scale)
    num_kv = turned.shape[1] - num_heads
    grads = interval_attention_backward(projected[-1], turned, out, lse, d_out, cos, sin, tables, *settings)
    shared, results = _launch(turned, projected, num_kv, sum_tables, num_prefix), (out, sum_lse, d_out)
    factors = scale, 1 / LOG2_E  # the queries that the keys' gradients are made of are scaled
    turn = cos.contiguous(), sin.contiguous()
    run_backward(shared, sum_tables, results, _parts(grads, num_heads, num_kv), factors, turn)
    return grads


def _parts(grads: list[Tensor], num_heads: int, num_kv: int) -> tuple[Tensor, ...]:
    """Gradients of queries, keys and values."""
    return tuple(grads) if len(grads) == 3 else grads[0].split([num_heads, num_kv, num_kv], dim=1)


@own_keys_attention_backward.register_fake
def _(
    projected: list[Tensor],
    turned: Tensor,
    out: Tensor,
    lse: Tensor,
    sum_lse: Tensor,
    d_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    sum_tables: list[Tensor],
    *settings: Any,
) -> list[Tensor]:
    return interval_attention_backward(projected[-1], turned, out, lse, d_out, cos, sin, tables, *settings)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    projected, cos, sin, tables, sum_tables, _, ctx.num_prefix, ctx.scale = inputs
    ctx.numbers = [len(projected[-2:]), len(tables), len(sum_tables)]
    ctx.save_for_backward(*output, cos, sin, *projected[-2:], *tables, *sum_tables)


def _backward(ctx: Any, d_out: Tensor, *_: Tensor) -> tuple[Any, ...]:
    out, lse, turned, sum_lse, cos, sin, *rest = ctx.saved_tensors
    keys, looked_up, of_sums = ctx.numbers
    projected, tables, sum_tables = rest[:keys], rest[keys : keys + looked_up], rest[keys + looked_up :]
    grads = own_keys_attention_backward(
        projected, turned, out, lse, sum_lse, d_out, cos, sin, tables, sum_tables, ctx.num_prefix, ctx.scale
    )
    return grads, None, None, [None] * looked_up, [None] * of_sums, None, None, None


own_keys_attention.register_autograd(_backward, setup_context=_keep)


@own_keys_attention.register_kernel("cpu")
def _(
    projected: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    sum_tables: list[Tensor],
    num_kv: int,
    num_prefix: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out, lse, turned = interval_attention(projected, cos, sin, tables, num_kv, num_prefix, scale)
    own, settings = sum_tables[2], (num_prefix, NO_RESET, scale)
    query, keys = turned[own, :-num_kv], _keys(projected, num_kv)
    of_sums, sum_lse = sum_interval_attention(query, keys, sum_tables, *settings)
    return out.index_copy(0, own.long(), of_sums), lse, turned, sum_lse


@own_keys_attention_backward.register_kernel("cpu")
def _(
    projected: list[Tensor],
    turned: Tensor,
    out: Tensor,
    lse: Tensor,
    sum_lse: Tensor,
    d_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    sum_tables: list[Tensor],
    num_prefix: int,
    scale: float,
) -> list[Tensor]:
    num_heads, own = out.shape[1], sum_tables[2].long()
    num_kv = turned.shape[1] - num_heads
    of_text, keys = d_out.index_fill(0, own, 0.0), _keys(projected, num_kv)
    grads = interval_attention_backward(
        projected[-1], turned, out, lse, of_text, cos, sin, tables, num_prefix, scale
    )
    dq, dk, dv = sum_interval_attention_backward(
        turned[own, :num_heads], keys, out[own], sum_lse, d_out[own], sum_tables, num_prefix, NO_RESET, scale
    )
    into = _parts(grads, num_heads, num_kv)
    into[0][own] = rotate(dq, cos[own], -sin[own]).to(dq.dtype)
    into[1].add_(dk)
    into[2].add_(dv)
    return grads
