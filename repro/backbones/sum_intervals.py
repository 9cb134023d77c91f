"""The [SUM]s' attention over keys of their own, as one operator; kernels on CUDA.

Used where a [SUM] reads un-rotated keys in every layer and the instruction is hidden, as in the paper's
prompts. Gathering each block's keys, as elsewhere, would write more than the keys themselves in every layer.

Shapes: S [SUM]s, N places (`interval_tables`), H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.backbones.interval_attention import LOG2_E

SUMS, KEYS = 32, 64  # of a tile
WARPS, STAGES = 4, 2


def _launch(query: Tensor, key: Tensor, value: Tensor, tables: list[Tensor], scale: float) -> dict[str, Any]:
    """Arguments that all kernels share."""
    (num_sums, num_heads, head_dim), (num_places, num_kv, _) = query.shape, key.shape
    for tensor in (query, key, value):
        assert tensor.stride()[1:] == (head_dim, 1), "heads side by side"
    names = ("lo", "hi", "own", "slope", "position", "seen_as", "key_position")
    return {
        **{"q_ptr": query, "k_ptr": key, "v_ptr": value},
        **{f"{name}_ptr": table for name, table in zip(names, tables[:7], strict=True)},
        **{"q_stride": query.stride(0), "k_stride": key.stride(0), "v_stride": value.stride(0)},
        **{"num_sums": num_sums, "num_places": num_places, "num_heads": num_heads, "scale": scale * LOG2_E},
        **{"G": num_heads // num_kv, "D": head_dim, "BM": SUMS, "BN": KEYS},
        **{"num_warps": WARPS, "num_stages": STAGES},
    }


@torch.library.custom_op("repro::sum_interval_attention", mutates_args=())
def sum_interval_attention(
    query: Tensor, key: Tensor, value: Tensor, tables: list[Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """Softmax attention of the [SUM]s.

    Args:
        query: (S, H, D). key, value: (N, K, D). Heads side by side, rows at any stride.
        tables: of `interval_tables.sum_tables`, on the device.
        scale: on the scores, before the bias.

    Returns:
        (S, H, D) in the values' dtype, and (H, S) float32, log2 of each softmax's denominator.
    """
    from repro.backbones import sum_kernel

    out, lse = _outputs(query, value)
    num_sums, num_heads, _ = out.shape
    sum_kernel.forward[(num_heads, -(-num_sums // SUMS))](
        **_launch(query, key, value, tables, scale), out_ptr=out, lse_ptr=lse
    )
    return out, lse


def _outputs(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    num_sums, num_heads, _ = query.shape
    return value.new_empty(query.shape), value.new_empty(num_heads, num_sums, dtype=torch.float32)


@sum_interval_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _outputs(query, value)


@torch.library.custom_op("repro::sum_interval_attention_backward", mutates_args=())
def sum_interval_attention_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    tables: list[Tensor],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; the same bits every time."""
    from repro.backbones import sum_kernel

    grads, d_out, delta = _gradients(query, key, value), d_out.contiguous(), torch.empty_like(lse)
    dq, dk, dv = grads
    num_sums, num_heads, _ = query.shape
    num_places, num_kv, _ = key.shape
    shared = _launch(query, key, value, tables, scale) | {
        "d_out_ptr": d_out,
        "lse_ptr": lse,
        "delta_ptr": delta,
    }
    shared["factor"] = scale
    sum_kernel.backward_sums[(num_heads, -(-num_sums // SUMS))](**shared, out_ptr=out, dq_ptr=dq)
    first, stop = tables[7:]
    sum_kernel.backward_keys[(num_kv, -(-num_places // KEYS))](
        **shared, dk_ptr=dk, dv_ptr=dv, first_ptr=first, stop_ptr=stop
    )
    return grads


def _gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


@sum_interval_attention_backward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(query, key, value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, tables, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output, *tables)


def _backward(ctx: Any, d_out: Tensor, *_: Tensor) -> tuple[Any, ...]:
    query, key, value, out, lse, *tables = ctx.saved_tensors
    grads = sum_interval_attention_backward(query, key, value, out, lse, d_out, tables, ctx.scale)
    return *grads, [None] * len(tables), None


sum_interval_attention.register_autograd(_backward, setup_context=_keep)


def _dense_scores(query: Tensor, key: Tensor, tables: list[Tensor], scale: float) -> Tensor:
    """(H, S, N) scores with the bias, lowest where a key is not seen; `key` has H heads."""
    lo, hi, own, slope, position, seen_as, key_position = (table[:, None] for table in tables[:7])
    place = torch.arange(len(key), device=key.device)
    seen = (lo <= seen_as.T) & (hi > seen_as.T) | (place == own)
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale + slope * (key_position.T - position)
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min)


@sum_interval_attention.register_kernel("cpu")
def _(query: Tensor, key: Tensor, value: Tensor, tables: list[Tensor], scale: float) -> tuple[Tensor, Tensor]:
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    scores = _dense_scores(query, key, tables, scale)
    out = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)
    return out.contiguous(), (scores.logsumexp(-1) * LOG2_E).float()


@sum_interval_attention_backward.register_kernel("cpu")
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    tables: list[Tensor],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    num_kv, group = key.shape[1], query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    weights = _dense_scores(query, key, tables, scale).softmax(-1)
    inner = torch.einsum("qhd,khd->hqk", d_out, value) - (out * d_out).sum(-1).T[..., None]
    d_scores = weights * inner * scale
    dq = torch.einsum("hqk,khd->qhd", d_scores, key)
    dk, dv = torch.einsum("hqk,qhd->khd", d_scores, query), torch.einsum("hqk,qhd->khd", weights, d_out)
    dk, dv = (x.unflatten(1, (num_kv, group)).sum(2) for x in (dk, dv))
    return dq.contiguous(), dk, dv
