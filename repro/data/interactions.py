"""The data contract: interactions, items, and a prepared data set (a source after a protocol).

Shapes: N interactions, U users, I items.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace

import numpy as np

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "validation", "test")
# Sequences that methods make from labels and order alone; a source's own names are others.
DERIVED_SEQUENCES = ("liked", "disliked", "recent")


@dataclass(frozen=True)
class Interactions:
    """User-item events, one row each. In a `Source`: file order; in `PreparedData`: chronological order.

    `timestamp` orders and splits the rows. It is never a model input, and neither are gaps between two of
    them: whether two timestamps are equal already tells the label in some copies of the data.
    `sequence` says which of the user's sequences a row belongs to, where the source says so. It is known
    once the row is history; that of a target may tell its label and is never read.
    """

    user: np.ndarray  # (N,) int32, 0..U-1
    item: np.ndarray  # (N,) int32, index into Items
    label: np.ndarray  # (N,) int8, 0 or 1
    timestamp: np.ndarray  # (N,) int64, in the source's own unit (seconds for all built-in sources)
    sequence: np.ndarray | None = None  # (N,) int8, index into `sequences` of the data; None: source has none

    def __post_init__(self) -> None:
        num_rows = len(self.user)
        for name, dtype in (
            ("user", np.int32),
            ("item", np.int32),
            ("label", np.int8),
            ("timestamp", np.int64),
            ("sequence", np.int8),
        ):
            column = getattr(self, name)
            if name == "sequence" and column is None:
                continue
            _require(
                column.shape == (num_rows,) and column.dtype == dtype, f"{name} is not ({num_rows},) {dtype}"
            )
            column.setflags(write=False)
        _require(
            num_rows == 0 or (self.user.min() >= 0 and self.item.min() >= 0), "a user or item is negative"
        )
        _require(not np.any((self.label != 0) & (self.label != 1)), "a label is neither 0 nor 1")

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> Interactions:
        """The chosen rows (row numbers or a boolean mask), as a new object."""
        columns = {name: column[rows] for name, column in vars(self).items() if column is not None}
        return replace(self, **columns)


@dataclass(frozen=True)
class Items:
    """What is known of each item; the three tuples have length I."""

    key: tuple[str, ...]  # the source's own id, never a model input for LLMs
    text: tuple[str, ...]  # what an LLM reads of the item, without answer, id or demographics
    categories: tuple[tuple[str, ...], ...]  # genres or category path, for ID-based baselines

    def __post_init__(self) -> None:
        _require(len(self.key) == len(self.text) == len(self.categories), "items have unequal columns")

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: np.ndarray) -> Items:
        """The chosen items (item numbers), as a new object."""
        chosen = rows.tolist()
        return Items(
            tuple(self.key[i] for i in chosen),
            tuple(self.text[i] for i in chosen),
            tuple(self.categories[i] for i in chosen),
        )


@dataclass(frozen=True)
class Source:
    """A data set as its files hold it: rows in file order, before any protocol.

    `counts` holds what a reader dropped or missed (for example `duplicates_dropped`), and may be empty.
    """

    name: str
    title: str  # how a report names it
    interactions: Interactions
    items: Items
    sha256: str  # checksum of the source files
    counts: dict[str, int] = field(default_factory=dict)
    sequences: tuple[str, ...] = ()  # names of the user sequences; empty where the source has none


@dataclass(frozen=True)
class PreparedData:
    """A source after a protocol: rows in global chronological order, ties in file order.

    Build one with `PreparedData.build`, which derives the last columns and the checksum. Every construction
    checks the invariants and raises ValueError when one is broken (a fault of the code, not of a user).
    """

    name: str
    protocol: str
    min_context: int  # targets have at least this many earlier interactions of their user
    interactions: Interactions
    items: Items
    split: np.ndarray  # (N,) int8: TRAIN, VALIDATION or TEST
    is_target: np.ndarray  # (N,) bool: counts as a target of its split (other rows are context only)
    position: np.ndarray  # (N,) int32: how many earlier interactions this user has (0 for the first)
    user_offsets: np.ndarray  # (U+1,) int64
    user_rows: (
        np.ndarray
    )  # (N,) int64: rows of user u, in order = user_rows[user_offsets[u]:user_offsets[u+1]]
    source_sha256: str  # checksum of the source files
    sha256: str  # checksum of the prepared content: interactions, items, split and targets
    counts: dict[str, int]  # raw_users, raw_items, raw_interactions (before pruning); users, ... (after)
    title: str = ""  # how a report names the data set
    sequences: tuple[str, ...] = ()  # names of the user sequences; empty where the source has none

    @classmethod
    def build(
        cls,
        *,
        name: str,
        protocol: str,
        min_context: int,
        interactions: Interactions,
        items: Items,
        split: np.ndarray,
        is_target: np.ndarray,
        source_sha256: str,
        counts: dict[str, int],
        title: str = "",
        sequences: tuple[str, ...] = (),
        grouped: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    ) -> PreparedData:
        """Derives positions, per-user rows and the checksum of chronologically ordered interactions.

        `grouped` is the result of `group_by_user` where the caller has it already (a third of the time).
        """
        user_rows, user_offsets, position = grouped or group_by_user(interactions.user)
        return cls(
            name=name,
            protocol=protocol,
            min_context=min_context,
            interactions=interactions,
            items=items,
            split=split,
            is_target=is_target,
            position=position,
            user_offsets=user_offsets,
            user_rows=user_rows,
            source_sha256=source_sha256,
            sha256=content_checksum(interactions, items, split, is_target, sequences),
            counts=counts,
            title=title or name,
            sequences=sequences,
        )

    def __post_init__(self) -> None:
        num_rows = len(self.interactions)
        for name, dtype in (("split", np.int8), ("is_target", np.bool_), ("position", np.int32)):
            column = getattr(self, name)
            _require(
                column.shape == (num_rows,) and column.dtype == dtype, f"{name} is not ({num_rows},) {dtype}"
            )
        for column in (self.split, self.is_target, self.position, self.user_offsets, self.user_rows):
            column.setflags(write=False)
        _require(not np.any(np.diff(self.interactions.timestamp) < 0), "rows are not in chronological order")
        _require(not np.any((self.split < TRAIN) | (self.split > TEST)), "split holds an unknown value")
        _require(
            bool(np.all(self.position[self.is_target] >= self.min_context)), "a target has too little context"
        )
        _require(
            num_rows == 0 or int(self.interactions.item.max()) < len(self.items),
            "an item has no entry in Items",
        )
        sequence = self.interactions.sequence
        _require((sequence is None) == (not self.sequences), "sequences and their names do not go together")
        _require(
            sequence is None or bool(np.all((sequence >= 0) & (sequence < len(self.sequences)))),
            "a sequence has no name",
        )
        users_in_order = np.repeat(np.arange(self.num_users, dtype=np.int32), np.diff(self.user_offsets))
        _require(
            np.array_equal(self.interactions.user[self.user_rows], users_in_order), "user_rows mixes users"
        )
        in_user_order = self.user_rows[1:] > self.user_rows[:-1]
        _require(
            bool(np.all(in_user_order | (np.diff(users_in_order) != 0))), "a user's rows are out of order"
        )
        expected = np.arange(num_rows) - np.repeat(self.user_offsets[:-1], np.diff(self.user_offsets))
        _require(
            np.array_equal(self.position[self.user_rows], expected),
            "position is not the number of earlier rows",
        )

    @property
    def num_users(self) -> int:
        """U, the number of users that have interactions."""
        return len(self.user_offsets) - 1

    def targets(self, split: int) -> np.ndarray:
        """Row numbers of a split's targets, (T,) int64, in canonical (chronological) order."""
        return np.flatnonzero(self.is_target & (self.split == split))

    def history(self, row: int) -> np.ndarray:
        """Rows of all earlier interactions of this row's user, oldest first, (position[row],) int64."""
        start = self.user_offsets[self.interactions.user[row]]
        return self.user_rows[start : start + self.position[row]]


def group_by_user(user: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(user_rows (N,) int64, user_offsets (U+1,) int64, position (N,) int32) of a user column, order kept.

    For user = [1, 0, 1]: user_rows = [1, 0, 2], user_offsets = [0, 1, 3], position = [0, 0, 1].
    """
    user_rows = np.argsort(user, kind="stable").astype(np.int64, copy=False)
    lengths = np.bincount(user)
    user_offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    position = np.empty(len(user), dtype=np.int32)
    position[user_rows] = np.arange(len(user)) - np.repeat(user_offsets[:-1], lengths)
    return user_rows, user_offsets, position


def content_checksum(
    interactions: Interactions,
    items: Items,
    split: np.ndarray,
    is_target: np.ndarray,
    sequences: tuple[str, ...] = (),
) -> str:
    """sha256 (hex) over everything that a run can depend on; the same on every machine."""
    digest = hashlib.sha256()
    present = {name: column for name, column in vars(interactions).items() if column is not None}
    columns = {**present, "split": split, "is_target": is_target}
    for name, column in columns.items():
        little_endian = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<"))
        digest.update(f"{name} {little_endian.dtype.str} {len(column)}\n".encode())
        digest.update(little_endian.data)
    digest.update(json.dumps([items.key, items.text, items.categories]).encode())
    if sequences:
        digest.update(json.dumps(sequences).encode())
    return digest.hexdigest()


def _require(holds: bool, broken: str) -> None:
    """Invariants are checked even under `python -O`, where assert statements vanish."""
    if not holds:
        raise ValueError(f"prepared data is inconsistent: {broken}")
