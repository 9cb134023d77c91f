"""A task without a language model: logistic regression behind one hidden layer, and batches of plain rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from repro.training.task import Task

NUM_FEATURES = 5


@dataclass(frozen=True)
class ToyOutput:
    loss_sum: Tensor
    score: Tensor


@dataclass(frozen=True)
class ToyBatch:
    x: Tensor  # (T, NUM_FEATURES)
    y: Tensor  # (T,)
    target_row: np.ndarray
    num_targets: int
    num_tokens: int
    num_padded_tokens: int


class ToyModel(nn.Module):
    """Matrices and vectors, so that both groups of weight decay have members."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(NUM_FEATURES, 4)
        self.out = nn.Linear(4, 1)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, batch: ToyBatch) -> ToyOutput:
        logit = self.out(torch.tanh(self.hidden(batch.x)))[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logit, batch.y, reduction="sum")
        return ToyOutput(loss, torch.sigmoid(logit.detach()))


class ToyBatches:
    """Rows `rows` of the data, `batch_targets` at a time, in micro-batches of at most `micro`."""

    def __init__(self, x, y, rows, batch_targets=8, micro=1000) -> None:
        self.x, self.y, self.rows, self.batch_targets, self.micro = (
            x,
            y,
            np.asarray(rows),
            batch_targets,
            micro,
        )
        self.loads = 0

    @property
    def num_targets(self) -> int:
        return len(self.rows)

    def _cut(self, rows):
        return [rows[i : i + self.batch_targets] for i in range(0, len(rows), self.batch_targets)]

    def epoch(self, seed, epoch):
        return self._cut(np.random.default_rng([seed, epoch]).permutation(self.rows))

    def in_order(self):
        return self._cut(self.rows)

    def count(self, key):
        return len(key)

    def split(self, key):
        return [key[i : i + self.micro] for i in range(0, len(key), self.micro)]

    def load(self, key, device):
        self.loads += 1
        x = torch.tensor(self.x[key], dtype=torch.float32, device=device)
        y = torch.tensor(self.y[key], dtype=torch.float32, device=device)
        return ToyBatch(x, y, np.asarray(key), len(key), 3 * len(key), 4 * len(key))


def toy_task(batch_targets=8, micro=1000, num_train=50) -> Task:
    """num_train + 30 + 30 rows of two classes that a line separates imperfectly."""
    draw = np.random.default_rng(1)
    total = num_train + 60
    x = draw.normal(size=(total, NUM_FEATURES))
    y = (x @ np.arange(1.0, NUM_FEATURES + 1) + draw.normal(size=total) > 0).astype(np.int8)
    parts = np.split(np.arange(total), [num_train, num_train + 30])
    train, validation, test = (ToyBatches(x, y, rows, batch_targets, micro) for rows in parts)
    return Task(ToyModel(), train, validation, test, y, np.arange(total) % 7)
