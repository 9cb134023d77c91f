"""What the training loop needs from a method: a model and three sources of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ModelOutput:
    """Loss summed over targets (padding left out) and, for every target slot, the probability of a like.

    Attributes:
        loss_sum: () float32.
        score: (S,) float32 in (0, 1), padding last.
    """

    loss_sum: Tensor
    score: Tensor


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


@runtime_checkable
class CompiledBatches(Batches, Protocol):
    """Batches of few padded lengths, for which a model is compiled."""

    def warm_up(self, device: torch.device | str) -> list[Any]:
        """Keys of micro-batches that hold every padded length; none where nothing is compiled."""


@dataclass(frozen=True)
class Task:
    """One method on one data set.

    Attributes:
        model: called with a batch, returns a `ModelOutput`. Parameters with `requires_grad` are trained.
        train, validation, test: batches; the target sets are the same for every method.
        label: (N,) labels of the prepared data, indexed by `target_row`.
        group: (N,) users of the prepared data.
        table_build_s: seconds to encode these behaviours on this device; None without a table, or where no
            filling of it on this device is known.
        behaviours_encoded: how many behaviours of the data set the builds and refreshes of its table encode;
            None without one.
    """

    model: nn.Module
    train: Batches
    validation: Batches
    test: Batches
    label: np.ndarray
    group: np.ndarray
    table_build_s: float | None = None
    behaviours_encoded: int | None = None
