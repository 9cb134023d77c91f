"""The behaviour table: vectors by text, for one encoder (BAHE, section 2.2.1: the offline database)."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from repro.behaviours.checks import check_new_rows, check_numbers, check_opened
from repro.behaviours.texts import Behaviours
from repro.errors import ConfigError, TableError

if TYPE_CHECKING:
    from repro.behaviours.encoding import BehaviourEncoder  # with it come transformers

_log = logging.getLogger(__name__)
CHUNK = 16_384  # behaviours per version of a growing table: what a kill can cost at most


class BehaviourTable(Protocol):
    """Vectors of behaviours by their text; rows are only ever added.

    Attributes:
        fingerprint: of the encoder whose vectors these are.
        width: E, numbers per vector.
        version: grows with every addition.
    """

    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def version(self) -> int: ...  # noqa: D102

    def __len__(self) -> int: ...

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts),) int64 row numbers, -1 where a text is missing."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """A context that holds off other writers and has seen what they wrote."""
        ...

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> int:
        """Add rows behind the last one, all or none, and return the new version.

        Vectors may come from any encoder of that width: images or audio, say, under a key of their own.

        Args:
            texts: distinct, new, not empty.
            vectors: (len(texts), E) real numbers, kept as float32; a tensor without gradient will do.

        Raises:
            DataError: an empty text, one that is there already or comes twice, or is no text; vectors of
                another shape, not real, or not finite.
        """
        ...

    def vectors(self) -> Tensor:
        """(len, E) float32 on the CPU, to read only; memory-mapped where the table is on disk."""
        ...


class MemoryTable:
    """A table that lives as long as the process.

    Args:
        fingerprint: of the encoder.
        width: E, from 1.

    Raises:
        ConfigError: a width below 1, or an empty fingerprint.
    """

    def __init__(self, fingerprint: str, width: int) -> None:
        check_opened(fingerprint, width)
        self.fingerprint, self.width, self.version = fingerprint, width, 0
        self._row: dict[str, int] = {}
        self._vectors = np.empty((0, width), dtype=np.float32)  # with room for more

    def __len__(self) -> int:
        return len(self._row)

    def exclusive(self) -> AbstractContextManager[None]:
        """As in `BehaviourTable`: nobody else writes."""
        return nullcontext()

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """As in `BehaviourTable`."""
        return np.array([self._row.get(text, -1) for text in texts], dtype=np.int64)

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> int:
        """As in `BehaviourTable`."""
        vectors, first = check_new_rows(self, texts, vectors), len(self)
        if first + len(texts) > len(self._vectors):  # twice the room: each vector is copied about once
            roomy = np.empty((max(2 * first, first + len(texts)), self.width), dtype=np.float32)
            roomy[:first] = self._vectors[:first]
            self._vectors = roomy
        self._vectors[first : first + len(texts)] = vectors
        self._row.update(zip(texts, range(first, first + len(texts)), strict=True))
        self.version += 1
        return self.version

    def vectors(self) -> Tensor:
        """As in `BehaviourTable`."""
        return torch.from_numpy(self._vectors[: len(self)])


def keeps_tables() -> bool:
    """Whether `pylance` is installed, without which every table is in memory only."""
    return importlib.util.find_spec("lance") is not None


def open_table(folder: Path | None, fingerprint: str, width: int) -> BehaviourTable:
    """The table in a folder, created empty where there is none; one in memory without folder or `pylance`.

    Args:
        folder: of the table on disk, or None.
        fingerprint, width: of the encoder that will use it.

    Raises:
        TableError: a table of another fingerprint or width, or a damaged one.
        StorageError: the folder cannot be written.
        ConfigError: a width below 1, or an empty fingerprint.
    """
    if folder is None:
        return MemoryTable(fingerprint, width)
    if not keeps_tables():
        _log.warning("pylance is not installed: behaviours are kept in memory, not in %s", folder)
        return MemoryTable(fingerprint, width)
    from repro.behaviours.lance_table import LanceTable

    return LanceTable(folder, fingerprint, width)


def fill(table: BehaviourTable, behaviours: Behaviours, encoder: BehaviourEncoder) -> int:
    """Encode and add the behaviours that are missing, chunk by chunk; returns how many were.

    Killed in between, the chunks that were added stay, and another call goes on from there.

    Raises:
        TableError: the table's vectors come from another encoder.
        ConfigError: the behaviours were cut by another template than the encoder's.
        StorageError: the disk is full, ...; what was added before stays.
    """
    check_encoder(table, behaviours, encoder)
    with table.exclusive():  # of two processes, one encodes and the other finds nothing missing
        missing = missing_behaviours(table, behaviours)
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            table.add(behaviours.texts_of(chunk), encoder.encode(behaviours.tokens_of(chunk)))
    return len(missing)


def missing_behaviours(table: BehaviourTable, behaviours: Behaviours) -> np.ndarray:
    """(M,) numbers of the behaviours that the table lacks, shortest first: batches hold equal lengths."""
    missing = np.flatnonzero(table.rows(behaviours.text) < 0)
    return missing[np.argsort(behaviours.lengths[missing], kind="stable")]


def check_encoder(table: BehaviourTable, behaviours: Behaviours, encoder: BehaviourEncoder) -> None:
    """Assert that table, behaviours and encoder belong together.

    Raises:
        As `fill`.
    """
    if table.fingerprint != encoder.fingerprint:
        raise other_fingerprint("behaviour table", table.fingerprint, encoder.fingerprint)
    if table.width != encoder.width:
        raise other_width("behaviour table", table.width, encoder.width)
    own, of_texts = encoder.template, behaviours.template
    if (own.interaction, own.max_item_tokens) != (of_texts.interaction, of_texts.max_item_tokens):
        found = f"interaction {own.interaction!r}, at most {own.max_item_tokens} tokens"
        expected = f"{of_texts.interaction!r}, {of_texts.max_item_tokens}, as the behaviours have"
        raise ConfigError("template of the encoder", found, expected, "give the encoder their template")


def other_fingerprint(where: object, found: str, expected: str) -> TableError:
    """The error for vectors of another model, layer cut, pooling, precision, tokenizer or template."""
    return TableError(
        where,
        f"vectors of another encoder (fingerprint {found[:12]})",
        f"fingerprint {expected[:12]}: the same model, tokenizer, template, layer cut, pooling and precision",
        "choose another folder for this encoder, or delete the table and build it again",
    )


def other_width(where: object, found: int, expected: int) -> TableError:
    """The error for a table of this fingerprint whose vectors have another width."""
    fix = f"open it with width {found}, or give width {expected} a fingerprint and a folder of its own"
    return TableError(where, f"vectors of width {found}, under this fingerprint", f"width {expected}", fix)


def not_filled(missing: Sequence[str], asked: int) -> TableError:
    """The error for behaviours that a table lacks. missing: their texts; asked: how many were looked up."""
    what = f"{len(missing)} of {asked} behaviours are missing, {missing[0]!r} first"
    fix = (
        "add them with `fill` (`python -m repro build-table` adds those of a data set's items), or allow "
        "encoding on the fly: pass the table's encoder as `encoder`"
    )
    return TableError("behaviour table", what, "every behaviour that is asked for", fix)


def look_up(
    table: BehaviourTable,
    behaviours: Behaviours,
    numbers: np.ndarray,
    encoder: BehaviourEncoder | None = None,
) -> np.ndarray:
    """(len(numbers), E) float32 vectors of some behaviours.

    Args:
        numbers: of behaviours, (n,) int from 0 to len(behaviours) - 1, in any order, repeats allowed.
        encoder: encodes on the fly what the table lacks, without adding it; None: that is not allowed.

    Raises:
        DataError: a number outside the range, or none.
        TableError: a behaviour is missing and there is no encoder; or as `fill`.
    """
    distinct, place = np.unique(check_numbers(numbers, len(behaviours)), return_inverse=True)
    texts = behaviours.texts_of(distinct)
    row = table.rows(texts)
    missing = np.flatnonzero(row < 0)
    vectors = np.empty((len(distinct), table.width), dtype=np.float32)
    found = np.flatnonzero(row >= 0)
    vectors[found] = table.vectors().numpy()[row[found]]
    if len(missing):
        if encoder is None:
            raise not_filled([texts[each] for each in missing], len(distinct))
        check_encoder(table, behaviours, encoder)
        vectors[missing] = encoder.encode(behaviours.tokens_of(distinct[missing]))
    return vectors[place]
