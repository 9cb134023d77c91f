"""Item texts -> flat token arrays, once per data set and tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from repro.data.interactions import Items
from repro.errors import DataError
from repro.prompts.templates import Template

CHUNK = 8192  # texts that are lists of Python's integers at a time: those of a million items take gigabytes


@dataclass(frozen=True)
class TokenisedItems:
    """Tokens of all item texts back to back.

    Attributes:
        tokens: (total,) int32.
        offsets: (num_items + 1,) int64; item i's tokens are tokens[offsets[i]:offsets[i + 1]].
        instruction: (P,) int32.
        yes_id, no_id: the answer tokens.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    instruction: np.ndarray
    yes_id: int
    no_id: int

    @property
    def lengths(self) -> np.ndarray:
        """(num_items,) int64: tokens of each item text, without the answer."""
        return np.diff(self.offsets)

    def sha256(self) -> str:
        """Checksum of everything a prompt is built from; changes with tokenizer, template or texts."""
        digest = hashlib.sha256(f"{self.yes_id},{self.no_id}".encode())
        for array in (self.tokens, self.offsets, self.instruction):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def tokenise_items(
    items: Items, tokenizer: Any, template: Template, answer_ids: tuple[int, int]
) -> TokenisedItems:
    """Tokenise every item text alone.

    Args:
        items: texts of the data set.
        tokenizer: a transformers tokenizer. A token that it puts in front of any text (BOS) goes in front of
            the instruction; no other special token is added, and none is read out of a text.
        template: the words around each text.
        answer_ids: (yes_id, no_id).

    Raises:
        DataError: an item text is empty.
    """
    for key, text in zip(items.key, items.text, strict=True):
        if not text.strip():
            raise DataError(
                f"item {key}",
                "its text is empty",
                "a title or description",
                "give the item a text or drop it",
            )
    texts = [template.interaction.format(text=text) for text in items.text]
    limit = template.max_item_tokens
    parts, lengths = [], [0]
    for start in range(0, len(texts), CHUNK):
        encoded = _token_ids(tokenizer, texts[start : start + CHUNK])
        cut = [ids if len(ids) <= limit else ids[: limit - 1] + ids[-1:] for ids in encoded]
        parts.append(np.fromiter(chain.from_iterable(cut), dtype=np.int32))
        lengths += map(len, cut)
    (instruction,) = _token_ids(tokenizer, [template.instruction])
    if tokenizer.bos_token_id in tokenizer("a")["input_ids"]:  # Llama and Gemma were trained with one
        instruction = [tokenizer.bos_token_id, *instruction]
    return TokenisedItems(
        tokens=np.concatenate(parts),
        offsets=np.cumsum(lengths, dtype=np.int64),
        instruction=np.asarray(instruction, dtype=np.int32),
        yes_id=answer_ids[0],
        no_id=answer_ids[1],
    )


def _token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, nothing added to it, cut or read out of it."""
    plain = {"add_special_tokens": False, "split_special_tokens": True}  # "<|im_end|>" in a title is text
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # of pure Python
        return list(tokenizer(list(texts), **plain)["input_ids"])
    tokenizer("", **plain)  # tells the backend: no truncation, no padding, special tokens are text
    # Past transformers, which would make masks and copies of every text: half of the time.
    encoded = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [each.ids for each in encoded]
