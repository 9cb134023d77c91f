"""Sliding window (SW): one prompt per target, its n earlier interactions as context (DTI section 3.1)."""

from __future__ import annotations

from repro.methods.method import SumMethod
from repro.prompts.settings import PromptSettings


def sliding_window(n: int) -> SumMethod:
    """Train on one prompt per target: instruction, n x (text, answer), target text, [SUM]."""
    return SumMethod("sw", PromptSettings(n=n, k=1))


def zero_shot(n: int) -> SumMethod:
    """The untrained model on the same test prompts: what fine-tuning starts from."""
    return SumMethod("zero-shot", PromptSettings(n=n, k=1), trains=False)
