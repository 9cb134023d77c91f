"""Decoder layers over sequences that stand one behind the other, for CUDA: causal attention inside each.

What BAHE's upper layers and LLM-CTR run there. It computes what `dense_layers` computes from padded rows
(tested against it) without their padding: texts differ in length by a factor of five. Layers are compiled in
the two halves of `fast_decoder`, so that both comparison partners and SW have the same products, norms and
residual sums; attention is the interval kernel's, or flash attention where all sequences are of one length.

Shapes: N places, R sequences, E hidden size, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repro.backbones import compiling
from repro.backbones.dense_layers import causal_attention
from repro.backbones.fast_decoder import (
    ResidualSum,
    after_attention,
    attention_half,
    gated_mlp,
    input_norm,
    mlp_half,
    query_key_value,
)
from repro.backbones.interval_tables import causal_tables
from repro.backbones.layer_parts import cast_once, rotate
from repro.backbones.visibility import send


@dataclass(frozen=True)
class PackedRows:
    """Where R sequences stand in N places, on the device.

    Attributes:
        position: (N,) int64, place inside the own sequence; 0 for padding.
        tables: as `interval_attention` takes them.
        alike: R where all are known to have one length and nothing is padded, else None.
    """

    position: Tensor
    tables: list[Tensor]
    alike: int | None = None


def packed_rows(length: np.ndarray, total: int, device: torch.device, alike: bool = False) -> PackedRows:
    """Sequences of these lengths (R,), then padding up to N = `total`.

    Args:
        alike: all have one length, and there is no padding; checked.
    """
    tables = causal_tables(length, total)
    position = np.arange(total) - tables[0]
    if alike:
        assert len(length) and (length == length[0]).all() and length.sum() == total, (
            "sequences of one length"
        )
    on_device = [send(table, device) for table in tables]
    return PackedRows(send(position, device), on_device, len(length) if alike else None)


def _whole_rows_half(
    layer: Any, hidden: Tensor, normed: Tensor, cos: Tensor, sin: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    """As `attention_half`, for `number` sequences of one length: plain causal attention."""
    module, projected = layer.self_attn, query_key_value(layer.self_attn, normed)
    if len(projected) == 1:
        num_kv = module.k_proj.out_features // module.head_dim
        projected = list(projected[0].split([projected[0].shape[1] - 2 * num_kv, num_kv, num_kv], dim=1))
    query, key, value = projected
    query, key = (rotate(x, cos, sin).to(value.dtype) for x in (query, key))
    return after_attention(layer, hidden, causal_attention(query, key, value, number, float(module.scaling)))


def _last_half(layer: Any, norm: Any, hidden: Tensor, normed: Tensor) -> Tensor:
    """States behind the last layer and the final norm."""
    return norm(ResidualSum.apply(hidden, gated_mlp(layer.mlp, normed)))


class PackedLayers:
    """Some consecutive layers of a decoder and its final norm.

    Args:
        layers: transformers' decoder layers, in order, with gated MLPs. They stay registered where they are.
        rotary: module (x, position_ids) -> (cos, sin). norm: the final one.
        compiled: compile the layers, for the numbers of places that they meet.
    """

    def __init__(
        self, layers: Iterable[nn.Module], rotary: nn.Module, norm: nn.Module, compiled: bool = False
    ) -> None:
        self.layers, self.rotary, self.norm = list(layers), rotary, norm
        self.input_norm: Any = input_norm
        self.attention_half: Any = attention_half
        self.whole_rows_half: Any = _whole_rows_half
        self.mlp_half: Any = mlp_half
        self.last_half: Any = _last_half
        if compiled:
            for name in ("input_norm", "attention_half", "whole_rows_half", "mlp_half", "last_half"):
                setattr(self, name, compiling.compiled(getattr(self, name), dynamic=name == "input_norm"))

    def __call__(self, hidden_NE: Tensor, rows: PackedRows) -> Tensor:
        """(N, E) states behind the final norm."""
        cos, sin = (x[0] for x in self.rotary(hidden_NE[None], rows.position[None]))
        layers: list[Any] = self.layers
        hidden = cast_once(hidden_NE)
        normed = self.input_norm(layers[0], hidden)
        for layer, following in pairwise([*layers, None]):
            if rows.alike is None:
                hidden, normed = self.attention_half(layer, hidden, normed, cos, sin, rows.tables, 0)
            else:
                hidden, normed = self.whole_rows_half(layer, hidden, normed, cos, sin, rows.alike)
            if following is not None:
                hidden, normed = self.mlp_half(layer, following, hidden, normed)
        return self.last_half(layers[-1], self.norm, hidden, normed)
