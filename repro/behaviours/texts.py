"""The distinct behaviours of a data set: an item with its answer, and an item alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from repro.data.interactions import Items
from repro.prompts.packing import ragged_arange
from repro.prompts.templates import Template
from repro.prompts.tokenise import TokenisedItems, tokenise_items

NO_ENDING = -1  # in place of an answer's token


@dataclass(frozen=True)
class Behaviours:
    """B distinct behaviour texts with their tokens.

    A behaviour is what a prompt of SW or DTI holds of one interaction, token by token: the item's text and
    the answer. The paper's atomic behaviours are such pairs of an action and an object. A candidate item has
    no answer yet, so its text alone is a behaviour too.

    Attributes:
        text: (B,) the keys of a table; a text that two items share stands once.
        tokens: (total,) int32, back to back.
        offsets: (B + 1,) int64; behaviour b's tokens are tokens[offsets[b]:offsets[b + 1]].
        answered: (num_items, 2) int64, behaviour of an item with the answer no (column 0) or yes (1).
        alone: (num_items,) int64, behaviour of an item without an answer.
        template: the words around a text; the tokens depend on it.
    """

    text: tuple[str, ...]
    tokens: np.ndarray
    offsets: np.ndarray
    answered: np.ndarray
    alone: np.ndarray
    template: Template

    def __len__(self) -> int:
        return len(self.text)

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64: tokens of each behaviour."""
        return np.diff(self.offsets)

    def texts_of(self, behaviours: np.ndarray) -> list[str]:
        """The texts of some behaviours (numbers)."""
        return [self.text[b] for b in behaviours.tolist()]

    def tokens_of(self, behaviours: np.ndarray) -> list[np.ndarray]:
        """The tokens of some behaviours (numbers), one int32 array each."""
        return [self.tokens[self.offsets[b] : self.offsets[b + 1]] for b in behaviours.tolist()]


def behaviours_of(
    items: Items, tokenizer: Any, template: Template, answer_ids: tuple[int, int]
) -> Behaviours:
    """Every item with either answer and alone, whether or not the data holds such an interaction.

    All of them are needed once the table serves: a user may answer either way to any item.

    Args:
        items, tokenizer, template, answer_ids: as `tokenise_items`; answer_ids is (yes_id, no_id).

    Raises:
        DataError: an item text is empty.
    """
    tokenised = tokenise_items(items, tokenizer, template, answer_ids)
    yes_id, no_id = answer_ids
    texts = [template.interaction.format(text=text) for text in items.text]
    no, yes = tokenizer.decode([no_id]), tokenizer.decode([yes_id])
    number: dict[str, int] = {}
    # Two answered ones per item, then all items alone: which behaviour each is, numbered as they come.
    keys = chain((text + answer for text in texts for answer in (no, yes)), texts)
    which = np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)
    item = np.concatenate([np.repeat(np.arange(len(texts)), 2), np.arange(len(texts))])
    ending = np.concatenate([np.tile([no_id, yes_id], len(texts)), np.full(len(texts), NO_ENDING)])
    _, first = np.unique(which, return_index=True)
    tokens, lengths = _with_endings(tokenised, item[first], ending[first])
    again = np.setdiff1d(np.arange(len(which)), first, assume_unique=True)
    same = first[which[again]]  # where the text of each of these came first
    shared = (_with_endings(tokenised, item[each], ending[each]) for each in (again, same))
    assert all(map(np.array_equal, *shared)), "one text, two token sequences"
    return Behaviours(
        text=tuple(number),
        tokens=tokens,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        answered=which[: 2 * len(texts)].reshape(-1, 2),
        alone=which[2 * len(texts) :],
        template=template,
    )


def _with_endings(
    tokenised: TokenisedItems, item: np.ndarray, ending: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of some items with an answer behind them, or none (`NO_ENDING`): int32 back to back, lengths."""
    answered = ending != NO_ENDING
    lengths = tokenised.lengths[item] + answered
    last = (np.cumsum(lengths) - 1)[answered]
    of_text = np.ones(lengths.sum(), dtype=bool)
    of_text[last] = False
    tokens = np.empty(len(of_text), dtype=np.int32)
    tokens[of_text] = tokenised.tokens[ragged_arange(tokenised.offsets[item], tokenised.lengths[item])]
    tokens[last] = ending[answered]
    return tokens, lengths
