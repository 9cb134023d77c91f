"""The [SUM] embedding: where it starts, what it replaces, what trains it."""

import pytest
import torch
from test_backbone_loading import save_family

from repro.backbones.loading import load_backbone
from repro.backbones.spec import BackboneSpec
from repro.backbones.sum_token import SumToken

TINY = ["random:tiny-llama", "random:tiny-qwen"]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_it_starts_as_a_colon(name, tuning):
    backbone = load_backbone(BackboneSpec(name, tuning=tuning))
    token = SumToken(backbone)
    colon = backbone.tokenizer.convert_tokens_to_ids(":")
    assert torch.equal(token.weight, backbone.embed_tokens.weight[colon])
    with torch.no_grad():
        token.weight.add_(1.0)
    assert not torch.equal(token.weight, backbone.embed_tokens.weight[colon])  # a copy, not a view


def test_it_starts_as_the_model_sees_a_colon_where_embeddings_are_scaled(tmp_path):
    backbone = load_backbone(BackboneSpec(save_family(tmp_path, "gemma3_text")))
    colon = torch.tensor(backbone.tokenizer.convert_tokens_to_ids(":"))
    assert torch.equal(SumToken(backbone).weight, backbone.embed_tokens(colon))
    assert not torch.equal(SumToken(backbone).weight, backbone.embed_tokens.weight[colon])


def test_it_is_float32_and_trained_on_a_fixed_bfloat16_base():
    token = SumToken(load_backbone(BackboneSpec("random:tiny-llama", dtype="bfloat16", tuning="lora")))
    assert token.weight.dtype == torch.float32
    assert token.weight.requires_grad
    assert [name for name, _ in token.named_parameters()] == ["weight"]


def test_it_is_no_part_of_the_vocabulary():
    backbone = load_backbone(BackboneSpec("random:tiny-llama"))
    before = {name: p.shape for name, p in backbone.model.named_parameters()}
    SumToken(backbone)
    assert {name: p.shape for name, p in backbone.model.named_parameters()} == before
    assert "[SUM]" not in backbone.tokenizer.get_vocab()


def test_meta_backbone_has_a_meta_token():
    backbone = load_backbone(BackboneSpec("random:tiny-llama"), device="meta")
    assert SumToken(backbone).weight.device.type == "meta"
