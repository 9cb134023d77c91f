"""Protocols: named rules of pruning, dropping and splitting; part of every record.

All share: rows in global order of time, ties in file order; a target needs `min_context` earlier interactions
of its user (counted after pruning); rows without enough remain as context of later targets.

| name       | pruning                              | split 8:1:1                                            |
|------------|--------------------------------------|--------------------------------------------------------|
| `dti`      | items with fewer than 5 interactions | all rows by time, then targets with little context go  |
| `rella`    | none                                 | targets with little context go, then the rest by time  |
| `per-user` | none                                 | inside each user's history                             |

`dti` follows DTI (arXiv 2503.01001, experiments): "prune items with fewer than 5 interactions and split
user-item interactions in a ratio of 8:1:1 according to the timestamp". Pruning is read as one pass over items
(not repeated until stable, and users are kept), and its Table 2 shows the counts before pruning.
`rella` follows ReLLa's preprocessing of ML-1M, whose counts are 970,009 = 776,007 + 97,000 + 97,002.
A count of T splits into T*8//10 and T//10, and the rest is the test set.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repro.data.interactions import (
    SPLIT_NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    PreparedData,
    Source,
    group_by_user,
)
from repro.errors import ConfigError, DataError

PROTOCOLS = ("dti", "rella", "per-user")
MIN_ITEM_INTERACTIONS = 5


def check_protocol(protocol: str, min_context: int) -> None:
    """Raises ConfigError for an unknown protocol or a negative `min_context`."""
    if protocol not in PROTOCOLS:
        known = f"one of {', '.join(PROTOCOLS)}"
        fix = "name one of them as --protocol"
        raise ConfigError("protocol", f"unknown protocol {protocol!r}", known, fix)
    if min_context < 0:
        fix = "choose a number of earlier interactions"
        raise ConfigError("min_context", str(min_context), "0 or more", fix)


def apply_protocol(source: Source, protocol: str, min_context: int = 5) -> PreparedData:
    """The source pruned, ordered and split.

    Args:
        source: rows in file order.
        protocol: one of PROTOCOLS.
        min_context: interactions that a target's user has before it (the paper's n; 5 as ReLLa has it).

    Raises:
        ConfigError: unknown protocol, or `min_context` below 0.
        DataError: nothing is left after pruning, a split has no target, or all labels are the same.
    """
    check_protocol(protocol, min_context)
    interactions = source.interactions
    before = _sizes(interactions.user, interactions.item)
    kept = interactions.take(_rows_in_order(source, protocol))
    user, _ = _renumber(kept.user)
    item, item_numbers = _renumber(kept.item)
    kept = replace(kept, user=user, item=item)
    grouped = group_by_user(user)
    _, user_offsets, position = grouped
    is_target = position >= min_context
    split = _split(protocol, is_target, position, np.diff(user_offsets)[user])
    _refuse_empty(source.name, protocol, min_context, split, is_target, kept.label)
    after = _sizes(user, item)
    counts = {f"raw_{key}": value for key, value in before.items()} | after | source.counts
    return PreparedData.build(
        name=source.name,
        protocol=protocol,
        min_context=min_context,
        interactions=kept,
        items=source.items.take(item_numbers),
        split=split,
        is_target=is_target,
        source_sha256=source.sha256,
        counts=counts,
        title=source.title,
        sequences=source.sequences,
        grouped=grouped,
    )


def _rows_in_order(source: Source, protocol: str) -> np.ndarray:
    """Row numbers of the source that pruning leaves, by time; a stable sort keeps ties in file order."""
    item, timestamp = source.interactions.item, source.interactions.timestamp
    rows = np.arange(len(item))
    if protocol == "dti":
        rows = np.flatnonzero(np.bincount(item)[item] >= MIN_ITEM_INTERACTIONS)
    if not len(rows):
        found = f"no interaction of {len(item):,} is left after pruning by protocol {protocol}"
        expected = f"items with at least {MIN_ITEM_INTERACTIONS} interactions"
        fix = "bring more data, or choose protocol rella"
        raise DataError(f"data set {source.name}", found, expected, fix)
    return rows[np.argsort(timestamp[rows], kind="stable")]


def _split(
    protocol: str, is_target: np.ndarray, position: np.ndarray, history_length: np.ndarray
) -> np.ndarray:
    """(N,) int8. Each row's rank among the rows that are counted decides; for T = 11 rows: 8, 1 and 2.

    Under `rella` a row that is no target takes the split of the targets around it.
    """
    rank: np.ndarray
    total: np.ndarray | np.int64  # T: of each row's user, or of all
    if protocol == "per-user":
        rank, total = position.astype(np.int64), history_length.astype(np.int64)
    elif protocol == "rella":
        rank, total = np.cumsum(is_target) - is_target, np.int64(is_target.sum())
    else:
        rank, total = np.arange(len(is_target)), np.int64(len(is_target))
    num_train, num_validation = total * 8 // 10, total // 10
    split = np.full(len(is_target), TEST, dtype=np.int8)
    split[rank < num_train + num_validation] = VALIDATION
    split[rank < num_train] = TRAIN
    return split


def _renumber(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers without gaps, order kept, and the old numbers: [5, 2, 5] -> [1, 0, 1], [2, 5]."""
    present = np.bincount(numbers) > 0
    return (np.cumsum(present) - 1).astype(np.int32)[numbers], np.flatnonzero(present)


def _sizes(user: np.ndarray, item: np.ndarray) -> dict[str, int]:
    return {
        "users": int(np.count_nonzero(np.bincount(user))),
        "items": int(np.count_nonzero(np.bincount(item))),
        "interactions": len(user),
    }


def _refuse_empty(
    name: str, protocol: str, min_context: int, split: np.ndarray, is_target: np.ndarray, label: np.ndarray
) -> None:
    sizes = np.bincount(split[is_target], minlength=3)
    if not sizes.all():
        found = ", ".join(
            f"{size:,} {split_name} targets" for size, split_name in zip(sizes, SPLIT_NAMES, strict=True)
        )
        expected = f"at least one target in each split (protocol {protocol}, min_context {min_context})"
        raise DataError(f"data set {name}", found, expected, "bring more interactions, or lower min_context")
    if label.min() == label.max():
        found = f"every label is {label[0]}"
        raise DataError(
            f"data set {name}", found, "labels 0 and 1", "mend the labels, or the rating that counts as liked"
        )
