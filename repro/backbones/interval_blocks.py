"""The interval mask of a packed batch as FlexAttention's block lists, worked out on the host from lo and hi.

`create_block_mask` would evaluate every (query, key) pair, once per batch and slower than the attention it is
for. Intervals make it arithmetic: a query's interval touches a contiguous run of key blocks and covers
another, so two running sums over (query blocks x key blocks) give the blocks that some query of a block sees
and those that all of them see entirely.

The [SUM]s stand behind all text in a `PackedBatch`. A block of 64 of them would reach over the text of 64
sliding-window rows, so here they move to the end of their row's text. Nothing else changes: no interval of
text has a [SUM] inside, since a [SUM] moves only to a place that no interval spans.

N tokens in array order of the kernel ("places"), cut into N / BLOCK blocks of queries and of keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro.prompts.packing import PackedBatch

BLOCK = 64


@dataclass(frozen=True)
class IntervalBlocks:
    """The visible keys of every query, by place, and the block lists of the mask.

    Attributes:
        order: (N,) int64, the token (text first, then [SUM]s) at each place.
        sum_place: (S,) int64, the place of each [SUM].
        lo, hi: (N,) int32, visible keys [lo, hi), in places; every query also sees itself.
        sum_lo, sum_hi: (N,) int32, a second such interval ([SUM]s as keys); None where nobody has one.
        num_prefix: every query from this place on also sees [0, num_prefix); 0 where the instruction is hidden.
        partial, full: (N / BLOCK, N / BLOCK) bool, blocks to compute with and without the mask.
    """

    order: np.ndarray
    sum_place: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    sum_lo: np.ndarray | None
    sum_hi: np.ndarray | None
    num_prefix: int
    partial: np.ndarray
    full: np.ndarray


def array_order(batch: PackedBatch) -> np.ndarray:
    """(N,) tokens in the order of the kernel: each [SUM] behind its row's text, padding [SUM]s last.

    Where [SUM]s are keys themselves (`inline-visible`) they all stay behind the text: one interval each.
    """
    num_text = len(batch.tokens)
    gap = np.full(len(batch.label), num_text)
    if not batch.sum_hi.any():
        first = batch.lo + 1  # an interval [lo, hi) spans the gaps in front of tokens lo + 1 to hi - 1
        stop = np.maximum(batch.hi, first)
        spanned = np.cumsum(
            np.bincount(first, minlength=num_text + 2) - np.bincount(stop, minlength=num_text + 2)
        )
        free = np.flatnonzero(spanned[: num_text + 1] == 0)
        real = batch.label >= 0
        gap[real] = free[np.searchsorted(free, batch.hi[num_text:][real])]
    return np.argsort(np.concatenate([2 * np.arange(num_text) + 1, 2 * gap]), kind="stable")


def interval_blocks(batch: PackedBatch) -> IntervalBlocks:
    """Places, intervals and blocks of a packed batch; N = T + S must be a multiple of BLOCK."""
    num_text, total = len(batch.tokens), len(batch.position)
    assert total % BLOCK == 0, "packed to whole blocks"
    order = array_order(batch)
    place = np.empty_like(order)
    place[order] = np.arange(total)
    own = np.arange(total)
    lo, hi = _in_places(batch.lo[order], batch.hi[order], place)
    num_prefix = batch.num_prefix if batch.prefix_visible else 0
    parts = [(lo, hi), (own, own + 1)]
    parts.append((np.zeros(total, dtype=np.int64), np.where(own >= num_prefix, num_prefix, 0)))
    sum_lo = sum_hi = None
    if batch.sum_hi.any():
        sum_lo, sum_hi = _in_places(batch.sum_lo[order], batch.sum_hi[order], place[num_text:])
        parts.append((sum_lo, sum_hi))
    some, full = _blocks(parts, total)
    return IntervalBlocks(
        order=order,
        sum_place=place[num_text:],
        lo=lo.astype(np.int32),
        hi=hi.astype(np.int32),
        sum_lo=None if sum_lo is None else sum_lo.astype(np.int32),
        sum_hi=None if sum_hi is None else sum_hi.astype(np.int32),
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
