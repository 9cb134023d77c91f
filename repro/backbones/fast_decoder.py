"""The decoder's forward pass on CUDA: whole layers compiled, attention in one kernel, fused projections.

It computes what `decoder.Decoder` does with query blocks (tested against it). All layers but the last run
over text and [SUM]s at once, in the kernel's order. The last layer, where nothing but the [SUM]s is read,
gathers keys for the [SUM]s as everywhere else: it costs next to nothing, and the reset needs it.

One compilation per padded length N serves all layers; `SumBatches` keeps the lengths few.
Shapes: as in `decoder.py`; N tokens by place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.backbones.attention import sum_attention
from repro.backbones.interval_attention import interval_attention
from repro.backbones.layer_parts import cast_once, rotate
from repro.backbones.plan import BatchPlan


def _linear(x: Tensor, modules: list[Any]) -> tuple[Tensor, ...]:
    """Several projections of one input: as one product where they are plain, so that x is read once."""
    biases: list[Tensor] = [m.bias for m in modules if type(m) is nn.Linear and m.bias is not None]
    if any(type(m) is not nn.Linear for m in modules) or len(biases) not in (0, len(modules)):
        return tuple(module(x) for module in modules)
    weights: list[Tensor] = [module.weight for module in modules]
    out = F.linear(x, torch.cat(weights), torch.cat(biases) if biases else None)
    return out.split([module.out_features for module in modules], dim=-1)


def _query_key_value(attention_module: Any, normed_NE: Tensor) -> list[Tensor]:
    """(N, heads, D) each, before the rotary embedding."""
    names = ("q", "k", "v")
    modules = [getattr(attention_module, f"{name}_proj") for name in names]
    heads = []
    for name, x in zip(names, _linear(normed_NE, modules), strict=True):
        x = x.unflatten(-1, (-1, attention_module.head_dim))
        norm = getattr(attention_module, f"{name}_norm", None)
        heads.append(x if norm is None else norm(x))
    return heads


def _mlp(mlp: Any, x_NE: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), with gate and up as one product."""
    gate, up = _linear(x_NE, [mlp.gate_proj, mlp.up_proj])
    return mlp.down_proj(mlp.act_fn(gate) * up)


def attend(
    layer: Any,
    hidden: Tensor,
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    num_prefix: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Attention of one layer over all places; with it queries, rotated and plain keys, and values."""
    query, plain_key, value = _query_key_value(layer.self_attn, cast_once(layer.input_layernorm(hidden)))
    query, key = (rotate(x, cos, sin).to(value.dtype) for x in (query, plain_key))
    scale = float(layer.self_attn.scaling)
    attended, _ = interval_attention(query, key, value, tables, num_prefix, scale)
    return attended, query, key, plain_key, value


def finish(layer: Any, hidden_NE: Tensor, attended_NHD: Tensor) -> Tensor:
    """The rest of one layer: output projection, residual, MLP."""
    hidden = hidden_NE + layer.self_attn.o_proj(attended_NHD.flatten(1))
    return hidden + _mlp(layer.mlp, cast_once(layer.post_attention_layernorm(hidden)))


def whole_layer(
    layer: Any,
    hidden: Tensor,
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    num_prefix: int,
) -> Tensor:
    """One layer over all places."""
    return finish(layer, hidden, attend(layer, hidden, cos, sin, tables, num_prefix)[0])


def project_for_sums(
    layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor, sum_place: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Last layer: queries of the [SUM]s; rotated keys, plain keys and values of everything."""
    module, normed = layer.self_attn, cast_once(layer.input_layernorm(hidden))
    heads = []
    for name, x in (("q", normed.index_select(0, sum_place)), ("k", normed), ("v", normed)):
        x = getattr(module, f"{name}_proj")(x).unflatten(-1, (-1, module.head_dim))
        norm = getattr(module, f"{name}_norm", None)
        heads.append(x if norm is None else norm(x))
    query, plain_key, value = heads
    query = rotate(query, cos.index_select(0, sum_place), sin.index_select(0, sum_place))
    return query.to(value.dtype), rotate(plain_key, cos, sin).to(value.dtype), plain_key, value


class FastLayers:
    """The layers of a decoder over one batch after the other.

    Args:
        layers: transformers' decoder layers, in order.
        reset_keys: (layer, hidden, initial, cos, sin, plan, is_last) -> what a reset [SUM] reads, or None.
        compiled: compile the layers, for the padded lengths they meet.
    """

    def __init__(self, layers: nn.ModuleList, reset_keys: Any, compiled: bool) -> None:
        self.layers, self.reset_keys = layers, reset_keys
        self.whole_layer: Any = whole_layer
        self.attend: Any = attend
        self.project_for_sums: Any = project_for_sums
        self.finish: Any = finish
        self.finish_sums: Any = finish
        if compiled:
            self._compile()

    def _compile(self) -> None:
        """Static lengths for what runs over all places, one dynamic one for the few [SUM]s."""
        config: Any = torch._dynamo.config  # training, validation and test have 8 lengths together
        config.recompile_limit = max(config.recompile_limit, 16)
        self.whole_layer = torch.compile(whole_layer, dynamic=False)
        self.attend = torch.compile(attend, dynamic=False)
        self.finish = torch.compile(finish, dynamic=False)
        self.project_for_sums = torch.compile(project_for_sums, dynamic=True)
        self.finish_sums = torch.compile(finish, dynamic=True)

    def forward(self, tokens_NE: Tensor, cos: Tensor, sin: Tensor, plan: BatchPlan) -> Tensor:
        """(S, E) states of the [SUM]s after the last layer.

        Args:
            tokens_NE: embeddings of text and [SUM]s, text first.
            cos, sin: (N, D) of the plan's rotary positions, by place.
        """
        intervals = plan.intervals
        assert intervals is not None
        hidden = initial = cast_once(tokens_NE).index_select(0, intervals.order)
        mask = (intervals.tables, intervals.num_prefix)
        layer: Any
        for layer in self.layers[:-1]:
            if intervals.sums_inside:
                hidden = self.whole_layer(layer, hidden, cos, sin, *mask)
                continue
            attended, query, *keys = self.attend(layer, hidden, cos, sin, *mask)
            of_sums = self._sums(
                layer, query.index_select(0, intervals.sum_place), keys, hidden, initial, cos, sin, plan
            )
            hidden = self.finish(layer, hidden, attended.index_copy(0, intervals.sum_place, of_sums))
        layer = self.layers[-1]
        query, *keys = self.project_for_sums(layer, hidden, cos, sin, intervals.sum_place)
        attended = self._sums(layer, query, keys, hidden, initial, cos, sin, plan)
        return self.finish_sums(layer, hidden.index_select(0, intervals.sum_place), attended)

    def _sums(
        self,
        layer: Any,
        query: Tensor,
        keys: list[Tensor],
        hidden: Tensor,
        initial: Tensor,
        cos: Tensor,
        sin: Tensor,
        plan: BatchPlan,
    ) -> Tensor:
        """Attention of the [SUM]s over gathered keys, with every fix: (S, H, D)."""
        key, plain_key, value = keys
        if plan.fixes.position == "alibi-plain-keys":
            key = plain_key.to(value.dtype)
        reset = self.reset_keys(layer, hidden, initial, cos, sin, plan, layer is self.layers[-1])
        scale = float(layer.self_attn.scaling)
        return sum_attention(query, key, value, plan.sums, plan.sum_mask, scale, plan.bias, reset)
