"""Rows -> batches that hold a set number of targets, in a seeded order; rows are atomic.

What packing costs: rows stand back to back, so the only padding is the rounding of a batch to the next length
bucket (`text_multiple`), below 1 % at the tiers' settings; it is counted and recorded (tokens_padded).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from repro.errors import ConfigError
from repro.prompts.rows import Rows

SAMPLED_BATCHES = 16  # of an epoch, whose sizes stand for those of all batches
EVALUATION_STEPS = 16  # a padded length in evaluation is at most a sixteenth longer than needed


def batch_rows(rows: Rows, batch_targets: int, order: np.ndarray) -> list[np.ndarray]:
    """Cut rows, in the given order, into batches that hold `batch_targets` targets on average.

    Row r goes to batch floor((targets of rows 0 to r, less one) / batch_targets): a batch never runs ahead of
    its share, and what it holds too little the next holds more. So every method takes the same number of
    optimiser steps over the same targets, ceil(targets / batch_targets), for any k up to `batch_targets`.
    Five-number example, rows of 3 targets, batch_targets = 5: batches (3), (3 + 3), (3 + 3).

    Args:
        rows: all rows of a split.
        batch_targets: targets per batch.
        order: (R,) permutation of the rows.

    Returns:
        List of arrays of row numbers; empty batches (a row larger than a batch) are left out.
    """
    if batch_targets < 1:
        raise ConfigError("batch_targets", str(batch_targets), "at least 1", "choose a positive number")
    counts = rows.num_targets[order]
    batch = (np.cumsum(counts) - 1) // batch_targets
    return [part for part in cut_by(batch, order) if len(part)]


def epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """(R,) order of rows in an epoch; the same for the same seed and epoch on every machine."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def cut_by(part: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """The rows of each part, in their order. part: (R,) number of each row's part; it never falls."""
    return np.split(rows, np.flatnonzero(np.diff(part)) + 1)


def even_parts(lengths: np.ndarray, most: int, more: int = 0) -> np.ndarray:
    """(R,) number of the micro-batch of each row: as few as hold about `most` each, all about equally long.

    Where micro-batches are padded to a few lengths, equal ones need less padding than full ones and a rest.
    Rows are atomic and go where their middle is, so that a micro-batch is longer than its share by at most
    half a row on either side. Five-number example, most = 4: lengths 2 2 2 2 2 give 0 0 1 2 2.

    Args:
        lengths: (R,) of the rows. more: micro-batches beyond those needed.
    """
    total = int(lengths.sum())
    return (2 * np.cumsum(lengths) - lengths) * (-(-total // most) + more) // (2 * total)


class TargetBatches:
    """Keys of batches that are rows of targets, `batch_targets` to a batch; for methods without prompts.

    Args:
        targets: (T,) rows of the split's targets.
        batch_targets: targets per batch.
    """

    def __init__(self, targets: np.ndarray, batch_targets: int) -> None:
        self.targets, self.batch_targets = targets, batch_targets

    @property
    def num_targets(self) -> int:
        """Targets of the split."""
        return len(self.targets)

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Rows of every batch in the seeded order of this epoch."""
        return self._cut(self.targets[epoch_order(len(self.targets), seed, epoch)])

    def in_order(self) -> list[np.ndarray]:
        """Rows of every batch in chronological order, for evaluation."""
        return self._cut(self.targets)

    def count(self, key: np.ndarray) -> int:
        """Targets of a batch."""
        return len(key)

    def _cut(self, rows: np.ndarray) -> list[np.ndarray]:
        return np.split(rows, np.arange(self.batch_targets, len(rows), self.batch_targets))


class Split(Protocol):
    """Batches of one split that are cut into micro-batches."""

    shuffled: bool

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Keys of every batch in the order of an epoch."""
        ...

    def in_order(self) -> list[np.ndarray]:
        """Keys of every batch for evaluation."""
        ...

    def split(self, key: np.ndarray, /) -> list[np.ndarray]:
        """A batch as micro-batches."""
        ...


def sampled_parts(batches: Split, epochs: int) -> list[np.ndarray]:
    """Micro-batches whose shapes stand for those of all epochs and seeds; all there are, if not shuffled."""
    orders = (
        [batches.epoch(0, epoch) for epoch in range(epochs)] if batches.shuffled else [batches.in_order()]
    )
    return [part for wholes in orders for whole in wholes for part in batches.split(whole)]


def with_room(longest: int, multiple: int) -> int:
    """A size 5 % above the longest of a sample, which nearly all batches keep to, and a whole multiple."""
    return -(-int(1.05 * longest) // multiple) * multiple


def shared_length(lengths: np.ndarray, multiple: int) -> np.ndarray:
    """(1,) padded length for batches of these lengths, mostly that of like batches too.

    The longest, rounded up in steps of `multiple` times the largest power of two that makes at least 16 steps
    of it: 1,000, 1,020 and 1,024 all give 1,024 for a multiple of 4.
    """
    longest = int(lengths.max())
    step = multiple * 2 ** max(0, (longest // (EVALUATION_STEPS * multiple)).bit_length() - 1)
    return np.array([-(-longest // step) * step])


def length_buckets(lengths: np.ndarray, count: int) -> np.ndarray:
    """At most `count` padded lengths for batches of these lengths, with the least padding in total.

    Each batch is padded to the next bucket. Exact, by dynamic programming over the distinct lengths.
    Five-number example, lengths 1 1 4 5 5 and 2 buckets: 1 and 5, one token of padding.

    Args:
        lengths: of a sample of batches; the longest is always a bucket.
        count: compiled kernels are made per length, so few.
    """
    values, times = np.unique(lengths, return_counts=True)
    number = len(values)
    heads = np.concatenate([[0], np.cumsum(times)])
    tokens = np.concatenate([[0], np.cumsum(times * values)])
    best = np.concatenate([[0.0], np.full(number, np.inf)])  # padding of the first i lengths
    cuts: list[np.ndarray] = []
    for _ in range(min(count, number)):
        # [i, j]: lengths i..j-1 in a bucket of their own, of length values[j - 1]
        cost = best[:-1, None] + values[None] * (heads[None, 1:] - heads[:-1, None])
        cost -= tokens[None, 1:] - tokens[:-1, None]
        cost[np.tri(number, k=-1, dtype=bool)] = np.inf
        cuts.append(cost.argmin(0))
        best = np.concatenate([[0.0], cost.min(0)])
    buckets, stop = [], number
    for cut in reversed(cuts):
        if stop:
            buckets.append(values[stop - 1])
            stop = int(cut[stop - 1])
    return np.array(buckets[::-1])
