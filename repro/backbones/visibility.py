"""Which keys each query may see, as blocks of queries with gathered keys: the interval mask in banded form.

Queries are cut into blocks of consecutive ones. Their intervals overlap, so one gathered list of keys serves
a whole block: instruction, a span of text, a span of [SUM]s. Cost per query is (window + block + P) keys
however long the batch is, so cost per target does not grow with k. Built once per batch from lo/hi, never per
layer.

Shapes: T text tokens, S [SUM]s, B blocks of C queries, L keys per block; keys are numbered 0..T+S-1, text
first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.prompts.packing import PackedBatch

KEY_MULTIPLE = 16  # keys per block; CUDA kernels want rows of the mask aligned


@dataclass(frozen=True)
class QueryBlocks:
    """B blocks of C queries with their keys.

    Attributes:
        key_index: (B, L) int64 into the T + S keys.
        visible: (B, C, L) bool; every query sees at least one key.
        num_queries: queries without the padding of the last block.
        distance: (B, C, L) int16, interactions from key to the query's target (0: the target itself,
            instruction, [SUM]s). None for text blocks.
        offset: (B, C, L) float32, position of the query minus position of the key. None for text blocks.
    """

    key_index: Tensor
    visible: Tensor
    num_queries: int
    distance: Tensor | None = None
    offset: Tensor | None = None

    def to(self, device: torch.device, key_place: np.ndarray | None = None) -> QueryBlocks:
        """The same blocks on a device; with `key_place`, key j of them stands at place key_place[j]."""
        key = self.key_index if key_place is None else torch.from_numpy(key_place)[self.key_index]
        distance = None if self.distance is None else send(self.distance, device)
        offset = None if self.offset is None else send(self.offset, device)
        return QueryBlocks(send(key, device), send(self.visible, device), self.num_queries, distance, offset)


def send(array: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """To the device; on CUDA through pinned memory, so that nobody waits for the copy."""
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _span(low: np.ndarray, high: np.ndarray, others: int = 0, multiple: int = 1) -> np.ndarray:
    """(B, L) numbers ending at `high` of each block, L the longest high - low; may reach below zero.

    L is raised until L + others is a multiple: kernels like aligned rows of the mask.
    """
    length = int((high - low).max(initial=0))
    length += -(length + others) % multiple
    return high[:, None] - length + np.arange(length)


def _query_numbers(first: int, count: int, block: int) -> np.ndarray:
    """(B, C) query numbers; the last query stands again in the padding of the last block."""
    num_blocks = -(-count // block)
    return (first + np.minimum(np.arange(num_blocks * block), count - 1)).reshape(num_blocks, block)


def query_blocks(
    batch: PackedBatch, of_sums: bool, block: int, key_multiple: int = KEY_MULTIPLE
) -> QueryBlocks:
    """Blocks of the T text queries or of the S [SUM] queries of a batch.

    Five-number example: block = 2 and queries with intervals [0, 3) and [2, 4) share the span 0 1 2 3; the
    first sees 0 1 2 of it, the second 2 3.

    Args:
        batch: a packed batch.
        of_sums: the [SUM] queries instead of the text queries.
        block: C, queries per block.
        key_multiple: L is a multiple of this.
    """
    num_text, num_sums, prefix = len(batch.tokens), len(batch.label), batch.num_prefix
    query = _query_numbers(num_text if of_sums else 0, num_sums if of_sums else num_text, block)
    lo, hi, sum_lo, sum_hi = (a[query] for a in (batch.lo, batch.hi, batch.sum_lo, batch.sum_hi))
    own = np.where(of_sums, query - num_text, -1)

    sum_first = np.where(sum_hi > sum_lo, sum_lo, np.where(of_sums, own, num_sums)).min(1)
    sum_stop = np.maximum(sum_hi, own + 1).max(1)
    sums = _span(np.minimum(sum_first, sum_stop), sum_stop)
    text_first = np.where(hi > lo, lo, num_text).min(1)
    text = _span(np.minimum(text_first, hi.max(1)), hi.max(1), prefix + sums.shape[1], key_multiple)

    def seen(span: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return (span[:, None, :] >= low[..., None]) & (span[:, None, :] < high[..., None])

    prefix_keys = np.broadcast_to(np.arange(prefix), (len(query), prefix))
    sees_prefix = np.broadcast_to(
        ((query >= prefix) & batch.prefix_visible)[..., None], (*query.shape, prefix)
    )
    sees_sums = seen(sums, sum_lo, sum_hi) | (sums[:, None, :] == own[..., None]) & (sums[:, None, :] >= 0)
    key = np.concatenate([prefix_keys, text.clip(min=0), num_text + sums.clip(min=0)], axis=1)
    visible = np.concatenate([sees_prefix, seen(text, lo, hi), sees_sums], axis=2)
    distance = offset = None
    if of_sums:
        context = np.concatenate([prefix_keys * 0 - 1, batch.ordinal[text.clip(min=0)], sums * 0 - 1], axis=1)
        apart = batch.ordinal[query][..., None] - context[:, None, :]
        distance = torch.from_numpy(np.where(visible & (context >= 0)[:, None, :], apart, 0).astype(np.int16))
        gap = batch.position[query][..., None] - batch.position[key][:, None, :]
        offset = torch.from_numpy(gap.astype(np.float32))
    return QueryBlocks(
        torch.from_numpy(key), torch.from_numpy(visible), num_sums if of_sums else num_text, distance, offset
    )


def dense_visibility(batch: PackedBatch) -> np.ndarray:
    """(T + S, T + S) bool, the same visibility written out naively: the reference that tests compare with."""
    num_text, total = len(batch.tokens), len(batch.position)
    visible = np.zeros((total, total), dtype=bool)
    for query in range(total):
        visible[query, batch.lo[query] : batch.hi[query]] = True
        visible[query, num_text + batch.sum_lo[query] : num_text + batch.sum_hi[query]] = True
        visible[query, query] = True
        if batch.prefix_visible and query >= batch.num_prefix:
            visible[query, : batch.num_prefix] = True
    return visible
