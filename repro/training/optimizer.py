"""Optimiser and learning-rate schedule of the training loop."""

from __future__ import annotations

import math

import torch
from torch import nn

from repro.training.checkpoint import trained_parameters
from repro.training.settings import TrainingSettings


def cosine_with_warmup(step: int, total: int, warmup_share: float) -> float:
    """Factor on the learning rate: linear to 1 over the warm-up, then half a cosine down to 0 at `total`."""
    warmup = math.ceil(total * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors (norms, biases, the [SUM] embedding) do not."""
    parameters = list(trained_parameters(model).values())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)
