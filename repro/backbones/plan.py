"""Everything the forward pass needs to know about one packed batch, as tensors on the model's device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.backbones.attention import grouped
from repro.backbones.fix_settings import Fixes
from repro.backbones.fixes import alibi_bias, reset_ratio
from repro.backbones.interval_tables import IntervalPlan, plan_intervals
from repro.backbones.visibility import KEY_MULTIPLE, QueryBlocks, query_blocks, send
from repro.prompts.packing import PackedBatch

TEXT_BLOCK = 64  # queries per block; 32 and 128 were within 10 % on 2 CPU cores
MAX_SUM_BLOCK = 16


@dataclass(frozen=True)
class BatchPlan:
    """One packed batch on a device. T text tokens, S [SUM]s, N = T + S.

    Attributes:
        tokens: (T,) text token ids.
        rotary_position: (N,) position ids for the rotary embedding ([SUM]s at 0, unrotated, under the fix).
        text, sums: query blocks; text_mask, sum_mask: their grouped masks. Beside `intervals` None: kernels
            need no blocks, but for [SUM]s whose reset mixes hidden states.
        bias: ALiBi bias of the scores of `sums`, or None.
        alpha: reset ratio of every ([SUM], key) of `sums`, or None.
        label: (S,) 0/1, -1 for padding. target_row: (S,) row of the data, -1 for padding.
        intervals: set where attention is the interval kernels'. Rotary positions and keys of `sums` then
            stand in the order of its places.
    """

    tokens: Tensor
    rotary_position: Tensor
    text: QueryBlocks | None
    text_mask: Tensor | None
    sums: QueryBlocks | None
    sum_mask: Tensor | None
    bias: Tensor | None
    alpha: Tensor | None
    label: Tensor
    target_row: Tensor
    fixes: Fixes
    intervals: IntervalPlan | None = None


def plan_batch(
    batch: PackedBatch,
    fixes: Fixes,
    group: int,
    n: int,
    k: int,
    device: torch.device | str = "cpu",
    intervals: bool = False,
    key_multiple: int = KEY_MULTIPLE,
) -> BatchPlan:
    """Build the plan of a batch once; every layer uses it.

    Args:
        batch: packed rows.
        fixes: which of DTI's fixes the [SUM]s get.
        group: G, query heads per key-value head.
        n, k: of the rows; n sets the middle of the reset range, k the block size for [SUM]s.
        device: of the model.
        intervals: attention by the interval kernels instead of query blocks.
        key_multiple: the keys of a block of [SUM]s are padded to a multiple of this.
    """
    num_text, device = len(batch.tokens), torch.device(device)
    kernel_plan, places = plan_intervals(batch, fixes, n, device) if intervals else (None, None)
    text = None if intervals else query_blocks(batch, of_sums=False, block=TEXT_BLOCK).to(device)
    sums, bias, alpha = None, None, None
    if not intervals or fixes.mixes_hidden:
        sums = query_blocks(batch, True, min(MAX_SUM_BLOCK, k), key_multiple)
        sums = sums.to(device, None if places is None else places.place)
        bias = None if fixes.position == "rope" else grouped(alibi_bias(sums, fixes.alibi_slope), group)
        alpha = None if fixes.reset is None else grouped(reset_ratio(sums, fixes.reset, n), group)
    position = batch.position
    if fixes.position != "rope":
        position = np.concatenate([position[:num_text], np.zeros_like(position[num_text:])])
    if places is not None:
        position = position[places.order]
    tokens = batch.tokens
    if places is not None:  # as many as there can be at this length, so that batches have the same shapes
        tokens = np.pad(tokens, (0, len(places.order) - len(batch.label) - num_text))
    return BatchPlan(
        tokens=send(tokens, device),
        rotary_position=send(position, device),
        text=text,
        text_mask=None if text is None else grouped(text.visible, group),
        sums=sums,
        sum_mask=None if sums is None else grouped(sums.visible, group),
        bias=bias,
        alpha=alpha,
        label=send(batch.label, device),
        target_row=torch.from_numpy(batch.target_row),
        fixes=fixes,
        intervals=kernel_plan,
    )
