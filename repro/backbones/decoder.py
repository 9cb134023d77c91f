"""Our forward pass over a transformers decoder's own layers: text tokens and [SUM]s of a packed batch.

The layers' modules (norms, projections, LoRA wrappers included) are transformers'; only their order of use is
ours, so that three things are possible: attention over interval blocks, DTI's fixes at the [SUM]s, and a last
layer that computes keys and values for the text and everything else for the [SUM]s alone, since nothing reads
the text's last output. It equals the model's own forward pass on a plain prompt (tested for each family).

Shapes: T text tokens, S [SUM]s, N = T + S, H heads, K key-value heads, D head size, E hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repro.backbones.attention import ResetKeys, sum_attention, text_attention
from repro.backbones.attention_hook import attend
from repro.backbones.fast_decoder import FastLayers, initial_keys, project_heads
from repro.backbones.fix_settings import Fixes
from repro.backbones.layer_parts import cast_once, rotate
from repro.backbones.loading import Backbone, group_of
from repro.backbones.lora_linear import linear, linears
from repro.backbones.plan import BatchPlan, plan_batch
from repro.errors import BackboneError
from repro.prompts.packing import PackedBatch

_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
_ATTENTION_PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")
_CHECK_LENGTH = 24
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}


def check_layers(layers: nn.ModuleList, config: Any) -> None:
    """Refuse a decoder whose layers are not of the Llama / Qwen / Gemma pattern.

    What names do not tell (a residual multiplier, another order of norms) `check_against_own_forward` finds.

    Raises:
        BackboneError: other parts, soft-capped scores, extra norms, a sliding window, no rotary positions.
    """
    for number, layer in enumerate(layers):
        attention = getattr(layer, "self_attn", None)
        missing = [part for part in _PARTS if not hasattr(layer, part)]
        if attention is not None:
            missing += [part for part in _ATTENTION_PARTS if not hasattr(attention, part)]
        unsupported = _unsupported(layer, attention, config)
        if missing or unsupported:
            raise BackboneError(
                f"decoder layer {number}",
                f"{type(layer).__name__}: missing {', '.join(missing) or 'nothing'}, "
                f"unsupported {', '.join(unsupported) or 'nothing'}",
                "layers like Llama's, Qwen's or Gemma's",
                "choose a model of these families",
            )


def _unsupported(layer: nn.Module, attention: Any, config: Any) -> list[str]:
    kinds = set(getattr(config, "layer_types", None) or ())
    # Qwen names a window and does not use it: its layer types say so. Mistral has no layer types.
    window = getattr(config, "sliding_window", None) and (not kinds or kinds != {"full_attention"})
    found = {
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "pre_feedforward_layernorm": hasattr(layer, "pre_feedforward_layernorm"),
        "use_sliding_window": getattr(config, "use_sliding_window", False),
        "sliding_window": window,
        "attention without rotary positions": not getattr(attention, "use_rope", True),
    }
    return [name for name, is_there in found.items() if is_there]


def check_against_own_forward(backbone: Backbone) -> None:
    """Compare our forward pass with the model's own on a short random prompt, on the model's device.

    Every token of the prompt stands there as text and once more as a [SUM] that sees the text before it: the
    [SUM]s' logits must be the model's own at all positions. Costs two forward passes of 24 and 48 tokens.

    Raises:
        BackboneError: the logits differ (or our forward pass fails): the model is built in another way.
    """
    model, layers = backbone.causal_lm, backbone.layers
    device, dtype = backbone.embed_tokens.weight.device, backbone.embed_tokens.weight.dtype
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(backbone.embed_tokens.num_embeddings, (_CHECK_LENGTH,), generator=generator)
    group = group_of(backbone)
    plan = plan_batch(causal_batch(tokens.numpy()), Fixes(), group, _CHECK_LENGTH, _CHECK_LENGTH, device)
    where, training = f"backbone {backbone.spec.name!r}", model.training
    model.eval()
    try:
        with torch.no_grad():
            own = model(input_ids=tokens[None].to(device), use_cache=False).logits[0].float()
            embedded = backbone.embed_tokens(tokens.to(device))
            decoder = Decoder(layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
            ours = (decoder.forward_sums(embedded, embedded, plan) @ backbone.lm_head_weight.T).float()
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        found = f"{type(layers[0]).__name__} does not run layer by layer: {type(error).__name__}: {error}"
        expected, fix = "layers like Llama's, Qwen's or Gemma's", "choose a model of these families"
        raise BackboneError(where, found, expected, fix) from error
    finally:
        model.train(training)
    difference = float((ours - own).norm() / own.norm())
    if not difference <= _TOLERANCE.get(dtype, 0.1):  # NaN too
        raise BackboneError(
            where,
            f"{type(layers[0]).__name__}: our forward pass and the model's own differ by {difference:.1e} of "
            "the logits' norm",
            f"at most {_TOLERANCE.get(dtype, 0.1)} in {str(dtype).removeprefix('torch.')}",
            "choose a model built like Llama, Qwen or Gemma",
        )


def causal_batch(tokens: np.ndarray) -> PackedBatch:
    """One prompt of T tokens as text, and each token again as a [SUM] at its place, seeing what is before."""
    place = np.arange(len(tokens))
    nothing = np.zeros(2 * len(tokens), dtype=np.int64)
    return PackedBatch(
        tokens=tokens,
        position=np.concatenate([place, place]),
        lo=nothing,
        hi=np.concatenate([place + 1, place]),
        sum_lo=nothing,
        sum_hi=nothing,
        ordinal=nothing,
        label=np.zeros_like(place),
        target_row=place,
        num_prefix=0,
        prefix_visible=False,
        num_text=len(tokens),
        num_sums=len(tokens),
    )


def project(
    layer: Any, hidden_NE: Tensor, cos_ND: Tensor, sin_ND: Tensor, query_from: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Norm and projections: rotated queries (from `query_from` on), rotated keys, plain keys, values."""
    attention, normed = layer.self_attn, cast_once(layer.input_layernorm(hidden_NE))
    if query_from:
        plain_key, value = project_heads(attention, "kv", normed)
        (query,) = project_heads(attention, "q", normed[query_from:])
    else:
        # The order in which gradients add up.
        plain_key, value, query = project_heads(attention, "kvq", normed)
    query = rotate(query, cos_ND[query_from:], sin_ND[query_from:])
    return query.to(value.dtype), rotate(plain_key, cos_ND, sin_ND).to(value.dtype), plain_key, value


def finish(layer: Any, hidden_NE: Tensor, attended_NHD: Tensor) -> Tensor:
    """The rest of one layer: output projection, residual, MLP."""
    hidden = hidden_NE + linear(layer.self_attn.o_proj, attended_NHD.flatten(1))
    return hidden + _mlp(layer.mlp, cast_once(layer.post_attention_layernorm(hidden)))


def _mlp(mlp: Any, x_NE: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), or what an MLP without a gate does itself."""
    if not hasattr(mlp, "gate_proj"):
        return mlp(x_NE)
    gate, up = linears([mlp.gate_proj, mlp.up_proj], x_NE)
    return linear(mlp.down_proj, mlp.act_fn(gate) * up)


def _mixing_weights(
    alpha: Tensor, mixing: str, plan: BatchPlan, hidden_NE: Tensor, initial_NE: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(c, c0) of `ResetKeys` for every ([SUM], key).

    projected: c = 1 - alpha, c0 = alpha. hidden: with K = W(g * h) / rms(h), mixing states before the norm
    gives ((1 - alpha) W(g * h) + alpha W(g * h0)) / rms(mix), so c = (1 - alpha) rms(h) / rms(mix) and
    c0 = alpha rms(h0) / rms(mix); rms(mix) needs three scalars per token: h.h, h.h0, h0.h0.
    """
    if mixing == "projected":
        return 1.0 - alpha, alpha
    h, h0 = hidden_NE.float(), initial_NE.float()
    assert plan.sums is not None
    index = plan.sums.key_index
    hh, hh0, h0h0 = ((a * b).mean(-1)[index][:, None, None] for a, b in ((h, h), (h, h0), (h0, h0)))
    keep = 1.0 - alpha
    mixed = (keep**2 * hh + 2 * keep * alpha * hh0 + alpha**2 * h0h0 + eps).sqrt()
    return keep * (hh + eps).sqrt() / mixed, alpha * (h0h0 + eps).sqrt() / mixed


def is_reset(layer: Any, fixes: Fixes, last: bool) -> bool:
    """Whether what the [SUM]s read in this layer is reset.

    Raises:
        BackboneError: hidden states are to be mixed and keys are not linear in the normed state.
    """
    attention = layer.self_attn
    if fixes.reset is None or not (last or fixes.reset.layers == "all"):
        return False
    own_norm = getattr(attention, "k_norm", None) is not None
    if fixes.mixes_hidden and (own_norm or getattr(attention.k_proj, "bias", None) is not None):
        raise BackboneError(
            "reset mixing 'hidden'",
            "keys with a bias or a norm of their own",
            "keys that are linear in the normed state (Llama style)",
            "use mixing='projected'",
        )
    return True


def reset_keys(
    layer: Any, keys: tuple[Tensor, Tensor], hidden: Tensor, initial: Tensor, plan: BatchPlan
) -> ResetKeys:
    """Keys and values of the initial states with the mixing weights of every pair in `plan.sums`."""
    settings, norm = plan.fixes.reset, layer.input_layernorm
    assert settings is not None and plan.alpha is not None
    eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 1e-6)))
    return ResetKeys(*keys, *_mixing_weights(plan.alpha, settings.mixing, plan, hidden, initial, eps))


class Decoder:
    """The layers of a decoder with its rotary embedding and final norm.

    Args:
        layers: transformers' decoder layers, in order.
        rotary: module (x, position_ids) -> (cos, sin).
        norm: final norm.
        compiled: compile everything in a layer but attention. One compilation serves all layers and lengths.
    """

    def __init__(
        self, layers: nn.ModuleList, rotary: nn.Module, norm: nn.Module, compiled: bool = False
    ) -> None:
        self.layers, self.rotary, self.norm = layers, rotary, norm
        self.project = torch.compile(project, dynamic=True) if compiled else project
        self.finish = torch.compile(finish, dynamic=True) if compiled else finish
        self.fast = FastLayers(layers, is_reset, reset_keys, compiled)

    def forward_sums(self, text_TE: Tensor, sum_SE: Tensor, plan: BatchPlan) -> Tensor:
        """Final, normalised hidden states of the [SUM]s: (S, E).

        Args:
            text_TE: embeddings of the text tokens.
            sum_SE: embeddings of the [SUM]s.
            plan: of the batch.
        """
        num_text = len(text_TE)
        hidden = initial = torch.cat([text_TE, sum_SE])
        cos, sin = (x[0] for x in self.rotary(hidden, plan.rotary_position[None]))
        if plan.intervals is not None:
            return self.norm(self.fast.forward(hidden, cos, sin, plan))
        assert plan.text is not None and plan.text_mask is not None
        layer: Any
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            query, key, plain_key, value = self.project(layer, hidden, cos, sin, num_text if last else 0)
            reset, plain = None, plan.fixes.plain_keys
            if is_reset(layer, plan.fixes, last):
                mixed_in = initial_keys(layer, initial, cos, sin, plain)
                reset = reset_keys(layer, mixed_in, hidden, initial, plan)
            scale = float(layer.self_attn.scaling)
            sum_key = plain_key.to(value.dtype) if plain else key
            sum_query = query[-len(plan.label) :]
            given = (sum_key, value, plan.sums, plan.sum_mask, scale, plan.bias, reset)
            attended = attend("sums", sum_attention, sum_query, *given)
            if last:
                hidden = hidden[num_text:]
            else:
                of_text = attend(
                    "text", text_attention, query[:num_text], key, value, plan.text, plan.text_mask, scale
                )
                attended = torch.cat([of_text, attended])
            hidden = self.finish(layer, hidden, attended)
        return self.norm(hidden)
