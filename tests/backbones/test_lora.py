"""LoRA on the seven projections: what is trained, where it starts, helpers through the peft wrapper."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from repro.backbones.loading import load_backbone, trainable_parameters
from repro.backbones.spec import BackboneSpec
from repro.backbones.tokenizer import tiny_tokenizer
from repro.backbones.tuning import PROJECTIONS
from repro.errors import BackboneError

TINY = ["random:tiny-llama", "random:tiny-qwen"]
IDS = torch.tensor([[5, 9, 30, 77, 120]])


def lora(name, **fields):
    return BackboneSpec(name, tuning="lora", **{"lora_rank": 4, **fields})


@pytest.mark.parametrize("name", TINY)
def test_only_adapters_of_the_seven_projections_are_trained(name):
    backbone = load_backbone(lora(name))
    trained = trainable_parameters(backbone)
    assert all(".lora_A." in n or ".lora_B." in n for n in trained)
    assert len(trained) == backbone.num_layers * len(PROJECTIONS) * 2
    base = load_backbone(BackboneSpec(name))
    linear = [m for layer in base.layers for m in layer.modules() if isinstance(m, torch.nn.Linear)]
    expected = sum(4 * (m.in_features + m.out_features) for m in linear)
    assert sum(p.numel() for p in trained.values()) == expected


@pytest.mark.parametrize("name", TINY)
def test_it_starts_as_the_base_model_and_helpers_see_through_the_wrapper(name):
    base, adapted = load_backbone(BackboneSpec(name)), load_backbone(lora(name))
    assert type(adapted.decoder) is type(base.decoder)
    assert type(adapted.config) is type(base.config)
    assert (adapted.num_layers, adapted.hidden_size) == (base.num_layers, base.hidden_size)
    assert torch.equal(adapted.embed_tokens.weight, base.embed_tokens.weight)
    with torch.no_grad():
        hidden = adapted.decoder(inputs_embeds=adapted.embed_tokens(IDS)).last_hidden_state
        torch.testing.assert_close(hidden @ adapted.lm_head_weight.T, base.model(IDS).logits)


def test_adapters_act_in_the_decoder_and_get_gradients():
    backbone = load_backbone(lora("random:tiny-llama"))
    with torch.no_grad():
        before = backbone.decoder(IDS).last_hidden_state
    backbone.decoder(IDS).last_hidden_state.square().mean().backward()
    gradients = {n: p.grad for n, p in backbone.model.named_parameters() if p.grad is not None}
    assert gradients.keys() == trainable_parameters(backbone).keys()
    with torch.no_grad():
        for name, p in trainable_parameters(backbone).items():
            p.add_(0.1 if "lora_B" in name else 0.0)
        assert (backbone.decoder(IDS).last_hidden_state - before).abs().max() > 1e-3


def test_adapters_follow_the_seed_and_leave_torchs_own_alone():
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    a, b, other = (
        list(trainable_parameters(load_backbone(lora(TINY[0]), seed=s)).values()) for s in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0], other[0])


def test_adapters_are_float32_on_a_bfloat16_base():
    backbone = load_backbone(lora("random:tiny-llama", dtype="bfloat16"))
    assert {p.dtype for p in trainable_parameters(backbone).values()} == {torch.float32}
    assert backbone.embed_tokens.weight.dtype == torch.bfloat16
    assert backbone.decoder(IDS).last_hidden_state.dtype == torch.bfloat16


def test_scale_is_alpha_over_rank():
    backbone = load_backbone(lora("random:tiny-llama", lora_alpha=6, lora_dropout=0.5))
    projection = backbone.layers[0].self_attn.q_proj
    assert projection.scaling == {"default": 1.5}
    assert projection.lora_dropout["default"].p == 0.5


def test_meta_model_takes_adapters():
    backbone = load_backbone(lora("random:tiny-llama"), device="meta")
    assert {p.device.type for p in backbone.model.parameters()} == {"meta"}
    assert trainable_parameters(backbone)


@pytest.mark.parametrize(
    ("model_type", "missing"),
    [("phi3", "q_proj, k_proj, v_proj"), ("mixtral", "up_proj, down_proj, gate_proj")],
)
def test_model_without_the_seven_projections_is_refused_for_lora_only(model_type, missing, tmp_path):
    config = CONFIG_MAPPING[model_type](
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=rf"layer 0: no {missing}"):
        load_backbone(BackboneSpec(str(tmp_path), tuning="lora"))
    assert load_backbone(BackboneSpec(str(tmp_path))).num_layers == 1
