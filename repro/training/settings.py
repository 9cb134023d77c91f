"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import ConfigError


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained; the same for every method of a table.

    Attributes:
        learning_rate: peak of the cosine schedule, reached after `warmup_share` of all steps.
        max_epochs: the cosine spans all of them; training may stop earlier.
        patience: stop after this many epochs without a better validation AUC.
        batch_targets: targets per optimiser step (per process), on average.
        eval_batch_targets: targets per evaluation batch.
        clip_norm: gradients are clipped to this global norm.
        precision: `fp32` or `bf16` (autocast; weights and optimiser stay in the backbone's dtype).
        checkpoint_every_s: seconds between checkpoints inside an epoch.
    """

    learning_rate: float = 2e-4
    max_epochs: int = 1
    patience: int = 2
    batch_targets: int = 64
    eval_batch_targets: int = 64
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    precision: str = "fp32"
    checkpoint_every_s: float = 60.0

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError("precision", repr(self.precision), "fp32 or bf16", "choose one of these")
        for name in ("learning_rate", "max_epochs", "batch_targets", "eval_batch_targets", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, str(getattr(self, name)), "a positive number", "choose another value")
