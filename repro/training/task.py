"""What the training loop needs from a method: a model and three sources of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


class Output(Protocol):
    """What a model returns."""

    @property
    def loss_sum(self) -> Tensor:
        """() loss summed over the batch's targets."""

    @property
    def score(self) -> Tensor:
        """(S,) probability of a like per target slot, padding last."""


class Batch(Protocol):
    """One batch on the model's device; the model is called with it."""

    @property
    def num_targets(self) -> int:
        """Targets, without padding."""

    @property
    def num_tokens(self) -> int:
        """Processed tokens without padding."""

    @property
    def num_padded_tokens(self) -> int:
        """Processed tokens with padding."""

    @property
    def target_row(self) -> np.ndarray:
        """(num_targets,) rows of the prepared data, in the order of the model's scores."""


class Batches(Protocol):
    """Batches of one split."""

    @property
    def num_targets(self) -> int:
        """Targets of the split."""

    def epoch(self, seed: int, epoch: int) -> list[Any]:
        """Keys of the batches in the seeded order of an epoch."""

    def in_order(self) -> list[Any]:
        """Keys of the batches in a fixed order, for evaluation."""

    def count(self, key: Any) -> int:
        """Targets of a batch."""

    def split(self, key: Any) -> list[Any]:
        """A batch as micro-batches that fit the device; their gradients add up to the batch's."""

    def load(self, key: Any, device: torch.device | str) -> Batch:
        """Build one batch."""


@dataclass(frozen=True)
class Task:
    """One method on one data set.

    Attributes:
        model: called with a batch, returns an `Output`. Parameters with `requires_grad` are trained.
        train, validation, test: batches; the target sets are the same for every method.
        label: (N,) labels of the prepared data, indexed by `target_row`.
        group: (N,) users of the prepared data.
    """

    model: nn.Module
    train: Batches
    validation: Batches
    test: Batches
    label: np.ndarray
    group: np.ndarray
