"""LLM-CTR, BAHE's comparison partner: the same LLM over the full text of the same sequences.

Shapes: B targets, L places, S user sequences, E hidden size.
"""

from __future__ import annotations

from torch import nn

from repro.backbones.decoder import check_layers
from repro.backbones.dense_layers import DenseLayers
from repro.backbones.loading import Backbone
from repro.backbones.packed_layers import PackedLayers
from repro.methods.bahe.batches import BaheBatch
from repro.methods.bahe.head import CtrHead
from repro.methods.bahe.model import packed_means, segment_means
from repro.methods.bahe.settings import BaheMethod
from repro.training.task import ModelOutput


class LlmCtrModel(nn.Module):
    """Scores targets from text: all sequences written out one after the other, the item last, in one pass.

    All layers with adapters; each sequence and the item is the mean of its tokens' states after the final
    norm, and the head is BAHE's. So the two see the same information and differ in what is computed. The
    paper does not say how its LLM-CTR pools.

    Args:
        backbone: with adapters; its layers become this model's.
        method: `llm-ctr`.
        compiled: compile what packed batches run through.
    """

    def __init__(self, backbone: Backbone, method: BaheMethod, compiled: bool = False) -> None:
        super().__init__()
        check_layers(backbone.layers, backbone.config)
        self.embed, self.layers = backbone.embed_tokens, backbone.layers
        self.norm, self.rotary = backbone.decoder.norm, backbone.decoder.rotary_emb
        self.head = CtrHead(backbone.hidden_size, len(method.sequences) + 1)
        self._run = DenseLayers(self.layers, self.rotary)
        self._packed = PackedLayers(self.layers, self.rotary, self.norm, compiled)

    def forward(self, batch: BaheBatch) -> ModelOutput:
        """Loss and scores of one batch."""
        if batch.rows is not None:
            states = self._packed(self.embed(batch.value), batch.rows)  # (N, E)
            return self.head(packed_means(states, batch), batch.label, batch.is_empty)
        assert batch.pool is not None
        states = self.norm(self._run(self.embed(batch.value)))  # (B, L, E)
        return self.head(segment_means(states, batch.pool), batch.label, batch.is_empty)
