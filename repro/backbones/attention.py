"""Attention over query blocks: text tokens through SDPA; [SUM]s written out, with position fix and reset.

Shape suffixes: B blocks, C queries per block, L keys per block, K key-value heads, G query heads per
key-value head, H = K * G heads, D head size, N = T + S tokens (text, then [SUM]s).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from repro.backbones.visibility import QueryBlocks


def _blocked(query_NHD: Tensor, blocks: QueryBlocks, num_kv_heads: int) -> Tensor:
    """(N', H, D) queries -> (B, K, G * C, D); the last query is repeated in the padding."""
    num_blocks, size, _ = blocks.visible.shape
    missing = num_blocks * size - len(query_NHD)
    if missing:
        query_NHD = torch.cat([query_NHD, query_NHD[-1:].expand(missing, -1, -1)])
    heads, head_dim = query_NHD.shape[1:]
    query = query_NHD.reshape(num_blocks, size, num_kv_heads, heads // num_kv_heads, head_dim)
    return query.permute(0, 2, 3, 1, 4).reshape(num_blocks, num_kv_heads, -1, head_dim)


def _unblocked(out_BKQD: Tensor, blocks: QueryBlocks) -> Tensor:
    """(B, K, G * C, D) -> (N', H, D), padding dropped."""
    num_blocks, kv_heads, queries, head_dim = out_BKQD.shape
    size = blocks.visible.shape[1]
    out = out_BKQD.view(num_blocks, kv_heads, queries // size, size, head_dim).permute(0, 3, 1, 2, 4)
    return out.reshape(num_blocks * size, -1, head_dim)[: blocks.num_queries]


def gather_keys(key_NKD: Tensor, blocks: QueryBlocks) -> Tensor:
    """(N, K, D) -> (B, K, L, D): the keys (or values) of every block."""
    num_blocks, length = blocks.key_index.shape
    flat = key_NKD.reshape(len(key_NKD), -1).index_select(0, blocks.key_index.flatten())
    return flat.view(num_blocks, length, *key_NKD.shape[1:]).transpose(1, 2)


def grouped(per_query_BCL: Tensor, group: int) -> Tensor:
    """(B, C, L) -> (B, 1, G * C, L): one entry per grouped query; built once per batch."""
    num_blocks, size, length = per_query_BCL.shape
    expanded = per_query_BCL[:, None, None].expand(-1, 1, group, -1, -1)
    return expanded.reshape(num_blocks, 1, group * size, length)


def text_attention(
    query_THD: Tensor, key_NKD: Tensor, value_NKD: Tensor, blocks: QueryBlocks, mask: Tensor, scale: float
) -> Tensor:
    """Softmax attention of the text queries over their blocks' keys: (T, H, D).

    Args:
        mask: `grouped(blocks.visible, G)`.
    """
    query = _blocked(query_THD, blocks, key_NKD.shape[1])
    key, value = gather_keys(key_NKD, blocks), gather_keys(value_NKD, blocks)
    return _unblocked(F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale), blocks)


@dataclass(frozen=True)
class ResetKeys:
    """What a [SUM] reads instead of a key k and value v: c k + c0 k0 and c v + c0 v0 (DTI section 4.1).

    Attributes:
        key_NKD, value_NKD: k0 and v0, projected from the initial (embedding) states; [SUM]s have weight zero.
        keep, reset: (B, 1, G * C, L) the weights c and c0 of every (query, key).
    """

    key_NKD: Tensor
    value_NKD: Tensor
    keep: Tensor
    reset: Tensor


def sum_attention(
    query_SHD: Tensor,
    key_NKD: Tensor,
    value_NKD: Tensor,
    blocks: QueryBlocks,
    mask: Tensor,
    scale: float,
    bias: Tensor | None = None,
    reset: ResetKeys | None = None,
) -> Tensor:
    """Softmax attention of the [SUM] queries: (S, H, D).

    Scores are scale * q (c k + c0 k0) + bias, so the mixed keys, which differ for every (query, key) pair,
    are never written out: two products with k and k0 do.

    Args:
        mask: `grouped(blocks.visible, G)`.
        bias: ALiBi bias (B, 1, G * C, L), or None.
        reset: mixed keys and values, or None.
    """
    query = _blocked(query_SHD, blocks, key_NKD.shape[1])
    key, value = gather_keys(key_NKD, blocks), gather_keys(value_NKD, blocks)
    if bias is None and reset is None:
        return _unblocked(
            F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale), blocks
        )
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if reset is not None:
        initial = (query @ gather_keys(reset.key_NKD, blocks).transpose(-1, -2)).float() * scale
        scores = scores * reset.keep + initial * reset.reset
    if bias is not None:
        scores = scores + bias
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    if reset is None:
        return _unblocked(weights.to(value.dtype) @ value, blocks)
    kept, replaced = (weights * reset.keep).to(value.dtype), (weights * reset.reset).to(value.dtype)
    return _unblocked(kept @ value + replaced @ gather_keys(reset.value_NKD, blocks), blocks)
