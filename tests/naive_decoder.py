"""A forward pass with one dense mask and everything written out: the slow reference for `repro`'s own.

Scores of every (query, key) pair, softmax, values; hidden-state reset by its definition (a mixed state for
every pair, then norm, projection, rotation). Uses transformers' modules and rotary function, and nothing of
attention, blocks or fixes in `repro.backbones`.
"""

from __future__ import annotations

import math

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from repro.backbones.fix_settings import Fixes
from repro.prompts.packing import PackedBatch


def reset_ratios(batch: PackedBatch, visible: torch.Tensor, fixes: Fixes, n: int) -> torch.Tensor:
    """(T + S, T + S) alpha(d) of [SUM] queries; 0 elsewhere: own text, instruction, [SUM]s, text queries."""
    total, num_text = len(batch.position), len(batch.tokens)
    alpha = torch.zeros(total, total)
    for query in range(num_text, total):
        for key in torch.nonzero(visible[query]).flatten().tolist():
            if key >= num_text or batch.ordinal[key] < 0:
                continue
            distance = int(batch.ordinal[query] - batch.ordinal[key])
            if distance > 0:
                sigmoid = 1 / (1 + math.exp(-(distance - n / 2) / fixes.reset.tau))
                alpha[query, key] = fixes.reset.a_min + (fixes.reset.a_max - fixes.reset.a_min) * sigmoid
    return alpha


def heads(attention, name: str, x: torch.Tensor) -> torch.Tensor:
    """(..., E) -> (..., heads, D), with the per-head norm of Qwen3."""
    x = getattr(attention, f"{name}_proj")(x).unflatten(-1, (-1, attention.head_dim))
    return getattr(attention, f"{name}_norm", torch.nn.Identity())(x)


def naive_forward(
    backbone,
    text: torch.Tensor,
    sums: torch.Tensor,
    batch: PackedBatch,
    visible: torch.Tensor,
    fixes: Fixes,
    n: int,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(S, E) normalised final states of the [SUM]s, and the (T + S, E) states after every layer."""
    num_text, total = len(batch.tokens), len(batch.position)
    is_sum = torch.arange(total) >= num_text
    hidden = initial = torch.cat([text, sums])
    position = torch.from_numpy(batch.position)
    rotary_position = position if fixes.position == "rope" else position.masked_fill(is_sum, 0)
    cos, sin = (x[0] for x in backbone.decoder.rotary_emb(hidden, rotary_position[None]))

    def rotated(x: torch.Tensor) -> torch.Tensor:
        """x: (..., N, heads, D)."""
        return apply_rotary_pos_emb(x, x, cos, sin, unsqueeze_dim=1)[0]

    alpha = None if fixes.reset is None else reset_ratios(batch, visible, fixes, n)
    states = []
    for number, layer in enumerate(backbone.layers):
        attention, norm = layer.self_attn, layer.input_layernorm
        group = heads(attention, "q", norm(hidden)).shape[1] // heads(attention, "k", norm(hidden)).shape[1]

        def keys_values(state: torch.Tensor, rotate: bool, attention=attention, norm=norm, group=group):
            """(..., N, H, D) keys and values, one per query head."""
            key, value = heads(attention, "k", norm(state)), heads(attention, "v", norm(state))
            key = rotated(key) if rotate else key
            return key.repeat_interleave(group, -2), value.repeat_interleave(group, -2)

        query = rotated(heads(attention, "q", norm(hidden)))
        key, value = keys_values(hidden, rotate=True)
        plain = fixes.position == "alibi-plain-keys"
        sum_key, sum_value = keys_values(hidden, rotate=not plain)
        # (N queries, N keys, H, D): every pair has a key and a value of its own
        key = torch.where(is_sum[:, None, None, None], sum_key[None], key[None])
        value = value[None].expand_as(key)
        last = number == len(backbone.layers) - 1
        if alpha is not None and (last or fixes.reset.layers == "all"):
            if fixes.reset.mixing == "hidden":
                mixed = hidden * (1 - alpha[num_text:, :, None]) + initial * alpha[num_text:, :, None]
                new_key, new_value = keys_values(mixed, rotate=not plain)  # (S, N, H, D)
            else:
                key0, value0 = keys_values(initial, rotate=not plain)
                share = alpha[num_text:, :, None, None]
                new_key = (1 - share) * sum_key + share * key0
                new_value = (1 - share) * sum_value + share * value0
            key = torch.cat([key[:num_text], new_key])
            value = torch.cat([value[:num_text], new_value])
        scores = torch.einsum("qhd,qkhd->hqk", query, key) * attention.scaling
        if fixes.position != "rope":
            bias = -fixes.alibi_slope * (position[:, None] - position[None, :]).float()
            scores = scores + torch.where(is_sum[:, None], bias, torch.zeros_like(bias))
        weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
        hidden = hidden + attention.o_proj(torch.einsum("hqk,qkhd->qhd", weights, value).flatten(1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        states.append(hidden)
    return backbone.decoder.norm(hidden[num_text:]), states
