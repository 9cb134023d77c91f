"""Batches of a [SUM] method for the training loop: rows of a split, packed and planned on demand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from repro.backbones.fix_settings import Fixes
from repro.backbones.plan import BatchPlan, plan_batch
from repro.data.interactions import PreparedData
from repro.methods.method import SumMethod
from repro.prompts.batching import batch_rows, epoch_order
from repro.prompts.packing import PromptSource, pack_rows
from repro.prompts.rows import Rows, build_rows
from repro.prompts.tokenise import TokenisedItems


@dataclass(frozen=True)
class SumBatch:
    """One batch on the device, with counts that stay on the host.

    Attributes:
        plan: what the model reads.
        num_targets: targets, without padding.
        num_tokens: processed tokens without padding; num_padded_tokens: with padding.
    """

    plan: BatchPlan
    num_targets: int
    num_tokens: int
    num_padded_tokens: int

    @property
    def target_row(self) -> np.ndarray:
        """(num_targets,) rows of PreparedData, in the order of the model's scores."""
        return self.plan.target_row[: self.num_targets].numpy()


class SumBatches:
    """All batches of one split in one prompt format."""

    def __init__(
        self,
        source: PromptSource,
        rows: Rows,
        fixes: Fixes,
        batch_targets: int,
        group: int,
        text_multiple: int = 64,
        sum_multiple: int = 8,
    ) -> None:
        self.source, self.rows, self.fixes, self.group = source, rows, fixes, group
        self.batch_targets, self.text_multiple, self.sum_multiple = batch_targets, text_multiple, sum_multiple

    @property
    def num_targets(self) -> int:
        """Targets of the split."""
        return int(self.rows.num_targets.sum())

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Row numbers of every batch in the seeded order of this epoch."""
        return batch_rows(self.rows, self.batch_targets, epoch_order(len(self.rows), seed, epoch))

    def in_order(self) -> list[np.ndarray]:
        """Row numbers of every batch, short rows beside short ones: for evaluation."""
        length = self.rows.stop - self.rows.first
        return batch_rows(self.rows, self.batch_targets, np.argsort(length, kind="stable"))

    def load(self, chosen: np.ndarray, device: torch.device | str) -> SumBatch:
        """Pack and plan the chosen rows."""
        packed = pack_rows(self.source, self.rows, chosen, self.text_multiple, self.sum_multiple)
        plan = plan_batch(packed, self.fixes, self.group, self.rows.n, self.rows.k, device)
        return SumBatch(plan, packed.num_sums, packed.num_tokens, len(packed.position))


def training_batches(
    data: PreparedData, items: TokenisedItems, method: SumMethod, split: int, batch_targets: int, group: int
) -> SumBatches:
    """Batches in the method's training format."""
    rows = build_rows(data, split, method.prompt.n, method.prompt.k)
    return SumBatches(PromptSource(data, items, method.prompt), rows, method.fixes, batch_targets, group)


def test_batches(
    data: PreparedData, items: TokenisedItems, method: SumMethod, split: int, batch_targets: int, group: int
) -> SumBatches:
    """Batches in the sliding-window format that validation and test use for every method (DTI section 3.6)."""
    prompt = method.prompt.test_format()
    rows = build_rows(data, split, prompt.n, prompt.k)
    return SumBatches(PromptSource(data, items, prompt), rows, method.fixes.at_test(), batch_targets, group)
