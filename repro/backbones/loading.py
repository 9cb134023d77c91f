"""A backbone: model, tokenizer and answer tokens, loaded from any source that `BackboneSpec` names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from repro.backbones import smollm2, sources
from repro.backbones.quiet import quiet_transformers
from repro.backbones.shapes import SHAPES
from repro.backbones.spec import BackboneSpec, shape_name, source_kind
from repro.backbones.tokenizer import answer_ids, load_folder_tokenizer, load_tokenizer, tokenizer_sha256
from repro.backbones.tuning import apply_tuning, check_projections, seeded
from repro.errors import BackboneError


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
        """The token embedding table. Call it, do not index its weight: Gemma 3 scales in forward."""
        return self.decoder.embed_tokens

    @property
    def lm_head_weight(self) -> nn.Parameter:
        """(V, H); the embedding table itself where the model ties them."""
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

    def logits(self, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """LM head on the decoder's output, with what some architectures do to logits after it.

        Args:
            hidden: (..., H) last hidden states.
            token_ids: (A,) compute these rows of the vocabulary only.

        Returns:
            (..., V) or (..., A) logits.
        """
        head = self.causal_lm.get_output_embeddings()
        if token_ids is None:
            logits = head(hidden)
        else:
            bias = None if head.bias is None else head.bias[token_ids]
            logits = nn.functional.linear(hidden, head.weight[token_ids], bias)
        if getattr(self.config, "logit_scale", None):  # Cohere
            logits = logits * self.config.logit_scale
        if getattr(self.config, "logits_scaling", None):  # Granite
            logits = logits / self.config.logits_scaling
        if getattr(self.config, "final_logit_softcapping", None):  # Gemma 2
            cap = self.config.final_logit_softcapping
            logits = cap * torch.tanh(logits / cap)
        return logits


def trainable_parameters(backbone: Backbone) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that is trained, each once (a tied head counts as the table)."""
    return {name: p for name, p in backbone.model.named_parameters() if p.requires_grad}


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
    kind = source_kind(spec.name)
    folder = None
    if kind == "random":
        shape = SHAPES[shape_name(spec.name)]
        config = CONFIG_MAPPING[shape.model_type](**shape.arguments)
        tokenizer = load_tokenizer(spec.name)
        source = f"random weights, seed {seed}, {json.dumps(shape.arguments, sort_keys=True)}"
    elif kind == "smollm2":
        folder = smollm2.weights_folder()
        config = sources.read_config(folder, spec.name)
        tokenizer = load_tokenizer(spec.name)
        source = f"{smollm2.GGUF_SHA256}, converter {smollm2.CONVERTER_VERSION}"
    else:
        sources.read_config(sources.model_folder(spec.name, spec.revision, sources.CONFIG_FILES), spec.name)
        files = (*sources.TOKENIZER_FILES, *sources.WEIGHT_FILES)
        folder = sources.model_folder(spec.name, spec.revision, files)
        sources.weight_files(folder, spec.name)
        config = sources.read_config(folder, spec.name)
        tokenizer = load_folder_tokenizer(str(folder), spec.name)
        source = sources.source_sha256(folder, spec.name)
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
        "source": source,
        "tokenizer": tokenizer_sha256(tokenizer),
        "layers": spec.layers,
        "dtype": spec.dtype,
    }
    fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return Backbone(model, tokenizer, yes_id, no_id, spec, fingerprint)


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
    where, decoder = f"backbone {spec.name!r}", model.base_model
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
            ("a linear LM head", isinstance(model.get_output_embeddings(), nn.Linear)),
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
