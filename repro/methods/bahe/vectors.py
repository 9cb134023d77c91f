"""Where a batch's behaviour vectors come from: the table, or the texts that the lower layers are to read.

Shapes: D distinct behaviours of a batch, E hidden size, L padded length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from repro.backbones.visibility import send
from repro.behaviours.encoding import BehaviourEncoder, padded_lengths, padded_tokens
from repro.behaviours.table import BehaviourTable, look_up, missing_behaviours, not_filled
from repro.behaviours.texts import Behaviours


@dataclass(frozen=True)
class Texts:
    """Behaviours of about one length.

    Attributes:
        tokens: (G, L) int64, padded on the right. lengths: (G,) int64.
        place: (G,) int64, which of the batch's D behaviours each is.
    """

    tokens: Tensor
    lengths: Tensor
    place: Tensor


@dataclass(frozen=True)
class LoadedBehaviours:
    """The D distinct behaviours of a batch on the device: their vectors, or their texts.

    Attributes:
        vectors: (D, E) float32, or None where `texts` are to be encoded.
        texts: groups that hold each of the D behaviours once; empty beside `vectors`.
        num_tokens, num_padded_tokens: of the texts.
    """

    vectors: Tensor | None
    texts: tuple[Texts, ...] = ()
    num_tokens: int = 0
    num_padded_tokens: int = 0


class BehaviourVectors(Protocol):
    """A source of behaviours for batches."""

    def load(self, behaviours: np.ndarray, device: torch.device | str) -> LoadedBehaviours:
        """The behaviours (D,), given by number, each once."""
        ...


class TableVectors:
    """Vectors from the behaviour table.

    Args:
        table: where they are.
        behaviours: of the data set.
        encoder: encodes what the table lacks, once and without adding it; None: that is not allowed.

    Raises:
        TableError: a behaviour is missing and there is no encoder, or the encoder is not the table's.
        ConfigError: the behaviours were cut by another template than the encoder's.
    """

    def __init__(
        self, table: BehaviourTable, behaviours: Behaviours, encoder: BehaviourEncoder | None = None
    ) -> None:
        missing = missing_behaviours(table, behaviours)
        if len(missing) and encoder is None:
            raise not_filled(behaviours.texts_of(missing), len(behaviours))
        row = table.rows(behaviours.text)  # texts are looked up once
        row[missing] = len(table) + np.arange(len(missing))
        self._row, self._vectors = torch.from_numpy(row), table.vectors()
        self._encoded = torch.from_numpy(look_up(table, behaviours, missing, encoder))

    def load(self, behaviours: np.ndarray, device: torch.device | str) -> LoadedBehaviours:
        """As in `BehaviourVectors`."""
        row = self._row[torch.from_numpy(behaviours)]
        if not len(self._encoded):
            return LoadedBehaviours(send(self._vectors[row], torch.device(device)))
        there, held = row < len(self._vectors), len(self._vectors)
        vectors = self._encoded.new_empty(len(row), self._encoded.shape[1])
        vectors[there], vectors[~there] = self._vectors[row[there]], self._encoded[row[~there] - held]
        return LoadedBehaviours(send(vectors, torch.device(device)))


class TextVectors:
    """No vectors: the texts themselves, for a model that keeps its lower layers."""

    def __init__(self, behaviours: Behaviours) -> None:
        self.behaviours = behaviours
        self._padded = padded_lengths(behaviours.lengths)

    def load(self, behaviours: np.ndarray, device: torch.device | str) -> LoadedBehaviours:
        """As in `BehaviourVectors`; grouped by padded length, as the encoder pads them."""
        groups, num_padded = [], 0
        for length in np.unique(self._padded[behaviours]).tolist():
            place = np.flatnonzero(self._padded[behaviours] == length)
            tokens = padded_tokens(self.behaviours.tokens_of(behaviours[place]), length)
            lengths = self.behaviours.lengths[behaviours[place]]
            groups.append(Texts(*(send(each, torch.device(device)) for each in (tokens, lengths, place))))
            num_padded += tokens.size
        num_tokens = int(self.behaviours.lengths[behaviours].sum())
        return LoadedBehaviours(None, tuple(groups), num_tokens, num_padded)
