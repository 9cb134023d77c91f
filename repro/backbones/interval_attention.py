"""Attention over intervals of keys as one operator that torch.compile and autograd know; kernels on CUDA.

Shapes: N places (`interval_tables`), H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from repro.backbones.interval_tables import CHUNK

LOG2_E = math.log2(math.e)
SPLITS = 8  # parts of the queries that see a copy of the instruction, in the pass for its gradient


def tiles(head_dim: int) -> dict[str, tuple[int, int, int, int]]:
    """(rows of queries, rows of keys, warps, stages) per kernel: the fastest of those tried, on an H100."""
    if head_dim <= 64:
        return {"forward": (64, 32, 4, 2), "queries": (64, 32, 4, 2), "keys": (128, 64, 4, 2)}
    return {"forward": (64, 32, 4, 3), "queries": (64, 32, 4, 2), "keys": (128, 32, 4, 2)}


def _launch(
    query: Tensor, key: Tensor, value: Tensor, tables: list[Tensor], num_prefix: int
) -> dict[str, Any]:
    """Arguments that all kernels share."""
    assert all(x.stride(2) == 1 and x.stride(1) == x.shape[2] for x in (query, key, value)), (
        "heads side by side"
    )
    assert query.shape[2] in (16, 32, 64, 128, 256), f"head size {query.shape[2]}"
    lo, hi, copy, seen_as, slope, position = tables[:6]
    return {
        **{"q_ptr": query, "k_ptr": key, "v_ptr": value},
        **{"lo_ptr": lo, "hi_ptr": hi, "copy_ptr": copy, "seen_as_ptr": seen_as, "slope_ptr": slope},
        **{"position_ptr": position, "BIAS": len(slope) > 0},
        **{"q_stride": query.stride(0), "k_stride": key.stride(0), "v_stride": value.stride(0)},
        **{"num_places": len(query), "num_heads": query.shape[1], "G": query.shape[1] // key.shape[1]},
        **{"D": query.shape[2], "P": num_prefix},
    }


def _width(num_prefix: int) -> int:
    """Rows of the tile that holds the instruction: what a product of matrices takes."""
    return max(16, 1 << (num_prefix - 1).bit_length()) if num_prefix else 16


@torch.library.custom_op("repro::interval_attention", mutates_args=())
def interval_attention(
    query: Tensor, key: Tensor, value: Tensor, tables: list[Tensor], num_prefix: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Softmax attention of all N queries.

    Args:
        query: (N, H, D). key, value: (N, K, D). Heads side by side, tokens at any stride.
        tables: of `IntervalTables.tables`, on the device.
        num_prefix: P, tokens of the instruction; 0 where it is hidden.
        scale: on the scores, before the softmax.

    Returns:
        (N, H, D) in the queries' dtype, and (H, N) float32, log2 of each softmax's denominator.
    """
    from repro.backbones import interval_kernel

    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    lse = torch.empty(query.shape[1], len(query), dtype=torch.float32, device=query.device)
    rows, columns, warps, stages = tiles(query.shape[2])["forward"]
    assert rows <= CHUNK // 8, "no tile stands across three copies of the instruction"
    interval_kernel.forward[(query.shape[1], -(-len(query) // rows))](
        **_launch(query, key, value, tables, num_prefix),
        **{"out_ptr": out, "lse_ptr": lse, "scale": scale * LOG2_E},
        **{"BM": rows, "BN": columns, "num_warps": warps, "num_stages": stages},
    )
    return out, lse


@interval_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, tables: list[Tensor], num_prefix: int, scale: float) -> Any:
    lse = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    return query.new_empty(query.shape), lse


@torch.library.custom_op("repro::interval_attention_backward", mutates_args=())
def interval_attention_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    tables: list[Tensor],
    num_prefix: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; the same bits every time."""
    from repro.backbones import interval_kernel

    d_out, (num_places, num_heads, head_dim) = d_out.contiguous(), query.shape
    num_kv, sizes = key.shape[1], tiles(head_dim)
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value))
    delta = torch.empty_like(lse)
    shared = _launch(query, key, value, tables, num_prefix)
    shared |= {"d_out_ptr": d_out, "lse_ptr": lse, "delta_ptr": delta, "scale": scale * LOG2_E}
    rows, columns, warps, stages = sizes["queries"]
    interval_kernel.backward_queries[(num_heads, -(-num_places // rows))](
        **shared,
        **{"out_ptr": out, "dq_ptr": dq, "factor": scale},
        **{"BM": rows, "BN": columns, "num_warps": warps, "num_stages": stages},
    )
    rows, columns, warps, stages = sizes["keys"]
    first, stop, copies = tables[6:]
    interval_kernel.backward_keys[(num_kv, -(-num_places // columns))](
        **shared,
        **{"dk_ptr": dk, "dv_ptr": dv, "factor": scale, "first_ptr": first, "stop_ptr": stop},
        **{"BM": rows, "BN": columns, "num_warps": warps, "num_stages": stages},
    )
    if num_prefix:
        width, number = _width(num_prefix), len(copies) - 1
        part = torch.empty(
            (number, num_heads, SPLITS, 2, width, head_dim), dtype=torch.float32, device=query.device
        )
        interval_kernel.backward_copies[(num_heads, number, SPLITS)](
            **shared,
            **{"part_ptr": part, "copies_ptr": copies, "PB": width, "SPLITS": SPLITS},
            **{"BM": rows, "num_warps": warps, "num_stages": stages},
        )
        interval_kernel.merge_copies[(num_kv, number)](
            part, dk, dv, copies, num_heads, scale, num_heads // num_kv, head_dim, num_prefix, width, SPLITS
        )
    return dq, dk, dv


@interval_attention_backward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Any:
    return tuple(x.new_empty(x.shape) for x in (query, key, value))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, tables, ctx.num_prefix, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output, *tables)


def _backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Any, ...]:
    query, key, value, out, lse, *tables = ctx.saved_tensors
    grads = interval_attention_backward(query, key, value, out, lse, d_out, tables, ctx.num_prefix, ctx.scale)
    return *grads, [None] * len(tables), None, None


interval_attention.register_autograd(_backward, setup_context=_keep)


def _dense_scores(query: Tensor, key: Tensor, tables: list[Tensor], num_prefix: int, scale: float) -> Tensor:
    """(H, N, N) scores with the bias, lowest where a key is not seen; `key` has H heads."""
    lo, hi, copy, seen_as, slope, position = tables[:6]
    place = torch.arange(len(query), device=query.device)
    seen = (seen_as >= lo[:, None]) & (seen_as < hi[:, None]) | (place == place[:, None])
    if num_prefix:
        first = copy[:, None]
        seen = seen | (place >= first) & (place < first + num_prefix) & (place < place[:, None])
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    if len(slope):
        scores = scores + slope[:, None] * (position - position[:, None])
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min)


def dense_attention(
    query: Tensor, key: Tensor, value: Tensor, tables: list[Tensor], num_prefix: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The same with all N x N scores written out: the reference for tests, and what runs on a CPU."""
    key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for x in (key, value))
    scores = _dense_scores(query, key, tables, num_prefix, scale)
    out = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)
    return out.contiguous(), scores.logsumexp(-1) * LOG2_E


@interval_attention.register_kernel("cpu")
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    return dense_attention(*arguments)


@interval_attention_backward.register_kernel("cpu")
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    tables: list[Tensor],
    num_prefix: int,
    scale: float,
) -> tuple[Tensor, ...]:
    group, shape = query.shape[1] // key.shape[1], key.shape
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    weights = _dense_scores(query, key, tables, num_prefix, scale).softmax(-1)
    inner = torch.einsum("qhd,khd->hqk", d_out, value) - (out * d_out).sum(-1).T[..., None]
    d_scores = weights * inner * scale
    dq = torch.einsum("hqk,khd->qhd", d_scores, key)
    dk, dv = torch.einsum("hqk,qhd->khd", d_scores, query), torch.einsum("hqk,qhd->khd", weights, d_out)
    dk, dv = (x.reshape(shape[0], shape[1], group, shape[2]).sum(2) for x in (dk, dv))
    return dq.contiguous(), dk.contiguous(), dv.contiguous()
