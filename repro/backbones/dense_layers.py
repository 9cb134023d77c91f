"""Decoder layers over a batch of right-padded sequences of vectors: plain causal self-attention.

What BAHE's encoder runs, and where nothing is compiled its upper layers and LLM-CTR (`packed_layers` has the
same for CUDA). The layers are transformers' own (LoRA wrappers
included), through the decoder's own `project` and `finish`; attention is one SDPA call, whose flash kernel
visits only the causal half and never writes out scores.

Shapes: B sequences, L places, S sequences of one, E hidden size, N = B * L (+ S where they run beside), H
heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.backbones.attention_hook import attend
from repro.backbones.decoder import finish, project


def causal_attention(
    query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, batch: int, scale: float
) -> Tensor:
    """Causal softmax attention inside each of `batch` sequences of equal length: (N, H, D)."""
    # (B, heads, L, D) each
    query, key, value = (x.unflatten(0, (batch, -1)).transpose(1, 2) for x in (query_NHD, key_NKD, value_NKD))
    heads = query.shape[1]
    if query.is_cuda and query.dtype == torch.float32:
        # The fp32 kernel without a score matrix takes no grouped heads; flash takes them, but no fp32.
        key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    grouped = key.shape[1] != heads
    out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2).flatten(0, 1)


def _layer(
    layer: Any, hidden_BLE: Tensor, alone_SE: Tensor, cos_LD: Tensor, sin_LD: Tensor
) -> tuple[Tensor, Tensor]:
    batch, length, _ = hidden_BLE.shape
    alone, inside = len(alone_SE), batch * length
    hidden, cos, sin = hidden_BLE.flatten(0, 1), cos_LD.repeat(batch, 1), sin_LD.repeat(batch, 1)
    if alone:
        hidden = torch.cat([hidden, alone_SE])
        cos, sin = (torch.cat([x, x[:1].expand(alone, -1)]) for x in (cos, sin))
    query, key, _, value = project(layer, hidden, cos, sin, 0)
    scale = float(layer.self_attn.scaling)
    attended = attend("dense", causal_attention, query[:inside], key[:inside], value[:inside], batch, scale)
    if alone:  # all that such a vector sees is itself
        group = query.shape[1] // value.shape[1]
        attended = torch.cat([attended, value[inside:].repeat_interleave(group, dim=1)])
    hidden = finish(layer, hidden, attended)
    return hidden[:inside].unflatten(0, (batch, length)), hidden[inside:] if alone else alone_SE


class DenseLayers:
    """Some consecutive layers of a decoder, without the final norm.

    Positions are 0..L-1. Padding on the right needs no mask: a causal query sees nothing behind it, so what
    stands at a real place never depends on padding; what comes out at padded places means nothing.

    Args:
        layers: transformers' decoder layers, in order; `decoder.check_layers` tells which are taken. They
            stay registered where they are.
        rotary: module (x, position_ids) -> (cos, sin).
    """

    def __init__(self, layers: Iterable[nn.Module], rotary: nn.Module) -> None:
        self.layers, self.rotary = list(layers), rotary

    def __call__(self, hidden_BLE: Tensor) -> Tensor:
        """The states after the last of the layers: (B, L, E). Under autocast, products run in its dtype.

        FLOP counters know its attention by the name `dense` (see `attention_hook.attend`).
        """
        return self.beside(hidden_BLE, hidden_BLE.new_empty(0, hidden_BLE.shape[-1]))[0]

    def beside(self, hidden_BLE: Tensor, alone_SE: Tensor) -> tuple[Tensor, Tensor]:
        """The same, with S more vectors in the same products, each a sequence of one: (B, L, E) and (S, E).

        In a call of their own, few vectors would launch as many kernels again. FLOP counters do not see
        their attention, which is one visible pair each.
        """
        position = torch.arange(hidden_BLE.shape[1], device=hidden_BLE.device)[None]
        cos, sin = (x[0] for x in self.rotary(hidden_BLE, position))
        for layer in self.layers:
            hidden_BLE, alone_SE = _layer(layer, hidden_BLE, alone_SE, cos, sin)
        return hidden_BLE, alone_SE
