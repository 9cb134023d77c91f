"""Sizes of a decoder that decide its cost, read from a shape, a folder or the hub; no weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro.errors import BackboneError, ConfigError


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama pattern in numbers.

    Attributes:
        layers: L, decoder layers. hidden: H. heads, kv_heads: query and key-value heads. head_dim: D.
        intermediate: I, width of the MLP. vocab: V. positions: longest input that the model was made for.
        tied: the LM head is the embedding table.
        qkv_bias: biases on q, k and v (Qwen2).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    positions: int
    tied: bool
    qkv_bias: bool = False

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one layer's seven linear projections."""
        hidden, wide = self.hidden, self.intermediate
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (hidden, query),
            "k_proj": (hidden, key),
            "v_proj": (hidden, key),
            "o_proj": (query, hidden),
            "gate_proj": (hidden, wide),
            "up_proj": (hidden, wide),
            "down_proj": (wide, hidden),
        }

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer: projections, biases, two norms."""
        products = sum(inputs * outputs for inputs, outputs in self.projections.values())
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        return products + biases + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """All weights; a tied table counts once."""
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + tables + self.hidden

    def lora_parameters(self, rank: int) -> int:
        """Weights of LoRA adapters on the seven projections of one layer."""
        return rank * sum(inputs + outputs for inputs, outputs in self.projections.values())

    def check_length(self, tokens: int, what: str) -> None:
        """Refuse an input longer than the model's positions.

        Raises:
            ConfigError: `tokens` is beyond `positions`.
        """
        if tokens > self.positions:
            raise ConfigError(
                what,
                f"{tokens:,} tokens",
                f"at most {self.positions:,}, the model's positions",
                "choose fewer interactions (n, k) or shorter texts, or a backbone with more positions",
            )


def architecture_from(config: Mapping[str, Any]) -> Architecture:
    """Sizes from the arguments of a transformers config.

    Raises:
        BackboneError: a size is missing: not an architecture of this pattern.
    """
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return Architecture(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            tied=bool(config.get("tie_word_embeddings", True)),
            qkv_bias=bool(config.get("attention_bias")) or config.get("model_type") == "qwen2",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(
            "architecture", f"no usable {error}", "sizes as in a config.json of Llama, Qwen or Gemma",
            "name another backbone",
        ) from error  # fmt: skip


def architecture_of(name: str) -> Architecture:
    """Sizes of a backbone by name, as in `BackboneSpec.name`; for the hub, its config.json alone is fetched.

    Raises:
        BackboneError: not found, or not of this pattern.
    """
    from repro.backbones.shapes import SHAPES  # here: reports import this module, and no backbone
    from repro.backbones.spec import SMOLLM2, shape_name, source_kind

    kind = source_kind(name)
    if kind in ("random", "smollm2"):
        shape = SHAPES[SMOLLM2 if kind == "smollm2" else shape_name(name)]
        return architecture_from({"model_type": shape.model_type, **shape.arguments})
    from repro.backbones import sources

    config = sources.read_config(sources.model_folder(name, None, sources.CONFIG_FILES), name)
    return architecture_from(config.to_dict())
