"""A target's user sequences as behaviours, and how they stand in the rows that a decoder reads.

Shapes: B targets, S sequences per user, n context interactions, R rows of L places, K segments per row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from repro.behaviours.texts import Behaviours
from repro.data.interactions import DERIVED_SEQUENCES, PreparedData
from repro.errors import ConfigError
from repro.prompts.packing import ragged_arange


@dataclass(frozen=True)
class UserSequences:
    """The sequences of B targets.

    Attributes:
        behaviour: (B, n) int64, behaviours (with their answers) of the last n interactions, oldest first.
        member: (S, B, n) bool, whether an interaction is there and belongs to a sequence.
        item: (B,) int64, the behaviours of the targets' items, which have no answer.
    """

    behaviour: np.ndarray
    member: np.ndarray
    item: np.ndarray


@dataclass(frozen=True)
class Places:
    """Rows that a decoder reads, padded on the right.

    Attributes:
        value: (R, L) int64, what stands at each place (behaviours or tokens); 0 where padded.
        pool: (R, K, L) float32, weights of the mean over each segment; all 0 where a segment is empty.
        length: (R,) int64, places that are real.
    """

    value: np.ndarray
    pool: np.ndarray
    length: np.ndarray


class SequenceSource:
    """All interactions of a data set as behaviours, in user order; a target's sequences are cut from them.

    Nothing of a target but its item, and nothing later than it, is ever read: a cut ends before the target.

    Args:
        data: with S sequences by the names `sequences`.
        behaviours: of its items.
        sequences: `liked` and `disliked` go by the label, `recent` is every interaction; other names are
            those of the data's own sequences.
        n: interactions of a user that are read.
        served: (items, rows of the targets that read them) -> items as `behaviours` numbers them, where the
            texts change over time; None: the items of the data.

    Raises:
        ConfigError: the data has no sequence of that name.
    """

    def __init__(
        self,
        data: PreparedData,
        behaviours: Behaviours,
        sequences: tuple[str, ...],
        n: int,
        served: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        interactions, self.n = data.interactions, n
        self._behaviours, self._served = behaviours, served
        self._item = interactions.item[data.user_rows].astype(np.int64)
        self._label = interactions.label[data.user_rows]
        self._member = np.stack([_members(data, name) for name in sequences])  # (S, N) in user order
        self._start = data.user_offsets[interactions.user]
        self._end = self._start + data.position  # where the row itself stands

    def cut(self, rows: np.ndarray) -> UserSequences:
        """The sequences of the targets in `rows` (B,) of the data.

        A user's interactions 10 11 12 13 in user order, n = 3: the target at 12 has the context 10 11.
        """
        place = self._end[rows][:, None] + np.arange(-self.n, 0)  # (B, n)
        there = place >= self._start[rows][:, None]
        place = np.where(there, place, self._start[rows][:, None])
        past, item = self._item[place], self._item[self._end[rows]]
        if self._served is not None:
            past, item = self._served(past, rows[:, None]), self._served(item, rows)
        return UserSequences(
            behaviour=np.where(there, self._behaviours.answered[past, self._label[place]], 0),
            member=self._member[:, place] & there,
            item=self._behaviours.alone[item],
        )

    def lengths(self, rows: np.ndarray, behaviours: Behaviours | None = None) -> np.ndarray:
        """(B,) int64 places that `packed` has for each target in `rows`, its sequences and its item together.

        Differences of one cumulative sum over all interactions: no sequence is cut.
        """
        assert behaviours is None or self._served is None, "a behaviour's text has one length at all times"
        each, end, item = self._member.sum(0), self._end[rows], np.int64(1)
        if behaviours is not None:
            each = each * behaviours.lengths[behaviours.answered[self._item, self._label]]
            item = behaviours.lengths[behaviours.alone[self._item[end]]]
        before = np.concatenate([[0], np.cumsum(each)])
        return before[end] - before[np.maximum(self._start[rows], end - self.n)] + item


def _members(data: PreparedData, name: str) -> np.ndarray:
    """(N,) bool in user order: which interactions are of a sequence."""
    label = data.interactions.label[data.user_rows]
    derived = {"liked": label == 1, "disliked": label == 0, "recent": np.ones(len(label), dtype=bool)}
    if name in derived:
        return derived[name]
    column = data.interactions.sequence
    if column is None or name not in data.sequences:
        known = ", ".join((*DERIVED_SEQUENCES, *data.sequences))
        raise ConfigError("sequence", repr(name), f"one of {known}", "choose these, or name it in the table")
    return column[data.user_rows] == data.sequences.index(name)


def side_by_side(sequences: UserSequences, multiple: int) -> Places:
    """Each sequence a row of its own: R = S * B (all targets of the first sequence first), K = 1."""
    number, batch, _ = sequences.member.shape
    sequence, target, place = np.nonzero(sequences.member)
    row = sequence * batch + target
    return _rows(row, np.zeros_like(row), sequences.behaviour[target, place], number * batch, 1, multiple)


def back_to_back(sequences: UserSequences, multiple: int) -> Places:
    """All sequences of a target in one row, in their order: R = B, K = S."""
    number, batch, _ = sequences.member.shape
    target, sequence, place = np.nonzero(sequences.member.swapaxes(0, 1))
    return _rows(target, sequence, sequences.behaviour[target, place], batch, number, multiple)


def written_out(sequences: UserSequences, behaviours: Behaviours, multiple: int) -> Places:
    """The tokens of all sequences of a target in one row, then those of its item: R = B, K = S + 1."""
    found = packed(sequences, behaviours)
    rows, segments = found.length.shape
    which = np.repeat(np.arange(rows * segments), found.length.ravel())
    return _rows(which // segments, which % segments, found.value, rows, segments, multiple)


@dataclass(frozen=True)
class Packed:
    """All that is read of B targets, one behind the other and nothing between.

    Attributes:
        value: (N,) int64, behaviours or tokens: target by target its sequences, then its item.
        length: (B, S + 1) int64, places of each sequence and of the item.
    """

    value: np.ndarray
    length: np.ndarray


def packed(sequences: UserSequences, behaviours: Behaviours | None = None) -> Packed:
    """Sequences and items of B targets as behaviours, or as the tokens of these `behaviours`."""
    number, batch, _ = sequences.member.shape
    target, segment, place = np.nonzero(sequences.member.swapaxes(0, 1))
    value = np.concatenate([sequences.behaviour[target, place], sequences.item])
    which = np.concatenate([target * (number + 1) + segment, np.arange(batch) * (number + 1) + number])
    order = np.argsort(which, kind="stable")  # behaviours of a segment stay in order of time
    value, which = value[order], which[order]
    each = np.ones_like(value) if behaviours is None else behaviours.lengths[value]
    if behaviours is not None:
        value = behaviours.tokens[ragged_arange(behaviours.offsets[value], each)]
    length = np.bincount(which, weights=each, minlength=batch * (number + 1)).astype(np.int64)
    return Packed(value, length.reshape(batch, number + 1))


def _rows(
    row: np.ndarray, segment: np.ndarray, value: np.ndarray, rows: int, segments: int, multiple: int
) -> Places:
    """Lay out values that come row by row; L is a multiple of `multiple`, and at least that."""
    length = np.bincount(row, minlength=rows)
    column = np.arange(len(row)) - (np.cumsum(length) - length)[row]
    width = -(-max(int(length.max(initial=0)), 1) // multiple) * multiple
    laid, pool = np.zeros((rows, width), dtype=np.int64), np.zeros((rows, segments, width), dtype=np.float32)
    laid[row, column] = value
    count = np.bincount(row * segments + segment, minlength=rows * segments)
    pool[row, segment, column] = 1.0 / count[row * segments + segment]
    return Places(laid, pool, length)
