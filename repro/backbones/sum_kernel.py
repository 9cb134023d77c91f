"""Triton kernels of the [SUM]s' attention where they have keys of their own, forward and backward.

Text and [SUM]s of `interval_kernel` read the same keys. Under un-rotated keys the [SUM]s do not, and are few:
here they stand one behind the other as queries, S of them, while keys keep their N places. The [SUM] at place
`own` sees the keys whose `seen_as` lies in [lo, hi), and its own; none of these ever falls from one [SUM] to
the next, so a tile of [SUM]s reads one run of keys, and a tile of keys is read by one run of [SUM]s. Nothing
is added atomically. The instruction is hidden.

H query heads, K = H / G key-value heads, D head size. Imported on CUDA only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from repro.backbones.interval_kernel import LOG2_E, NEVER, _in, _load

# fmt: off


@triton.jit
def _sums_of(query, real, lo_ptr, hi_ptr, own_ptr, slope_ptr, position_ptr):
    """(lo, length of the interval, own place, slope in base 2, position) of some [SUM]s."""
    lo, hi = tl.load(lo_ptr + query, mask=real, other=0), tl.load(hi_ptr + query, mask=real, other=0)
    own = tl.load(own_ptr + query, mask=real, other=-1)
    slope = tl.load(slope_ptr + query, mask=real, other=0.0) * LOG2_E
    return lo, hi - lo, own, slope, tl.load(position_ptr + query, mask=real, other=0.0)


@triton.jit
def _run_of(tile, num_sums, lo_ptr, hi_ptr, own_ptr, BM: tl.constexpr):
    """The run of keys that a tile of [SUM]s reads: (begin, stop)."""
    first = tile * BM
    last = tl.minimum(first + BM, num_sums) - 1
    begin = tl.minimum(tl.load(lo_ptr + first), tl.load(own_ptr + first))
    return begin, tl.maximum(tl.load(hi_ptr + last), tl.load(own_ptr + last) + 1)


@triton.jit
def _keys(key, num_places, seen_as_ptr, key_position_ptr):
    """(inside, seen_as, position) of some keys."""
    inside = key < num_places
    seen_as = tl.load(seen_as_ptr + key, mask=inside, other=-1)
    return inside, seen_as, tl.load(key_position_ptr + key, mask=inside, other=0.0)


@triton.jit
def forward(q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, lo_ptr, hi_ptr, own_ptr, slope_ptr, position_ptr,
            seen_as_ptr, key_position_ptr, q_stride, k_stride, v_stride, num_sums, num_places, num_heads,
            scale, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """One tile of BM [SUM]s of one head: output (S, H, D) and log2 of the softmax's denominator (H, S)."""
    head, tile = tl.program_id(0), tl.program_id(1)
    query = tile * BM + tl.arange(0, BM)
    real = query < num_sums
    lo, length, own, slope, position = _sums_of(query, real, lo_ptr, hi_ptr, own_ptr, slope_ptr, position_ptr)
    begin, stop = _run_of(tile, num_sums, lo_ptr, hi_ptr, own_ptr, BM)
    q = _load(q_ptr, query, q_stride, head, real, D)
    acc = tl.zeros([BM, D], tl.float32)
    peak, total = tl.full([BM], NEVER, tl.float32), tl.zeros([BM], tl.float32)
    for at in range(begin, stop, BN):
        key = at + tl.arange(0, BN)
        inside, seen_as, key_position = _keys(key, num_places, seen_as_ptr, key_position_ptr)
        k = _load(k_ptr, key, k_stride, head // G, inside, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        s += slope[:, None] * (key_position[None, :] - position[:, None])
        seen = _in(seen_as[None, :], lo[:, None], length[:, None]) | (key[None, :] == own[:, None])
        s = tl.where(seen, s, NEVER)
        higher = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        v = _load(v_ptr, key, v_stride, head // G, inside, D)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        peak = higher
    where = out_ptr + (query[:, None] * num_heads + head) * D + tl.arange(0, D)[None, :]
    tl.store(where, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=real[:, None])
    tl.store(lse_ptr + head * num_sums + query, peak + tl.log2(total), mask=real)


@triton.jit
def backward_sums(q_ptr, k_ptr, v_ptr, out_ptr, d_out_ptr, lse_ptr, delta_ptr, dq_ptr, lo_ptr, hi_ptr,
                  own_ptr, slope_ptr, position_ptr, seen_as_ptr, key_position_ptr, q_stride, k_stride,
                  v_stride, num_sums, num_places, num_heads, scale, factor, G: tl.constexpr,
                  D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Gradient of one tile of [SUM]s' queries; delta (H, S), sums of out * d_out, for the keys' pass."""
    head, tile = tl.program_id(0), tl.program_id(1)
    query = tile * BM + tl.arange(0, BM)
    real = query < num_sums
    lo, length, own, slope, position = _sums_of(query, real, lo_ptr, hi_ptr, own_ptr, slope_ptr, position_ptr)
    begin, stop = _run_of(tile, num_sums, lo_ptr, hi_ptr, own_ptr, BM)
    q = _load(q_ptr, query, q_stride, head, real, D)
    d_out = _load(d_out_ptr, query, num_heads * D, head, real, D)
    out = _load(out_ptr, query, num_heads * D, head, real, D)
    delta = tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)
    tl.store(delta_ptr + head * num_sums + query, delta, mask=real)
    lse = tl.load(lse_ptr + head * num_sums + query, mask=real, other=0.0)
    dq = tl.zeros([BM, D], tl.float32)
    for at in range(begin, stop, BN):
        key = at + tl.arange(0, BN)
        inside, seen_as, key_position = _keys(key, num_places, seen_as_ptr, key_position_ptr)
        k = _load(k_ptr, key, k_stride, head // G, inside, D)
        v = _load(v_ptr, key, v_stride, head // G, inside, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        s += slope[:, None] * (key_position[None, :] - position[:, None])
        seen = _in(seen_as[None, :], lo[:, None], length[:, None]) | (key[None, :] == own[:, None])
        p = tl.where(seen, tl.exp2(s - lse[:, None]), 0.0)
        d_p = tl.dot(d_out, tl.trans(v), input_precision="ieee")
        dq = tl.dot((p * (d_p - delta[:, None])).to(k.dtype), k, dq, input_precision="ieee")
    where = dq_ptr + (query[:, None] * num_heads + head) * D + tl.arange(0, D)[None, :]
    tl.store(where, (dq * factor).to(dq_ptr.dtype.element_ty), mask=real[:, None])


@triton.jit
def backward_keys(q_ptr, k_ptr, v_ptr, d_out_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, lo_ptr, hi_ptr,
                  own_ptr, slope_ptr, position_ptr, seen_as_ptr, key_position_ptr, first_ptr, stop_ptr,
                  q_stride, k_stride, v_stride, num_sums, num_places, num_heads, scale, factor,
                  G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Gradients (N, K, D) of one tile of keys and values: sums over the G query heads that read them."""
    kv, tile = tl.program_id(0), tl.program_id(1)
    key = tile * BN + tl.arange(0, BN)
    real, seen_as, key_position = _keys(key, num_places, seen_as_ptr, key_position_ptr)
    k, v = _load(k_ptr, key, k_stride, kv, real, D), _load(v_ptr, key, v_stride, kv, real, D)
    begin = tl.load(first_ptr + tile * BN)
    stop = tl.load(stop_ptr + tl.minimum(tile * BN + BN, num_places) - 1)
    per_head = tl.cdiv(tl.maximum(stop - begin, 0), BM)
    dk, dv = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    for turn in range(G * per_head):
        head = kv * G + turn // per_head
        query = begin + turn % per_head * BM + tl.arange(0, BM)
        inside = query < stop
        lo, length, own, slope, position = _sums_of(
            query, inside, lo_ptr, hi_ptr, own_ptr, slope_ptr, position_ptr)
        q = _load(q_ptr, query, q_stride, head, inside, D)
        d_out = _load(d_out_ptr, query, num_heads * D, head, inside, D)
        lse = tl.load(lse_ptr + head * num_sums + query, mask=inside, other=0.0)
        delta = tl.load(delta_ptr + head * num_sums + query, mask=inside, other=0.0)
        s = tl.dot(k, tl.trans(q), input_precision="ieee") * scale
        s += slope[None, :] * (key_position[:, None] - position[None, :])
        seen = _in(seen_as[:, None], lo[None, :], length[None, :]) | (key[:, None] == own[None, :])
        p = tl.where(seen, tl.exp2(s - lse[None, :]), 0.0)
        dv = tl.dot(p.to(d_out.dtype), d_out, dv, input_precision="ieee")
        d_p = tl.dot(v, tl.trans(d_out), input_precision="ieee")
        dk = tl.dot((p * (d_p - delta[None, :])).to(q.dtype), q, dk, input_precision="ieee")
    where = (key[:, None] * (num_heads // G) + kv) * D + tl.arange(0, D)[None, :]
    tl.store(dk_ptr + where, (dk * factor).to(dk_ptr.dtype.element_ty), mask=real[:, None])
    tl.store(dv_ptr + where, dv.to(dv_ptr.dtype.element_ty), mask=real[:, None])
