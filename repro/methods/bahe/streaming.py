"""DTI over BAHE: streaming rows of behaviour vectors, windowed attention in the upper layers alone.

A row holds n context interactions and k targets. An interaction is one vector, that of its behaviour with its
answer; a target asks with a query at the place of DTI's [SUM], whose input is the vector of the target's item
without an answer. A query sees the vectors of the n interactions before its target and itself, never the
target's own answered vector, and nothing sees a query. Rows, positions and windows are those of DTI's tuned
recipe (`repro/prompts/packing.py`) for interactions of no text and one answer token, without instruction.

Nobody has published this; readings are ours. Information from beyond the window can only pass through the
upper layers: each lets it come from n interactions further back, so it reaches less far than in DTI, where
all layers do. `reports/bahe_open.md` measures it.

Shapes: T vectors, Q queries (padding last), D distinct behaviours of a batch, E hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from repro.backbones.decoder import Decoder, check_layers
from repro.backbones.fix_settings import Fixes
from repro.backbones.loading import Backbone
from repro.backbones.plan import BatchPlan
from repro.backbones.visibility import send
from repro.behaviours.texts import Behaviours
from repro.data.interactions import TRAIN, PreparedData
from repro.methods.bahe.batches import most_distinct, padded
from repro.methods.bahe.head import CtrHead
from repro.methods.bahe.model import behaviour_vectors, lower_of
from repro.methods.bahe.settings import BaheMethod
from repro.methods.bahe.vectors import BehaviourVectors, LoadedBehaviours, TableVectors
from repro.methods.method import BatchSizes
from repro.methods.sum_batches import SumBatches
from repro.prompts.packing import PromptSource, ragged_arange
from repro.prompts.rows import Rows, build_rows
from repro.prompts.settings import PromptSettings
from repro.prompts.tokenise import TokenisedItems
from repro.training.task import ModelOutput


@dataclass(frozen=True)
class StreamingBatch:
    """One batch on the device, with counts that stay on the host.

    Attributes:
        plan: who sees whom, and where; its tokens mean nothing here.
        behaviours: the D distinct behaviours.
        vector: (T,) int64 and query: (Q,) int64, which of the D stands there.
        label: (Q,) float32: 0, 1, or -1 for padding.
        target_row: rows of the prepared data, without padding.
        num_tokens: vectors and queries that the upper layers read, plus tokens that lower layers read in
            this step. num_padded_tokens: with padding.
    """

    plan: BatchPlan
    behaviours: LoadedBehaviours
    vector: Tensor
    query: Tensor
    label: Tensor
    target_row: np.ndarray
    num_tokens: int
    num_padded_tokens: int

    @property
    def num_targets(self) -> int:
        """Targets, without padding."""
        return len(self.target_row)


class StreamingBatches:
    """All batches of one split.

    Args:
        rows: the split's rows, packed and planned as DTI's.
        data: the prepared data. behaviours: of its items. vectors: where a batch's come from.
    """

    def __init__(
        self, rows: SumBatches, data: PreparedData, behaviours: Behaviours, vectors: BehaviourVectors
    ) -> None:
        self._rows, self.vectors = rows, vectors
        interactions = data.interactions
        self._user_rows = data.user_rows
        self._answered = behaviours.answered[interactions.item, interactions.label]  # (N,)
        self._alone = behaviours.alone[interactions.item]  # (N,)

    @property
    def num_targets(self) -> int:
        """Targets of the split."""
        return self._rows.num_targets

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Row numbers of every batch in the seeded order of this epoch."""
        return self._rows.epoch(seed, epoch)

    def in_order(self) -> list[np.ndarray]:
        """Row numbers of every batch, for evaluation."""
        return self._rows.in_order()

    def count(self, key: np.ndarray) -> int:
        """Targets of a batch."""
        return self._rows.count(key)

    def split(self, key: np.ndarray) -> list[np.ndarray]:
        """A batch as micro-batches."""
        return self._rows.split(key)

    def warm_up(self, device: torch.device | str) -> list[np.ndarray]:
        """A micro-batch of every padded length."""
        return self._rows.warm_up(device)

    @cached_property
    def _most_distinct(self) -> int:
        rows = self._rows.rows

        def read(key: np.ndarray) -> np.ndarray:
            along = self._user_rows[ragged_arange(rows.first[key], (rows.stop - rows.first)[key])]
            return np.concatenate([self._answered[along], self._alone[along]])

        return most_distinct(self._rows.epoch(0, 0), read)

    def load(self, key: np.ndarray, device: torch.device | str) -> StreamingBatch:
        """Pack and plan the chosen rows, and fetch their behaviours."""
        packed, device = self._rows.load(key, device), torch.device(device)
        rows, plan, num_targets = self._rows.rows, packed.plan, packed.num_targets
        first, stop = rows.first[key], rows.stop[key]
        # The last interaction of a row is a target whose answer nobody may see: it is not in the row.
        context = self._answered[self._user_rows[ragged_arange(first, stop - 1 - first)]]
        assert len(context) == packed.num_tokens - num_targets, "a row has one vector per interaction"
        target = self._alone[packed.target_row]
        distinct, which = np.unique(np.concatenate([context, target]), return_inverse=True)
        if self._rows.has_few_lengths(device) and isinstance(self.vectors, TableVectors):
            distinct = padded(distinct, self._most_distinct)
        vector, query = np.zeros(len(plan.tokens), np.int64), np.zeros(len(plan.label), np.int64)
        vector[: len(context)], query[:num_targets] = which[: len(context)], which[len(context) :]
        loaded = self.vectors.load(distinct, device)
        return StreamingBatch(
            plan=plan,
            behaviours=loaded,
            vector=send(vector, device),
            query=send(query, device),
            label=plan.label.float(),
            target_row=packed.target_row,
            num_tokens=packed.num_tokens + loaded.num_tokens,
            num_padded_tokens=packed.num_padded_tokens + loaded.num_padded_tokens,
        )


def streaming_batches(
    data: PreparedData,
    behaviours: Behaviours,
    vectors: BehaviourVectors,
    method: BaheMethod,
    split: int,
    batch_targets: int,
    group: int,
    sizes: BatchSizes,
) -> StreamingBatches:
    """Batches of a split: k targets per row in training, one per row in validation and test.

    Args:
        group: query heads per key-value head.
    """
    k = method.k if split == TRAIN and method.k is not None else 1
    rows = build_rows(data, split, method.n, k)
    return batches_of_rows(
        rows, data, behaviours, vectors, batch_targets, group, sizes, shuffled=split == TRAIN
    )


def batches_of_rows(
    rows: Rows,
    data: PreparedData,
    behaviours: Behaviours,
    vectors: BehaviourVectors,
    batch_targets: int,
    group: int,
    sizes: BatchSizes,
    shuffled: bool,
) -> StreamingBatches:
    """Batches of any rows; shuffled: read as training's epochs. Else as `streaming_batches`."""
    nothing = np.zeros(0, dtype=np.int32)
    wordless = TokenisedItems(nothing, np.zeros(len(data.items) + 1, dtype=np.int64), nothing, 1, 0)
    source = PromptSource(data, wordless, PromptSettings(n=rows.n, k=rows.k))
    packed = SumBatches(source, rows, Fixes(), sizes, batch_targets, group, shuffled)
    return StreamingBatches(packed, data, behaviours, vectors)


class StreamingBaheModel(nn.Module):
    """Scores the targets of streaming rows at their queries.

    Args:
        backbone: with adapters; its layers become this model's.
        method: `dti-bahe`.
        compiled: compile the upper layers.
    """

    def __init__(self, backbone: Backbone, method: BaheMethod, compiled: bool = False) -> None:
        super().__init__()
        num_lower = method.num_lower(backbone.num_layers)
        check_layers(backbone.layers, backbone.config)
        self.lower = lower_of(backbone, method)
        self.upper = nn.ModuleList(backbone.layers[num_lower:])
        self.norm, self.rotary = backbone.decoder.norm, backbone.decoder.rotary_emb
        self.head = CtrHead(backbone.hidden_size, 1)
        self._decoder = Decoder(self.upper, self.rotary, self.norm, compiled)

    def forward(self, batch: StreamingBatch) -> ModelOutput:
        """Loss and scores of one batch."""
        vectors = behaviour_vectors(self.lower, batch.behaviours, self.norm)
        state = self._decoder.forward_sums(vectors[batch.vector], vectors[batch.query], batch.plan)
        return self.head(state[:, None], batch.label)
