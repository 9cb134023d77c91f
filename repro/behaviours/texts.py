"""The distinct behaviours of a data set: an item with its answer, and an item alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from repro.data.interactions import Items
from repro.prompts.templates import Template
from repro.prompts.tokenise import tokenise_items


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
    endings = {ending: tokenizer.decode([ending]) for ending in (no_id, yes_id)}
    number: dict[str, int] = {}
    pieces: list[np.ndarray] = []

    def behaviour(item: int, ending: int | None) -> int:
        text = template.interaction.format(text=items.text[item])
        own = tokenised.tokens[tokenised.offsets[item] : tokenised.offsets[item + 1]]
        if ending is not None:
            text, own = text + endings[ending], np.append(own, np.int32(ending))
        if text not in number:
            number[text] = len(pieces)
            pieces.append(own)
        assert np.array_equal(pieces[number[text]], own), "one text, two token sequences"
        return number[text]

    answered = np.array([[behaviour(i, no_id), behaviour(i, yes_id)] for i in range(len(items))])
    alone = np.array([behaviour(i, None) for i in range(len(items))])
    return Behaviours(
        text=tuple(number),
        tokens=np.concatenate(pieces),
        offsets=np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        answered=answered.astype(np.int64),
        alone=alone.astype(np.int64),
        template=template,
    )
