"""Decoder layers over vectors, on the meta device: what BAHE and its partner LLM-CTR run, for the counters.

Readings taken of BAHE (arXiv 2403.19347, section 2.2, from its abstract and summaries: the full text is not
freely available):

* LLM-CTR: the text of a user (item included) as one causal sequence through all layers; the pooled output
  goes into a linear CTR head. Every layer computes every token.
* BAHE: layers [0, m), frozen, over each behaviour's tokens alone; one vector each; layers [m, L) over each of
  the user's sequences of vectors separately; pooled and concatenated with the item's vector into the head.

The layers are transformers' own, run by the decoder's own `project` and `finish`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from repro.backbones.attention_hook import attend
from repro.backbones.decoder import finish, project
from repro.backbones.shapes import Shape
from repro.backbones.tuning import PROJECTIONS
from repro.costs.closed_form import Training


class LayerStack(nn.Module):
    """Decoder layers over packed sequences of vectors, then a linear head to one logit.

    Args:
        layers: decoder layers in order. rotary: the model's rotary embedding.
        frozen: how many of the first layers run apart and without gradients (`encode`).
        head_inputs: P x E, for P vectors that a sample's head reads.
        training: whether layers are checkpointed.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        rotary: nn.Module,
        frozen: int,
        head_inputs: int,
        training: Training,
    ) -> None:
        super().__init__()
        self.layers, self.rotary, self.frozen, self.how = nn.ModuleList(layers), rotary, frozen, training
        self.head = nn.Linear(head_inputs, 1, bias=False, device="meta")

    def encode(self, vectors_NE: Tensor) -> Tensor:
        """The frozen layers over behaviours' tokens: (N, E), without gradient."""
        with torch.no_grad():
            return self._run(self.layers[: self.frozen], vectors_NE, "behaviours")

    def forward(self, vectors_NE: Tensor, pooled_SP: Tensor) -> Tensor:
        """(S,) logits of S samples; `pooled_SP` (S, P) numbers the vectors that each sample's head reads."""
        out_NE = self._run(self.layers[self.frozen :], vectors_NE, "text")
        return self.head(out_NE[pooled_SP].flatten(1)).squeeze(-1)

    def _run(self, layers: Any, hidden_NE: Tensor, queries: str) -> Tensor:
        if not len(layers):
            return hidden_NE
        position = torch.zeros(1, len(hidden_NE), dtype=torch.int64, device="meta")
        cos, sin = (x[0] for x in self.rotary(hidden_NE, position))
        for layer in layers:
            arguments = (layer, hidden_NE, cos, sin, queries)
            if self.how.checkpointing and torch.is_grad_enabled():
                with set_checkpoint_early_stop(self.how.early_stop):
                    hidden_NE = checkpoint(_layer, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden_NE = _layer(*arguments)
        return hidden_NE


def _layer(layer: Any, hidden_NE: Tensor, cos_ND: Tensor, sin_ND: Tensor, queries: str) -> Tensor:
    query, key, _, value = project(layer, hidden_NE, cos_ND, sin_ND, 0)
    return finish(layer, hidden_NE, attend(queries, _no_kernel, query, key, value))


def _no_kernel(*arguments: Tensor) -> Tensor:
    raise AssertionError("a layer stack runs under counted_attention only")


def build_stack(shape: Shape, training: Training, head_inputs: int, bahe: bool) -> LayerStack:
    """A stack of a shape's layers on the meta device, with LoRA or trained in full above the frozen layers.

    Args:
        shape: the architecture. head_inputs: P x E. bahe: the frozen layers run apart, on behaviours.
    """
    config = CONFIG_MAPPING[shape.model_type](**shape.arguments)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    model.requires_grad_(False)
    decoder = model.base_model
    trained = range(training.frozen_layers, config.num_hidden_layers)
    if training.tuning == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=training.rank, target_modules=list(PROJECTIONS), layers_to_transform=list(trained), bias="none"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's own use of transformers' older names
            get_peft_model(model, lora, low_cpu_mem_usage=True)
    else:
        for number in trained:
            decoder.layers[number].requires_grad_(True)
    frozen = training.frozen_layers if bahe else 0
    return LayerStack(list(decoder.layers), decoder.rotary_emb.to("meta"), frozen, head_inputs, training)
