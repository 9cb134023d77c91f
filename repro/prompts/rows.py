"""Which interactions make up each prompt: sliding-window rows (k = 1) and streaming rows (k targets)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro.data.interactions import PreparedData
from repro.errors import ConfigError

MAX_N, MAX_K = 1000, 1000


@dataclass(frozen=True)
class Rows:
    """R prompts over one split. Indices count along `PreparedData.user_rows` (each user's history in order).

    A row covers the interactions [first, stop): context [first, start), then [start, stop) with its targets.

    Attributes:
        first, start, stop: (R,) int64.
        target: (N,) bool along user_rows: whether that interaction is a target of this split.
        num_targets: (R,) int64, at most k each.
        n, k: context length and targets per row.
    """

    first: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    target: np.ndarray
    num_targets: np.ndarray
    n: int
    k: int

    def __len__(self) -> int:
        return len(self.first)


def build_rows(data: PreparedData, split: int, n: int, k: int = 1) -> Rows:
    """Rows of a split's targets, as `rows_of`."""
    return rows_of(data, data.is_target & (data.split == split), n, k)


def rows_of(data: PreparedData, chosen: np.ndarray, n: int, k: int = 1) -> Rows:
    """Cut every user's targets into rows of up to k consecutive targets with n interactions before the first.

    Sliding window is k = 1 (DTI section 3.1), streaming is k > 1 (section 3.2). Five-number example, one user
    with 9 interactions, targets 5..8, n = 3, k = 2: rows [2, 7) with targets 5, 6 and [4, 9) with 7, 8.
    A target with fewer than n earlier interactions keeps what there is. Where more than n interactions lie
    between two targets (other splits, a subset), a new row starts: nothing of the gap is in anyone's window.

    Args:
        data: the interactions. chosen: (N,) bool, which of them are targets.
        n, k: context length and targets per row.

    Raises:
        ConfigError: n or k out of range.
    """
    if not 1 <= n <= MAX_N:
        raise ConfigError("n (context interactions)", str(n), f"1 to {MAX_N}", "choose another n")
    if not 1 <= k <= MAX_K:
        raise ConfigError("k (targets per prompt)", str(k), f"1 to {MAX_K}", "choose another k")
    target = chosen[data.user_rows]
    index = np.flatnonzero(target)
    user = data.interactions.user[data.user_rows][index]
    new_group = np.ones(len(index), dtype=bool)
    new_group[1:] = (user[1:] != user[:-1]) | (np.diff(index) > n + 1)
    group_start = np.maximum.accumulate(np.where(new_group, np.arange(len(index)), 0))
    new_row = (np.arange(len(index)) - group_start) % k == 0
    row_begin = np.flatnonzero(new_row)
    row_end = np.append(row_begin[1:], len(index))
    start = index[row_begin]
    return Rows(
        first=np.maximum(data.user_offsets[user[row_begin]], start - n),
        start=start,
        stop=index[row_end - 1] + 1 if len(index) else start,
        target=target,
        num_targets=row_end - row_begin,
        n=n,
        k=k,
    )
