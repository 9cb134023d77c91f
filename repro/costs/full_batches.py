"""Batches for measurements: every one fills the same padded length, whatever the method."""

from __future__ import annotations

import numpy as np
import torch

from repro.methods.sum_batches import SumBatches
from repro.prompts.batching import epoch_order

LOOK_AHEAD, PASSED_OVER = 2, 64  # how far a batch looks for rows that still fit: averages, rows that do not


class FullBatches(SumBatches):
    """Training rows in a seeded order, as many to a batch as fit into `length`; `number` batches at most.

    What remains behind the last row that fits is given to later rows that are short enough, for every
    method alike: rows of k targets are longer, and would else leave more of a batch empty.
    """

    length = 0
    number = 1

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Row numbers of every batch."""
        waiting = list(epoch_order(len(self.rows), seed, epoch))
        batches: list[np.ndarray] = []
        while waiting and len(batches) < self.number:
            taken: list[int] = []
            passed_over: list[int] = []
            for row in waiting[: LOOK_AHEAD * (self.length // max(int(self._row_tokens.mean()), 1) + 1)]:
                fits = not taken or self.places(np.array([*taken, row])) <= self.length
                (taken if fits else passed_over).append(row)
                if len(passed_over) == PASSED_OVER:
                    break
            batches.append(np.array(taken))
            waiting = passed_over + waiting[len(taken) + len(passed_over) :]
        return batches

    def split(self, chosen: np.ndarray) -> list[np.ndarray]:
        """The batch as it is."""
        return [chosen]

    def _padded_length(self, chosen: np.ndarray) -> int:
        if self._lengths is None:
            self._lengths = np.array([max(self.places(b, self._num_sums()) for b in self._sample())])
        return max(int(self._lengths[0]), self.places(chosen, self._num_sums()))

    def _sample(self) -> list[np.ndarray]:
        return self.epoch(0, 0)

    def warm_up(self, device: torch.device | str) -> list[np.ndarray]:
        """One batch: they all have the same shapes."""
        return super().warm_up(device)[:1]
