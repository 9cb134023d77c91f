"""FlexAttention over the interval mask: one kernel for text and [SUM]s, grouped queries, ALiBi at the [SUM]s.

The mask function reads two numbers per query and none per key: one that looks up query and key tensors made
the whole training step three times as slow on an H100. Shapes: N tokens by place (`interval_blocks`), H query
heads, K key-value heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from repro.backbones.fix_settings import Fixes
from repro.backbones.interval_blocks import BLOCK, IntervalBlocks, block_lists, interval_blocks
from repro.backbones.visibility import send
from repro.prompts.packing import PackedBatch

# Tiles of 64 x 64 were the fastest of those tried (docs/performance.md). ROWS_GUARANTEED_SAFE must stay off:
# a query that sees nothing of the first block it visits would give NaN.
KERNEL_OPTIONS: dict[str, Any] = {
    **{"fwd_BLOCK_M": 64, "fwd_BLOCK_N": 64, "fwd_num_warps": 4, "fwd_num_stages": 3},
    **{"bwd_BLOCK_M1": 64, "bwd_BLOCK_N1": 64, "bwd_BLOCK_M2": 64, "bwd_BLOCK_N2": 64},
    **{"bwd_num_warps": 4, "bwd_num_stages": 3},
}


@dataclass(frozen=True)
class FlexPlan:
    """What the kernel needs of one batch, on the device.

    Attributes:
        order: (N,) token (text first, then [SUM]s) at each place. sum_place: (S,) place of each [SUM].
        lo, hi, copy: (N,) int32. sum_lo, sum_hi: (N,) int32 or None. num_prefix. As in `IntervalBlocks`.
        slope, near, far: (N,) float32 or None: a key at place j gets the bias slope * (j - near), one of the
            instruction slope * (j - far). Slope is 0 for text.
        lists: counts and indices of partial and full key blocks per query block, then the same transposed.
        sums_inside: the kernel's result holds for the [SUM]s too. Else they need keys of their own.
    """

    order: Tensor
    sum_place: Tensor
    lo: Tensor
    hi: Tensor
    copy: Tensor
    sum_lo: Tensor | None
    sum_hi: Tensor | None
    slope: Tensor | None
    near: Tensor | None
    far: Tensor | None
    num_prefix: int
    lists: tuple[Tensor, ...]
    sums_inside: bool

    @property
    def tables(self) -> tuple[Tensor | None, ...]:
        """Everything that `attention` looks up by query, in its order."""
        return self.lo, self.hi, self.copy, self.sum_lo, self.sum_hi, self.slope, self.near, self.far


def plan_flex(batch: PackedBatch, fixes: Fixes, device: torch.device) -> tuple[FlexPlan, IntervalBlocks]:
    """Plan of a batch of whole blocks, and where its tokens stand."""
    blocks = interval_blocks(batch)
    bias = None if fixes.position == "rope" else _linear_bias(batch, blocks, fixes.alibi_slope)
    own_keys = fixes.position == "alibi-plain-keys"
    reset_everywhere = fixes.reset is not None and fixes.reset.layers == "all"
    inside = not own_keys and not reset_everywhere and (fixes.position == "rope" or bias is not None)
    lists = [block_lists(part) for part in (blocks.partial, blocks.full, blocks.partial.T, blocks.full.T)]
    tables = [
        blocks.lo,
        blocks.hi,
        blocks.copy,
        blocks.sum_lo,
        blocks.sum_hi,
        *((inside and bias) or (None,) * 3),
    ]
    lo, hi, copy, sum_lo, sum_hi, slope, near, far = (
        None if table is None else send(table, device) for table in tables
    )
    assert lo is not None and hi is not None and copy is not None
    plan = FlexPlan(
        order=send(blocks.order, device),
        sum_place=send(blocks.place[len(batch.tokens) :], device),
        lo=lo,
        hi=hi,
        copy=copy,
        sum_lo=sum_lo,
        sum_hi=sum_hi,
        slope=slope,
        near=near,
        far=far,
        num_prefix=blocks.num_prefix,
        lists=tuple(send(part[None, None], device) for pair in lists for part in pair),
        sums_inside=inside,
    )
    return plan, blocks


def _linear_bias(
    batch: PackedBatch, blocks: IntervalBlocks, slope: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """ALiBi as (slope, near, far) of every query, or None where positions jump inside a window.

    Position minus place is constant over a window unless inline [SUM]s took up positions in between.
    """
    if blocks.sum_lo is not None:
        return None
    position, own = batch.position[blocks.order], np.arange(len(blocks.order))
    ahead = position - own
    query = blocks.place[len(batch.tokens) :]
    some = blocks.hi[query] > blocks.lo[query]
    first, last = blocks.lo[query[some]], blocks.hi[query[some]] - 1
    if not np.array_equal(ahead[first], ahead[last]):
        return None
    near = np.zeros(len(own))
    near[query[some]] = position[query[some]] - ahead[first]
    slopes = np.zeros(len(own))
    slopes[query] = slope
    tables = (slopes, near, position + blocks.copy)
    return tuple(table.astype(np.float32) for table in tables)  # type: ignore[return-value]


def attention(
    query_NHD: Tensor,
    key_NKD: Tensor,
    value_NKD: Tensor,
    tables: tuple[Tensor | None, ...],
    lists: tuple[Tensor, ...],
    num_prefix: int,
    scale: float,
) -> Tensor:
    """Softmax attention of all N queries: (N, H, D). To be compiled; on a CPU without gradients only.

    Args:
        tables, lists, num_prefix: of the `FlexPlan`.
    """
    lo, hi, copy, sum_lo, sum_hi, slope, near, far = tables
    assert lo is not None and hi is not None and copy is not None

    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        seen = ((kv >= lo[q]) & (kv < hi[q])) | (kv == q)
        if num_prefix:
            first = copy[q]
            seen = seen | ((kv >= first) & (kv < first + num_prefix) & (q >= first + num_prefix))
        if sum_lo is not None and sum_hi is not None:
            seen = seen | ((kv >= sum_lo[q]) & (kv < sum_hi[q]))
        return seen

    def biased(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        assert slope is not None and near is not None and far is not None
        away = torch.where(kv == q, 0.0, kv - near[q])
        if num_prefix:
            away = torch.where(kv < copy[q] + num_prefix, kv - far[q], away)
        return score + slope[q] * away

    size = len(query_NHD)
    arguments: Any = ((size, size), *lists, (BLOCK, BLOCK), visible)
    mask = BlockMask(*arguments)
    query, key, value = (x[None].transpose(1, 2) for x in (query_NHD, key_NKD, value_NKD))
    options: Any = {"enable_gqa": True, "kernel_options": KERNEL_OPTIONS}
    bias = None if slope is None else biased
    out: Tensor = flex_attention(query, key, value, bias, mask, scale, **options)
    return out.transpose(1, 2)[0]
