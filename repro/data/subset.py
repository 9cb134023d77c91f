"""Smaller sets of targets for small tiers; every method then uses the identical ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repro.data.interactions import SPLIT_NAMES, TEST, TRAIN, VALIDATION, PreparedData, content_checksum
from repro.errors import ConfigError

SUBSET_SEED = 20250301  # fixed, for a subset is part of the data set and no source of variance


def take_subset(
    prepared: PreparedData,
    train_targets: int | None = None,
    validation_targets: int | None = None,
    test_targets: int | None = None,
) -> PreparedData:
    """The same interactions with fewer targets; rows that stop being targets remain as context.

    Training keeps whole users in a fixed shuffled order until the number is reached; of the last user only
    the first targets stay, so targets are consecutive in each history (streaming prompts need that) and the
    count is exact. Validation and test keep a fixed random choice of single targets. Each split's choice
    depends on its own number alone. None, or a number above what is there, keeps all. Raises ConfigError
    below 1.
    """
    is_target = prepared.is_target.copy()
    for split, number in ((TRAIN, train_targets), (VALIDATION, validation_targets), (TEST, test_targets)):
        if number is None:
            continue
        if number < 1:
            setting = f"{SPLIT_NAMES[split]}_targets"
            raise ConfigError(
                setting, str(number), "1 or more", "choose how many targets to keep, or None for all"
            )
        candidates = prepared.targets(split)
        if split == TRAIN:
            ranks = _shuffled(prepared.interactions.user[candidates], split)
            first_users_first = np.lexsort((candidates, prepared.interactions.user[candidates], ranks))
            chosen = candidates[first_users_first[:number]]
        else:
            chosen = candidates[np.argsort(_shuffled(candidates, split), kind="stable")[:number]]
        is_target[candidates] = False
        is_target[chosen] = True
    sha256 = content_checksum(
        prepared.interactions, prepared.items, prepared.split, is_target, prepared.sequences
    )
    return replace(prepared, is_target=is_target, sha256=sha256)


def _shuffled(numbers: np.ndarray, split: int) -> np.ndarray:
    return scrambled(numbers, SUBSET_SEED + split)


def scrambled(numbers: np.ndarray, seed: int) -> np.ndarray:
    """A fixed pseudo-random uint64 per number (splitmix64), the same under every NumPy version."""
    state = numbers.astype(np.uint64) + np.uint64(seed)
    state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
