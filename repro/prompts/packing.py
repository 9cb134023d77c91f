"""Rows -> packed batches: token ids, position ids and, for every query, the one interval of keys it may see.

Layout of a packed batch (T text tokens, then S [SUM]s)::

    [instruction: P][row 0 text][row 1 text]...[padding] | [SUM of target 0][SUM of target 1]...[padding]

* Rows stand back to back; no query sees another row. The instruction stands once in front of all rows: its
  tokens see only each other, so its keys and values would be the same in every row (for SW and DTI alike).
* A query sees text keys [lo, hi), the instruction [0, P) where that is visible, itself, and, with
  `inline-visible`, the [SUM]s [sum_lo, sum_hi). Nothing else. Positions are data, not array order.

Example (n = 1, deferred, items a, b, c of 2, 1, 2 tokens, targets b and c, P = 0)::

    index     0   1   2   3   4   5   6 | 7     8
    token     a0  a1  A:a b0  A:b c0  c1| SUM:b SUM:c      (A:x is the answer of x; the last is left out)
    position  0   1   2   3   4   5   6 | 4     7
    lo        0   0   0   0   0   3   3 | 0     3
    hi        1   2   3   4   5   6   7 | 4     7
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro.data.interactions import PreparedData
from repro.prompts.rows import Rows
from repro.prompts.settings import PromptSettings
from repro.prompts.tokenise import TokenisedItems


@dataclass(frozen=True)
class PackedBatch:
    """Arrays of one packed batch; queries are the T text tokens followed by the S [SUM]s.

    Attributes:
        tokens: (T,) int64 text tokens, instruction first, padding last.
        position: (T + S,) int64 position ids.
        lo, hi: (T + S,) int64, visible text keys [lo, hi); a text query's own token is inside.
        sum_lo, sum_hi: (T + S,) int64, visible [SUM]s (none unless `inline-visible`); each also sees itself.
        ordinal: (T + S,) int64, number of the interaction in the batch (-1: instruction, padding); the
            distance of a key from a [SUM]'s target is the difference of two ordinals.
        label: (S,) int64: 0, 1, or -1 for padding.
        target_row: (S,) int64 row of PreparedData, -1 for padding.
        num_prefix: P. prefix_visible: whether queries outside the instruction see it.
        num_text, num_sums: without padding (the instruction counts as text).
    """

    tokens: np.ndarray
    position: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    sum_lo: np.ndarray
    sum_hi: np.ndarray
    ordinal: np.ndarray
    label: np.ndarray
    target_row: np.ndarray
    num_prefix: int
    prefix_visible: bool
    num_text: int
    num_sums: int

    @property
    def num_tokens(self) -> int:
        """Tokens that are processed and are not padding, [SUM]s included."""
        return self.num_text + self.num_sums


def ragged_arange(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """concatenate([arange(s, s + l) for s, l in zip(...)]); starts (5, 0), lengths (2, 1): 5 6 0."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


@dataclass(frozen=True)
class PromptSource:
    """Everything prompts are cut from: one data set, its tokens, one format."""

    data: PreparedData
    items: TokenisedItems
    settings: PromptSettings


@dataclass(frozen=True)
class _Interactions:
    """The I interactions of a batch in order, with where each lies in the text array."""

    data_row: np.ndarray  # (I,) row of PreparedData
    is_target: np.ndarray  # (I,)
    row: np.ndarray  # (I,) row of the batch
    row_first: np.ndarray  # (I,) index of the first interaction of the same row
    begin: np.ndarray  # (I,) first text token
    text_end: np.ndarray  # (I,) one past the last text token; the answer, if any, stands there
    end: np.ndarray  # (I,) one past text and answer


def _lay_out(source: PromptSource, rows: Rows, chosen: np.ndarray) -> _Interactions:
    lengths = (rows.stop - rows.first)[chosen]
    along = ragged_arange(rows.first[chosen], lengths)
    data_row = source.data.user_rows[along]
    row = np.repeat(np.arange(len(chosen)), lengths)
    row_start = np.cumsum(lengths) - lengths
    is_last = np.zeros(len(along), dtype=bool)
    is_last[np.cumsum(lengths) - 1] = True
    is_target = rows.target[along] & (along >= np.repeat(rows.start[chosen], lengths))
    text_tokens = source.items.lengths[source.data.interactions.item[data_row]]
    has_answer = ~is_last & source.settings.answers_in_context
    end = len(source.items.instruction) + np.cumsum(text_tokens + has_answer)
    begin = end - text_tokens - has_answer
    return _Interactions(data_row, is_target, row, row_start[row], begin, begin + text_tokens, end)


def _text_tokens(source: PromptSource, parts: _Interactions) -> np.ndarray:
    items = source.items
    item = source.data.interactions.item[parts.data_row]
    tokens = np.empty(int(parts.end[-1]), dtype=np.int64)
    tokens[: len(items.instruction)] = items.instruction
    lengths = parts.text_end - parts.begin
    tokens[ragged_arange(parts.begin, lengths)] = items.tokens[ragged_arange(items.offsets[item], lengths)]
    answered = parts.end > parts.text_end
    label = source.data.interactions.label[parts.data_row[answered]]
    tokens[parts.text_end[answered]] = np.where(label == 1, items.yes_id, items.no_id)
    return tokens


def pack_rows(
    source: PromptSource, rows: Rows, chosen: np.ndarray, text_multiple: int = 1, sum_multiple: int = 1
) -> PackedBatch:
    """Pack the chosen rows into one batch.

    Args:
        source: data, tokens and prompt format; `source.settings.n` must be the rows' n.
        rows: all rows of a split.
        chosen: (B,) row numbers, in the order they are to stand.
        text_multiple, sum_multiple: T and S are padded up to a multiple of these.
    """
    settings, prefix = source.settings, len(source.items.instruction)
    parts = _lay_out(source, rows, chosen)
    tokens = _text_tokens(source, parts)
    num_text, targets = len(tokens), np.flatnonzero(parts.is_target)
    num_sums = len(targets)
    inline = settings.sum_layout != "deferred"

    # Text tokens outside the instruction: interaction of each, and the query arrays.
    per_token = np.repeat(np.arange(len(parts.data_row)), parts.end - parts.begin)
    query = np.arange(prefix, num_text)
    row_begin = parts.begin[parts.row_first]
    window_begin = parts.begin[np.maximum(parts.row_first, np.arange(len(parts.data_row)) - settings.n)]
    earlier_sums = np.cumsum(parts.is_target) - parts.is_target
    shift = earlier_sums - earlier_sums[parts.row_first] if inline else np.zeros_like(earlier_sums)
    after_own_sum = (query >= parts.text_end[per_token]) & parts.is_target[per_token] & inline
    text_position = prefix + query - row_begin[per_token] + shift[per_token] + after_own_sum
    sum_position = prefix + parts.text_end[targets] - row_begin[targets] + shift[targets]
    sum_hi = parts.text_end[targets]
    if settings.window == "tokens":
        size = int(settings.window_tokens or 0)
        text_lo = np.maximum(row_begin[per_token], query - size + 1)
        sum_lo = np.maximum(row_begin[targets], sum_hi - size)
    else:
        text_lo, sum_lo = window_begin[per_token], window_begin[targets]

    lo = np.concatenate([np.zeros(prefix, dtype=np.int64), text_lo, sum_lo])
    hi = np.concatenate([np.arange(1, prefix + 1), query + 1, sum_hi])
    seen_lo, seen_hi = np.zeros_like(lo), np.zeros_like(lo)
    if settings.sum_layout == "inline-visible":
        # [SUM] s stands behind text token sum_hi[s] - 1: visible if that is in the window and s is earlier.
        seen_lo[prefix:] = np.searchsorted(sum_hi, lo[prefix:], side="right")
        seen_hi[prefix:num_text] = np.searchsorted(sum_hi, query, side="right")
        seen_hi[num_text:] = np.arange(num_sums)
        seen_lo = np.minimum(seen_lo, seen_hi)
    batch = PackedBatch(
        tokens=tokens,
        position=np.concatenate([np.arange(prefix), text_position, sum_position]),
        lo=lo,
        hi=hi,
        sum_lo=seen_lo,
        sum_hi=seen_hi,
        ordinal=np.concatenate([np.full(prefix, -1), per_token, targets]),
        label=source.data.interactions.label[parts.data_row[targets]].astype(np.int64),
        target_row=parts.data_row[targets],
        num_prefix=prefix,
        prefix_visible=settings.instruction == "visible",
        num_text=num_text,
        num_sums=num_sums,
    )
    return pad_batch(batch, -num_text % text_multiple, -num_sums % sum_multiple)


def pad_batch(batch: PackedBatch, text: int, sums: int) -> PackedBatch:
    """Append padding tokens and [SUM]s; each sees itself and, where visible, the instruction."""
    num_text = len(batch.tokens)
    own = np.arange(num_text, num_text + text)

    def pad(array: np.ndarray, for_text: np.ndarray | int, for_sums: int) -> np.ndarray:
        middle = np.broadcast_to(np.asarray(for_text, dtype=np.int64), (text,))
        tail = np.full(sums, for_sums, dtype=np.int64)
        return np.concatenate([array[:num_text], middle, array[num_text:], tail])

    return PackedBatch(
        tokens=np.concatenate([batch.tokens, np.zeros(text, dtype=np.int64)]),
        position=pad(batch.position, 0, 0),
        lo=pad(batch.lo, own, 0),
        hi=pad(batch.hi, own + 1, 0),
        sum_lo=pad(batch.sum_lo, 0, 0),
        sum_hi=pad(batch.sum_hi, 0, 0),
        ordinal=pad(batch.ordinal, -1, -1),
        label=np.concatenate([batch.label, np.full(sums, -1, dtype=np.int64)]),
        target_row=np.concatenate([batch.target_row, np.full(sums, -1, dtype=np.int64)]),
        num_prefix=batch.num_prefix,
        prefix_visible=batch.prefix_visible,
        num_text=batch.num_text,
        num_sums=batch.num_sums,
    )
