"""Rows -> batches that hold a set number of targets, in a seeded order; rows are atomic.

What packing costs: rows stand back to back, so the only padding is the rounding of a batch to the next length
bucket (`text_multiple`), below 1 % at the tiers' settings; it is counted and recorded (tokens_padded).
"""

from __future__ import annotations

import numpy as np

from repro.errors import ConfigError
from repro.prompts.rows import Rows


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
    return [part for part in np.split(order, np.flatnonzero(np.diff(batch)) + 1) if len(part)]


def epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """(R,) order of rows in an epoch; the same for the same seed and epoch on every machine."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)
