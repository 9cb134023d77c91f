"""Tiny random backbones of several families, beside the two that the package ships."""

from __future__ import annotations

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from repro.backbones.loading import Backbone
from repro.backbones.spec import BackboneSpec
from repro.backbones.tokenizer import answer_ids, tiny_tokenizer

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def tiny_backbone(model_type: str, **arguments) -> Backbone:
    """Random weights of any causal architecture; norms and biases too, so that none is the identity."""
    config = CONFIG_MAPPING[model_type](**{**SIZES, **arguments})
    config.use_cache = False
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    tokenizer = tiny_tokenizer()
    yes_id, no_id = answer_ids(tokenizer)
    return Backbone(model, tokenizer, yes_id, no_id, BackboneSpec(name="random:tiny-llama"), model_type)
