"""Attention over intervals of keys as one operator that torch.compile and autograd know; kernels on CUDA.

The operator takes the product of the three projections as it is, rotates queries and keys, and gives one
gradient back for all: between that product and the kernels nothing passes over memory but one rotation.

Shapes: N places (`interval_tables`), H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from repro.backbones.interval_tables import CHUNK
from repro.backbones.layer_parts import rotate

LOG2_E = math.log2(math.e)
ROTATED = 32  # places that one program rotates
SPLITS = 8  # parts of the queries that see a copy of the instruction, in the pass for its gradient
MERGED = 8  # keys of a copy whose gradient's parts one program adds up


def tiles(head_dim: int) -> dict[str, tuple[int, int, int, int]]:
    """(rows of queries, rows of keys, warps, stages) per kernel: the fastest of those tried, on an H100."""
    if head_dim <= 64:
        return {"forward": (64, 32, 4, 2), "queries": (64, 32, 4, 1), "keys": (128, 64, 4, 2)}
    return {"forward": (64, 32, 4, 1), "queries": (64, 32, 4, 2), "keys": (64, 64, 4, 1)}


def _launch(turned: Tensor, value: Tensor, tables: list[Tensor], num_prefix: int) -> dict[str, Any]:
    """Arguments that all kernels share."""
    num_places, num_kv, head_dim = value.shape
    num_heads = turned.shape[1] - num_kv
    assert value.stride()[1:] == (head_dim, 1) and head_dim in (16, 32, 64, 128, 256), f"values {value.shape}"
    lo, hi, copy, seen_as, slope, position = tables[:6]
    return {
        **{"q_ptr": turned, "k_ptr": turned[:, num_heads:], "v_ptr": value},
        **{"lo_ptr": lo, "hi_ptr": hi, "copy_ptr": copy, "seen_as_ptr": seen_as, "slope_ptr": slope},
        **{"position_ptr": position, "BIAS": len(slope) > 0},
        **{"qk_stride": turned.stride(0), "v_stride": value.stride(0), "num_places": num_places},
        **{"num_heads": num_heads, "G": num_heads // num_kv, "D": head_dim, "P": num_prefix},
    }


def _width(num_prefix: int) -> int:
    """Rows of the tile that holds the instruction: what a product of matrices takes."""
    return max(16, 1 << (num_prefix - 1).bit_length()) if num_prefix else 16


def _rotated(projected: list[Tensor], num_kv: int) -> list[Tensor]:
    """What the rotary embedding rotates: queries and keys, as one tensor if they are."""
    return projected[:2] if len(projected) == 3 else [projected[0][:, :-num_kv]]


@torch.library.custom_op("repro::interval_attention", mutates_args=())
def interval_attention(
    projected: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    num_kv: int,
    num_prefix: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotary embedding and softmax attention of all N queries.

    Args:
        projected: queries, keys and values before the rotary embedding: one tensor (N, H + 2K, D), or three,
            (N, H, D) and twice (N, K, D). Heads side by side, tokens at any stride.
        cos, sin: (N, D) of the half-split layout: the second half of a row repeats the first.
        tables: of `IntervalTables.tables`, on the device.
        num_kv: K.
        num_prefix: P, tokens of the instruction; 0 where it is hidden.
        scale: on the scores, before the softmax.

    Returns:
        (N, H, D) in the values' dtype. For the backward pass (H, N) float32, log2 of each softmax's
        denominator, and (N, H + K, D), rotated queries (on CUDA scaled) and keys.
    """
    from repro.backbones import interval_kernel

    out, lse, turned = _outputs(projected, num_kv)
    cos, sin, (num_places, num_heads, head_dim) = cos.contiguous(), sin.contiguous(), out.shape
    into = turned
    for heads in _rotated(projected, num_kv):
        assert heads.stride()[1:] == (head_dim, 1), "heads side by side"
        interval_kernel.rotate[(-(-num_places // ROTATED),)](
            **{"x_ptr": heads, "turned_ptr": into, "cos_ptr": cos, "sin_ptr": sin},
            **{"x_stride": heads.stride(0), "stride": turned.stride(0), "num_places": num_places},
            **{"num_heads": heads.shape[1], "num_scaled": num_heads if into is turned else 0},
            **{"scale": scale * LOG2_E, "D": head_dim, "BM": ROTATED},
        )
        into = into[:, heads.shape[1] :]
    rows, columns, warps, stages = tiles(head_dim)["forward"]
    assert rows <= CHUNK // 8, "no tile stands across three copies of the instruction"
    interval_kernel.forward[(num_heads, -(-num_places // rows))](
        **_launch(turned, projected[-1][:, -num_kv:], tables, num_prefix),
        **{"out_ptr": out, "lse_ptr": lse},
        **{"BM": rows, "BN": columns, "num_warps": warps, "num_stages": stages},
    )
    return out, lse, turned


def _outputs(projected: list[Tensor], num_kv: int) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the three results."""
    num_places, _, head_dim = projected[-1].shape
    num_heads = sum(heads.shape[1] for heads in projected) - 2 * num_kv
    new = projected[-1].new_empty
    out, turned = new(num_places, num_heads, head_dim), new(num_places, num_heads + num_kv, head_dim)
    return out, new(num_heads, num_places, dtype=torch.float32), turned


@interval_attention.register_fake
def _(projected: list[Tensor], cos: Tensor, sin: Tensor, tables: list[Tensor], num_kv: int, *_: Any) -> Any:
    return _outputs(projected, num_kv)


@torch.library.custom_op("repro::interval_attention_backward", mutates_args=())
def interval_attention_backward(
    last: Tensor,
    turned: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    num_prefix: int,
    scale: float,
) -> list[Tensor]:
    """Gradients of what was projected, in one tensor or in three as that was; the same bits every time.

    Args:
        last: the last of the projected tensors, which ends with the values.
        turned, out, lse: results of the forward pass. d_out: gradient of `out`.
    """
    from repro.backbones import interval_kernel

    d_out, (num_places, num_heads, head_dim) = d_out.contiguous(), out.shape
    num_kv, sizes = turned.shape[1] - num_heads, tiles(head_dim)
    grads, delta = _gradients(last, turned, out), torch.empty_like(lse)
    dq, dk, dv = grads if len(grads) == 3 else grads[0].split([num_heads, num_kv, num_kv], dim=1)
    shared = _launch(turned, last[:, -num_kv:], tables, num_prefix)
    shared |= {"d_out_ptr": d_out, "lse_ptr": lse, "delta_ptr": delta}
    turn: dict[str, Any] = {"cos_ptr": cos.contiguous(), "sin_ptr": sin.contiguous()}
    rows, columns, warps, stages = sizes["queries"]
    interval_kernel.backward_queries[(num_heads, -(-num_places // rows))](
        **{**shared, **turn, "out_ptr": out, "dq_ptr": dq, "grad_stride": dq.stride(0), "factor": scale},
        **{"BM": rows, "BN": columns, "num_warps": warps, "num_stages": stages},
    )
    rows, columns, warps, stages = sizes["keys"]
    first, stop, copies = tables[6:]
    turn |= {"dk_ptr": dk, "dv_ptr": dv, "grad_stride": dk.stride(0), "factor": 1 / LOG2_E}  # q is scaled
    interval_kernel.backward_keys[(num_kv, -(-num_places // columns))](
        **{**shared, **turn, "first_ptr": first, "stop_ptr": stop},
        **{"BM": rows, "BN": columns, "num_warps": warps, "num_stages": stages},
    )
    if num_prefix:
        width, number = _width(num_prefix), len(copies) - 1
        part = lse.new_empty(number, num_heads, SPLITS, 2, width, head_dim)
        parts = {"part_ptr": part, "copies_ptr": copies, "PB": width, "SPLITS": SPLITS}
        interval_kernel.backward_copies[(num_heads, number, SPLITS)](
            **{**shared, **parts, "BM": rows, "num_warps": warps, "num_stages": stages}
        )
        interval_kernel.merge_copies[(num_kv, number, width // MERGED)](
            **{**turn, **parts, **{name: shared[name] for name in ("num_heads", "G", "D", "P")}},
            **{"BN": MERGED, "num_warps": 8},
        )
    return grads


def _gradients(last: Tensor, turned: Tensor, out: Tensor) -> list[Tensor]:
    """Room for the gradients of what was projected."""
    num_heads, num_kv = out.shape[1], turned.shape[1] - out.shape[1]
    sizes = [num_heads, num_kv, num_kv] if last.shape[1] == num_kv else [last.shape[1]]
    return [last.new_empty(len(last), size, last.shape[2]) for size in sizes]


@interval_attention_backward.register_fake
def _(last: Tensor, turned: Tensor, out: Tensor, *_: Any) -> list[Tensor]:
    return _gradients(last, turned, out)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    projected, cos, sin, tables, _, ctx.num_prefix, ctx.scale = inputs
    out, lse, turned = output
    ctx.save_for_backward(projected[-1], turned, out, lse, cos, sin, *tables)


def _backward(ctx: Any, d_out: Tensor, *_: Tensor) -> tuple[Any, ...]:
    last, turned, out, lse, cos, sin, *tables = ctx.saved_tensors
    grads = interval_attention_backward(
        last, turned, out, lse, d_out, cos, sin, tables, ctx.num_prefix, ctx.scale
    )
    return grads, None, None, [None] * len(tables), None, None, None


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
def _(
    projected: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    num_kv: int,
    num_prefix: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    for turn in (cos, sin):
        assert torch.equal(*turn.chunk(2, dim=-1)), "the kernels look up one half for both"
    value = projected[-1][:, -num_kv:]
    turned = torch.cat([rotate(x, cos, sin).to(value.dtype) for x in _rotated(projected, num_kv)], dim=1)
    out, lse = dense_attention(turned[:, :-num_kv], turned[:, -num_kv:], value, tables, num_prefix, scale)
    return out, lse, turned


@interval_attention_backward.register_kernel("cpu")
def _(
    last: Tensor,
    turned: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    num_prefix: int,
    scale: float,
) -> list[Tensor]:
    num_kv = turned.shape[1] - out.shape[1]
    query, group = turned[:, :-num_kv], out.shape[1] // num_kv
    key, value = (x[:, -num_kv:].repeat_interleave(group, dim=1) for x in (turned, last))
    weights = _dense_scores(query, key, tables, num_prefix, scale).softmax(-1)
    inner = torch.einsum("qhd,khd->hqk", d_out, value) - (out * d_out).sum(-1).T[..., None]
    d_scores = weights * inner * scale
    dq = torch.einsum("hqk,khd->qhd", d_scores, key)
    dk, dv = torch.einsum("hqk,qhd->khd", d_scores, query), torch.einsum("hqk,qhd->khd", weights, d_out)
    dk, dv = (x.unflatten(1, (num_kv, group)).sum(2) for x in (dk, dv))
    dq, dk = (rotate(x, cos, -sin).to(dv.dtype) for x in (dq, dk))
    return [dq, dk, dv] if last.shape[1] == num_kv else [torch.cat([dq, dk, dv], dim=1)]
