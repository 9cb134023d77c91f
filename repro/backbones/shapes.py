"""Architectures that can be built with random weights: two tiny ones for tests, three real for cost work.

Plain data (arguments of the transformers config class), so that reading it imports neither torch nor
transformers. The real shapes are those of the published models; tests assert their parameter counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TINY_VOCAB = 320


@dataclass(frozen=True)
class Shape:
    """One architecture.

    Attributes:
        title: as reports write it.
        model_type: transformers' name of the architecture.
        arguments: of its config class.
        tiny: has the small byte-level tokenizer (built in code) instead of SmolLM2's.
    """

    title: str
    model_type: str
    arguments: dict[str, Any] = field(repr=False)
    tiny: bool = False


# With the usual initializer_range of 0.02 a narrow model attends almost uniformly: moving a token by three
# positions changes its logits (of spread 0.15) by 0.002, so a wrong position or bias would hide. With 0.15 it
# changes them by 1.
_TINY: dict[str, Any] = {
    "vocab_size": TINY_VOCAB,
    "num_hidden_layers": 4,
    "max_position_embeddings": 8192,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}

SHAPES: dict[str, Shape] = {
    # Three query heads on one key-value head: a head count that is no power of two, as SmolLM2's nine.
    "tiny-llama": Shape(
        "tiny Llama",
        "llama",
        {
            **_TINY,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        tiny=True,
    ),
    # Unlike tiny-llama: biases on q, k and v (Qwen2), four heads in two groups, an LM head of its own.
    "tiny-qwen": Shape(
        "tiny Qwen2",
        "qwen2",
        {
            **_TINY,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        tiny=True,
    ),
    "smollm2-135m": Shape(
        "SmolLM2-135M",
        "llama",
        {
            "vocab_size": 49_152,
            "hidden_size": 576,
            "intermediate_size": 1_536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8_192,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "initializer_range": 0.041_666_666,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        },
    ),
    "qwen2.5-1.5b": Shape(
        "Qwen2.5-1.5B",
        "qwen2",
        {
            "vocab_size": 151_936,
            "hidden_size": 1_536,
            "intermediate_size": 8_960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "bos_token_id": 151_643,
            "eos_token_id": 151_645,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        },
    ),
    "llama-3.1-8b": Shape(
        "Llama-3.1-8B",
        "llama",
        {
            "vocab_size": 128_256,
            "hidden_size": 4_096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "bos_token_id": 128_000,
            "eos_token_id": 128_001,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8_192,
            },
        },
    ),
}
