"""A backbone: model, tokenizer and answer tokens, loaded from any source that `BackboneSpec` names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from repro.backbones import smollm2, sources
from repro.backbones.quiet import quiet_transformers
from repro.backbones.shapes import SHAPES
from repro.backbones.spec import BackboneSpec, shape_name, source_kind
from repro.backbones.tokenizer import answer_ids, load_folder_tokenizer, load_tokenizer, tokenizer_sha256
from repro.backbones.tuning import apply_tuning, check_projections, seeded
from repro.errors import BackboneError

# Config fields of Gemma 2, Cohere and Granite: their logits are more than hidden @ head.T.
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling")


@dataclass(eq=False)
class Backbone:
    """A causal language model ready for a method.

    Attributes:
        model: transformers causal LM, or the peft model around one; in eval mode, without key-value cache.
        tokenizer: transformers tokenizer.
        yes_id, no_id: token ids of the answers.
        spec: what it was loaded from.
        fingerprint: sha256 of weights, tokenizer, cut and precision, before any training.
    """

    model: Any
    tokenizer: Any
    yes_id: int
    no_id: int
    spec: BackboneSpec
    fingerprint: str

    @property
    def causal_lm(self) -> Any:
        """The transformers model without the peft wrapper; adapters live inside its layers."""
        return self.model.get_base_model() if self.spec.tuning == "lora" else self.model

    @property
    def decoder(self) -> Any:
        """The model below the LM head, e.g. `LlamaModel`: embeddings (B, T, H) -> hidden states (B, T, H)."""
        return self.causal_lm.base_model

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers in order."""
        return self.decoder.layers

    @property
    def embed_tokens(self) -> nn.Embedding:
        """The token embedding table. Call it, do not index its weight: Gemma scales in forward."""
        return self.decoder.embed_tokens

    @property
    def lm_head_weight(self) -> nn.Parameter:
        """(V, H): logits are `hidden @ lm_head_weight.T`. The embedding table itself where they are tied."""
        return self.causal_lm.get_output_embeddings().weight

    @property
    def config(self) -> Any:
        """The transformers config; shared by the model and its layers."""
        return self.causal_lm.config

    @property
    def hidden_size(self) -> int:
        """H, width of the residual stream."""
        return self.config.hidden_size

    @property
    def num_layers(self) -> int:
        """Decoder layers that are kept."""
        return len(self.layers)


def trainable_parameters(backbone: Backbone) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that is trained, each once (a tied head counts as the table)."""
    return {name: p for name, p in backbone.model.named_parameters() if p.requires_grad}


def group_of(backbone: Backbone) -> int:
    """Query heads per key-value head."""
    return int(backbone.config.num_attention_heads // backbone.config.num_key_value_heads)


def load_backbone(spec: BackboneSpec, device: str | torch.device = "cpu", seed: int = 0) -> Backbone:
    """Load a backbone.

    Args:
        spec: which one.
        device: where it goes. `meta` builds the architecture without weights, for counting.
        seed: of random weights (`random:` names) and of LoRA adapters. Random weights are drawn on `device`,
            so they differ between CPU and GPU; adapters are drawn on the CPU.

    Raises:
        BackboneError: not found, not usable as a backbone, damaged, or `layers` beyond the model's.
        StorageError: the cache of converted SmolLM2 weights cannot be written.
    """
    device = torch.device(device)
    config, tokenizer, folder = _describe(spec)
    yes_id, no_id = answer_ids(tokenizer)
    _cut(config, spec)
    config.use_cache = False  # a cache would let packed rows see each other
    skeleton = _from_config(config, spec, torch.device("meta"), seed)
    _check_decoder(skeleton, tokenizer, spec)
    if device.type == "meta":
        model = skeleton
    elif folder is None:
        model = _from_config(config, spec, device, seed)
    else:
        model = _from_folder(str(folder), config, spec)
    model = apply_tuning(model.eval(), spec, seed).to(device)
    made_of = {
        "weights": _source(spec, folder, seed),
        "tokenizer": tokenizer_sha256(tokenizer),
        "layers": spec.layers,
        "dtype": spec.dtype,
    }
    fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return Backbone(model, tokenizer, yes_id, no_id, spec, fingerprint)


def _describe(spec: BackboneSpec) -> tuple[Any, Any, Path | None]:
    """Config, tokenizer and folder of the weights (None: random ones), all files downloaded or converted."""
    kind = source_kind(spec.name)
    if kind == "random":
        shape = SHAPES[shape_name(spec.name)]
        return CONFIG_MAPPING[shape.model_type](**shape.arguments), load_tokenizer(spec.name), None
    if kind == "smollm2":
        folder = smollm2.weights_folder()
        return sources.read_config(folder, spec.name), load_tokenizer(spec.name), folder
    # The config alone first: gigabytes that could not be used are not downloaded.
    sources.read_config(sources.model_folder(spec.name, spec.revision, sources.CONFIG_FILES), spec.name)
    files = (*sources.TOKENIZER_FILES, *sources.WEIGHT_FILES)
    folder = sources.model_folder(spec.name, spec.revision, files)
    sources.weight_files(folder, spec.name)
    config = sources.read_config(folder, spec.name)
    return config, load_folder_tokenizer(str(folder), spec.name), folder


def _source(spec: BackboneSpec, folder: Path | None, seed: int) -> str:
    """What identifies the weights, for the fingerprint."""
    if folder is None:
        arguments = SHAPES[shape_name(spec.name)].arguments
        return f"random, seed {seed}, {json.dumps(arguments, sort_keys=True)}"
    if source_kind(spec.name) == "smollm2":
        return f"{smollm2.GGUF_SHA256}, converter {smollm2.CONVERTER_VERSION}"
    return sources.source_sha256(folder, spec.name)


def _cut(config: Any, spec: BackboneSpec) -> None:
    """Shorten the config to the first `spec.layers` layers; those beyond are then never read from disk."""
    total = config.num_hidden_layers
    if spec.layers is None:
        return
    if spec.layers > total:
        where = f"backbone {spec.name!r}, setting 'layers'"
        raise BackboneError(
            where, str(spec.layers), f"1 to {total}, the model's layers", "lower it, or leave it out"
        )
    config.num_hidden_layers = spec.layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: spec.layers]


def _from_config(config: Any, spec: BackboneSpec, device: torch.device, seed: int) -> Any:
    with seeded(seed, device), device, quiet_transformers():
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, spec.dtype))


def _from_folder(folder: str, config: Any, spec: BackboneSpec) -> Any:
    model: Any
    report: Any
    try:
        with quiet_transformers():
            model, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
                folder,
                config=config,
                dtype=getattr(torch, spec.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        found = f"not readable: {type(error).__name__}: {error}"
        raise BackboneError(
            f"weights in {folder}", found, "whole safetensors files", "download it again"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        found = f"{len(missing)} tensors missing, {missing[0]} first"
        raise BackboneError(
            f"weights in {folder}", found, "all tensors that config.json asks for", "download it again"
        )
    return model


def _check_decoder(model: Any, tokenizer: Any, spec: BackboneSpec) -> None:
    """Assert, on the weightless model, everything that methods rely on."""
    where, decoder, head = f"backbone {spec.name!r}", model.base_model, model.get_output_embeddings()
    layers: Any = getattr(decoder, "layers", None)
    lacks = [
        text
        for text, there in (
            ("decoder layers under `layers`", isinstance(layers, nn.ModuleList) and len(layers) > 0),
            (
                "an embedding table under `embed_tokens`",
                isinstance(getattr(decoder, "embed_tokens", None), nn.Embedding),
            ),
            ("rotary position embeddings", hasattr(decoder, "rotary_emb")),
            ("replaceable attention", model._supports_attention_backend),
            ("a linear LM head without bias", isinstance(head, nn.Linear) and head.bias is None),
            ("plain logits", not any(getattr(model.config, name, None) for name in _LOGIT_CHANGES)),
        )
        if not there
    ]
    if not lacks and not all(
        getattr(getattr(layer, "self_attn", None), "is_causal", False) for layer in layers
    ):
        lacks = ["causal attention in every layer"]
    if lacks:
        expected = "a decoder-only model built as Llama is (Llama, Qwen, Gemma, Mistral, ...)"
        raise BackboneError(
            where, f"{type(model).__name__} lacks {', '.join(lacks)}", expected, "choose another model"
        )
    if len(tokenizer) > decoder.embed_tokens.num_embeddings:
        found = f"{len(tokenizer):,} token ids for {decoder.embed_tokens.num_embeddings:,} embeddings"
        raise BackboneError(
            where, found, "an embedding for every token", "use the tokenizer the model came with"
        )
    if spec.tuning == "lora":
        check_projections(layers, spec.name)
