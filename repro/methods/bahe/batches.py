"""Batches of BAHE and LLM-CTR for the training loop.

Shapes: B targets (padding last), R rows of L places, K segments per row, S user sequences, D distinct
behaviours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.backbones.visibility import send
from repro.behaviours.texts import Behaviours
from repro.methods.bahe.sequences import (
    Places,
    SequenceSource,
    UserSequences,
    back_to_back,
    side_by_side,
    text_lengths,
    written_out,
)
from repro.methods.bahe.vectors import BehaviourVectors, LoadedBehaviours, TableVectors
from repro.methods.method import BatchSizes
from repro.prompts.batching import SAMPLED_BATCHES, TargetBatches, with_room

# Of LLM-CTR on a GPU: every padded length and number of targets is one compilation.
TEXT_MULTIPLE, TEXT_TARGETS = 256, 16
TEXT_SHARE = 2  # parts of `max_tokens`: batches that no graph replays need room beside those that one does
DISTINCT_MULTIPLE = 64  # distinct behaviours of compiled batches are padded up to a multiple of it
WARM_UP_BATCHES = 256  # whose shapes stand for those of an epoch
NO_BEHAVIOURS = LoadedBehaviours(None)


@dataclass(frozen=True)
class BaheBatch:
    """One batch on the device, with counts that stay on the host.

    Attributes:
        behaviours: the D distinct behaviours; nothing for LLM-CTR.
        value: (R, L) int64, which of the D stands at a place; for LLM-CTR a token id.
        pool: (R, K, L) float32, weights of the mean over each segment.
        is_empty: (B, S) bool. item: (B,) int64, which of the D; empty for LLM-CTR.
        label: (B,) float32: 0, 1, or -1 for padding.
        target_row: rows of the prepared data, without padding.
        num_tokens: behaviour vectors that the upper layers read (an item's is one), plus tokens that lower
            layers read in this step; for LLM-CTR tokens. num_padded_tokens: with padding.
    """

    behaviours: LoadedBehaviours
    value: Tensor
    pool: Tensor
    is_empty: Tensor
    item: Tensor
    label: Tensor
    target_row: np.ndarray
    num_tokens: int
    num_padded_tokens: int

    @property
    def num_targets(self) -> int:
        """Targets, without padding."""
        return len(self.target_row)


@dataclass(frozen=True)
class Layout:
    """How targets become rows.

    Attributes:
        kind: `side-by-side` (feature parallel), `back-to-back` or `written-out` (LLM-CTR).
        multiple: L is padded up to a multiple of this.
        target_multiple: so is the number of targets.
        max_places: of a micro-batch, about.
    """

    kind: str
    multiple: int
    target_multiple: int
    max_places: int


def layout_of(kind: str, n: int, sizes: BatchSizes, compiled: bool) -> Layout:
    """A layout with few different shapes where each of them is compiled, and little padding elsewhere."""
    if kind == "written-out":
        multiple, targets = min(sizes.text_multiple, TEXT_MULTIPLE), TEXT_TARGETS
        places = sizes.max_tokens // TEXT_SHARE if compiled else sizes.max_tokens
    else:
        multiple, targets, places = n if compiled else 1, sizes.sum_multiple, sizes.max_tokens
    return Layout(kind, multiple, targets if compiled else 1, places)


class BaheBatches(TargetBatches):
    """All batches of one split.

    Args:
        source: of the sequences. behaviours: of the data set. vectors: where a batch's come from; None for
            LLM-CTR, which reads tokens.
        label: (N,) of the prepared data. targets: (T,) rows of the split's targets.
        batch_targets: targets per batch.
        layout: of the rows.
    """

    def __init__(
        self,
        source: SequenceSource,
        behaviours: Behaviours,
        vectors: BehaviourVectors | None,
        label: np.ndarray,
        targets: np.ndarray,
        batch_targets: int,
        layout: Layout,
    ) -> None:
        super().__init__(targets, batch_targets)
        assert (vectors is None) == (layout.kind == "written-out")
        self.source, self.behaviours, self.vectors = source, behaviours, vectors
        self.label, self.layout = label, layout
        self._most: int | None = None

    def split(self, key: np.ndarray) -> list[np.ndarray]:
        """A batch as micro-batches of about `max_places` places; texts of one padded length together."""
        places = self._places(key)
        order = np.argsort(places, kind="stable") if self.vectors is None else np.arange(len(places))
        part = (np.cumsum(places[order]) - places[order]) // self.layout.max_places
        if self.vectors is None:  # one padded length per micro-batch
            part = part * (int(places.max()) + 1) + places[order]
        return np.split(key[order], np.flatnonzero(np.diff(part)) + 1)

    def load(self, key: np.ndarray, device: torch.device | str) -> BaheBatch:
        """Lay out one batch and fetch its behaviours."""
        device, missing = torch.device(device), -len(key) % self.layout.target_multiple
        sequences = self.source.cut(np.pad(key, (0, missing), mode="edge"))
        places = self._lay_out(sequences)
        num_tokens = int(places.length.reshape(-1, len(key) + missing)[:, : len(key)].sum())
        value, item, loaded = places.value, np.empty(0, dtype=np.int64), NO_BEHAVIOURS
        if self.vectors is not None:
            distinct, value, item = _distinct(places, sequences.item)
            if self.layout.target_multiple > 1 and isinstance(self.vectors, TableVectors):
                distinct = padded(distinct, self._most_distinct())
            loaded = self.vectors.load(distinct, device)
            num_tokens += len(key) + loaded.num_tokens
        label = np.pad(self.label[key].astype(np.float32), (0, missing), constant_values=-1)
        return BaheBatch(
            behaviours=loaded,
            value=send(value, device),
            pool=send(places.pool, device),
            is_empty=send(np.logical_not(sequences.member.any(axis=2)).T, device),
            item=send(item, device),
            label=send(label, device),
            target_row=key,
            num_tokens=num_tokens,
            num_padded_tokens=value.size + len(item) + loaded.num_padded_tokens,
        )

    def warm_up(self, device: torch.device | str) -> list[np.ndarray]:
        """A micro-batch of every padded shape, so that compilation can be done and timed apart."""
        if self.layout.target_multiple == 1 or torch.device(device).type != "cuda":
            return []
        wholes = self.epoch(0, 0)
        sample = [part for whole in (*wholes[:WARM_UP_BATCHES], wholes[-1]) for part in self.split(whole)]
        found = {self._shape(part): part for part in reversed(sample)}
        return [found[shape] for shape in sorted(found)]

    def _most_distinct(self) -> int:
        """Behaviours that nearly every batch keeps to, so that all are padded to one number."""
        if self._most is None:
            some = self.epoch(0, 0)[:: -(-len(self.targets) // (SAMPLED_BATCHES * self.batch_targets))]
            cuts = [self.source.cut(key) for key in some]
            distinct = [_distinct(self._lay_out(cut), cut.item)[0] for cut in cuts]
            self._most = with_room(max(map(len, distinct)), DISTINCT_MULTIPLE)
        return self._most

    def _shape(self, key: np.ndarray) -> tuple[int, int]:
        """Padded targets and length of a micro-batch, in multiples."""
        targets = -(-len(key) // self.layout.target_multiple)
        if self.layout.kind == "side-by-side":
            return targets, 1  # no sequence is longer than n, and each is padded to it
        return targets, -(-(int(self._places(key).max()) - 1) // self.layout.multiple)

    def _places(self, rows: np.ndarray) -> np.ndarray:
        """(B,) places of each target's rows with its item; of texts the padded length."""
        sequences, multiple = self.source.cut(rows), self.layout.multiple
        if self.layout.kind == "written-out":
            longest = text_lengths(sequences, self.behaviours)
            return -(-longest // multiple) * multiple
        return sequences.member.sum((0, 2)) + 1

    def _lay_out(self, sequences: UserSequences) -> Places:
        if self.layout.kind == "side-by-side":
            return side_by_side(sequences, self.layout.multiple)
        if self.layout.kind == "back-to-back":
            return back_to_back(sequences, self.layout.multiple)
        return written_out(sequences, self.behaviours, self.layout.multiple)


def padded(distinct: np.ndarray, most: int) -> np.ndarray:
    """The behaviours, the last one again and again up to a multiple of `most`."""
    return np.pad(distinct, (0, -len(distinct) % most), mode="edge")


def _distinct(places: Places, item: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(D,) distinct behaviours of a batch, and which of them stands at each place and is each item."""
    real = np.arange(places.value.shape[1]) < places.length[:, None]
    value = np.where(real, places.value, item[0])  # padding asks for no behaviour of its own
    distinct, which = np.unique(np.concatenate([value.ravel(), item]), return_inverse=True)
    return distinct, which[: -len(item)].reshape(value.shape), which[-len(item) :]
