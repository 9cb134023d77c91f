"""The [SUM]s' attention as one operator of its own; kernels on CUDA.

Used where [SUM]s are the only queries (the last layer) or read keys of their own (un-rotated, within
`own_keys_attention`; or reset in every layer). Gathering each block's keys instead would write more than the
keys themselves, and its backward pass adds them up again.

Shapes: S [SUM]s, N places (`interval_tables`), H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from repro.backbones.interval_attention import LOG2_E


def tiles(head_dim: int, group: int, reset: bool) -> tuple[int, int, int, int]:
    """(rows, keys, warps, stages) of every kernel: a row is a [SUM] with one of the G = `group` heads.

    At head size 64, 16 x 64 was the fastest of the sizes tried on an H100, there with one head to a tile. A
    reset adds up four gradients per key, not two, so its tiles have fewer keys.
    """
    return max(16, 1 << (group - 1).bit_length()), 32 if reset else 64, 2 if head_dim <= 64 else 4, 2


def launch(
    query: Tensor,
    keys: list[Tensor],
    tables: list[Tensor],
    num_prefix: int,
    ratio: list[float],
    scale: float,
    in_place: bool = False,
) -> dict[str, Any]:
    """Arguments that all kernels share.

    Args:
        query, keys, tables, num_prefix, ratio, scale: as `sum_interval_attention` takes them.
        in_place: rows of queries, outputs and their gradients are places: `query` is (N, H, D).
    """
    (_, num_heads, head_dim), (num_places, num_kv, _) = query.shape, keys[0].shape
    for tensor in (query, *keys):
        assert tensor.shape[1] == 1 or tensor.stride(1) == head_dim, "heads side by side"
        assert tensor.stride(2) == 1, "heads in one piece"
    assert head_dim in (16, 32, 64, 128, 256), f"head size {head_dim}"
    sources = dict(zip(("k", "v", "k0", "v0"), [*keys, *keys][:4], strict=True))
    of_sums = ("lo", "hi", "own", "copy", "slope", "position", "ordinal")
    names = (*of_sums, "seen_as", "key_position", "key_ordinal", "copies")
    a_min, a_max, middle, tau = ratio
    group, reset = num_heads // num_kv, len(keys) == 4
    rows, columns, warps, stages = tiles(head_dim, group, reset)
    return {
        **{"q_ptr": query, "q_stride": query.stride(0)},
        **{f"{name}_ptr": tensor for name, tensor in sources.items()},
        **{f"{name}_stride": tensor.stride(0) for name, tensor in sources.items()},
        **{f"{name}_ptr": table for name, table in zip(names, tables[:11], strict=True)},
        **{"num_sums": len(tables[0]), "num_places": num_places, "num_heads": num_heads},
        **{"scale": scale * LOG2_E, "a_min": a_min, "a_range": a_max - a_min, "middle": middle, "tau": tau},
        **{"G": group, "D": head_dim, "P": num_prefix, "RESET": reset, "IN_PLACE": in_place},
        **{"BM": rows, "BN": columns, "num_warps": warps, "num_stages": stages},
    }


def sums_grid(shared: dict[str, Any]) -> tuple[int, int]:
    """Programs of a pass by [SUM]s, of what `launch` gave."""
    return shared["num_heads"] // shared["G"], -(-shared["num_sums"] // (shared["BM"] // shared["G"]))


def run_backward(
    shared: dict[str, Any],
    tables: list[Tensor],
    results: tuple[Tensor, Tensor, Tensor],
    grads: Sequence[Tensor],
    factors: tuple[float, float],
    turn: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Both backward kernels: by [SUM]s, then by keys (tiles of places, then of the instruction's copies).

    Args:
        shared: of `launch`. tables: as given to it.
        results: `out`, the [SUM]s' `lse` and the gradient of `out`.
        grads: where the gradients of the queries and of each of the keys go; of one stride from the keys on.
        factors: on the queries' and on the keys' gradients.
        turn: cosines and sines by place, in place alone: the queries' gradients are turned back.
    """
    from repro.backbones import sum_kernel

    (dq, *of_keys), (out, lse, d_out), (cos, sin) = grads, results, turn or (None, None)
    shared = {**shared, "d_out_ptr": d_out, "lse_ptr": lse, "delta_ptr": torch.empty_like(lse)}
    sum_kernel.backward_sums[sums_grid(shared)](
        **{**shared, "out_ptr": out, "dq_ptr": dq, "grad_stride": dq.stride(0), "factor": factors[0]},
        **{"cos_ptr": cos, "sin_ptr": sin},
    )
    into = dict(zip(("dk_ptr", "dv_ptr", "dk0_ptr", "dv0_ptr"), [*of_keys, *of_keys][:4], strict=True))
    into |= dict(zip(("first_ptr", "stop_ptr", "readers_ptr"), tables[11:], strict=True))
    num_places, num_prefix, columns = (shared[name] for name in ("num_places", "P", "BN"))
    programs = -(-num_places // columns) + (len(tables[-1]) - 1) * -(-num_prefix // columns)
    sum_kernel.backward_keys[shared["num_heads"] // shared["G"], programs](
        **{**shared, **into, "grad_stride": of_keys[0].stride(0), "factor": factors[1]}
    )


@torch.library.custom_op("repro::sum_interval_attention", mutates_args=())
def sum_interval_attention(
    query: Tensor,
    keys: list[Tensor],
    tables: list[Tensor],
    num_prefix: int,
    ratio: list[float],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Softmax attention of the [SUM]s.

    Args:
        query: (S, H, D).
        keys: keys and values; behind them, where [SUM]s are reset, those of the initial states: (N, K, D)
            each. As the queries: heads side by side, rows at any stride.
        tables: of `interval_tables.sum_tables`, on the device.
        num_prefix: P, tokens of the instruction; 0 where it is hidden.
        ratio: (a_min, a_max, n / 2, tau) of `fix_settings.Reset`; any four where nothing is reset.
        scale: on the scores, before the bias.

    Returns:
        (S, H, D) in the values' dtype, and (H, S) float32, log2 of each softmax's denominator.
    """
    from repro.backbones import sum_kernel

    out, lse = _outputs(query, keys)
    shared = launch(query, keys, tables, num_prefix, ratio, scale)
    sum_kernel.forward[sums_grid(shared)](**shared, out_ptr=out, lse_ptr=lse, places_lse_ptr=None)
    return out, lse


def _outputs(query: Tensor, keys: list[Tensor]) -> tuple[Tensor, Tensor]:
    num_sums, num_heads, _ = query.shape
    return keys[1].new_empty(query.shape), keys[1].new_empty(num_heads, num_sums, dtype=torch.float32)


@sum_interval_attention.register_fake
def _(query: Tensor, keys: list[Tensor], *_: Any) -> tuple[Tensor, Tensor]:
    return _outputs(query, keys)


@torch.library.custom_op("repro::sum_interval_attention_backward", mutates_args=())
def sum_interval_attention_backward(
    query: Tensor,
    keys: list[Tensor],
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    tables: list[Tensor],
    num_prefix: int,
    ratio: list[float],
    scale: float,
) -> list[Tensor]:
    """Gradients of the queries and of each of `keys`; the same bits every time."""
    grads, results = _gradients(query, keys), (out, lse, d_out.contiguous())
    shared = launch(query, keys, tables, num_prefix, ratio, scale)
    run_backward(shared, tables, results, grads, (scale, scale))
    return grads


def _gradients(query: Tensor, keys: list[Tensor]) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in (query, *keys)]


@sum_interval_attention_backward.register_fake
def _(query: Tensor, keys: list[Tensor], *_: Any) -> list[Tensor]:
    return _gradients(query, keys)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, keys, tables, ctx.num_prefix, ctx.ratio, ctx.scale = inputs
    ctx.num_keys = len(keys)
    ctx.save_for_backward(query, *output, *keys, *tables)


def _backward(ctx: Any, d_out: Tensor, *_: Tensor) -> tuple[Any, ...]:
    query, out, lse, *rest = ctx.saved_tensors
    keys, tables = rest[: ctx.num_keys], rest[ctx.num_keys :]
    settings = (ctx.num_prefix, ctx.ratio, ctx.scale)
    dq, *grads = sum_interval_attention_backward(query, keys, out, lse, d_out, tables, *settings)
    return dq, grads, [None] * len(tables), None, None, None


sum_interval_attention.register_autograd(_backward, setup_context=_keep)


def _dense_scores(
    query: Tensor, keys: list[Tensor], tables: list[Tensor], num_prefix: int, ratio: list[float], scale: float
) -> tuple[Tensor, Tensor]:
    """(H, S, N) scores with the bias, lowest where a key is not seen; (S, N) alpha. `keys` have H heads."""
    lo, hi, own, copy, slope, position, ordinal = (table[:, None] for table in tables[:7])
    seen_as, key_position, key_ordinal, copies = tables[7:11]
    place = torch.arange(len(seen_as), device=query.device)
    seen = (lo <= seen_as) & (hi > seen_as) | (place == own)
    if num_prefix:
        start = copies[copy]
        seen = seen | (place >= start) & (place < start + num_prefix)
    alpha = query.new_zeros(())
    scores = torch.einsum("qhd,khd->hqk", query, keys[0]) * scale
    if len(keys) == 4:
        a_min, a_max, middle, tau = ratio
        apart = ordinal - key_ordinal
        alpha = a_min + (a_max - a_min) * torch.sigmoid((apart.float() - middle) / tau)
        alpha = torch.where(apart > 0, alpha, 0.0).to(query.dtype)
        initial = torch.einsum("qhd,khd->hqk", query, keys[2]) * scale
        scores = scores * (1 - alpha) + initial * alpha
    scores = scores + slope * (key_position - position)
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min), alpha


def _with_all_heads(query: Tensor, keys: list[Tensor]) -> list[Tensor]:
    return [x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in keys]


@sum_interval_attention.register_kernel("cpu")
def _(
    query: Tensor, keys: list[Tensor], tables: list[Tensor], num_prefix: int, ratio: list[float], scale: float
) -> tuple[Tensor, Tensor]:
    keys = _with_all_heads(query, keys)
    scores, alpha = _dense_scores(query, keys, tables, num_prefix, ratio, scale)
    weights = scores.softmax(-1).to(query.dtype)
    out = torch.einsum("hqk,khd->qhd", weights * (1 - alpha), keys[1])
    if len(keys) == 4:
        out = out + torch.einsum("hqk,khd->qhd", weights * alpha, keys[3])
    return out.contiguous(), (scores.logsumexp(-1) * LOG2_E).float()


@sum_interval_attention_backward.register_kernel("cpu")
def _(
    query: Tensor,
    keys: list[Tensor],
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    tables: list[Tensor],
    num_prefix: int,
    ratio: list[float],
    scale: float,
) -> list[Tensor]:
    num_kv, keys = keys[0].shape[1], _with_all_heads(query, keys)
    scores, alpha = _dense_scores(query, keys, tables, num_prefix, ratio, scale)
    weights, shares = scores.softmax(-1).to(query.dtype), [1 - alpha, alpha][: len(keys) // 2]
    parts = zip(shares, keys[1::2], strict=True)
    inner = sum(share * torch.einsum("qhd,khd->hqk", d_out, value) for share, value in parts)
    d_scores = weights * (inner - (out * d_out).sum(-1).T[..., None]) * scale
    dq, grads = torch.zeros_like(query, memory_format=torch.contiguous_format), []
    for share, key in zip(shares, keys[::2], strict=True):
        dq = dq + torch.einsum("hqk,khd->qhd", d_scores * share, key)
        grads += [
            torch.einsum("hqk,qhd->khd", d_scores * share, query),
            torch.einsum("hqk,qhd->khd", weights * share, d_out),
        ]
    return [dq, *(grad.unflatten(1, (num_kv, -1)).sum(2) for grad in grads)]
