"""Batches of BAHE and LLM-CTR for the training loop.

On a GPU, where layers are compiled, sequences stand one behind the other (`packed_layers`), elsewhere in rows
padded on the right.

Shapes: B targets (where packed, padding last), R rows of L places, K segments per row, N places of packed
sequences, S user sequences, D distinct behaviours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from repro.backbones.packed_layers import PackedRows, packed_rows
from repro.backbones.visibility import send
from repro.behaviours.texts import Behaviours
from repro.methods.bahe.sequences import (
    Places,
    SequenceSource,
    UserSequences,
    back_to_back,
    packed,
    side_by_side,
    written_out,
)
from repro.methods.bahe.vectors import BehaviourVectors, LoadedBehaviours, TableVectors
from repro.methods.method import BatchSizes
from repro.prompts.batching import (
    SAMPLED_BATCHES,
    TargetBatches,
    cut_by,
    even_parts,
    length_buckets,
    sampled_parts,
    shared_length,
    with_room,
)

TEXT_MULTIPLE = 256  # at most, to which texts in padded rows are rounded up; texts of one length share rows
TARGET_MULTIPLE = 16  # targets of packed batches are padded up to a multiple of it, at no places
TEXT_PLACES = 0.75  # of `max_tokens`: a step that needs half of the device is not recorded
DISTINCT_MULTIPLE = 64  # distinct behaviours of packed batches are padded up to a multiple of it
NUM_LENGTHS = 2  # padded numbers of places in training: each is one compilation; evaluation has one
SAMPLED_EPOCHS = 4  # a longer micro-batch than in any of these is a shape that was not compiled
NO_BEHAVIOURS = LoadedBehaviours(None)


@dataclass(frozen=True)
class BaheBatch:
    """One batch on the device, with counts that stay on the host.

    Attributes:
        behaviours: the D distinct behaviours; nothing for LLM-CTR.
        value: (R, L) or (N,) int64, which of the D stands at a place; for LLM-CTR a token id.
        is_empty: (B, S) bool.
        label: (B,) float32: 0, 1, or -1 for padding.
        target_row: rows of the prepared data, without padding.
        pool: (R, K, L) float32, weights of the mean over each segment; None if packed.
        item: (B,) int64, which of the D; None for LLM-CTR, and if packed: it stands behind its sequences.
        rows: which of the N places read each other; None if padded.
        segment: (B (S + 1) + 1,) int64, places of each segment of a target, then padding; None if padded.
        num_tokens: behaviour vectors that the upper layers read (an item's is one), plus tokens that lower
            layers read in this step; for LLM-CTR tokens. num_padded_tokens: with padding.
    """

    behaviours: LoadedBehaviours
    value: Tensor
    is_empty: Tensor
    label: Tensor
    target_row: np.ndarray
    num_tokens: int
    num_padded_tokens: int
    pool: Tensor | None = None
    item: Tensor | None = None
    rows: PackedRows | None = None
    segment: Tensor | None = None

    @property
    def num_targets(self) -> int:
        """Targets, without padding."""
        return len(self.target_row)


@dataclass(frozen=True)
class Layout:
    """How targets become rows.

    Attributes:
        kind: `side-by-side` (feature parallel), `back-to-back` or `written-out` (LLM-CTR).
        multiple: L, or N, is padded up to a multiple of this.
        target_multiple: so is the number of targets; only where packed.
        max_places: of a micro-batch, about.
        packed: sequences stand one behind the other, N of few different sizes.
        alike: all rows have one length, as synthetic ones do; only where packed.
    """

    kind: str
    multiple: int
    target_multiple: int
    max_places: int
    packed: bool = False
    alike: bool = False


def layout_of(kind: str, sizes: BatchSizes, packed: bool) -> Layout:
    """A layout with few different shapes where layers are compiled, and little padding elsewhere."""
    text = kind == "written-out"
    if not packed:
        return Layout(kind, min(sizes.text_multiple, TEXT_MULTIPLE) if text else 1, 1, sizes.max_tokens)
    places = int(sizes.max_tokens * TEXT_PLACES) if text else sizes.max_tokens
    return Layout(kind, sizes.text_multiple, TARGET_MULTIPLE, places, packed=True)


class BaheBatches(TargetBatches):
    """All batches of one split.

    Args:
        source: of the sequences. behaviours: of the data set. vectors: where a batch's come from; None for
            LLM-CTR, which reads tokens.
        label: (N,) of the prepared data. targets: (T,) rows of the split's targets.
        batch_targets: targets per batch.
        layout: of the rows.
        shuffled: whether batches are read as training's epochs, else in order.
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
        shuffled: bool = True,
    ) -> None:
        super().__init__(targets, batch_targets)
        assert (vectors is None) == (layout.kind == "written-out")
        self.source, self.behaviours, self.vectors = source, behaviours, vectors
        self.label, self.layout, self.shuffled = label, layout, shuffled
        self._sampled: list[np.ndarray] | None = None
        self._shapes: tuple[np.ndarray, int] | None = None
        self._of_target: np.ndarray | None = None

    def split(self, key: np.ndarray) -> list[np.ndarray]:
        """A batch as micro-batches of about `max_places` places.

        Where packed, of as many each; texts in padded rows with others of their padded length.
        """
        places, most = self._places(key), self.layout.max_places
        if self.layout.packed:
            part = even_parts(places, most)
        else:
            text, multiple = self.vectors is None, self.layout.multiple
            places = -(-places // multiple) * multiple if text else places
            order = np.argsort(places, kind="stable") if text else np.arange(len(key))
            key, places = key[order], places[order]
            part = (np.cumsum(places) - places) // most
            if text:
                part = part * (int(places.max()) + 1) + places
        return cut_by(part, key)

    def load(self, key: np.ndarray, device: torch.device | str) -> BaheBatch:
        """Lay out one batch and fetch its behaviours."""
        device = torch.device(device)
        return self._load_packed(key, device) if self.layout.packed else self._load_rows(key, device)

    def _load_rows(self, key: np.ndarray, device: torch.device) -> BaheBatch:
        sequences = self.source.cut(key)
        places = self._lay_out(sequences)
        num_tokens = int(places.length.sum())
        value, item, loaded = places.value, None, NO_BEHAVIOURS
        if self.vectors is not None:
            real = np.arange(value.shape[1]) < places.length[:, None]
            value = np.where(real, value, sequences.item[0])  # padding asks for no behaviour of its own
            distinct, which = np.unique(np.concatenate([value.ravel(), sequences.item]), return_inverse=True)
            value, item = which[: value.size].reshape(value.shape), which[value.size :]
            loaded = self.vectors.load(distinct, device)
            num_tokens += len(key) + loaded.num_tokens
        return BaheBatch(
            behaviours=loaded,
            value=send(value, device),
            pool=send(places.pool, device),
            is_empty=send(np.logical_not(sequences.member.any(axis=2)).T, device),
            item=None if item is None else send(item, device),
            label=send(self.label[key].astype(np.float32), device),
            target_row=key,
            num_tokens=num_tokens,
            num_padded_tokens=value.size + (0 if item is None else len(item)) + loaded.num_padded_tokens,
        )

    def _load_packed(self, key: np.ndarray, device: torch.device) -> BaheBatch:
        sequences = self.source.cut(key)
        found = packed(sequences, self.behaviours if self.vectors is None else None)
        value, num_tokens = found.value, len(found.value)
        total, targets = self._padded_shape(num_tokens, len(key))
        value = np.pad(value, (0, total - num_tokens), mode="edge")  # asks for no behaviour of its own
        missing, loaded = targets - len(key), NO_BEHAVIOURS
        if self.vectors is not None:
            distinct, value = np.unique(value, return_inverse=True)
            if isinstance(self.vectors, TableVectors):
                distinct = padded(distinct, self._most_distinct)
            loaded = self.vectors.load(distinct, device)
        segment = np.append(np.pad(found.length, ((0, missing), (0, 0))), total - num_tokens)
        is_empty = np.pad(found.length[:, :-1] == 0, ((0, missing), (0, 0)), constant_values=True)
        label = np.pad(self.label[key].astype(np.float32), (0, missing), constant_values=-1)
        return BaheBatch(
            behaviours=loaded,
            value=send(value, device),
            rows=packed_rows(_rows_of(self.layout.kind, found.length), total, device, self.layout.alike),
            segment=send(segment, device),
            is_empty=send(is_empty, device),
            label=send(label, device),
            target_row=key,
            num_tokens=num_tokens + loaded.num_tokens,
            num_padded_tokens=total + loaded.num_padded_tokens,
        )

    def warm_up(self, device: torch.device | str) -> list[np.ndarray]:
        """A micro-batch of every padded shape, so that compilation can be done and timed apart."""
        if not self.layout.packed:
            return []
        lengths, _ = self._few_shapes()
        _, first = np.unique(np.searchsorted(lengths, self._needed()), return_index=True)
        return [self._sample()[each] for each in first]

    def _sample(self) -> list[np.ndarray]:
        """Micro-batches whose shapes stand for those of all epochs and seeds."""
        if self._sampled is None:
            self._sampled = sampled_parts(self, SAMPLED_EPOCHS)
        return self._sampled

    def _needed(self) -> np.ndarray:
        """Places of each sampled micro-batch, without padding."""
        sample = self._sample()
        ends = np.cumsum([len(part) for part in sample])
        return np.diff(np.cumsum(self._places(np.concatenate(sample)))[ends - 1], prepend=0)

    def _few_shapes(self) -> tuple[np.ndarray, int]:
        """The few N of micro-batches with padding, ascending, and their B."""
        if self._shapes is None:
            multiple, target_multiple = self.layout.multiple, self.layout.target_multiple
            lengths = -(-self._needed() // multiple) * multiple
            few = length_buckets(lengths, NUM_LENGTHS) if self.shuffled else shared_length(lengths, multiple)
            self._shapes = few, -(-max(map(len, self._sample())) // target_multiple) * target_multiple
        return self._shapes

    def _padded_shape(self, places: int, targets: int) -> tuple[int, int]:
        """(N, B) of a micro-batch with padding: the smallest of few N that holds it; B is mostly the same."""
        multiple, target_multiple = self.layout.multiple, self.layout.target_multiple
        lengths, most = self._few_shapes()
        fitting = lengths[lengths >= places]
        total = int(fitting[0]) if len(fitting) else -(-places // multiple) * multiple
        return total, max(most, -(-targets // target_multiple) * target_multiple)

    @cached_property
    def _most_distinct(self) -> int:
        return most_distinct(self._sample(), lambda key: packed(self.source.cut(key)).value)

    def _places(self, rows: np.ndarray) -> np.ndarray:
        """(B,) places of each target's sequences and item."""
        if self._of_target is None:
            texts = self.behaviours if self.vectors is None else None
            self._of_target = np.zeros(len(self.label), dtype=np.int64)
            self._of_target[self.targets] = self.source.lengths(self.targets, texts)
        return self._of_target[rows]

    def _lay_out(self, sequences: UserSequences) -> Places:
        if self.layout.kind == "side-by-side":
            return side_by_side(sequences, self.layout.multiple)
        if self.layout.kind == "back-to-back":
            return back_to_back(sequences, self.layout.multiple)
        return written_out(sequences, self.behaviours, self.layout.multiple)


def _rows_of(kind: str, length: np.ndarray) -> np.ndarray:
    """(R,) places that read each other, of targets' segments (B, S + 1)."""
    if kind == "side-by-side":
        return length.ravel()
    if kind == "back-to-back":  # the item alone
        return np.stack([length[:, :-1].sum(1), length[:, -1]], axis=1).ravel()
    return length.sum(1)


def most_distinct(keys: Sequence[np.ndarray], read: Callable[[np.ndarray], np.ndarray]) -> int:
    """Behaviours that nearly every batch (of keys) keeps to: all are padded to it. read: those of one."""
    some = keys[:: -(-len(keys) // SAMPLED_BATCHES)]
    return with_room(max(len(np.unique(read(key))) for key in some), DISTINCT_MULTIPLE)


def padded(distinct: np.ndarray, most: int) -> np.ndarray:
    """The behaviours, the last one again and again up to a multiple of `most`."""
    return np.pad(distinct, (0, -len(distinct) % most), mode="edge")
