"""Batches for measurements: every one fills the same padded length, whatever the method."""

from __future__ import annotations

import numpy as np
import torch

from repro.methods.sum_batches import SumBatches
from repro.prompts.batching import epoch_order

PASSED_OVER = 64  # so many rows that do not fit, and a batch looks no further for some that do


class FullBatches(SumBatches):
    """Training rows in a seeded order, as many to a batch as fit into `length`; `number` batches at most.

    What remains behind the last row that fits is given to later rows that are short enough, and the last of
    these makes way for the longest one that fits in its place, for every method alike: rows of k targets are
    longer, and would else leave more of a batch empty. Every batch is padded to `length` and to the same
    number of [SUM]s; room for these is kept while it is filled.
    """

    length = 0
    number = 1

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Row numbers of every batch. The last one, for which rows ran out, is dropped unless it is alone."""
        waiting = list(epoch_order(len(self.rows), seed, epoch))
        batches: list[np.ndarray] = []
        while waiting and len(batches) < self.number:
            batch, waiting = self._filled(waiting)
            if waiting or not batches:
                batches.append(batch)
        return batches

    def fits(self, chosen: np.ndarray) -> bool:
        """Whether these rows are a batch of `length` places."""
        num_sums = self._num_sums()
        few = num_sums == 0 or self._rounded(self.count(chosen)) <= num_sums
        return few and self.places(chosen, num_sums) <= self.length

    def split(self, chosen: np.ndarray) -> list[np.ndarray]:
        """The batch as it is."""
        return [chosen]

    def warm_up(self, device: torch.device | str) -> list[np.ndarray]:
        """One batch: they all have the same shapes."""
        return super().warm_up(device)[:1]

    def _filled(self, waiting: list[int]) -> tuple[np.ndarray, list[int]]:
        """A batch of the first rows, and those that are left."""
        taken: list[int] = []
        passed_over: list[int] = []
        for row in waiting:
            fits = not taken or self.fits(np.array([*taken, row]))
            (taken if fits else passed_over).append(row)
            if len(passed_over) == PASSED_OVER:
                break
        left = passed_over + waiting[len(taken) + len(passed_over) :]
        if len(taken) > 1:
            *others, last = taken
            instead = [row for row in passed_over if self.fits(np.array([*others, row]))]
            best = max([last, *instead], key=lambda row: int(self._row_tokens[row]))
            if best != last:
                left[left.index(best)] = last
                taken = [*others, best]
        return np.array(taken), left

    def _num_sums(self) -> int:
        """[SUM]s of every batch, with padding: as many as a batch has that keeps room for its own alone."""
        if self._sums is None:
            self._sums = 0  # while these batches are filled
            self._sums = max(self._rounded(self.count(batch)) for batch in self.epoch(0, 0))
        return self._sums

    def _padded_length(self, chosen: np.ndarray) -> int:
        multiple = self.sizes.text_multiple
        return max(-(-self.length // multiple) * multiple, self.places(chosen, self._num_sums()))

    def _sample(self) -> list[np.ndarray]:
        return self.epoch(0, 0)
