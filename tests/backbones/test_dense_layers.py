"""Layers over right-padded dense sequences: the model's own forward pass, value by value and in gradients."""

from __future__ import annotations

import pytest
import torch
from tiny_backbones import tiny_backbone

from repro.backbones.dense_layers import DenseLayers
from repro.backbones.loading import load_backbone, trainable_parameters
from repro.backbones.spec import BackboneSpec
from repro.costs.attention_op import counted_attention
from repro.costs.closed_form import causal_pairs
from repro.costs.counters import torch_counter

FAMILIES = {
    "llama": {"attention_bias": True},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "mistral": {"sliding_window": None},
}
LENGTHS = (7, 1, 4)


def padded_batch(num_tokens: int = 320) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, L) with something at the padded places, and which places are real."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(num_tokens, (len(LENGTHS), max(LENGTHS)), generator=generator)
    return tokens, torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def dense(backbone) -> DenseLayers:
    return DenseLayers(backbone.layers, backbone.decoder.rotary_emb)


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_batches_give_the_models_own_states(family) -> None:
    backbone = tiny_backbone(family, **FAMILIES[family])
    tokens, real = padded_batch()
    own = backbone.decoder(input_ids=tokens, attention_mask=real.long()).last_hidden_state
    ours = backbone.decoder.norm(dense(backbone)(backbone.embed_tokens(tokens)))
    torch.testing.assert_close(ours[real], own[real], rtol=1e-5, atol=1e-5)


def test_what_stands_at_padded_places_changes_nothing() -> None:
    backbone = tiny_backbone("llama")
    tokens, real = padded_batch()
    one = dense(backbone)(backbone.embed_tokens(tokens))
    other = dense(backbone)(backbone.embed_tokens(tokens.where(real, 3)))
    assert torch.equal(one[real], other[real])
    assert not torch.equal(one[~real], other[~real])


def test_parts_of_the_stack_follow_each_other() -> None:
    backbone = tiny_backbone("qwen2")
    hidden = backbone.embed_tokens(padded_batch()[0])
    rotary = backbone.decoder.rotary_emb
    parts = DenseLayers(backbone.layers[1:], rotary)(DenseLayers(backbone.layers[:1], rotary)(hidden))
    assert torch.equal(parts, dense(backbone)(hidden))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_adapters_are_the_models_own(dtype) -> None:
    spec = BackboneSpec("random:tiny-llama", tuning="lora", lora_rank=4, dtype=dtype)
    backbone = load_backbone(spec)
    generator = torch.Generator().manual_seed(1)
    trained = trainable_parameters(backbone)
    with torch.no_grad():
        for name, parameter in trained.items():
            if "lora_B" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    tokens, real = padded_batch()

    def gradients(states: torch.Tensor) -> dict[str, torch.Tensor]:
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
        # Not the squares: after the norm their mean is 1, whatever is trained.
        (states * weights)[real].float().mean().backward()
        found = {name: parameter.grad.clone() for name, parameter in trained.items()}
        backbone.model.zero_grad()
        return found

    own = gradients(backbone.decoder(input_ids=tokens, attention_mask=real.long()).last_hidden_state)
    ours = gradients(backbone.decoder.norm(dense(backbone)(backbone.embed_tokens(tokens))))
    limit = {"float32": 1e-4, "bfloat16": 0.1}[dtype]
    for name, expected in own.items():
        assert expected.norm() > 0
        assert (ours[name] - expected).norm() <= limit * expected.norm(), name


def test_autocast_runs_the_products_in_bf16() -> None:
    backbone = load_backbone(BackboneSpec("random:tiny-llama"))
    hidden = backbone.embed_tokens(padded_batch()[0]).detach()
    exact = dense(backbone)(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = dense(backbone)(hidden)
    assert rounded.dtype == torch.float32, "the residual stream keeps its precision"
    distance = (rounded - exact).norm() / exact.norm()
    assert 1e-4 < distance < 0.05


def test_flops_are_counted_on_the_meta_device() -> None:
    backbone = load_backbone(BackboneSpec("random:tiny-llama"), device="meta")
    hidden = torch.empty(2, 6, backbone.hidden_size, device="meta")
    with counted_attention(dense=causal_pairs([6, 6])), torch_counter() as count:
        dense(backbone)(hidden)
    weights = sum(
        parameter.numel()
        for layer in backbone.layers
        for parameter in layer.parameters()
        if parameter.dim() == 2
    )
    heads = backbone.config.num_attention_heads * backbone.layers[0].self_attn.head_dim
    attention = 4 * causal_pairs([6, 6]) * heads * backbone.num_layers
    assert count.total == 2 * 12 * weights + attention


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_sequences_of_one_run_beside_the_others(family) -> None:
    """The same states and gradients as in calls of their own, for grouped heads too."""
    backbone = tiny_backbone(family)
    hidden = backbone.embed_tokens(padded_batch()[0]).detach()
    alone = backbone.embed_tokens(torch.arange(5)).detach()
    results = []
    for together in (True, False):
        inputs = [hidden.clone().requires_grad_(True), alone.clone().requires_grad_(True)]
        if together:
            states = dense(backbone).beside(*inputs)
        else:
            states = dense(backbone)(inputs[0]), dense(backbone)(inputs[1][:, None])[:, 0]
        (states[0].square().sum() + states[1].pow(3).sum()).backward()
        results.append([*states, *(each.grad for each in inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
