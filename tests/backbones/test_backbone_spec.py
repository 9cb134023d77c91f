"""BackboneSpec: titles, name kinds, refused settings; light to import."""

import subprocess
import sys

import pytest

from repro.backbones.spec import BackboneSpec, source_kind
from repro.errors import BackboneError, ConfigError


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        (BackboneSpec(), "SmolLM2-135M, dequantised Q4_1"),
        (BackboneSpec(layers=6), "SmolLM2-135M, dequantised Q4_1, first 6 of 30 layers"),
        (BackboneSpec(layers=30), "SmolLM2-135M, dequantised Q4_1"),
        (
            BackboneSpec("random:llama-3.1-8b", layers=4),
            "Llama-3.1-8B shape, random weights, first 4 of 32 layers",
        ),
        (BackboneSpec("Qwen/Qwen2.5-0.5B", layers=3), "Qwen/Qwen2.5-0.5B, first 3 layers"),
        (BackboneSpec("./models/mine"), "mine"),
    ],
)
def test_title(spec, title):
    assert spec.title == title


def test_source_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    kinds = {
        "smollm2-135m": "smollm2",
        "random:tiny-llama": "random",
        "Qwen/Qwen2.5-0.5B": "hub",
        "gpt2": "hub",
        "org/model": "folder",  # it exists here
        "./nowhere": "folder",
        "~/models/mine": "folder",
        "/models/mine": "folder",
        "a/b/c": "folder",
    }
    assert {name: source_kind(name) for name in kinds} == kinds


@pytest.mark.parametrize(
    "fields",
    [
        {"name": " "},
        {"layers": 0},
        {"tuning": "qlora"},
        {"lora_rank": 0},
        {"lora_alpha": 0},
        {"lora_dropout": 1.0},
        {"dtype": "int8"},
        {"revision": "main"},
        {"name": "./folder", "revision": "main"},
    ],
)
def test_bad_settings_name_the_field(fields):
    with pytest.raises(ConfigError, match=repr(list(fields)[-1])):
        BackboneSpec(**fields)


def test_unknown_shape_lists_the_known_ones():
    with pytest.raises(BackboneError, match=r"unknown shape 'llama-9b'[\s\S]*llama-3.1-8b"):
        BackboneSpec("random:llama-9b")


def test_importing_the_spec_imports_no_torch():
    code = "import sys, repro.backbones.spec; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
