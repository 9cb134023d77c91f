"""The decoder's forward pass on CUDA: whole layers compiled, attention in one kernel, fused projections.

It computes what `decoder.Decoder` does with query blocks (tested against it). All layers but the last run
over text and [SUM]s at once, in the kernel's order; un-rotated keys for the [SUM]s are part of the same
operator. In the last layer nothing but the [SUM]s is read: there, and in every layer that resets what they
read, they are an operator's only queries.

A layer is compiled as two halves, each from a normed state to the next: attention with the norm behind it,
and the MLP with the following layer's norm. So every residual sum is in one kernel with the norm that reads
it, and is kept for the backward pass as it is, not as two terms. One compilation of each half per padded
length N serves all layers; `SumBatches` keeps the lengths few.
Shapes: as in `decoder.py`; N tokens by place.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.backbones import compiling
from repro.backbones.attention import sum_attention
from repro.backbones.interval_attention import interval_attention
from repro.backbones.layer_parts import cast_once, rotate
from repro.backbones.lora_linear import linear, linears
from repro.backbones.own_keys_attention import own_keys_attention
from repro.backbones.plan import BatchPlan
from repro.backbones.sum_intervals import sum_interval_attention


def _projections(x: Tensor, modules: list[Any]) -> tuple[Tensor, ...]:
    """Of one input: one product, side by side, where all are plain, so that x is read once; else one each."""
    biases: list[Tensor] = [m.bias for m in modules if type(m) is nn.Linear and m.bias is not None]
    if any(type(m) is not nn.Linear for m in modules) or len(biases) not in (0, len(modules)):
        return linears(modules, x)
    weight = torch.cat([cast_once(module.weight) for module in modules])
    return (F.linear(x, weight, torch.cat(biases) if biases else None),)


def _modules(attention_module: Any, names: str) -> list[Any]:
    return [getattr(attention_module, f"{name}_proj") for name in names]


def _heads(attention_module: Any, names: str, projected: Sequence[Tensor]) -> list[Tensor]:
    """(N, heads, D) of what each projection gave, with what norm the model has for them."""
    heads = [x.unflatten(-1, (-1, attention_module.head_dim)) for x in projected]
    norms = [getattr(attention_module, f"{name}_norm", None) for name in names]
    return [x if norm is None else norm(x) for x, norm in zip(heads, norms, strict=True)]


def project_heads(attention_module: Any, names: str, x_NE: Tensor) -> list[Tensor]:
    """Queries, keys or values (`q`, `k`, `v`) of a layer before the rotary embedding: (N, heads, D) each."""
    return _heads(attention_module, names, linears(_modules(attention_module, names), x_NE))


def query_key_value(attention_module: Any, normed_NE: Tensor) -> list[Tensor]:
    """Before the rotary embedding, as `interval_attention` takes them: (N, H + 2K, D), or three tensors."""
    modules = _modules(attention_module, "qkv")
    projected = _projections(normed_NE, modules)
    if len(projected) == 1:
        if all(getattr(attention_module, f"{name}_norm", None) is None for name in "qkv"):
            return [projected[0].unflatten(-1, (-1, attention_module.head_dim))]
        projected = projected[0].split([module.out_features for module in modules], dim=-1)
    return _heads(attention_module, "qkv", projected)


def gated_mlp(mlp: Any, x_NE: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), with gate and up as one product."""
    projected = _projections(x_NE, [mlp.gate_proj, mlp.up_proj])
    gate, up = projected if len(projected) == 2 else projected[0].chunk(2, dim=-1)
    return linear(mlp.down_proj, mlp.act_fn(gate) * up)


def _attended(
    layer: Any,
    projected: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    num_prefix: int,
    own_keys: list[Tensor] | None = None,
) -> Tensor:
    """Attention of one layer over all places, (N, H, D), of what its projections gave."""
    module = layer.self_attn
    settings = (module.k_proj.out_features // module.head_dim, num_prefix, float(module.scaling))
    if own_keys is None:
        return interval_attention(projected, cos, sin, tables, *settings)[0]
    return own_keys_attention(projected, cos, sin, tables, own_keys, *settings)[0]


class ResidualSum(torch.autograd.Function):
    """hidden + update, rounded once; both get the same gradient, which is written once.

    Bfloat16 is added in float32, as it is anyway: as a sum of bfloat16 the compiler would put it into the
    product that gives the update, and that library call begins with a copy of `hidden`.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, update: Tensor) -> Tensor:
        """Their sum, in the dtype of `hidden`."""
        if torch.promote_types(hidden.dtype, torch.float32) == hidden.dtype:
            return hidden + update  # torch 2.11 compiles casts that change nothing into a gradient of zero
        return (hidden.float() + update.float()).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor]:
        """The same tensor for both."""
        (gradient,) = gradients
        return gradient, gradient


def input_norm(layer: Any, hidden: Tensor) -> Tensor:
    """What the projections of a layer read."""
    return cast_once(layer.input_layernorm(hidden))


def _at_sums(query: Tensor, cos: Tensor, sin: Tensor, sum_place: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotated queries (S, H, D) of plain ones (N, H, D)."""
    return rotate(*(x.index_select(0, sum_place) for x in (query, cos, sin))).to(dtype)


def _read_by_sums(plain_key: Tensor, cos: Tensor, sin: Tensor, plain: bool, dtype: torch.dtype) -> Tensor:
    """The keys that [SUM]s read, of one kind: what is returned unused still gets a gradient of zeros."""
    return (plain_key if plain else rotate(plain_key, cos, sin)).to(dtype)


def attend(
    layer: Any,
    normed: Tensor,
    cos: Tensor,
    sin: Tensor,
    sum_place: Tensor,
    plain: bool,
    tables: list[Tensor],
    num_prefix: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For a reset: attention over all places, with it the [SUM]s' queries and the keys and values for them.

    Args:
        plain: keys that are not rotated.
    """
    projected = query_key_value(layer.self_attn, normed)
    attended = _attended(layer, projected, cos, sin, tables, num_prefix)
    num_heads, dtype = attended.shape[1], attended.dtype
    if len(projected) == 1:
        num_kv = (projected[0].shape[1] - num_heads) // 2
        projected = list(projected[0].split([num_heads, num_kv, num_kv], dim=1))
    query, key, value = projected
    query = _at_sums(query, cos, sin, sum_place, dtype)
    return attended, query, _read_by_sums(key, cos, sin, plain, dtype), value


def after_attention(layer: Any, hidden_NE: Tensor, attended_NHD: Tensor) -> tuple[Tensor, Tensor]:
    """Output projection and residual: the state that the MLP adds to, and the same normed, which it reads."""
    hidden = ResidualSum.apply(hidden_NE, linear(layer.self_attn.o_proj, attended_NHD.flatten(1)))
    return hidden, cast_once(layer.post_attention_layernorm(hidden))


def attention_half(
    layer: Any,
    hidden: Tensor,
    normed: Tensor,
    cos: Tensor,
    sin: Tensor,
    tables: list[Tensor],
    num_prefix: int,
    own_keys: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The first half of a layer over all places, from state and normed state to those between the halves.

    Args:
        own_keys: `interval_tables.sum_tables`, if the [SUM]s are to read un-rotated keys.
    """
    projected = query_key_value(layer.self_attn, normed)
    return after_attention(layer, hidden, _attended(layer, projected, cos, sin, tables, num_prefix, own_keys))


def mlp_half(layer: Any, following: Any, hidden: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
    """The second half: the state that the following layer adds to, and the same normed, which it reads."""
    hidden = ResidualSum.apply(hidden, gated_mlp(layer.mlp, normed))
    return hidden, input_norm(following, hidden)


def finish_sums(layer: Any, hidden_SE: Tensor, attended_SHD: Tensor) -> Tensor:
    """The rest of the last layer."""
    hidden, normed = after_attention(layer, hidden_SE, attended_SHD)
    return ResidualSum.apply(hidden, gated_mlp(layer.mlp, normed))


def project_for_sums(
    layer: Any, normed: Tensor, cos: Tensor, sin: Tensor, sum_place: Tensor, plain: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Last layer: queries of the [SUM]s; keys (`plain`: not rotated) and values of everything."""
    module = layer.self_attn
    (query,) = project_heads(module, "q", normed.index_select(0, sum_place))
    key, value = project_heads(module, "kv", normed)
    query = rotate(query, cos.index_select(0, sum_place), sin.index_select(0, sum_place))
    return query.to(value.dtype), _read_by_sums(key, cos, sin, plain, value.dtype), value


def initial_keys(layer: Any, initial: Tensor, cos: Tensor, sin: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
    """Keys and values of the initial states, which a reset mixes in."""
    key, value = project_heads(layer.self_attn, "kv", input_norm(layer, initial))
    return _read_by_sums(key, cos, sin, plain, value.dtype), value


class FastLayers:
    """The layers of a decoder over one batch after the other.

    Args:
        layers: transformers' decoder layers, in order.
        is_reset: (layer, fixes, is_last) -> whether what the [SUM]s read there is reset.
        reset_keys: (layer, `initial_keys`, hidden, initial, plan) -> what a reset [SUM] reads, gathered.
        compiled: compile the layers, for the padded lengths they meet.
    """

    def __init__(self, layers: nn.ModuleList, is_reset: Any, reset_keys: Any, compiled: bool) -> None:
        self.layers, self.is_reset, self.reset_keys = layers, is_reset, reset_keys
        self.attention_half: Any = attention_half
        self.mlp_half: Any = mlp_half
        self.attend: Any = attend
        self.after_attention: Any = after_attention
        self.input_norm: Any = input_norm
        self.project_for_sums: Any = project_for_sums
        self.finish_sums: Any = finish_sums
        self.initial_keys: Any = initial_keys
        if compiled:
            self._compile()

    def _compile(self) -> None:
        """Static lengths for what runs over all places in every layer, one dynamic one for the rest."""
        for name in ("attention_half", "mlp_half", "attend", "after_attention"):
            setattr(self, name, compiling.compiled(getattr(self, name), dynamic=False))
        for name in ("input_norm", "project_for_sums", "finish_sums", "initial_keys"):
            setattr(self, name, compiling.compiled(getattr(self, name), dynamic=True))

    def forward(self, tokens_NE: Tensor, cos: Tensor, sin: Tensor, plan: BatchPlan) -> Tensor:
        """(S, E) states of the [SUM]s after the last layer.

        Args:
            tokens_NE: embeddings of text and [SUM]s, text first.
            cos, sin: (N, D) of the plan's rotary positions, by place.
        """
        intervals, plain = plan.intervals, plan.fixes.plain_keys
        assert intervals is not None
        hidden = initial = cast_once(tokens_NE).index_select(0, intervals.order)
        mask = (intervals.tables, intervals.num_prefix)
        own_keys = None if intervals.sums_inside else intervals.sum_tables
        layers: list[Any] = list(self.layers)
        normed = self.input_norm(layers[0], hidden)
        for layer, following in pairwise(layers):
            if not self.is_reset(layer, plan.fixes, False):
                hidden, normed = self.attention_half(layer, hidden, normed, cos, sin, *mask, own_keys)
            else:
                attended, *read = self.attend(layer, normed, cos, sin, intervals.sum_place, plain, *mask)
                of_sums = self._sums(layer, read, hidden, initial, cos, sin, plan)
                attended = attended.index_copy(0, intervals.sum_place, of_sums)
                hidden, normed = self.after_attention(layer, hidden, attended)
            hidden, normed = self.mlp_half(layer, following, hidden, normed)
        read = self.project_for_sums(layers[-1], normed, cos, sin, intervals.sum_place, plain)
        attended = self._sums(layers[-1], read, hidden, initial, cos, sin, plan)
        return self.finish_sums(layers[-1], hidden.index_select(0, intervals.sum_place), attended)

    def _sums(
        self,
        layer: Any,
        read: Sequence[Tensor],
        hidden: Tensor,
        initial: Tensor,
        cos: Tensor,
        sin: Tensor,
        plan: BatchPlan,
    ) -> Tensor:
        """Attention of the [SUM]s, (S, H, D), from their queries, keys and values, with every fix."""
        query, key, value = read
        last, scale, intervals = layer is self.layers[-1], float(layer.self_attn.scaling), plan.intervals
        assert intervals is not None
        mixed_in: tuple[Tensor, ...] = ()
        if self.is_reset(layer, plan.fixes, last):
            mixed_in = self.initial_keys(layer, initial, cos, sin, plan.fixes.plain_keys)
        if mixed_in and plan.sums is not None and plan.sum_mask is not None:  # a norm per pair: no kernel
            reset = self.reset_keys(layer, mixed_in, hidden, initial, plan)
            return sum_attention(query, key, value, plan.sums, plan.sum_mask, scale, plan.bias, reset)
        settings = (intervals.num_prefix, list(intervals.ratio), scale)
        return sum_interval_attention(query, [key, value, *mixed_in], intervals.sum_tables, *settings)[0]
