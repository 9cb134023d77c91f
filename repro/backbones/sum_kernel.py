"""Triton kernels of the [SUM]s' attention where they are the only queries, or have keys of their own.

[SUM]s are few. Here they stand one behind the other as queries, S of them, while keys keep their N places.
The [SUM] at place `own` sees the keys whose `seen_as` lies in [lo, hi), its own, and the P keys of its copy
of the instruction. None of lo, hi, own and the copy's number ever falls from one [SUM] to the next, so a tile
of [SUM]s reads one run of copies and one of keys, and a tile of keys is read by one run of [SUM]s. Nothing is
added atomically: a batch always gives the same gradient.

A tile's BM rows are BM // G [SUM]s with the G query heads that share a key-value head: keys are loaded once
for all of them, and a tile has few [SUM]s, so that it reads few keys that only its other [SUM]s see.

With a reset (RESET; `attention.ResetKeys`, mixing projected) a [SUM] reads (1 - alpha) k + alpha k0 instead
of a key k, and values alike. alpha depends on how many interactions lie between the two.
In place (IN_PLACE, `own_keys_attention`) a [SUM]'s query, output and their gradients stand at its own place
among N, not among S, and gradients of keys and values are added to what is stored there.
H query heads, K = H / G key-value heads, D head size. Imported on CUDA only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from repro.backbones.interval_kernel import INSTRUCTION, LOG2_E, NEVER, _in, _store_turned_back

# fmt: off


@triton.jit
def _load(pointer, row, stride, head, inside, D: tl.constexpr):
    """(rows, D) of one head or of one per row; zeros outside."""
    where = (row * stride + head * D)[:, None] + tl.arange(0, D)[None, :]
    return tl.load(pointer + where, mask=inside[:, None], other=0.0)


@triton.jit
def _store(x, pointer, row, stride, head, inside, ADD: tl.constexpr, D: tl.constexpr):
    """Store (rows, D) of one head or of one per row, or add them to what is stored."""
    where = (row * stride + head * D)[:, None] + tl.arange(0, D)[None, :]
    if ADD:
        x += tl.load(pointer + where, mask=inside[:, None], other=0.0)
    tl.store(pointer + where, x.to(pointer.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _rows(begin, stop, kv, G: tl.constexpr, BM: tl.constexpr):
    """The rows of a tile whose first [SUM] is `begin`: ([SUM], query head, whether there is one)."""
    row = tl.arange(0, BM)
    query = begin + row // G
    return query, kv * G + row % G, (row < BM // G * G) & (query < stop)


@triton.jit
def _sums_of(query, real, lo_ptr, hi_ptr, own_ptr, copy_ptr, slope_ptr, position_ptr, ordinal_ptr,
             P: tl.constexpr, RESET: tl.constexpr):
    """(lo, length of the interval, own place, copy's number, slope in base 2, position, interaction)."""
    lo, hi = tl.load(lo_ptr + query, mask=real, other=0), tl.load(hi_ptr + query, mask=real, other=0)
    own = tl.load(own_ptr + query, mask=real, other=-1)
    slope = tl.load(slope_ptr + query, mask=real, other=0.0) * LOG2_E
    copy, ordinal = own, own
    if P > 0:
        copy = tl.load(copy_ptr + query, mask=real, other=-2)
    if RESET:
        ordinal = tl.load(ordinal_ptr + query, mask=real, other=-1)
    return lo, hi - lo, own, copy, slope, tl.load(position_ptr + query, mask=real, other=0.0), ordinal


@triton.jit
def _run_of(tile, num_sums, lo_ptr, hi_ptr, own_ptr, copy_ptr, P: tl.constexpr, PER: tl.constexpr,
            BN: tl.constexpr):
    """Loop of a tile of [SUM]s: (number of the first copy, turns over copies, begin of the run, turns)."""
    first = tile * PER
    last = tl.minimum(first + PER, num_sums) - 1
    begin = tl.minimum(tl.load(lo_ptr + first), tl.load(own_ptr + first))
    stop = tl.maximum(tl.load(hi_ptr + last), tl.load(own_ptr + last) + 1)
    copy, over_copies = 0, 0
    if P > 0:
        copy = tl.load(copy_ptr + first)
        over_copies = (tl.load(copy_ptr + last) - copy + 1) * ((P + BN - 1) // BN)
    return copy, over_copies, begin, over_copies + tl.cdiv(stop - begin, BN)


@triton.jit
def _keys_at(turn, first_copy, over_copies, begin, num_places, lo, length, own, copy, seen_as_ptr, copies_ptr,
             P: tl.constexpr, BN: tl.constexpr):
    """The keys of a turn: (key, inside, what is looked for, in which interval of each [SUM], own key)."""
    at = begin + (turn - over_copies) * BN
    if P > 0:
        per_copy: tl.constexpr = (P + BN - 1) // BN
        of_copy = turn < over_copies
        number = first_copy + tl.minimum(turn, over_copies - 1) // per_copy
        start = tl.load(copies_ptr + number)
        key = tl.where(of_copy, start + turn % per_copy * BN, at) + tl.arange(0, BN)
        inside = key < num_places
        seen_as = tl.load(seen_as_ptr + key, mask=inside, other=INSTRUCTION)
        seen_as = tl.where(of_copy, tl.where(key < start + P, number, INSTRUCTION), seen_as)
        return (key, inside, seen_as, tl.where(of_copy, copy, lo), tl.where(of_copy, 1, length),
                tl.where(of_copy, -1, own))
    key = at + tl.arange(0, BN)
    inside = key < num_places
    return key, inside, tl.load(seen_as_ptr + key, mask=inside, other=INSTRUCTION), lo, length, own


@triton.jit
def _of_keys(key, inside, key_position_ptr, key_ordinal_ptr, RESET: tl.constexpr):
    """(position, interaction) of some keys."""
    ordinal = key
    if RESET:
        ordinal = tl.load(key_ordinal_ptr + key, mask=inside, other=0)
    return tl.load(key_position_ptr + key, mask=inside, other=0.0), ordinal


@triton.jit
def _scores(s, s0, since, span, own, slope, position, ordinal, key, seen_as, key_position, key_ordinal,
            a_min, a_range, middle, tau, RESET: tl.constexpr, SUMS: tl.constexpr):
    """(scores, alpha) of a tile; `SUMS`: the axis along which [SUM]s are alike, 1 where they are its rows."""
    KEYS: tl.constexpr = 1 - SUMS
    alpha = s
    if RESET:
        apart = tl.expand_dims(ordinal, SUMS) - tl.expand_dims(key_ordinal, KEYS)
        ratio = a_min + a_range * tl.sigmoid((apart.to(tl.float32) - middle) / tau)
        alpha = tl.where(apart > 0, ratio, 0.0)
        s = s * (1.0 - alpha) + s0 * alpha
    s += tl.expand_dims(slope, SUMS) * (tl.expand_dims(key_position, KEYS) - tl.expand_dims(position, SUMS))
    seen = _in(tl.expand_dims(seen_as, KEYS), tl.expand_dims(since, SUMS), tl.expand_dims(span, SUMS))
    seen = seen | (tl.expand_dims(key, KEYS) == tl.expand_dims(own, SUMS))
    return tl.where(seen, s, NEVER), alpha


@triton.jit
def forward(q_ptr, k_ptr, v_ptr, k0_ptr, v0_ptr, out_ptr, lse_ptr, places_lse_ptr, lo_ptr, hi_ptr, own_ptr,
            copy_ptr, slope_ptr, position_ptr, ordinal_ptr, seen_as_ptr, key_position_ptr, key_ordinal_ptr,
            copies_ptr, q_stride, k_stride, v_stride, k0_stride, v0_stride, num_sums, num_places, num_heads,
            scale, a_min, a_range, middle, tau, G: tl.constexpr, D: tl.constexpr, P: tl.constexpr,
            RESET: tl.constexpr, IN_PLACE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """One tile of [SUM]s: output (S, H, D) and log2 of the softmax's denominator (H, S)."""
    kv, tile = tl.program_id(0), tl.program_id(1)
    query, head, real = _rows(tile * (BM // G), num_sums, kv, G, BM)
    lo, length, own, copy, slope, position, ordinal = _sums_of(
        query, real, lo_ptr, hi_ptr, own_ptr, copy_ptr, slope_ptr, position_ptr, ordinal_ptr, P, RESET)
    row = own if IN_PLACE else query
    first_copy, over_copies, begin, turns = _run_of(
        tile, num_sums, lo_ptr, hi_ptr, own_ptr, copy_ptr, P, BM // G, BN)
    q = _load(q_ptr, row, q_stride, head, real, D)
    acc = tl.zeros([BM, D], tl.float32)
    peak, total = tl.full([BM], NEVER, tl.float32), tl.zeros([BM], tl.float32)
    for turn in range(turns):
        key, inside, seen_as, since, span, mine = _keys_at(
            turn, first_copy, over_copies, begin, num_places, lo, length, own, copy, seen_as_ptr, copies_ptr,
            P, BN)
        key_position, key_ordinal = _of_keys(key, inside, key_position_ptr, key_ordinal_ptr, RESET)
        k = _load(k_ptr, key, k_stride, kv, inside, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        s0 = s
        if RESET:
            k0 = _load(k0_ptr, key, k0_stride, kv, inside, D)
            s0 = tl.dot(q, tl.trans(k0), input_precision="ieee") * scale
        s, alpha = _scores(s, s0, since, span, mine, slope, position, ordinal, key, seen_as, key_position,
                           key_ordinal, a_min, a_range, middle, tau, RESET, 1)
        higher = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        v = _load(v_ptr, key, v_stride, kv, inside, D)
        acc *= shrink[:, None]
        if RESET:
            v0 = _load(v0_ptr, key, v0_stride, kv, inside, D)
            acc = tl.dot((p * alpha).to(v0.dtype), v0, acc, input_precision="ieee")
            p *= 1.0 - alpha
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
        peak = higher
    _store(acc / total[:, None], out_ptr, row, num_heads * D, head, real, False, D)
    tl.store(lse_ptr + head * num_sums + query, peak + tl.log2(total), mask=real)
    if IN_PLACE:  # to the backward pass over all places every weight of these rows is zero
        tl.store(places_lse_ptr + head * num_places + own, -NEVER, mask=real)


@triton.jit
def backward_sums(q_ptr, k_ptr, v_ptr, k0_ptr, v0_ptr, out_ptr, d_out_ptr, lse_ptr, delta_ptr, dq_ptr, lo_ptr,
                  hi_ptr, own_ptr, copy_ptr, slope_ptr, position_ptr, ordinal_ptr, seen_as_ptr,
                  key_position_ptr, key_ordinal_ptr, copies_ptr, cos_ptr, sin_ptr, q_stride, k_stride,
                  v_stride, k0_stride, v0_stride, grad_stride, num_sums, num_places, num_heads, scale, factor,
                  a_min, a_range, middle, tau, G: tl.constexpr, D: tl.constexpr, P: tl.constexpr,
                  RESET: tl.constexpr, IN_PLACE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Gradient of one tile of [SUM]s' queries; delta (H, S), sums of out * d_out, for the keys' pass."""
    kv, tile = tl.program_id(0), tl.program_id(1)
    query, head, real = _rows(tile * (BM // G), num_sums, kv, G, BM)
    lo, length, own, copy, slope, position, ordinal = _sums_of(
        query, real, lo_ptr, hi_ptr, own_ptr, copy_ptr, slope_ptr, position_ptr, ordinal_ptr, P, RESET)
    row = own if IN_PLACE else query
    first_copy, over_copies, begin, turns = _run_of(
        tile, num_sums, lo_ptr, hi_ptr, own_ptr, copy_ptr, P, BM // G, BN)
    q = _load(q_ptr, row, q_stride, head, real, D)
    d_out = _load(d_out_ptr, row, num_heads * D, head, real, D)
    out = _load(out_ptr, row, num_heads * D, head, real, D)
    delta = tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)
    tl.store(delta_ptr + head * num_sums + query, delta, mask=real)
    lse = tl.load(lse_ptr + head * num_sums + query, mask=real, other=0.0)
    dq = tl.zeros([BM, D], tl.float32)
    for turn in range(turns):
        key, inside, seen_as, since, span, mine = _keys_at(
            turn, first_copy, over_copies, begin, num_places, lo, length, own, copy, seen_as_ptr, copies_ptr,
            P, BN)
        key_position, key_ordinal = _of_keys(key, inside, key_position_ptr, key_ordinal_ptr, RESET)
        k, v = _load(k_ptr, key, k_stride, kv, inside, D), _load(v_ptr, key, v_stride, kv, inside, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        d_p = tl.dot(d_out, tl.trans(v), input_precision="ieee")
        s0, k0 = s, k
        if RESET:
            k0 = _load(k0_ptr, key, k0_stride, kv, inside, D)
            s0 = tl.dot(q, tl.trans(k0), input_precision="ieee") * scale
        s, alpha = _scores(s, s0, since, span, mine, slope, position, ordinal, key, seen_as, key_position,
                           key_ordinal, a_min, a_range, middle, tau, RESET, 1)
        if RESET:
            v0 = _load(v0_ptr, key, v0_stride, kv, inside, D)
            d_p += alpha * (tl.dot(d_out, tl.trans(v0), input_precision="ieee") - d_p)
        d_s = tl.exp2(s - lse[:, None]) * (d_p - delta[:, None])
        if RESET:
            dq = tl.dot((d_s * alpha).to(k0.dtype), k0, dq, input_precision="ieee")
            d_s *= 1.0 - alpha
        dq = tl.dot(d_s.to(k.dtype), k, dq, input_precision="ieee")
    if IN_PLACE:
        _store_turned_back(dq * factor, dq_ptr, row, grad_stride, head[:, None], real, cos_ptr, sin_ptr, D)
    else:
        _store(dq * factor, dq_ptr, row, grad_stride, head, real, False, D)


@triton.jit
def backward_keys(q_ptr, k_ptr, v_ptr, k0_ptr, v0_ptr, d_out_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, dk0_ptr,
                  dv0_ptr, lo_ptr, hi_ptr, own_ptr, copy_ptr, slope_ptr, position_ptr, ordinal_ptr,
                  seen_as_ptr, key_position_ptr, key_ordinal_ptr, copies_ptr, first_ptr, stop_ptr,
                  readers_ptr, q_stride, k_stride, v_stride, k0_stride, v0_stride, grad_stride, num_sums,
                  num_places, num_heads, scale, factor, a_min, a_range, middle, tau, G: tl.constexpr,
                  D: tl.constexpr, P: tl.constexpr, RESET: tl.constexpr, IN_PLACE: tl.constexpr,
                  BM: tl.constexpr, BN: tl.constexpr):
    """Gradients (N, K, D) of one tile of keys and values: sums over the G query heads that read them.

    Programs behind those of all tiles of places are of the instruction's copies, whose keys the others leave.
    """
    kv, tile = tl.program_id(0), tl.program_id(1)
    at, limit, of_copy, number = tile * BN, num_places, False, 0
    begin = tl.load(first_ptr + tl.minimum(at, num_places - 1))
    stop = tl.load(stop_ptr + tl.minimum(at + BN, num_places) - 1)
    if P > 0:
        per_copy: tl.constexpr = (P + BN - 1) // BN
        ahead = tile - tl.cdiv(num_places, BN)
        of_copy = ahead >= 0
        number = tl.maximum(ahead, 0) // per_copy
        start = tl.load(copies_ptr + number)  # N where there is no such copy
        at = tl.where(of_copy, start + ahead % per_copy * BN, at)
        limit = tl.where(of_copy, tl.minimum(start + P, num_places), num_places)
        begin = tl.where(of_copy, tl.load(readers_ptr + number), begin)
        stop = tl.where(of_copy, tl.load(readers_ptr + number + 1), stop)
    key = at + tl.arange(0, BN)
    real = key < limit
    seen_as = tl.load(seen_as_ptr + key, mask=real, other=INSTRUCTION)
    if P > 0:
        seen_as = tl.where(of_copy & real, number, seen_as)
    stored = real & (seen_as != INSTRUCTION)
    key_position, key_ordinal = _of_keys(key, real, key_position_ptr, key_ordinal_ptr, RESET)
    k, v = _load(k_ptr, key, k_stride, kv, real, D), _load(v_ptr, key, v_stride, kv, real, D)
    dk, dv = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    if RESET:
        k0, v0 = _load(k0_ptr, key, k0_stride, kv, real, D), _load(v0_ptr, key, v0_stride, kv, real, D)
        dk0, dv0 = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    for first in range(begin, stop, BM // G):
        query, head, inside = _rows(first, stop, kv, G, BM)
        since, span, own, copy, slope, position, ordinal = _sums_of(
            query, inside, lo_ptr, hi_ptr, own_ptr, copy_ptr, slope_ptr, position_ptr, ordinal_ptr, P, RESET)
        row = own if IN_PLACE else query
        if P > 0:
            since, span = tl.where(of_copy, copy, since), tl.where(of_copy, 1, span)
            own = tl.where(of_copy, -1, own)
        q = _load(q_ptr, row, q_stride, head, inside, D)
        d_out = _load(d_out_ptr, row, num_heads * D, head, inside, D)
        lse = tl.load(lse_ptr + head * num_sums + query, mask=inside, other=0.0)
        delta = tl.load(delta_ptr + head * num_sums + query, mask=inside, other=0.0)
        s = tl.dot(k, tl.trans(q), input_precision="ieee") * scale
        d_p = tl.dot(v, tl.trans(d_out), input_precision="ieee")
        s0 = s
        if RESET:
            s0 = tl.dot(k0, tl.trans(q), input_precision="ieee") * scale
        s, alpha = _scores(s, s0, since, span, own, slope, position, ordinal, key, seen_as, key_position,
                           key_ordinal, a_min, a_range, middle, tau, RESET, 0)
        p = tl.exp2(s - lse[None, :])
        if RESET:
            d_p += alpha * (tl.dot(v0, tl.trans(d_out), input_precision="ieee") - d_p)
        d_s = p * (d_p - delta[None, :])
        if RESET:
            dv0 = tl.dot((p * alpha).to(d_out.dtype), d_out, dv0, input_precision="ieee")
            dk0 = tl.dot((d_s * alpha).to(q.dtype), q, dk0, input_precision="ieee")
            p *= 1.0 - alpha
            d_s *= 1.0 - alpha
        dv = tl.dot(p.to(d_out.dtype), d_out, dv, input_precision="ieee")
        dk = tl.dot(d_s.to(q.dtype), q, dk, input_precision="ieee")
    _store(dk * factor, dk_ptr, key, grad_stride, kv, stored, IN_PLACE, D)
    _store(dv, dv_ptr, key, grad_stride, kv, stored, IN_PLACE, D)
    if RESET:
        _store(dk0 * factor, dk0_ptr, key, grad_stride, kv, stored, IN_PLACE, D)
        _store(dv0, dv0_ptr, key, grad_stride, kv, stored, IN_PLACE, D)
