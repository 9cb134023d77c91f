"""Triton kernels of attention over intervals of keys: forward, and backward by queries and by keys.

The query at place p sees the keys j of [lo, hi) that are not hidden, its own key, and the instruction's copy
[copy, copy + P) where it stands behind it. lo and hi never fall from one query to the next, so a tile of
queries reads one run of keys, a tile of keys is read by one run of queries, and only the ends of a run need
the mask. Runs begin where they begin: the other side's tiles are not aligned.

The backward pass computes scores twice (once by queries, once by keys) and adds nothing atomically: the same
batch gives the same gradient to the last bit.

N places, H query heads, K = H / G key-value heads, D head size. Imported on CUDA only.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
NEVER = tl.constexpr(-1.0e30)  # finite: a row that has seen nothing yet stays a number, wiped out later
HIDDEN = tl.constexpr(1)  # kind of a key that only its own query sees
INSTRUCTION = tl.constexpr(2)  # kind of a key whose gradient is added up apart, over all that see its copy
WHOLE, ENDS, COPY = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # which mask a tile needs


@triton.jit
def _load(pointer, row, stride, head, inside, D: tl.constexpr):
    """(rows, D) of one head; zeros outside."""
    dim = tl.arange(0, D)
    return tl.load(pointer + row[:, None] * stride + head * D + dim[None, :], mask=inside[:, None], other=0.0)


@triton.jit
def _masked(s, query, key, lo, hi, copy, kind, P: tl.constexpr, MASK: tl.constexpr):
    """Scores, NEVER where the key is not seen; queries and keys along an axis of s each."""
    if MASK == WHOLE:
        return tl.where(kind == HIDDEN, NEVER, s)
    if MASK == ENDS:
        return tl.where(((key >= lo) & (key < hi) & (kind != HIDDEN)) | (key == query), s, NEVER)
    return tl.where((key >= copy) & (key < copy + P) & (query >= copy + P), s, NEVER)


@triton.jit
def _keys(tile, last_place, lo_ptr, hi_ptr, BM: tl.constexpr, BN: tl.constexpr):
    """The keys that a tile of queries reads: (begin, first whole tile, behind the whole tiles, stop)."""
    first = tile * BM
    last = tl.minimum(first + BM - 1, last_place)
    begin = tl.minimum(tl.load(lo_ptr + first), first)
    stop = tl.maximum(tl.load(hi_ptr + last), last + 1)
    end = begin + tl.cdiv(stop - begin, BN) * BN
    whole = begin + tl.cdiv(tl.maximum(tl.load(lo_ptr + last) - begin, 0), BN) * BN
    behind = begin + tl.maximum(tl.load(hi_ptr + first) - begin, 0) // BN * BN
    some = behind > whole
    return begin, tl.where(some, whole, end), tl.where(some, behind, end), stop


@triton.jit
def _attend(acc, peak, total, q, k_ptr, v_ptr, k_stride, v_stride, kv, begin, stop, num_places, query, lo, hi,
            copy, slope, position, kind_ptr, position_ptr, scale,
            D: tl.constexpr, P: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr, BN: tl.constexpr):
    """Online softmax over the keys of [begin, stop), in tiles of BN."""
    for at in range(begin, stop, BN):
        key = at + tl.arange(0, BN)
        inside = key < num_places
        k = _load(k_ptr, key, k_stride, kv, inside, D)
        kind = tl.load(kind_ptr + key, mask=inside, other=HIDDEN)
        s = tl.dot(q, tl.trans(k)) * scale
        if BIAS:
            s += LOG2_E * slope[:, None] * (tl.load(position_ptr + key, mask=inside, other=0.0)[None, :] - position[:, None])
        s = _masked(s, query[:, None], key[None, :], lo[:, None], hi[:, None], copy[:, None], kind[None, :], P, MASK)
        higher = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        v = _load(v_ptr, key, v_stride, kv, inside, D)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
        peak = higher
    return acc, peak, total


@triton.jit
def forward(q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, lo_ptr, hi_ptr, copy_ptr, kind_ptr, slope_ptr, position_ptr,
            q_stride, k_stride, v_stride, num_places, num_heads, scale,
            G: tl.constexpr, D: tl.constexpr, P: tl.constexpr, PB: tl.constexpr, BIAS: tl.constexpr,
            BM: tl.constexpr, BN: tl.constexpr):
    """One tile of BM queries of one head: output (N, H, D) and log2 of the softmax's denominator (H, N)."""
    head, tile = tl.program_id(0), tl.program_id(1)
    kv, query = head // G, tile * BM + tl.arange(0, BM)
    real = query < num_places
    q = _load(q_ptr, query, q_stride, head, real, D)
    lo, hi = tl.load(lo_ptr + query, mask=real, other=0), tl.load(hi_ptr + query, mask=real, other=0)
    copy = tl.load(copy_ptr + query, mask=real, other=0)
    slope, position = lo.to(tl.float32), lo.to(tl.float32)
    if BIAS:
        slope = tl.load(slope_ptr + query, mask=real, other=0.0)
        position = tl.load(position_ptr + query, mask=real, other=0.0)
    acc = tl.zeros([BM, D], tl.float32)
    peak, total = tl.full([BM], NEVER, tl.float32), tl.zeros([BM], tl.float32)
    begin, whole, behind, stop = _keys(tile, num_places - 1, lo_ptr, hi_ptr, BM, BN)
    acc, peak, total = _attend(
        acc, peak, total, q, k_ptr, v_ptr, k_stride, v_stride, kv, begin, tl.minimum(whole, stop), num_places, query,
        lo, hi, copy, slope, position, kind_ptr, position_ptr, scale, D, P, BIAS, ENDS, BN)
    acc, peak, total = _attend(
        acc, peak, total, q, k_ptr, v_ptr, k_stride, v_stride, kv, whole, behind, num_places, query,
        lo, hi, copy, slope, position, kind_ptr, position_ptr, scale, D, P, BIAS, WHOLE, BN)
    acc, peak, total = _attend(
        acc, peak, total, q, k_ptr, v_ptr, k_stride, v_stride, kv, behind, stop, num_places, query,
        lo, hi, copy, slope, position, kind_ptr, position_ptr, scale, D, P, BIAS, ENDS, BN)
    if P > 0:  # a tile stands behind one copy, or across two
        first, last = tl.load(copy_ptr + tile * BM), tl.load(copy_ptr + tl.minimum(tile * BM + BM, num_places) - 1)
        for at in range(first, last + 1, tl.maximum(last - first, 1)):
            acc, peak, total = _attend(
                acc, peak, total, q, k_ptr, v_ptr, k_stride, v_stride, kv, at, at + 1, num_places, query,
                lo, hi, copy, slope, position, kind_ptr, position_ptr, scale, D, P, BIAS, COPY, PB)
    dim = tl.arange(0, D)
    where = out_ptr + (query[:, None] * num_heads + head) * D + dim[None, :]
    tl.store(where, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=real[:, None])
    tl.store(lse_ptr + head * num_places + query, peak + tl.log2(total), mask=real)


@triton.jit
def _query_gradient(dq, q, d_out, lse, delta, k_ptr, v_ptr, k_stride, v_stride, kv, begin, stop, num_places, query,
                    lo, hi, copy, slope, position, kind_ptr, position_ptr, scale,
                    D: tl.constexpr, P: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr, BN: tl.constexpr):
    """Adds what the keys of [begin, stop) give to the gradient of a tile of queries, without the scale."""
    for at in range(begin, stop, BN):
        key = at + tl.arange(0, BN)
        inside = key < num_places
        k, v = _load(k_ptr, key, k_stride, kv, inside, D), _load(v_ptr, key, v_stride, kv, inside, D)
        kind = tl.load(kind_ptr + key, mask=inside, other=HIDDEN)
        s = tl.dot(q, tl.trans(k)) * scale
        if BIAS:
            s += LOG2_E * slope[:, None] * (tl.load(position_ptr + key, mask=inside, other=0.0)[None, :] - position[:, None])
        s = _masked(s, query[:, None], key[None, :], lo[:, None], hi[:, None], copy[:, None], kind[None, :], P, MASK)
        p = tl.exp2(s - lse[:, None])
        d_p = tl.dot(d_out, tl.trans(v))
        dq = tl.dot((p * (d_p - delta[:, None])).to(k.dtype), k, dq)
    return dq


@triton.jit
def backward_queries(q_ptr, k_ptr, v_ptr, out_ptr, d_out_ptr, lse_ptr, delta_ptr, dq_ptr, lo_ptr, hi_ptr, copy_ptr,
                     kind_ptr, slope_ptr, position_ptr, q_stride, k_stride, v_stride, num_places, num_heads, scale,
                     factor, G: tl.constexpr, D: tl.constexpr, P: tl.constexpr, PB: tl.constexpr, BIAS: tl.constexpr,
                     BM: tl.constexpr, BN: tl.constexpr):
    """Gradient (N, H, D) of one tile of queries, and delta (H, N), the sums of out * d_out, for the keys' pass."""
    head, tile = tl.program_id(0), tl.program_id(1)
    kv, query = head // G, tile * BM + tl.arange(0, BM)
    real = query < num_places
    q = _load(q_ptr, query, q_stride, head, real, D)
    d_out = _load(d_out_ptr, query, num_heads * D, head, real, D)
    out = _load(out_ptr, query, num_heads * D, head, real, D)
    delta = tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)
    tl.store(delta_ptr + head * num_places + query, delta, mask=real)
    lse = tl.load(lse_ptr + head * num_places + query, mask=real, other=0.0)
    lo, hi = tl.load(lo_ptr + query, mask=real, other=0), tl.load(hi_ptr + query, mask=real, other=0)
    copy = tl.load(copy_ptr + query, mask=real, other=0)
    slope, position = lo.to(tl.float32), lo.to(tl.float32)
    if BIAS:
        slope = tl.load(slope_ptr + query, mask=real, other=0.0)
        position = tl.load(position_ptr + query, mask=real, other=0.0)
    dq = tl.zeros([BM, D], tl.float32)
    begin, whole, behind, stop = _keys(tile, num_places - 1, lo_ptr, hi_ptr, BM, BN)
    dq = _query_gradient(
        dq, q, d_out, lse, delta, k_ptr, v_ptr, k_stride, v_stride, kv, begin, tl.minimum(whole, stop), num_places,
        query, lo, hi, copy, slope, position, kind_ptr, position_ptr, scale, D, P, BIAS, ENDS, BN)
    dq = _query_gradient(
        dq, q, d_out, lse, delta, k_ptr, v_ptr, k_stride, v_stride, kv, whole, behind, num_places,
        query, lo, hi, copy, slope, position, kind_ptr, position_ptr, scale, D, P, BIAS, WHOLE, BN)
    dq = _query_gradient(
        dq, q, d_out, lse, delta, k_ptr, v_ptr, k_stride, v_stride, kv, behind, stop, num_places,
        query, lo, hi, copy, slope, position, kind_ptr, position_ptr, scale, D, P, BIAS, ENDS, BN)
    if P > 0:
        first, last = tl.load(copy_ptr + tile * BM), tl.load(copy_ptr + tl.minimum(tile * BM + BM, num_places) - 1)
        for at in range(first, last + 1, tl.maximum(last - first, 1)):
            dq = _query_gradient(
                dq, q, d_out, lse, delta, k_ptr, v_ptr, k_stride, v_stride, kv, at, at + 1, num_places,
                query, lo, hi, copy, slope, position, kind_ptr, position_ptr, scale, D, P, BIAS, COPY, PB)
    dim = tl.arange(0, D)
    where = dq_ptr + (query[:, None] * num_heads + head) * D + dim[None, :]
    tl.store(where, (dq * factor).to(dq_ptr.dtype.element_ty), mask=real[:, None])


@triton.jit
def _key_gradient(dk, dv, k, v, key, kind, key_position, q_ptr, d_out_ptr, lse_ptr, delta_ptr, q_stride, head, begin,
                  stop, num_places, num_heads, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr, scale,
                  D: tl.constexpr, P: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr, BM: tl.constexpr):
    """Adds what the queries of [begin, stop) give to the gradients of a tile of keys, without the scale."""
    for at in range(begin, stop, BM):
        query = at + tl.arange(0, BM)
        inside = query < stop
        q = _load(q_ptr, query, q_stride, head, inside, D)
        d_out = _load(d_out_ptr, query, num_heads * D, head, inside, D)
        # Outside, p must be zero: an infinite denominator.
        lse = tl.load(lse_ptr + head * num_places + query, mask=inside, other=float("inf"))
        delta = tl.load(delta_ptr + head * num_places + query, mask=inside, other=0.0)
        s = tl.dot(k, tl.trans(q)) * scale
        if BIAS:
            slope = tl.load(slope_ptr + query, mask=inside, other=0.0)
            position = tl.load(position_ptr + query, mask=inside, other=0.0)
            s += LOG2_E * slope[None, :] * (key_position[:, None] - position[None, :])
        lo, hi, copy = query, query, query
        if MASK == ENDS:
            lo, hi = tl.load(lo_ptr + query, mask=inside, other=0), tl.load(hi_ptr + query, mask=inside, other=0)
        if MASK == COPY:
            copy = tl.load(copy_ptr + query, mask=inside, other=0)
        s = _masked(s, query[None, :], key[:, None], lo[None, :], hi[None, :], copy[None, :], kind[:, None], P, MASK)
        p = tl.exp2(s - lse[None, :])
        dv = tl.dot(p.to(d_out.dtype), d_out, dv)
        d_p = tl.dot(v, tl.trans(d_out))
        dk = tl.dot((p * (d_p - delta[None, :])).to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def _store_keys(dk, dv, dk_ptr, dv_ptr, key, kv, num_kv, factor, stored, D: tl.constexpr):
    where = (key[:, None] * num_kv + kv) * D + tl.arange(0, D)[None, :]
    tl.store(dk_ptr + where, (dk * factor).to(dk_ptr.dtype.element_ty), mask=stored[:, None])
    tl.store(dv_ptr + where, dv.to(dv_ptr.dtype.element_ty), mask=stored[:, None])


@triton.jit
def backward_keys(q_ptr, k_ptr, v_ptr, d_out_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, lo_ptr, hi_ptr, copy_ptr,
                  kind_ptr, slope_ptr, position_ptr, first_ptr, full_ptr, stop_ptr, q_stride, k_stride, v_stride,
                  num_places, num_heads, scale, factor, G: tl.constexpr, D: tl.constexpr, P: tl.constexpr,
                  BIAS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Gradients (N, K, D) of one tile of keys, summed over the G query heads that read them."""
    kv, tile = tl.program_id(0), tl.program_id(1)
    num_kv = num_heads // G
    key = tile * BN + tl.arange(0, BN)
    real = key < num_places
    k, v = _load(k_ptr, key, k_stride, kv, real, D), _load(v_ptr, key, v_stride, kv, real, D)
    kind = tl.load(kind_ptr + key, mask=real, other=HIDDEN)
    key_position = key.to(tl.float32)
    if BIAS:
        key_position = tl.load(position_ptr + key, mask=real, other=0.0)
    dk, dv = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    last = tl.minimum(tile * BN + BN, num_places) - 1
    begin, stop = tl.load(first_ptr + tile * BN), tl.load(stop_ptr + last)
    end = begin + tl.cdiv(stop - begin, BM) * BM
    whole = begin + tl.cdiv(tl.maximum(tl.load(full_ptr + last) - begin, 0), BM) * BM
    behind = begin + tl.maximum(tl.load(stop_ptr + tile * BN) - begin, 0) // BM * BM
    some = behind > whole
    whole, behind = tl.where(some, whole, end), tl.where(some, behind, end)
    for head in range(kv * G, kv * G + G):
        dk, dv = _key_gradient(
            dk, dv, k, v, key, kind, key_position, q_ptr, d_out_ptr, lse_ptr, delta_ptr, q_stride, head, begin,
            tl.minimum(whole, stop), num_places, num_heads, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr, scale,
            D, P, BIAS, ENDS, BM)
        dk, dv = _key_gradient(
            dk, dv, k, v, key, kind, key_position, q_ptr, d_out_ptr, lse_ptr, delta_ptr, q_stride, head, whole,
            behind, num_places, num_heads, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr, scale,
            D, P, BIAS, WHOLE, BM)
        dk, dv = _key_gradient(
            dk, dv, k, v, key, kind, key_position, q_ptr, d_out_ptr, lse_ptr, delta_ptr, q_stride, head, behind,
            stop, num_places, num_heads, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr, scale,
            D, P, BIAS, ENDS, BM)
    _store_keys(dk, dv, dk_ptr, dv_ptr, key, kv, num_kv, factor, real & (kind != INSTRUCTION), D)


@triton.jit
def backward_copies(q_ptr, k_ptr, v_ptr, d_out_ptr, lse_ptr, delta_ptr, part_ptr, lo_ptr, hi_ptr, copy_ptr, kind_ptr,
                    slope_ptr, position_ptr, copies_ptr, q_stride, k_stride, v_stride, num_places, num_heads, scale,
                    G: tl.constexpr, D: tl.constexpr, P: tl.constexpr, PB: tl.constexpr, BIAS: tl.constexpr,
                    BM: tl.constexpr, SPLITS: tl.constexpr):
    """What one query head and one part of the queries give to the P keys of a copy of the instruction.

    part_ptr: (copies, H, SPLITS, 2, PB, D) float32, keys without the scale, then values. All queries of up to
    2,048 places see these keys: one program for them all would run longer than the rest of the pass.
    """
    head, number, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv = head // G
    begin, end = tl.load(copies_ptr + number), tl.load(copies_ptr + number + 1)
    key = begin + tl.arange(0, PB)
    real = key < tl.minimum(begin + P, end)
    k, v = _load(k_ptr, key, k_stride, kv, real, D), _load(v_ptr, key, v_stride, kv, real, D)
    kind = tl.load(kind_ptr + key, mask=real, other=HIDDEN)
    key_position = key.to(tl.float32)
    if BIAS:
        key_position = tl.load(position_ptr + key, mask=real, other=0.0)
    dk, dv = tl.zeros([PB, D], tl.float32), tl.zeros([PB, D], tl.float32)
    share = tl.cdiv(tl.cdiv(end - begin - P, SPLITS), BM) * BM
    first = begin + P + split * share
    if split == 0:  # the instruction's own queries
        dk, dv = _key_gradient(
            dk, dv, k, v, key, kind, key_position, q_ptr, d_out_ptr, lse_ptr, delta_ptr, q_stride, head, begin,
            tl.minimum(begin + P, end), num_places, num_heads, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr,
            scale, D, P, BIAS, ENDS, BM)
    dk, dv = _key_gradient(
        dk, dv, k, v, key, kind, key_position, q_ptr, d_out_ptr, lse_ptr, delta_ptr, q_stride, head, first,
        tl.minimum(first + share, end), num_places, num_heads, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr,
        scale, D, P, BIAS, COPY, BM)
    at = (((number * num_heads + head) * SPLITS + split) * 2 * PB + tl.arange(0, PB)[:, None]) * D
    tl.store(part_ptr + at + tl.arange(0, D)[None, :], dk)
    tl.store(part_ptr + at + PB * D + tl.arange(0, D)[None, :], dv)


@triton.jit
def merge_copies(part_ptr, dk_ptr, dv_ptr, copies_ptr, num_heads, factor, G: tl.constexpr, D: tl.constexpr,
                 P: tl.constexpr, PB: tl.constexpr, SPLITS: tl.constexpr):
    """Add the parts up, in a fixed order, and store the gradients of a copy's keys."""
    kv, number = tl.program_id(0), tl.program_id(1)
    begin, end = tl.load(copies_ptr + number), tl.load(copies_ptr + number + 1)
    offset = tl.arange(0, PB)[:, None] * D + tl.arange(0, D)[None, :]
    dk, dv = tl.zeros([PB, D], tl.float32), tl.zeros([PB, D], tl.float32)
    for part in range(G * SPLITS):
        at = part_ptr + ((number * num_heads + kv * G) * SPLITS + part) * 2 * PB * D + offset
        dk += tl.load(at)
        dv += tl.load(at + PB * D)
    key = begin + tl.arange(0, PB)
    _store_keys(dk, dv, dk_ptr, dv_ptr, key, kv, num_heads // G, factor, key < tl.minimum(begin + P, end), D)
