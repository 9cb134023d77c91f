"""The interval mask of a packed batch as a few numbers per query and per key, worked out on the host.

Two things stand elsewhere than in a `PackedBatch`, for the kernel's sake; neither changes what a query sees:

- A [SUM] moves from behind all text to right behind the last token it sees, so that queries that stand side
  by side see almost the same keys. As a key it is hidden from all others, unless it is visible by its layout
  (`inline-visible`): then it is in exactly the intervals that it should be in.
- The instruction stands again in front of the first row that begins 2,048 tokens after the last copy, and a
  query sees the copy before it: else one tile of keys would belong to every query of the batch, and the
  program that adds up its gradient would run longer than all others together. Only between two tokens that no
  interval spans, so intervals stay intervals.

N places: the tokens in the kernel's order, copies included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.backbones.fix_settings import Fixes
from repro.backbones.visibility import send
from repro.prompts.packing import PackedBatch

CHUNK = 2048  # tokens that share a copy of the instruction; a copy costs its tokens
HIDDEN, INSTRUCTION = 2**30, -1  # `seen_as` of keys in no interval; the second as in the kernels


@dataclass(frozen=True)
class IntervalTables:
    """What the kernels look up; every array but the two maps is int32 (float32 where stated).

    Attributes:
        order: (N,) int64, the token (text first, then [SUM]s) at each place.
        place: (T + S,) int64, the place of each token (of the instruction: its first copy).
        lo, hi: (N,) a query sees the keys whose `seen_as` is in [lo, hi), and its own. Neither ever falls.
        copy: (N,) first place of the instruction's copy that the query stands behind or in; it sees the
            copy's keys before itself.
        seen_as: (N,) a key's place, `HIDDEN` or `INSTRUCTION`.
        slope, position: (N,) float32, or empty: a query adds slope * (position of key - its own) to scores.
        first, stop: (N,) of key j: no query before `first` sees j or a later key, and none from `stop` on
            sees j or an earlier one (other than of its copy).
        copies: (C + 1,) first place of every copy, then N up to a number that depends on N alone.
        num_prefix: P, tokens of the instruction; 0 where it is hidden.
    """

    order: np.ndarray
    place: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    copy: np.ndarray
    seen_as: np.ndarray
    slope: np.ndarray
    position: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    copies: np.ndarray
    num_prefix: int

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """The tables in the order in which `interval_attention` takes them."""
        queries = (self.lo, self.hi, self.copy, self.seen_as, self.slope, self.position)
        return *queries, self.first, self.stop, self.copies


def copy_gaps(batch: PackedBatch) -> np.ndarray:
    """Numbers g of text tokens in front of which the instruction stands again.

    None in the padding, so padding does not change them.
    """
    if not (batch.num_prefix and batch.prefix_visible):
        return np.zeros(0, dtype=np.int64)
    num_text = len(batch.tokens)
    first = batch.lo + 1  # an interval [lo, hi) spans the gaps in front of tokens lo + 1 to hi - 1
    stop = np.maximum(batch.hi, first)
    change = np.bincount(first, minlength=num_text + 2) - np.bincount(stop, minlength=num_text + 2)
    free = np.flatnonzero(np.cumsum(change)[: num_text + 1] == 0)
    free = free[(free >= CHUNK) & (free < batch.num_text)]
    gaps = free[np.unique(free // CHUNK, return_index=True)[1]]
    # A gap late in one chunk and one early in the next: the kernels want copies further apart than a tile.
    near = np.flatnonzero(np.diff(gaps) < CHUNK // 8) + 1
    return np.delete(gaps, near)


def num_places(batch: PackedBatch) -> int:
    """N: text, [SUM]s and the instruction's further copies."""
    return len(batch.position) + batch.num_prefix * len(copy_gaps(batch))


def _order(batch: PackedBatch) -> tuple[np.ndarray, np.ndarray]:
    """(N,) token at each place and (T + S,) place of each token. Padding [SUM]s stand last."""
    num_text, total, copies = len(batch.tokens), len(batch.position), copy_gaps(batch)
    gap = np.where(batch.hi[num_text:] > 0, batch.hi[num_text:], num_text)
    again = np.tile(np.arange(batch.num_prefix), len(copies))
    token = np.concatenate([np.arange(total), again])
    # In front of text token g: first the [SUM]s of what is before it, then the instruction's copy.
    rank = [3 * np.arange(num_text) + 2, 3 * gap, np.repeat(3 * copies + 1, batch.num_prefix)]
    arranged = np.argsort(np.concatenate(rank), kind="stable")
    place = np.empty_like(arranged)
    place[arranged] = np.arange(len(arranged))
    return token[arranged], place[:total]


def interval_tables(batch: PackedBatch, alibi_slope: float | None = None) -> IntervalTables:
    """Tables of a packed batch.

    Args:
        alibi_slope: of the [SUM]s' scores, which fall with the distance between positions; None: no bias.
    """
    num_text, num_prefix = len(batch.tokens), batch.num_prefix if batch.prefix_visible else 0
    order, place = _order(batch)
    total, own = len(order), np.arange(len(order))
    is_sum = order >= num_text
    lo, hi = batch.lo[order], batch.hi[order]
    some = hi > lo
    lo, hi = np.where(some, place[np.where(some, lo, 0)], own), np.where(some, place[hi - 1] + 1, own)
    starts = np.flatnonzero(order == 0) if num_prefix else np.zeros(1, dtype=np.int64)
    copy = starts[np.searchsorted(starts, own, side="right") - 1]
    inside = own - copy < num_prefix
    lo, hi = np.where(inside, own, lo), np.where(inside, own, hi)
    assert (np.diff(lo) >= 0).all() and (np.diff(hi) >= 0).all(), "intervals move forward"
    seen_as = np.where(inside, INSTRUCTION, np.where(is_sum & (not batch.sum_hi.any()), HIDDEN, own))
    slope = position = np.zeros(0)
    if alibi_slope is not None:
        slope, position = np.where(is_sum, alibi_slope, 0.0), batch.position[order]
    filled = np.full((total + batch.num_prefix) // CHUNK + 2, total)
    if num_prefix:
        filled[: len(starts)] = starts
    columns = {
        **{"lo": lo, "hi": hi, "copy": copy, "seen_as": seen_as, "copies": filled},
        "first": np.searchsorted(np.maximum(hi, own + 1), own, side="right"),
        "stop": np.searchsorted(lo, own, side="right"),
    }
    return IntervalTables(
        order=order,
        place=place,
        slope=slope.astype(np.float32),
        position=position.astype(np.float32),
        num_prefix=num_prefix,
        **{name: column.astype(np.int32) for name, column in columns.items()},
    )


def causal_tables(length: np.ndarray, total: int) -> tuple[np.ndarray, ...]:
    """Tables, in the order of `IntervalTables.tables`, of causal sequences that stand one behind the other.

    Args:
        length: (R,) places of each sequence, may be 0.
        total: N; places behind the last sequence are padding, each alone.
    """
    own, stop = np.arange(total), np.cumsum(length)
    start, end = own.copy(), own + 1
    real = int(stop[-1]) if len(stop) else 0
    start[:real], end[:real] = np.repeat(stop - length, length), np.repeat(stop, length)
    columns = {"lo": start, "hi": own + 1, "copy": np.zeros(total), "seen_as": own}
    none = np.zeros(0, dtype=np.float32)
    queries = [column.astype(np.int32) for column in columns.values()]
    keys = [column.astype(np.int32) for column in (own, end, np.full(total // CHUNK + 2, total))]
    return *queries, none, none, *keys


def sum_tables(
    tables: IntervalTables, batch: PackedBatch, alibi_slope: float = 0.0, reset: bool = False
) -> tuple[np.ndarray, ...]:
    """What the kernels look up where [SUM]s are the only queries.

    Args:
        tables: of the batch.
        alibi_slope: a [SUM] adds alibi_slope * (position of key - its own) to scores, for every key.
        reset: with the tables of a reset; else they are empty.

    Returns:
        Of each [SUM] lo, hi, its own place and the number of its copy of the instruction (S,) int32, slope
        and position (S,) float32, and its target's interaction (S,) int32. Of each key `seen_as` (N,) int32,
        position (N,) float32 and interaction (N,) int32, `HIDDEN` (behind every target) where it is never
        reset. The copies, as in `IntervalTables`. (N,) int32 `first` and `stop`: no [SUM] before `first` sees
        key j or a later one, and none from `stop` on sees j or an earlier one, other than of its copy. Of
        each copy the first [SUM] that sees it or a later one, int32.
    """
    num_text, place = len(batch.tokens), np.arange(len(tables.order))
    own, ordinal = tables.place[num_text:], batch.ordinal[tables.order]
    lo, hi = tables.lo[own], tables.hi[own]
    assert all((np.diff(each) >= 0).all() for each in (lo, hi, own)), "intervals move forward"
    copy, position = np.searchsorted(tables.copies, tables.copy[own]), batch.position[tables.order]
    never = (tables.order >= num_text) | (ordinal < 0)  # [SUM]s, the instruction, padding
    columns = {
        **{"lo": lo, "hi": hi, "own": own, "copy": copy, "slope": np.full(len(own), alibi_slope)},
        **{"position": position[own], "ordinal": ordinal[own][: len(own) * reset], "seen_as": tables.seen_as},
        **{"key_position": position, "key_ordinal": np.where(never, HIDDEN, ordinal)[: len(place) * reset]},
        "copies": tables.copies,
        "first": np.searchsorted(np.maximum(hi, own + 1), place, side="right"),
        "stop": np.searchsorted(np.minimum(lo, own), place, side="right"),
        "readers": np.searchsorted(copy, np.arange(len(tables.copies))),
    }
    real = ("slope", "position", "key_position")
    return tuple(c.astype(np.float32 if name in real else np.int32) for name, c in columns.items())


@dataclass(frozen=True)
class IntervalPlan:
    """What the kernels need of one batch, on the device.

    Attributes:
        order: (N,) token at each place: of N - S text tokens (the plan's are padded to that), then [SUM]s.
        sum_place: (S,) place of each [SUM].
        tables: of `IntervalTables.tables`. num_prefix: as there.
        sums_inside: the kernel's result holds for the [SUM]s too. Else they need keys of their own.
        sum_tables: of `sum_tables`.
        ratio: (a_min, a_max, n / 2, tau) of a reset.
    """

    order: Tensor
    sum_place: Tensor
    tables: list[Tensor]
    num_prefix: int
    sums_inside: bool
    sum_tables: list[Tensor]
    ratio: tuple[float, float, float, float]


def plan_intervals(
    batch: PackedBatch, fixes: Fixes, n: int, device: torch.device
) -> tuple[IntervalPlan, IntervalTables]:
    """Plan of a batch, and where its tokens stand.

    Args:
        n: sets the middle of the reset range.
    """
    reset, inside = fixes.reset, not fixes.plain_keys
    inside = inside and (reset is None or reset.layers != "all")
    tables = interval_tables(batch, fixes.alibi_slope if inside and fixes.position != "rope" else None)
    num_text, total = len(batch.tokens), len(tables.order)
    ahead = total - len(batch.position)  # padding between text and [SUM]s
    of_sums = sum_tables(tables, batch, fixes.alibi_slope, reset is not None)
    plan = IntervalPlan(
        order=send(np.where(tables.order < num_text, tables.order, tables.order + ahead), device),
        sum_place=send(tables.place[num_text:], device),
        tables=[send(table, device) for table in tables.tables],
        num_prefix=tables.num_prefix,
        sums_inside=inside,
        sum_tables=[send(table, device) for table in of_sums],
        ratio=(0.0, 0.0, 0.0, 1.0) if reset is None else (reset.a_min, reset.a_max, n / 2, reset.tau),
    )
    return plan, tables
