"""Batches of a [SUM] method for the training loop: rows of a split, packed and planned on demand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from repro.backbones.fix_settings import Fixes
from repro.backbones.interval_tables import CHUNK, num_places
from repro.backbones.plan import MAX_SUM_BLOCK, BatchPlan, plan_batch
from repro.backbones.visibility import KEY_MULTIPLE, query_blocks
from repro.data.interactions import TRAIN, PreparedData
from repro.methods.method import BatchSizes, SumMethod
from repro.prompts.batching import (
    batch_rows,
    cut_by,
    epoch_order,
    even_parts,
    length_buckets,
    sampled_parts,
    shared_length,
    with_room,
)
from repro.prompts.packing import PackedBatch, PromptSource, pack_rows, pad_batch
from repro.prompts.rows import Rows, build_rows
from repro.prompts.tokenise import TokenisedItems

# Padded lengths of training on CUDA: each is one compilation. Evaluation has one (`shared_length`), so that a
# run has at most four recompilations; one more with un-rotated keys, or a reset of all layers at test too,
# where the number of [SUM]s is part of a layer's shapes.
NUM_LENGTHS = 4
SAMPLED_EPOCHS = 8  # where a micro-batch is longer than in any of these, its batch is cut once more
SAMPLED_FOR_KEYS = 48  # of these epochs, for the keys that [SUM]s see
BUCKET_MULTIPLE = 128  # tiers that round lengths to multiples of it get few padded lengths on CUDA


@dataclass(frozen=True)
class SumBatch:
    """One batch on the device, with counts that stay on the host.

    Attributes:
        plan: what the model reads.
        num_targets: targets, without padding.
        num_tokens: processed tokens without padding; num_padded_tokens: with padding.
    """

    plan: BatchPlan
    num_targets: int
    num_tokens: int
    num_padded_tokens: int

    @property
    def target_row(self) -> np.ndarray:
        """(num_targets,) rows of PreparedData, in the order of the model's scores."""
        return self.plan.target_row[: self.num_targets].numpy()


class SumBatches:
    """All batches of one split in one prompt format."""

    def __init__(
        self,
        source: PromptSource,
        rows: Rows,
        fixes: Fixes,
        sizes: BatchSizes,
        batch_targets: int,
        group: int,
        shuffled: bool = True,
    ) -> None:
        self.source, self.rows, self.fixes, self.sizes = source, rows, fixes, sizes
        self.shuffled = shuffled
        self.batch_targets, self.group = batch_targets, group
        lengths = source.items.lengths[source.data.interactions.item[source.data.user_rows]] + 1
        tokens = np.concatenate([[0], np.cumsum(lengths)])
        self._row_tokens = tokens[rows.stop] - tokens[rows.first]
        self._lengths: np.ndarray | None = None
        self._sums: int | None = None
        self._keys: int | None = None
        self._sampled: list[np.ndarray] | None = None

    @property
    def num_targets(self) -> int:
        """Targets of the split."""
        return int(self.rows.num_targets.sum())

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Row numbers of every batch in the seeded order of this epoch."""
        return batch_rows(self.rows, self.batch_targets, epoch_order(len(self.rows), seed, epoch))

    def in_order(self) -> list[np.ndarray]:
        """Row numbers of every batch, short rows beside short ones: for evaluation."""
        length = self.rows.stop - self.rows.first
        return batch_rows(self.rows, self.batch_targets, np.argsort(length, kind="stable"))

    def count(self, chosen: np.ndarray) -> int:
        """Targets of a batch."""
        return int(self.rows.num_targets[chosen].sum())

    def split(self, chosen: np.ndarray) -> list[np.ndarray]:
        """A batch as micro-batches of about `max_tokens` text tokens: rows are atomic, one may reach over.

        Of as many each where the tier has few padded lengths. Where one would be longer than the longest of
        these, once they are known, the batch is cut into one more, until all fit: such a step takes longer,
        but nothing is compiled for it. (A row that is longer by itself stays as it is.)
        """
        if not self._cut_evenly:
            tokens = self._row_tokens[chosen]
            return cut_by((np.cumsum(tokens) - tokens) // self.sizes.max_tokens, chosen)
        parts = self._even(chosen)
        for more in range(1, len(chosen) - len(parts) + 1):
            if self._lengths is None or all(self._fits(part, int(self._lengths[-1])) for part in parts):
                break
            parts = self._even(chosen, more)
        return parts

    def _even(self, chosen: np.ndarray, more: int = 0) -> list[np.ndarray]:
        return cut_by(even_parts(self._row_tokens[chosen], self.sizes.max_tokens, more), chosen)

    def load(self, chosen: np.ndarray, device: torch.device | str) -> SumBatch:
        """Pack and plan the chosen rows."""
        few = self.has_few_lengths(device)
        packed = self._pack_to_length(chosen) if few else self._pack(chosen)
        keys = self._num_keys() if few and self.fixes.mixes_hidden else KEY_MULTIPLE
        plan = plan_batch(packed, self.fixes, self.group, self.rows.n, self.rows.k, device, few, keys)
        num_padded = len(packed.position) if plan.intervals is None else len(plan.intervals.order)
        return SumBatch(plan, packed.num_sums, packed.num_tokens, num_padded)

    def has_few_lengths(self, device: torch.device | str) -> bool:
        """Whether batches are padded to a few lengths, for compilation: on CUDA, where the tier says so."""
        return torch.device(device).type == "cuda" and self._cut_evenly

    @property
    def _cut_evenly(self) -> bool:
        """The tier rounds lengths so coarsely that they can be few."""
        return self.sizes.text_multiple % BUCKET_MULTIPLE == 0

    def warm_up(self, device: torch.device | str) -> list[np.ndarray]:
        """A micro-batch of every padded length, so that compilation can be done and timed apart."""
        if not self.has_few_lengths(device):
            return []
        found: dict[int, np.ndarray] = {}
        for part in self._sample():
            found.setdefault(self._padded_length(part), part)
        return [found[length] for length in sorted(found)]

    def _pack(self, chosen: np.ndarray) -> PackedBatch:
        return pack_rows(self.source, self.rows, chosen, self.sizes.text_multiple, self.sizes.sum_multiple)

    def _pack_to_length(self, chosen: np.ndarray) -> PackedBatch:
        packed = pack_rows(self.source, self.rows, chosen)
        sums = max(self._num_sums(), self._rounded(self.count(chosen))) - len(packed.label)
        return pad_batch(packed, self._padded_length(chosen) - num_places(packed) - sums, sums)

    def _num_sums(self) -> int:
        """[SUM]s of every micro-batch, with padding: one number, so that batches have few shapes."""
        if self._sums is None:
            self._sums = max(self._rounded(self.count(part)) for part in self._sample())
        return self._sums

    def _num_keys(self) -> int:
        """Keys of every block of [SUM]s, with padding: one number that nearly all micro-batches keep to."""
        if self._keys is None:
            parts, block = self._sample(), min(MAX_SUM_BLOCK, self.rows.k)
            some = [self._pack_to_length(part) for part in parts[:: -(-len(parts) // SAMPLED_FOR_KEYS)]]
            longest = max(query_blocks(packed, True, block).key_index.shape[1] for packed in some)
            self._keys = with_room(longest, 256)
        return self._keys

    def _rounded(self, sums: int) -> int:
        return -(-sums // self.sizes.sum_multiple) * self.sizes.sum_multiple

    def _padded_length(self, chosen: np.ndarray) -> int:
        """Text and [SUM]s of a micro-batch with padding: one of a few lengths, the shortest that holds it."""
        if self._lengths is None:
            lengths = np.array([self._needed(part) for part in self._sample()])
            text = self.sizes.text_multiple
            few = length_buckets(lengths, NUM_LENGTHS) if self.shuffled else shared_length(lengths, text)
            self._lengths = few
        needed = self._needed(chosen)
        fitting = self._lengths[self._lengths >= needed]
        return int(fitting[0]) if len(fitting) else needed

    def _needed(self, chosen: np.ndarray) -> int:
        return self.places(chosen, self._num_sums())

    def _fits(self, chosen: np.ndarray, longest: int) -> bool:
        return self._needed(chosen) <= longest and self._rounded(self.count(chosen)) <= self._num_sums()

    def places(self, chosen: np.ndarray, num_sums: int = 0) -> int:
        """Upper bound on the places of a micro-batch with at least `num_sums` [SUM]s.

        A multiple of `text_multiple`.
        """
        sums = max(self._rounded(self.count(chosen)), num_sums)
        prefix, text = len(self.source.items.instruction), int(self._row_tokens[chosen].sum())
        places = text + sums + prefix * (1 + (prefix + text) // CHUNK)
        return -(-places // self.sizes.text_multiple) * self.sizes.text_multiple

    def _sample(self) -> list[np.ndarray]:
        """Micro-batches whose lengths stand for those of all epochs and seeds."""
        if self._sampled is None:
            self._sampled = sampled_parts(self, SAMPLED_EPOCHS)
        return self._sampled


def batches_of(
    data: PreparedData,
    items: TokenisedItems,
    method: SumMethod,
    split: int,
    batch_targets: int,
    group: int,
    sizes: BatchSizes,
) -> SumBatches:
    """Batches of a split: training prompts for the training split, else the test format of every method.

    Validation and test use sliding-window prompts with one [SUM] (DTI section 3.6), positions as in training.
    """
    training = split == TRAIN
    prompt = method.prompt if training else method.prompt.test_format()
    fixes = method.fixes if training else method.fixes.at_test()
    rows = build_rows(data, split, prompt.n, prompt.k)
    source = PromptSource(data, items, prompt)
    return SumBatches(source, rows, fixes, sizes, batch_targets, group, shuffled=training)
