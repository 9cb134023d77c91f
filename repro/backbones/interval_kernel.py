"""Triton kernels of attention over intervals of keys, forward and backward.

The query at place p sees the keys j whose `seen_as` lies in [lo, hi), its own key, and the keys of its copy
of the instruction, [copy, copy + P), that stand before it. lo and hi never fall from one query to the next,
so a tile of queries reads one run of keys, and a tile of keys is read by one run of queries. Runs begin where
they begin: the other side's tiles are not aligned. A program has one loop (over the copy, then the run): runs
are short, and starting a loop costs as much as some turns of it. So every tile is masked.

The backward pass computes scores twice (once by queries, once by keys; the keys of a copy, which all queries
see, have kernels of their own) and adds nothing atomically: a batch always gives the same gradient.

Queries and keys are read rotated and side by side, (N, H + K, D): `rotate` stores them so, once for all
readers, and queries times the scale of the scores, which are in base 2. Gradients are turned back in
registers and stored at any stride, so in one tensor too: neither the rotary embedding's gradient nor putting
three gradients side by side is a pass over memory.

N places, H query heads, K = H / G key-value heads, D head size. Imported on CUDA only.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Dozens of arguments, one per line, would hide the code.
# fmt: off

LOG2_E = tl.constexpr(1.4426950408889634)
NEVER = tl.constexpr(-1.0e30)  # finite: a row that has seen nothing yet stays a number, wiped out later
INSTRUCTION = tl.constexpr(-1)  # `seen_as` of a copy's keys: their gradient is added up apart


@triton.jit
def _load(pointer, row, stride, head, inside, D: tl.constexpr):
    """(rows, D) of one head; zeros outside."""
    dim = tl.arange(0, D)
    return tl.load(pointer + row[:, None] * stride + head * D + dim[None, :], mask=inside[:, None], other=0.0)


@triton.jit
def _turn(row, inside, cos_ptr, sin_ptr, D: tl.constexpr):
    """(rows, D / 2) cosines and sines of rows: the second half of a head has the same as the first."""
    where = row[:, None] * D + tl.arange(0, D // 2)[None, :]
    cos = tl.load(cos_ptr + where, mask=inside[:, None], other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + where, mask=inside[:, None], other=0.0).to(tl.float32)
    return cos, sin


@triton.jit
def rotate(x_ptr, turned_ptr, cos_ptr, sin_ptr, x_stride, stride, num_places, num_heads, num_scaled, scale,
           D: tl.constexpr, BM: tl.constexpr):
    """Rotary embedding of the heads of BM places; the first `num_scaled` times `scale`."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = row < num_places
    cos, sin = _turn(row, inside, cos_ptr, sin_ptr, D)
    dim = tl.arange(0, D // 2)[None, :]
    for head in range(num_heads):
        at = x_ptr + row[:, None] * x_stride + head * D + dim
        first = tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
        second = tl.load(at + D // 2, mask=inside[:, None], other=0.0).to(tl.float32)
        where = turned_ptr + row[:, None] * stride + head * D + dim
        factor = tl.where(head < num_scaled, scale, 1.0)
        kind = turned_ptr.dtype.element_ty
        tl.store(where, ((first * cos - second * sin) * factor).to(kind), mask=inside[:, None])
        tl.store(where + D // 2, ((second * cos + first * sin) * factor).to(kind), mask=inside[:, None])


@triton.jit
def _store_turned_back(grad, pointer, row, stride, head, stored, cos_ptr, sin_ptr, D: tl.constexpr):
    """Store the gradient (rows, D) of a rotated head as that of the head before the rotary embedding."""
    halves = tl.permute(tl.reshape(grad, (grad.shape[0], 2, D // 2)), (0, 2, 1))
    first, second = tl.split(halves)
    cos, sin = _turn(row, stored, cos_ptr, sin_ptr, D)
    at = pointer + row[:, None] * stride + head * D + tl.arange(0, D // 2)[None, :]
    kind = pointer.dtype.element_ty
    tl.store(at, (first * cos + second * sin).to(kind), mask=stored[:, None])
    tl.store(at + D // 2, (second * cos - first * sin).to(kind), mask=stored[:, None])


@triton.jit
def _in(key, lo, length):
    """lo <= key < lo + length, in one comparison."""
    return (key - lo).to(tl.uint32) < length.to(tl.uint32)


@triton.jit
def _queries_of(tile, num_places, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr,
                P: tl.constexpr, BIAS: tl.constexpr, BM: tl.constexpr):
    """A tile of queries: (query, real, lo, length of its interval, copy, slope in base 2, position)."""
    query = tile * BM + tl.arange(0, BM)
    real = query < num_places
    lo, hi = tl.load(lo_ptr + query, mask=real, other=0), tl.load(hi_ptr + query, mask=real, other=0)
    copy, slope, position = query, query.to(tl.float32), query.to(tl.float32)
    if P > 0:
        copy = tl.load(copy_ptr + query, mask=real, other=0)
    if BIAS:
        slope = tl.load(slope_ptr + query, mask=real, other=0.0) * LOG2_E
        position = tl.load(position_ptr + query, mask=real, other=0.0)
    return query, real, lo, hi - lo, copy, slope, position


@triton.jit
def _run_of(tile, num_places, lo_ptr, hi_ptr, copy_ptr, P: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Loop of a tile of queries: (first copy, second copy, turns over copies, begin of the run, turns)."""
    first = tile * BM
    last = tl.minimum(first + BM, num_places) - 1
    begin = tl.minimum(tl.load(lo_ptr + first), first)
    stop = tl.maximum(tl.load(hi_ptr + last), last + 1)
    one, two, over_copies = 0, 0, 0
    if P > 0:  # copies stand further apart than a tile is long
        one, two = tl.load(copy_ptr + first), tl.load(copy_ptr + last)
        over_copies = tl.where(one == two, 1, 2) * ((P + BN - 1) // BN)
    return one, two, over_copies, begin, over_copies + tl.cdiv(stop - begin, BN)


@triton.jit
def _keys_at(turn, one, two, over_copies, begin, num_places, query, lo, length, copy, seen_as_ptr,
             P: tl.constexpr, BN: tl.constexpr):
    """The keys of a turn: (key, inside, what is looked for, in which interval of each query, own key)."""
    if P > 0:
        per_copy: tl.constexpr = (P + BN - 1) // BN
        of_copy = turn < over_copies
        at = tl.where(of_copy, tl.where(turn < per_copy, one, two) + turn % per_copy * BN,
                      begin + (turn - over_copies) * BN)
        key = at + tl.arange(0, BN)
        inside = key < num_places
        seen_as = tl.where(of_copy, key, tl.load(seen_as_ptr + key, mask=inside, other=INSTRUCTION))
        before = tl.minimum(query - copy, P)
        return (key, inside, seen_as, tl.where(of_copy, copy, lo), tl.where(of_copy, before, length),
                tl.where(of_copy, -1, query))
    key = begin + turn * BN + tl.arange(0, BN)
    inside = key < num_places
    return key, inside, tl.load(seen_as_ptr + key, mask=inside, other=INSTRUCTION), lo, length, query


@triton.jit
def forward(q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, lo_ptr, hi_ptr, copy_ptr, seen_as_ptr, slope_ptr,
            position_ptr, qk_stride, v_stride, num_places, num_heads, G: tl.constexpr, D: tl.constexpr,
            P: tl.constexpr, BIAS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """One tile of BM queries of one head: output (N, H, D) and log2 of the softmax's denominator (H, N)."""
    head, tile = tl.program_id(0), tl.program_id(1)
    kv = head // G
    query, real, lo, length, copy, slope, position = _queries_of(
        tile, num_places, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr, P, BIAS, BM)
    one, two, over_copies, begin, turns = _run_of(tile, num_places, lo_ptr, hi_ptr, copy_ptr, P, BM, BN)
    q = _load(q_ptr, query, qk_stride, head, real, D)
    acc = tl.zeros([BM, D], tl.float32)
    peak, total = tl.full([BM], NEVER, tl.float32), tl.zeros([BM], tl.float32)
    for turn in range(turns):
        key, inside, seen_as, since, span, own = _keys_at(
            turn, one, two, over_copies, begin, num_places, query, lo, length, copy, seen_as_ptr, P, BN)
        k = _load(k_ptr, key, qk_stride, kv, inside, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        if BIAS:
            key_position = tl.load(position_ptr + key, mask=inside, other=0.0)
            s += slope[:, None] * (key_position[None, :] - position[:, None])
        seen = _in(seen_as[None, :], since[:, None], span[:, None]) | (key[None, :] == own[:, None])
        s = tl.where(seen, s, NEVER)
        higher = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        v = _load(v_ptr, key, v_stride, kv, inside, D)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        peak = higher
    where = out_ptr + (query[:, None] * num_heads + head) * D + tl.arange(0, D)[None, :]
    tl.store(where, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=real[:, None])
    tl.store(lse_ptr + head * num_places + query, peak + tl.log2(total), mask=real)


@triton.jit
def backward_queries(q_ptr, k_ptr, v_ptr, out_ptr, d_out_ptr, lse_ptr, delta_ptr, dq_ptr, lo_ptr, hi_ptr,
                     copy_ptr, seen_as_ptr, slope_ptr, position_ptr, cos_ptr, sin_ptr, qk_stride, v_stride,
                     grad_stride, num_places, num_heads, factor, G: tl.constexpr, D: tl.constexpr,
                     P: tl.constexpr, BIAS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Gradient of one tile of queries, turned back; delta (H, N), sums of out * d_out, for the keys' pass."""
    head, tile = tl.program_id(0), tl.program_id(1)
    kv = head // G
    query, real, lo, length, copy, slope, position = _queries_of(
        tile, num_places, lo_ptr, hi_ptr, copy_ptr, slope_ptr, position_ptr, P, BIAS, BM)
    one, two, over_copies, begin, turns = _run_of(tile, num_places, lo_ptr, hi_ptr, copy_ptr, P, BM, BN)
    q = _load(q_ptr, query, qk_stride, head, real, D)
    d_out = _load(d_out_ptr, query, num_heads * D, head, real, D)
    out = _load(out_ptr, query, num_heads * D, head, real, D)
    delta = tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)
    tl.store(delta_ptr + head * num_places + query, delta, mask=real)
    lse = tl.load(lse_ptr + head * num_places + query, mask=real, other=0.0)
    dq = tl.zeros([BM, D], tl.float32)
    for turn in range(turns):
        key, inside, seen_as, since, span, own = _keys_at(
            turn, one, two, over_copies, begin, num_places, query, lo, length, copy, seen_as_ptr, P, BN)
        k, v = _load(k_ptr, key, qk_stride, kv, inside, D), _load(v_ptr, key, v_stride, kv, inside, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        if BIAS:
            key_position = tl.load(position_ptr + key, mask=inside, other=0.0)
            s += slope[:, None] * (key_position[None, :] - position[:, None])
        seen = _in(seen_as[None, :], since[:, None], span[:, None]) | (key[None, :] == own[:, None])
        p = tl.where(seen, tl.exp2(s - lse[:, None]), 0.0)
        d_p = tl.dot(d_out, tl.trans(v), input_precision="ieee")
        dq = tl.dot((p * (d_p - delta[:, None])).to(k.dtype), k, dq, input_precision="ieee")
    _store_turned_back(dq * factor, dq_ptr, query, grad_stride, head, real, cos_ptr, sin_ptr, D)


@triton.jit
def _add_queries(dk, dv, k, v, key, seen_as, key_position, query, inside, since, span, own, head, q_ptr,
                 d_out_ptr, lse_ptr, delta_ptr, slope_ptr, position_ptr, qk_stride, num_places, num_heads,
                 D: tl.constexpr, BIAS: tl.constexpr):
    """Adds what a tile of queries gives to the gradients of a tile of keys (dk without its factor)."""
    q = _load(q_ptr, query, qk_stride, head, inside, D)
    d_out = _load(d_out_ptr, query, num_heads * D, head, inside, D)
    lse = tl.load(lse_ptr + head * num_places + query, mask=inside, other=0.0)
    delta = tl.load(delta_ptr + head * num_places + query, mask=inside, other=0.0)
    s = tl.dot(k, tl.trans(q), input_precision="ieee")
    if BIAS:
        slope = tl.load(slope_ptr + query, mask=inside, other=0.0) * LOG2_E
        position = tl.load(position_ptr + query, mask=inside, other=0.0)
        s += slope[None, :] * (key_position[:, None] - position[None, :])
    seen = _in(seen_as[:, None], since[None, :], span[None, :]) | (key[:, None] == own[None, :])
    p = tl.where(seen, tl.exp2(s - lse[None, :]), 0.0)
    dv = tl.dot(p.to(d_out.dtype), d_out, dv, input_precision="ieee")
    d_p = tl.dot(v, tl.trans(d_out), input_precision="ieee")
    dk = tl.dot((p * (d_p - delta[None, :])).to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def _store_keys(dk, dv, dk_ptr, dv_ptr, cos_ptr, sin_ptr, key, kv, stride, factor, stored, D: tl.constexpr):
    _store_turned_back(dk * factor, dk_ptr, key, stride, kv, stored, cos_ptr, sin_ptr, D)
    where = key[:, None] * stride + kv * D + tl.arange(0, D)[None, :]
    tl.store(dv_ptr + where, dv.to(dv_ptr.dtype.element_ty), mask=stored[:, None])


@triton.jit
def backward_keys(q_ptr, k_ptr, v_ptr, d_out_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, lo_ptr, hi_ptr,
                  copy_ptr, seen_as_ptr, slope_ptr, position_ptr, cos_ptr, sin_ptr, first_ptr, stop_ptr,
                  qk_stride, v_stride, grad_stride, num_places, num_heads, factor, G: tl.constexpr,
                  D: tl.constexpr, P: tl.constexpr, BIAS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Gradients of one tile of keys, turned back, and values: sums over the G query heads that read them."""
    kv, tile = tl.program_id(0), tl.program_id(1)
    key = tile * BN + tl.arange(0, BN)
    real = key < num_places
    k, v = _load(k_ptr, key, qk_stride, kv, real, D), _load(v_ptr, key, v_stride, kv, real, D)
    seen_as = tl.load(seen_as_ptr + key, mask=real, other=INSTRUCTION)
    key_position = key.to(tl.float32)
    if BIAS:
        key_position = tl.load(position_ptr + key, mask=real, other=0.0)
    begin = tl.load(first_ptr + tile * BN)
    stop = tl.load(stop_ptr + tl.minimum(tile * BN + BN, num_places) - 1)
    per_head = tl.cdiv(stop - begin, BM)
    dk, dv = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    for turn in range(G * per_head):
        query = begin + turn % per_head * BM + tl.arange(0, BM)
        inside = query < stop
        lo, hi = tl.load(lo_ptr + query, mask=inside, other=0), tl.load(hi_ptr + query, mask=inside, other=0)
        own = tl.where(inside, query, -1)
        dk, dv = _add_queries(
            dk, dv, k, v, key, seen_as, key_position, query, inside, lo, hi - lo, own,
            kv * G + turn // per_head,
            q_ptr, d_out_ptr, lse_ptr, delta_ptr, slope_ptr, position_ptr, qk_stride, num_places, num_heads,
            D, BIAS)
    stored = real & (seen_as != INSTRUCTION)
    _store_keys(dk, dv, dk_ptr, dv_ptr, cos_ptr, sin_ptr, key, kv, grad_stride, factor, stored, D)


@triton.jit
def backward_copies(q_ptr, k_ptr, v_ptr, d_out_ptr, lse_ptr, delta_ptr, part_ptr, lo_ptr, hi_ptr, copy_ptr,
                    seen_as_ptr, slope_ptr, position_ptr, copies_ptr, qk_stride, v_stride, num_places,
                    num_heads, G: tl.constexpr, D: tl.constexpr, P: tl.constexpr, PB: tl.constexpr,
                    BIAS: tl.constexpr, BM: tl.constexpr, SPLITS: tl.constexpr):
    """What one query head and one part of the queries give to the P keys of a copy of the instruction.

    part_ptr: (copies, H, SPLITS, 2, PB, D) float32, keys without their factor, then values. The queries of
    2,048 places see these keys: one program for them all would run longer than the rest of the pass.
    """
    head, number, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv = head // G
    begin, end = tl.load(copies_ptr + number), tl.load(copies_ptr + number + 1)
    key = begin + tl.arange(0, PB)
    real = key < tl.minimum(begin + P, end)
    k, v = _load(k_ptr, key, qk_stride, kv, real, D), _load(v_ptr, key, v_stride, kv, real, D)
    key_position = key.to(tl.float32)
    if BIAS:
        key_position = tl.load(position_ptr + key, mask=real, other=0.0)
    share = tl.cdiv(tl.cdiv(end - begin, SPLITS), BM) * BM
    first = begin + split * share
    stop = tl.minimum(first + share, end)
    dk, dv = tl.zeros([PB, D], tl.float32), tl.zeros([PB, D], tl.float32)
    for at in range(first, stop, BM):
        query = at + tl.arange(0, BM)
        inside = query < stop
        since = tl.zeros([BM], tl.int32) + begin
        span = tl.where(inside, tl.minimum(query - begin + 1, P), 0)  # the instruction's own queries too
        dk, dv = _add_queries(
            dk, dv, k, v, key, key, key_position, query, inside, since, span, since - 1, head,
            q_ptr, d_out_ptr, lse_ptr, delta_ptr, slope_ptr, position_ptr, qk_stride, num_places, num_heads,
            D, BIAS)
    at = (((number * num_heads + head) * SPLITS + split) * 2 * PB + tl.arange(0, PB)[:, None]) * D
    tl.store(part_ptr + at + tl.arange(0, D)[None, :], dk)
    tl.store(part_ptr + at + PB * D + tl.arange(0, D)[None, :], dv)


@triton.jit
def merge_copies(part_ptr, dk_ptr, dv_ptr, cos_ptr, sin_ptr, copies_ptr, grad_stride, num_heads, factor,
                 G: tl.constexpr, D: tl.constexpr, P: tl.constexpr, PB: tl.constexpr, SPLITS: tl.constexpr,
                 BN: tl.constexpr):
    """Add the parts of BN keys of a copy up, in a fixed order, and store their gradients, turned back."""
    kv, number, row = tl.program_id(0), tl.program_id(1), tl.program_id(2) * BN + tl.arange(0, BN)
    begin, end = tl.load(copies_ptr + number), tl.load(copies_ptr + number + 1)
    split, dim = tl.arange(0, SPLITS)[:, None, None], tl.arange(0, D)[None, None, :]
    where = part_ptr + (split * 2 * PB + row[None, :, None]) * D + dim
    dk, dv = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    for head in range(kv * G, kv * G + G):
        at = where + (number * num_heads + head) * SPLITS * 2 * PB * D
        dk += tl.sum(tl.load(at), 0)
        dv += tl.sum(tl.load(at + PB * D), 0)
    key = begin + row
    stored = key < tl.minimum(begin + P, end)
    _store_keys(dk, dv, dk_ptr, dv_ptr, cos_ptr, sin_ptr, key, kv, grad_stride, factor, stored, D)
