"""Where a backbone's files come from (hub or folder), and what is checked before weights are read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repro.backbones.checked_folder import file_sha256
from repro.backbones.spec import source_kind
from repro.errors import BackboneError

CONFIG_FILES = ("config.json",)
TOKENIZER_FILES = (
    *CONFIG_FILES,
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
# Not *.safetensors: some repositories hold a second, differently named copy of all weights.
WEIGHT_FILES = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_LAYER_TYPES = {"full_attention", "sliding_attention"}


def model_folder(name: str, revision: str | None, patterns: Iterable[str]) -> Path:
    """The folder with a model's files; those of a hub name are downloaded or taken from its cache.

    Args:
        name: hub name or folder.
        revision: of a hub name.
        patterns: which files to download.

    Raises:
        BackboneError: no such folder, or the hub has no such model, wants a login or cannot be reached.
    """
    if source_kind(name) == "folder":
        folder = Path(name).expanduser()
        if not folder.is_dir():
            found = "is a file" if folder.is_file() else "no such folder"
            expected = "a folder with config.json, *.safetensors and tokenizer files"
            raise BackboneError(f"backbone {name!r}", found, expected, "correct the path, or give a hub name")
        return folder
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (
        Exception
    ) as error:  # the HTTP client, and so its errors, differ between versions of the hub's library
        at = f" --revision {revision}" if revision else ""
        raise BackboneError(
            f"backbone {name!r}",
            f"no such folder, and the hub did not give it: {type(error).__name__}: {error}".strip(),
            "a local folder, or a model that the hub gives you (some ask for `hf auth login` and consent)",
            f"where there is a network: `hf download {name}{at}`; or give a folder that holds the model",
        ) from error


def weight_files(folder: Path, name: str) -> list[Path]:
    """The safetensors files that make up the model, in name order.

    Raises:
        BackboneError: none (pickled weights are refused: loading them can run code), or a shard that the
            index names is missing.
    """
    where = f"backbone {name!r}"
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        found = f"only pickled weights: {', '.join(pickled)}" if pickled else "no weights"
        fix = "convert it in a place you trust: model.save_pretrained(folder) writes safetensors"
        raise BackboneError(where, f"{found} in {folder}", "model.safetensors, or its shards and index", fix)
    shards = sorted({folder / shard for shard in _read_json(index, name)["weight_map"].values()})
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise BackboneError(
            where, f"missing shards: {', '.join(missing)}", f"those named in {index}", "download it again"
        )
    return shards


def source_sha256(folder: Path, name: str) -> str:
    """Checksum of config, tokenizer and weights: what a record needs to say which model it used.

    Weights are read once for it (about 1.5 GB/s), except in the hub's cache, which names files by sha256.
    """
    parts = {}
    small = {path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}
    for path in sorted(small | set(weight_files(folder, name))):
        blob = path.resolve().name
        parts[path.name] = blob if re.fullmatch(r"[0-9a-f]{64}", blob) else file_sha256(path)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = f"not readable: {error}" if path.exists() else "missing"
        raise BackboneError(
            path, found, f"a JSON file of backbone {name!r}", "complete the folder"
        ) from error
    if not isinstance(content, dict):
        raise BackboneError(path, f"a JSON {type(content).__name__}", "a JSON object", "complete the folder")
    return content


def read_config(folder: Path, name: str) -> Any:
    """The transformers config of a folder, after checking that the model can be a backbone at all.

    Raises:
        BackboneError: remote code, unknown or encoder architecture, multimodal or quantised model, layers
            other than attention over a mask, or an unreadable config.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS

    where = f"backbone {name!r}"
    raw = _read_json(folder / "config.json", name)
    model_type = raw.get("model_type")
    expected = (
        "a decoder-only text model that transformers itself implements (Llama, Qwen, Gemma, Mistral, ...)"
    )
    if model_type not in DECODERS:
        found = f"architecture {model_type!r}, which is not a decoder that transformers knows"
        if raw.get("auto_map"):
            found = f"asks for remote code ({', '.join(sorted(map(str, raw['auto_map'])))})"
        raise BackboneError(where, found, expected, "choose another model: remote code is never run here")
    if "quantization_config" in raw:
        fix = "choose the unquantised checkpoint (LoRA keeps its training memory low)"
        raise BackboneError(where, "quantised weights", "float32, bfloat16 or float16 weights", fix)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackboneError(folder / "config.json", str(error), expected, "complete the folder") from error
    if config.get_text_config() is not config:
        raise BackboneError(where, "a multimodal model", expected, "choose its text-only checkpoint")
    layer_types: list[str] | None = getattr(config, "layer_types", None)
    other = set(layer_types or []) - _LAYER_TYPES
    if other or bool(getattr(config, "hidden_size_per_layer_input", 0)):
        found = (
            f"layers of type {', '.join(sorted(other))}" if other else "an embedding table for every layer"
        )
        raise BackboneError(where, found, "attention layers over one input embedding", "choose another model")
    return config
