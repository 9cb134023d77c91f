"""What is trained: everything, everything but the embedding table, or LoRA adapters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from repro.backbones.spec import BackboneSpec
from repro.errors import BackboneError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random state set inside and put back after, on the CPU and on `device`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def check_projections(layers: nn.ModuleList, name: str) -> None:
    """Assert that LoRA finds its seven linear projections in every layer.

    Raises:
        BackboneError: some are missing (fused projections as in Phi-3, or mixtures of experts).
    """
    for number, layer in enumerate(layers):
        present = {n.rpartition(".")[2] for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
        missing = [p for p in PROJECTIONS if p not in present]
        if missing:
            raise BackboneError(
                f"backbone {name!r}, layer {number}",
                f"no {', '.join(missing)}",
                f"the seven projections that LoRA adapts: {', '.join(PROJECTIONS)}",
                'tune it in full (tuning="full"), or choose another model',
            )


def apply_tuning(model: Any, spec: BackboneSpec, seed: int) -> Any:
    """Mark what is trained, wrapping the model with peft under `lora`; the adapters start as `seed` says.

    Adapters are float32 whatever the base is stored in (peft's default), so that small updates are not lost.
    At the start they add exactly zero.

    Args:
        model: a transformers causal LM.
        spec: its tuning fields are read.
        seed: of the adapters' first values.

    Returns:
        `model`, or the peft model around it.
    """
    if spec.tuning == "full":
        model.requires_grad_(True)
        # A tied LM head is the same parameter and stays fixed too; a head of its own is trained.
        model.get_input_embeddings().weight.requires_grad_(spec.train_embeddings)
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=list(PROJECTIONS),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with seeded(seed, model.device), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's own use of transformers' older names
        return get_peft_model(model, config, low_cpu_mem_usage=model.device.type == "meta")
