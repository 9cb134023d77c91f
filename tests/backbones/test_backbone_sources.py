"""What cannot be a backbone is refused with its reason; hub names through the hub's own cache layout."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_backbone_loading import save_family

from repro.backbones.loading import load_backbone
from repro.backbones.spec import BackboneSpec
from repro.backbones.tokenizer import load_tokenizer, tiny_tokenizer
from repro.errors import BackboneError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_family(folder, "llama")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def refused(folder, match, **fields):
    with pytest.raises(BackboneError, match=match) as caught:
        load_backbone(BackboneSpec(str(folder), **fields))
    assert str(caught.value.fix)


def write_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_missing_folder_and_file_in_its_place(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "model.gguf", "is a file")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"hidden_size": 3}'])
def test_config_missing_or_damaged(folder, content):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    refused(folder, r"config\.json|architecture None")


def test_pickled_weights_are_never_read(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    refused(folder, "no weights")
    torch.save(weights, folder / "pytorch_model.bin")
    refused(folder, r"only pickled weights: pytorch_model\.bin[\s\S]*safetensors")


@pytest.mark.parametrize("damage", ["truncated", "pointer", "missing tensor", "other shape"])
def test_damaged_weights(folder, damage):
    file = folder / "model.safetensors"
    weights = load_file(file)
    key = "model.layers.1.mlp.up_proj.weight"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "pointer":  # what git leaves where Git LFS is not installed
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 538090408\n")
    elif damage == "missing tensor":
        del weights[key]
        save_file(weights, file, metadata={"format": "pt"})
    else:
        weights[key] = weights[key][:, 1:].contiguous()
        save_file(weights, file, metadata={"format": "pt"})
    refused(folder, "weights in .*model", tuning="full")


def test_missing_shard(tmp_path):
    backbone = load_backbone(BackboneSpec("random:tiny-qwen"))
    backbone.model.save_pretrained(tmp_path, max_shard_size="200KB")
    backbone.tokenizer.save_pretrained(tmp_path)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    refused(tmp_path, f"missing shards: {shard.name}")


def test_remote_code_is_refused_and_not_run(folder):
    (folder / "modeling_own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    auto_map = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    write_config(folder, model_type="own", auto_map=auto_map)
    refused(folder, "asks for remote code")
    assert not (folder / "ran").exists()


def test_known_architecture_that_brings_code_is_loaded_without_it(folder):
    (folder / "modeling_own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    auto_map = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    write_config(folder, auto_map=auto_map)
    assert type(load_backbone(BackboneSpec(str(folder))).decoder).__name__ == "LlamaModel"
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"model_type": "t5"}, "'t5', which is not a decoder"),
        ({"model_type": "bert", "hidden_size": 32, "num_attention_heads": 4}, "BertLMHeadModel lacks"),
        ({"model_type": "gpt2", "n_embd": 32, "n_head": 4}, "GPT2LMHeadModel lacks decoder layers"),
        ({"model_type": "gemma3"}, "multimodal"),
        ({"model_type": "qwen3_5_text"}, "layers of type linear_attention"),
        ({"model_type": "gemma3n_text"}, "an embedding table for every layer"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "quantised weights"),
        ({"model_type": "no-such-model"}, "'no-such-model', which is not a decoder"),
    ],
)
def test_architectures_that_cannot_serve(folder, config, match):
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, match)


def test_more_layers_than_there_are(folder):
    refused(folder, r"'layers': 3[\s\S]*1 to 2", layers=3)


def test_answers_must_be_single_tokens(folder):
    tiny_tokenizer(()).save_pretrained(folder)
    refused(folder, "yes and no as one token each")


def test_tokenizer_missing(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, "tokenizer of")


def test_tokenizer_larger_than_the_table(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<extra{i}>" for i in range(58)])
    tokenizer.save_pretrained(folder)
    refused(folder, "321 token ids for 320 embeddings")


def hub_cache(folder, cache, name, commit="0123456789abcdef0123456789abcdef01234567"):
    """Lay a folder out as the hub's cache does: blobs named by sha256, links to them in a snapshot."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    (root / "blobs").mkdir()
    for file in folder.iterdir():
        blob = root / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_hub_name_that_is_in_the_hubs_cache(folder, offline):
    hub_cache(folder, offline, "someone/tiny")
    found, local = load_backbone(BackboneSpec("someone/tiny")), load_backbone(BackboneSpec(str(folder)))
    assert torch.equal(found.lm_head_weight, local.lm_head_weight)
    assert found.fingerprint == local.fingerprint
    assert load_tokenizer("someone/tiny").encode("Heat yes") == local.tokenizer.encode("Heat yes")


def test_files_in_the_hubs_cache_are_not_hashed_again(folder, offline, monkeypatch):
    hub_cache(folder, offline, "someone/tiny")
    monkeypatch.setattr("repro.backbones.sources.file_sha256", lambda path: pytest.fail(f"hashed {path}"))
    load_backbone(BackboneSpec("someone/tiny"))


def test_hub_without_network_says_what_to_do(offline):
    for call in (
        lambda: load_backbone(BackboneSpec("someone/else", revision="v2")),
        lambda: load_tokenizer("gpt3"),
    ):
        with pytest.raises(
            BackboneError, match=r"no such folder, and the hub[\s\S]*hf download (someone/else --rev|gpt3)"
        ):
            call()


def test_hub_download_takes_config_first_and_never_pickles(folder, monkeypatch):
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    load_backbone(BackboneSpec("someone/tiny", revision="v2"))
    assert asked[0] == ("someone/tiny", "v2", ["config.json"])
    assert "model.safetensors" in asked[1][2]
    assert not any(
        p.endswith((".bin", ".pt", ".py")) or p == "*" for _, _, patterns in asked for p in patterns
    )
