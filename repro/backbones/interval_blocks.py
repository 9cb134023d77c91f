"""The interval mask of a packed batch as FlexAttention's block lists, worked out on the host from lo and hi.

`create_block_mask` would evaluate every (query, key) pair, once per batch and slower than the attention it is
for. Intervals make it arithmetic: a query's interval touches a contiguous run of key blocks and covers
another, so two running sums over (query blocks x key blocks) give the blocks that some query of a block sees
and those that all of them see entirely.

Two things stand elsewhere than in a `PackedBatch`, for the kernel's sake; neither changes what a query sees:

- [SUM]s move from behind all text to the end of their row's text. A block of them would else reach over the
  text of 128 sliding-window rows.
- The instruction stands again in front of every row that begins `CHUNK` tokens after the last copy, and a
  query sees the copy before it. With one for all, one block of keys belongs to every query of the batch, and
  the program that adds up its gradient runs five times as long as the rest of the backward pass.

Both happen only between two tokens that no interval spans, so intervals stay intervals.

N places: the tokens in the kernel's order, copies included, cut into N / BLOCK blocks of queries and of keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro.prompts.packing import PackedBatch

BLOCK = 128  # what FlexAttention's backward pass takes for head sizes of 64 to 128
CHUNK = 2048  # tokens that share a copy of the instruction; a copy costs its tokens


@dataclass(frozen=True)
class IntervalBlocks:
    """The visible keys of every query, by place, and the block lists of the mask.

    Attributes:
        order: (N,) int64, the token (text first, then [SUM]s) at each place.
        place: (T + S,) int64, the place of each token (of the instruction: its first copy).
        lo, hi: (N,) int32, visible keys [lo, hi), in places; every query also sees itself.
        sum_lo, sum_hi: (N,) int32, a second such interval ([SUM]s as keys); None where nobody has one.
        copy: (N,) int32, first place of the instruction's copy that the query sees or stands in.
        num_prefix: tokens of the instruction, 0 where it is hidden: a query at place copy + num_prefix or
            later sees [copy, copy + num_prefix).
        partial, full: (N / BLOCK, N / BLOCK) bool, blocks to compute with and without the mask.
    """

    order: np.ndarray
    place: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    sum_lo: np.ndarray | None
    sum_hi: np.ndarray | None
    copy: np.ndarray
    num_prefix: int
    partial: np.ndarray
    full: np.ndarray


def free_gaps(batch: PackedBatch) -> np.ndarray:
    """Ascending numbers g such that no interval of text spans the gap in front of text token g; T is one."""
    num_text = len(batch.tokens)
    first = batch.lo + 1  # an interval [lo, hi) spans the gaps in front of tokens lo + 1 to hi - 1
    stop = np.maximum(batch.hi, first)
    change = np.bincount(first, minlength=num_text + 2) - np.bincount(stop, minlength=num_text + 2)
    return np.flatnonzero(np.cumsum(change)[: num_text + 1] == 0)


def copy_gaps(batch: PackedBatch) -> np.ndarray:
    """Gaps where the instruction stands again; none in the padding, so padding does not change them."""
    if not (batch.num_prefix and batch.prefix_visible):
        return np.zeros(0, dtype=np.int64)
    free = free_gaps(batch)
    free = free[(free >= CHUNK) & (free < batch.num_text)]
    return free[np.unique(free // CHUNK, return_index=True)[1]]


def num_places(batch: PackedBatch) -> int:
    """N: text, [SUM]s and the instruction's further copies."""
    return len(batch.position) + batch.num_prefix * len(copy_gaps(batch))


def _order(batch: PackedBatch) -> tuple[np.ndarray, np.ndarray]:
    """(N,) token at each place and (T + S,) place of each token. Padding [SUM]s stand last.

    Where [SUM]s are keys themselves (`inline-visible`) they all stay behind the text: one interval each.
    """
    num_text, total, copies = len(batch.tokens), len(batch.position), copy_gaps(batch)
    gap = np.full(len(batch.label), num_text)
    if not batch.sum_hi.any():
        free, real = free_gaps(batch), batch.label >= 0
        gap[real] = free[np.searchsorted(free, batch.hi[num_text:][real])]
    again = np.tile(np.arange(batch.num_prefix), len(copies))
    token = np.concatenate([np.arange(total), again])
    rank = [3 * np.arange(num_text) + 2, 3 * gap, np.repeat(3 * copies + 1, batch.num_prefix)]
    arranged = np.argsort(np.concatenate(rank), kind="stable")
    place = np.empty_like(arranged)
    place[arranged] = np.arange(len(arranged))
    return token[arranged], place[:total]


def interval_blocks(batch: PackedBatch) -> IntervalBlocks:
    """Places, intervals and blocks of a packed batch; N must be a multiple of BLOCK."""
    num_text, num_prefix = len(batch.tokens), batch.num_prefix if batch.prefix_visible else 0
    order, place = _order(batch)
    total, own = len(order), np.arange(len(order))
    assert total % BLOCK == 0, "packed to whole blocks"
    lo, hi = _in_places(batch.lo[order], batch.hi[order], place)
    starts = np.flatnonzero(order == 0) if num_prefix else np.zeros(1, dtype=np.int64)
    copy = starts[np.searchsorted(starts, own, side="right") - 1]
    inside = own - copy < num_prefix
    lo, hi = np.where(inside, copy, lo), np.where(inside, own + 1, hi)
    parts = [(lo, hi), (own, own + 1), (copy, np.where(inside, copy, copy + num_prefix))]
    sum_lo = sum_hi = None
    if batch.sum_hi.any():
        sum_lo, sum_hi = _in_places(batch.sum_lo[order], batch.sum_hi[order], place[num_text:])
        parts.append((sum_lo, sum_hi))
    some, full = _blocks(parts, total)
    return IntervalBlocks(
        order=order,
        place=place,
        lo=lo.astype(np.int32),
        hi=hi.astype(np.int32),
        sum_lo=None if sum_lo is None else sum_lo.astype(np.int32),
        sum_hi=None if sum_hi is None else sum_hi.astype(np.int32),
        copy=copy.astype(np.int32),
        num_prefix=num_prefix,
        partial=some & ~full,
        full=full,
    )


def _in_places(lo: np.ndarray, hi: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval [lo, hi) of tokens as an interval of places; (0, 0) where it is empty."""
    some = hi > lo
    first, last = place[np.where(some, lo, 0)], place[np.where(some, hi - 1, 0)]
    return np.where(some, first, 0), np.where(some, last + 1, 0)


def _blocks(intervals: list[tuple[np.ndarray, np.ndarray]], total: int) -> tuple[np.ndarray, np.ndarray]:
    """(blocks that some query sees a key of, blocks that every query sees all keys of).

    The intervals of one query must be disjoint or, for a query's own place, hold less than a block. Two that
    cover a block only together count as partial, which is slower and right.

    Five-number example, BLOCK = 2: queries 2 and 3 with intervals [0, 3) and [0, 4) touch key blocks 0 and 1
    and both cover block 0 alone.
    """
    num, width = total // BLOCK, total // BLOCK + 1
    row = np.arange(total) // BLOCK * width
    touched = np.zeros(num * width, dtype=np.int64)
    covered = np.zeros_like(touched)
    for lo, hi in intervals:
        some = hi > lo
        _run(touched, row[some], lo[some] // BLOCK, -(-hi[some] // BLOCK))
        first, stop = -(-lo // BLOCK), hi // BLOCK
        whole = stop > first
        _run(covered, row[whole], first[whole], stop[whole])
    touched = np.cumsum(touched.reshape(num, width), axis=1)[:, :num]
    covered = np.cumsum(covered.reshape(num, width), axis=1)[:, :num]
    return touched > 0, covered == BLOCK


def _run(change: np.ndarray, row: np.ndarray, first: np.ndarray, stop: np.ndarray) -> None:
    """Add one to [first, stop) of every row, as differences."""
    change += np.bincount(row + first, minlength=len(change)) - np.bincount(row + stop, minlength=len(change))


def block_lists(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a bool matrix as FlexAttention wants them: how many are true, and their columns, then zeros."""
    count = blocks.sum(1)
    row, column = np.nonzero(blocks)
    index = np.zeros(blocks.shape, dtype=np.int32)
    index[row, np.arange(len(row)) - (np.cumsum(count) - count)[row]] = column
    return count.astype(np.int32), index
