"""BAHE's trained part: upper layers over behaviour vectors, side by side for each user sequence, and a head.

Shapes: B targets, S user sequences, R rows of L places, K segments per row, D distinct behaviours of a batch,
E hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from repro.backbones.decoder import check_layers
from repro.backbones.dense_layers import DenseLayers
from repro.backbones.loading import Backbone
from repro.backbones.packed_layers import PackedLayers
from repro.behaviours.pooling import pooled
from repro.methods.bahe.batches import BaheBatch
from repro.methods.bahe.head import CtrHead
from repro.methods.bahe.settings import BaheMethod
from repro.methods.bahe.vectors import LoadedBehaviours, Texts
from repro.training.task import ModelOutput


class LowerLayers(nn.Module):
    """Layers [0, m) over each behaviour's text alone, in every step: what the table saves.

    Args:
        backbone: its embedding table and first layers become this module's.
        num_layers: m.
        pooling: `last` or `mean`, as in `BehaviourEncoder`.
        trained: whether the layers' adapters are trained.
    """

    def __init__(self, backbone: Backbone, num_layers: int, pooling: str, trained: bool) -> None:
        super().__init__()
        self.embed = backbone.embed_tokens
        self.layers = nn.ModuleList(backbone.layers[:num_layers])
        self.pooling, self.trained = pooling, trained
        if not trained:  # the pre-trained layers, as the encoder runs them
            for module in self.layers.modules():
                if isinstance(module, BaseTunerLayer):
                    module.enable_adapters(False)
            self.requires_grad_(False)
        self._run = DenseLayers(self.layers, backbone.decoder.rotary_emb)

    def forward(self, loaded: LoadedBehaviours) -> Tensor:
        """(D, E) float32 vectors of the batch's behaviours."""
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            vectors = [self._encoded(each) for each in loaded.texts]
            order = torch.cat([each.place for each in loaded.texts]).argsort()
            return torch.cat(vectors)[order]

    def _encoded(self, texts: Texts) -> Tensor:
        return pooled(self._run(self.embed(texts.tokens)).float(), texts.lengths, self.pooling)


def lower_of(backbone: Backbone, method: BaheMethod) -> LowerLayers | None:
    """The lower layers where they are needed in training; None where their vectors are cached."""
    if method.cached:
        return None
    num_lower = method.num_lower(backbone.num_layers)
    return LowerLayers(backbone, num_lower, method.pooling, method.lower == "trained")


def behaviour_vectors(lower: LowerLayers | None, loaded: LoadedBehaviours, norm: Any) -> Tensor:
    """(D, E) vectors of a batch's behaviours, from the table or from the lower layers.

    Args:
        norm: of the backbone; its weights have the dtype of the states that layers pass on.
    """
    if lower is not None:
        return lower(loaded).to(norm.weight.dtype)
    assert loaded.vectors is not None, "texts were loaded for a model without lower layers"
    return loaded.vectors.to(norm.weight.dtype)


class BaheModel(nn.Module):
    """Scores targets from behaviour vectors (BAHE, sections 2.2.2 and 2.2.3).

    Upper layers [m, L) read a sequence of vectors as if they were the hidden states of consecutive tokens:
    positions 0, 1, ..., causal attention. Each sequence runs alone (feature parallel) and is the mean of its
    states after the final norm; the target's item runs as a sequence of one. The paper leaves the pooling of
    a sequence and its positions open. The lower layers are dropped where their vectors are cached.

    Args:
        backbone: with adapters; its layers become this model's.
        method: `bahe`.
        compiled: compile what packed batches run through.
    """

    def __init__(self, backbone: Backbone, method: BaheMethod, compiled: bool = False) -> None:
        super().__init__()
        num_lower = method.num_lower(backbone.num_layers)
        check_layers(backbone.layers, backbone.config)
        self.lower = lower_of(backbone, method)
        self.upper = nn.ModuleList(backbone.layers[num_lower:])
        self.norm, self.rotary = backbone.decoder.norm, backbone.decoder.rotary_emb
        self.head = CtrHead(backbone.hidden_size, len(method.sequences) + 1)
        self.feature_parallel = method.feature_parallel
        self._run = DenseLayers(self.upper, self.rotary)
        self._packed = PackedLayers(self.upper, self.rotary, self.norm, compiled)

    def forward(self, batch: BaheBatch) -> ModelOutput:
        """Loss and scores of one batch."""
        vectors = behaviour_vectors(self.lower, batch.behaviours, self.norm)
        if batch.rows is not None:
            states = self._packed(vectors[batch.value], batch.rows)
            return self.head(packed_means(states, batch), batch.label, batch.is_empty)
        assert batch.pool is not None and batch.item is not None
        states, item = self._run.beside(vectors[batch.value], vectors[batch.item])  # (R, L, E), (B, E)
        pooled = segment_means(self.norm(states), batch.pool)  # (R, K, E)
        if self.feature_parallel:
            pooled = pooled.unflatten(0, (-1, len(batch.label))).squeeze(2).transpose(0, 1)  # (B, S, E)
        item = self.norm(item).float()[:, None]
        return self.head(torch.cat([pooled, item], dim=1), batch.label, batch.is_empty)


def segment_means(states_RLE: Tensor, pool_RKL: Tensor) -> Tensor:
    """(R, K, E) float32 means over segments, as a product with their weights."""
    kind = "cpu" if states_RLE.is_meta else states_RLE.device.type
    with torch.autocast(kind, enabled=False):
        return pool_RKL @ states_RLE.float()


def packed_means(states_NE: Tensor, batch: BaheBatch) -> Tensor:
    """(B, S + 1, E) float32 means over the segments of a packed batch; 0 where a segment is empty."""
    assert batch.segment is not None
    kind = "cpu" if states_NE.is_meta else states_NE.device.type
    with torch.autocast(kind, enabled=False):
        total = torch.segment_reduce(states_NE.float(), "sum", lengths=batch.segment, unsafe=True)
        mean = total[:-1] / batch.segment[:-1, None].clamp(min=1)
    return mean.unflatten(0, (len(batch.label), -1))
