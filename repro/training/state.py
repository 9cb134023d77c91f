"""Where a training stands: what its checkpoints hold besides parameters, optimiser and random state."""

from __future__ import annotations

from dataclasses import dataclass, field

_TIE = 1e-9  # of AUC: closer than this is rounding, and the earlier epoch stays the best


@dataclass
class Progress:
    """Where a training stands; everything here is stored in checkpoints.

    Attributes:
        epoch, batch: next batch to train on. step: optimiser steps taken.
        history: per finished epoch {"epoch", "auc", "log_loss", "train_loss", "train_s"}.
        best_epoch: epoch with the best validation AUC so far, -1 before the first.
        loss_sum, targets: of the epoch so far. tokens_raw, tokens_padded: of the first epoch. All four
            are sums over all processes.
        seconds: the clocks.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = -1
    loss_sum: float = 0.0
    targets: int = 0
    tokens_raw: int = 0
    tokens_padded: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def best(self) -> dict[str, float]:
        """Validation entry of the best epoch."""
        return self.history[self.best_epoch]

    def is_better(self, auc: float) -> bool:
        """Whether a validation AUC is above the best so far; ties that rounding tells apart are none."""
        return self.best_epoch < 0 or auc > self.best()["auc"] + _TIE

    def stalled(self, patience: int) -> bool:
        """Whether the last `patience` epochs brought no better validation AUC."""
        return self.best_epoch >= 0 and len(self.history) - 1 - self.best_epoch >= patience
