"""Which decoders are taken, and that our forward pass is theirs on a plain causal prompt."""

import numpy as np
import pytest
import torch
from tiny_backbones import tiny_backbone

from repro.backbones.decoder import Decoder, check_against_own_forward, check_layers
from repro.backbones.fix_settings import Fixes
from repro.backbones.loading import load_backbone
from repro.backbones.plan import plan_batch
from repro.backbones.spec import BackboneSpec
from repro.errors import BackboneError
from repro.prompts.packing import PackedBatch

FAMILIES = {
    "llama": {"attention_bias": True},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "mistral": {"sliding_window": None},
}


def plain_prompt(length: int) -> PackedBatch:
    """A causal prompt of `length` text tokens and one [SUM] behind them."""
    place = np.arange(length + 1)
    nothing = np.zeros_like(place)
    return PackedBatch(
        tokens=np.random.default_rng(0).integers(320, size=length),
        position=place,
        lo=nothing,
        hi=np.append(place[:-1] + 1, length),
        sum_lo=nothing,
        sum_hi=nothing,
        ordinal=nothing,
        label=np.array([1]),
        target_row=np.array([0]),
        num_prefix=0,
        prefix_visible=True,
        num_text=length,
        num_sums=1,
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [1, 70])
def test_our_forward_pass_is_the_models_own(family, length) -> None:
    """70 tokens: more than one block of text queries."""
    backbone = tiny_backbone(family, **FAMILIES[family])
    batch = plain_prompt(length)
    sequence = torch.cat([torch.from_numpy(batch.tokens), torch.tensor([5])])
    embedded = backbone.embed_tokens(sequence).detach()
    decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
    ours = decoder.forward_sums(embedded[:-1], embedded[-1:], plan_batch(batch, Fixes(), 2, 4, 1))
    logits = backbone.model(input_ids=sequence[None]).logits[0, -1].detach()
    assert torch.allclose(
        (ours @ backbone.lm_head_weight.T)[0], logits, atol=1e-5 * float(logits.abs().max())
    )
    check_layers(backbone.layers, backbone.config)
    check_against_own_forward(backbone)


@pytest.mark.parametrize("name", ["random:tiny-llama", "random:tiny-qwen"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_backbones_of_every_precision_and_tuning_pass(name, dtype, tuning) -> None:
    backbone = load_backbone(BackboneSpec(name=name, dtype=dtype, tuning=tuning))
    backbone.model.train()
    check_layers(backbone.layers, backbone.config)
    check_against_own_forward(backbone)
    assert backbone.causal_lm.training, "left as it was"


@pytest.mark.parametrize(
    ("family", "arguments", "found"),
    [
        ("gemma2", {}, "attn_logit_softcapping"),
        ("gemma2", {"attn_logit_softcapping": None}, "pre_feedforward_layernorm"),
        ("mistral", {"sliding_window": 16}, "sliding_window"),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
            "use_sliding_window",
        ),
        ("olmo2", {}, "missing input_layernorm"),
        ("smollm3", {"no_rope_layer_interval": 2}, "without rotary positions"),
        ("phi3", {}, "missing q_proj"),
        ("cohere", {}, "post_attention_layernorm"),
    ],
)
def test_other_decoders_are_refused_by_their_parts(family, arguments, found) -> None:
    backbone = tiny_backbone(family, **arguments)
    with pytest.raises(BackboneError, match=found):
        check_layers(backbone.layers, backbone.config)


def test_a_cut_off_layer_without_rotary_positions_is_no_reason_to_refuse() -> None:
    backbone = tiny_backbone("smollm3", no_rope_layer_interval=4)  # three layers: the fourth is the odd one
    check_layers(backbone.layers, backbone.config)
    check_against_own_forward(backbone)


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("granite", {"residual_multiplier": 0.5, "logits_scaling": 1.0}),
        ("granite", {"embedding_multiplier": 3.0, "logits_scaling": 1.0}),
        ("granite", {"logits_scaling": 4.0}),
        ("stablelm", {"partial_rotary_factor": 0.5}),
        ("smollm3", {"no_rope_layer_interval": 2}),
        ("olmo2", {}),
        ("phi3", {}),
        ("cohere", {}),
        ("glm", {"partial_rotary_factor": 0.5}),
        ("gemma2", {}),
    ],
)
def test_other_decoders_are_refused_by_their_logits(family, arguments) -> None:
    """Names alone do not tell a residual multiplier, a partial or interleaved rotary embedding, ..."""
    backbone = tiny_backbone(family, **arguments)
    with pytest.raises(BackboneError) as error:
        check_against_own_forward(backbone)
    assert error.value.fix.startswith("choose a model")


def test_broken_weights_are_refused() -> None:
    backbone = tiny_backbone("llama")
    with torch.no_grad():
        backbone.lm_head_weight[7, 7] = float("nan")
    with pytest.raises(BackboneError, match="differ by nan"):
        check_against_own_forward(backbone)
