"""Loading: tiny random models (Llama beside Qwen), folders of several families, cuts, seeds, fingerprints."""

import json
import logging
import re
import warnings

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from repro.backbones.loading import load_backbone, trainable_parameters
from repro.backbones.spec import BackboneSpec
from repro.backbones.tokenizer import tiny_tokenizer
from repro.errors import BackboneError

TINY = ["random:tiny-llama", "random:tiny-qwen"]
FAMILY = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3_text")


def save_family(folder, model_type, **extra):
    """A tiny random model of a family in a folder, with the tiny tokenizer."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**{**FAMILY, **extra})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def tokens():
    return torch.randint(2, 250, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TINY)
def test_tiny_backbone_parts_fit_together(name):
    backbone = load_backbone(BackboneSpec(name))
    assert backbone.num_layers == len(backbone.layers) == backbone.config.num_hidden_layers == 4
    assert backbone.embed_tokens.weight.shape == backbone.lm_head_weight.shape == (320, backbone.hidden_size)
    assert (backbone.lm_head_weight is backbone.embed_tokens.weight) == (name == "random:tiny-llama")
    assert backbone.tokenizer.convert_ids_to_tokens([backbone.yes_id, backbone.no_id]) == ["Ġyes", "Ġno"]
    assert not backbone.config.use_cache
    assert not backbone.model.training


@pytest.mark.parametrize("name", TINY)
def test_tokens_move_the_logits_visibly(name):
    """A wrong mask must show: another token eight places back moves logits by much more than 1e-5."""
    backbone = load_backbone(BackboneSpec(name))
    ids = tokens()
    with torch.no_grad():
        whole = backbone.model(ids).logits[:, -1]
        changed = backbone.model(torch.cat([ids[:, :1] * 0 + 5, ids[:, 1:]], dim=1)).logits[:, -1]
    assert (whole - changed).abs().max() > 0.5


@pytest.mark.parametrize("name", TINY)
def test_positions_move_the_logits_visibly(name):
    """So must a wrong position: attention of a tiny model is not uniform."""
    backbone = load_backbone(BackboneSpec(name))
    plain = torch.arange(9).expand(2, -1)
    mask = torch.ones(2, 1, 9, 9).tril().bool()
    with torch.no_grad():
        a, b = (
            backbone.model(tokens(), position_ids=p, attention_mask=mask).logits
            for p in (plain, plain + 3 * (plain >= 4))
        )
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert (a[:, 4:] - b[:, 4:]).abs().max() > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_and_head_give_the_models_own_logits(family, tmp_path):
    backbone = load_backbone(BackboneSpec(save_family(tmp_path, family)))
    ids = tokens()
    with torch.no_grad():
        hidden = backbone.decoder(inputs_embeds=backbone.embed_tokens(ids), use_cache=False).last_hidden_state
        torch.testing.assert_close(hidden @ backbone.lm_head_weight.T, backbone.model(ids).logits)


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere"])
def test_models_that_change_their_logits_are_refused(family, tmp_path):
    with pytest.raises(BackboneError, match="lacks plain logits"):
        load_backbone(BackboneSpec(save_family(tmp_path, family)))


@pytest.mark.parametrize("name", TINY)
def test_saved_folder_gives_the_same_model(name, tmp_path):
    backbone = load_backbone(BackboneSpec(name), seed=3)
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    again = load_backbone(BackboneSpec(str(tmp_path)))
    for (key, a), (_, b) in zip(
        backbone.model.named_parameters(), again.model.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), key
    text = "Toy Story (1995): yes"
    assert again.tokenizer.encode(text) == backbone.tokenizer.encode(text)


def test_sharded_folder_gives_the_same_model(tmp_path):
    backbone = load_backbone(BackboneSpec("random:tiny-qwen"))
    backbone.model.save_pretrained(tmp_path, max_shard_size="200KB")
    backbone.tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = load_backbone(BackboneSpec(str(tmp_path)))
    assert torch.equal(backbone.lm_head_weight, again.lm_head_weight)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_cut_keeps_the_first_layers_and_the_final_norm(family, tmp_path):
    folder = save_family(tmp_path, family, num_hidden_layers=4)
    whole, cut = load_backbone(BackboneSpec(folder)), load_backbone(BackboneSpec(folder, layers=2))
    assert cut.num_layers == cut.config.num_hidden_layers == 2
    assert len(getattr(cut.config, "layer_types", None) or "12") == 2
    expected = {
        k: v for k, v in whole.model.state_dict().items() if ".layers.2." not in k and ".layers.3." not in k
    }
    found = cut.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], expected[k]) for k in found)
    ids = tokens()
    with torch.no_grad():
        states = whole.model(ids, output_hidden_states=True).hidden_states[2]
        torch.testing.assert_close(cut.decoder(ids).last_hidden_state, whole.decoder.norm(states))


def test_random_weights_follow_the_seed_and_leave_torchs_own_alone():
    spec = BackboneSpec("random:tiny-llama")
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    a, b, other = load_backbone(spec, seed=1), load_backbone(spec, seed=1), load_backbone(spec, seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(a.layers[0].mlp.up_proj.weight, b.layers[0].mlp.up_proj.weight)
    assert not torch.equal(a.layers[0].mlp.up_proj.weight, other.layers[0].mlp.up_proj.weight)


def test_fingerprint_names_weights_cut_and_precision_but_not_the_tuning(tmp_path):
    folder = save_family(tmp_path / "a", "llama")
    base = load_backbone(BackboneSpec(folder)).fingerprint
    assert load_backbone(BackboneSpec(folder), seed=5).fingerprint == base
    assert load_backbone(BackboneSpec(folder, tuning="lora")).fingerprint == base
    assert load_backbone(BackboneSpec(folder, layers=1)).fingerprint != base
    assert load_backbone(BackboneSpec(folder, dtype="bfloat16")).fingerprint != base
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    changed = load_backbone(BackboneSpec(folder)).fingerprint
    assert changed != base
    words = (tmp_path / "a" / "tokenizer.json").read_text()
    (tmp_path / "a" / "tokenizer.json").write_text(re.sub('("individual_digits"): true', r"\1: false", words))
    assert load_backbone(BackboneSpec(folder)).fingerprint not in (base, changed), "another tokenizer"
    a, same, other_seed = (load_backbone(BackboneSpec(TINY[0]), seed=s).fingerprint for s in (0, 0, 1))
    assert a == same != other_seed
    assert load_backbone(BackboneSpec(TINY[1])).fingerprint != a


def test_loading_prints_nothing(tmp_path, capfd):
    """Neither progress bars nor warnings nor the report about layers that were cut off."""
    load_backbone(BackboneSpec(save_family(tmp_path, "llama"), layers=1))
    capfd.readouterr()
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            warnings.simplefilter("error", UserWarning)
            load_backbone(BackboneSpec(str(tmp_path), layers=1, tuning="lora"))
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert lines == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_is_that_of_the_stored_weights(dtype, tmp_path):
    for name in ("random:tiny-llama", save_family(tmp_path, "llama")):
        model = load_backbone(BackboneSpec(name, dtype=dtype)).model
        assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("name", TINY)
def test_fixed_embeddings(name):
    moving = load_backbone(BackboneSpec(name))
    fixed = load_backbone(BackboneSpec(name, train_embeddings=False))
    everything = {n for n, _ in moving.model.named_parameters()}
    assert trainable_parameters(moving).keys() == everything
    assert trainable_parameters(fixed).keys() == everything - {"model.embed_tokens.weight"}
    assert fixed.lm_head_weight.requires_grad == (name == "random:tiny-qwen")  # its head is not tied


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [("smollm2-135m", 134_515_008), ("qwen2.5-1.5b", 1_543_714_304), ("llama-3.1-8b", 8_030_261_248)],
)
def test_real_shapes_have_the_published_parameter_counts(shape, parameters, monkeypatch):
    monkeypatch.setattr("repro.backbones.loading.load_tokenizer", lambda name: tiny_tokenizer())
    backbone = load_backbone(BackboneSpec(f"random:{shape}", dtype="bfloat16"), device="meta")
    assert sum(p.numel() for p in backbone.model.parameters()) == parameters
    assert {p.device.type for p in backbone.model.parameters()} == {"meta"}
