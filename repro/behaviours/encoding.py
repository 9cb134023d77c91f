"""Atomic behaviour encoding (BAHE, section 2.2.1): frozen layers [0, m) over each behaviour's text alone.

Shapes: B behaviours, L padded length, E hidden size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repro.backbones.decoder import check_layers
from repro.backbones.dense_layers import DenseLayers
from repro.backbones.loading import Backbone
from repro.behaviours.checks import is_whole
from repro.behaviours.pooling import POOLINGS, pooled
from repro.errors import ConfigError, DataError
from repro.prompts.templates import Template

PRECISIONS = ("fp32", "bf16")
LENGTH_MULTIPLE = 16
NUMERICS = 1  # raise when the same weights and texts would give other vectors


def padded_lengths(lengths: np.ndarray) -> np.ndarray:
    """(B,) int64 tokens that behaviours are padded to; of each alone, whatever it is batched with.

    Args:
        lengths: (B,) int64.
    """
    return -(-lengths // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def padded_tokens(tokens: Sequence[np.ndarray], length: int) -> np.ndarray:
    """(B, length) int64 token ids of B behaviours, padded on the right."""
    ids = np.zeros((len(tokens), length), dtype=np.int64)
    for row, own in zip(ids, tokens, strict=True):
        row[: len(own)] = own
    return ids


@contextmanager
def _without_adapters(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, LoRA-wrapped projections are the pre-trained ones; what is trained stays as it was."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrapped: Any = [m for layer in layers for m in layer.modules() if isinstance(m, BaseTunerLayer)]
    trained = [(p, p.requires_grad) for module in wrapped for p in module.parameters()]
    before = [module.disable_adapters for module in wrapped]
    try:
        for module in wrapped:
            module.enable_adapters(False)
        yield
    finally:
        for module, disabled in zip(wrapped, before, strict=True):
            module.enable_adapters(not disabled)
        for parameter, requires_grad in trained:  # peft switches them off and on as well
            parameter.requires_grad_(requires_grad)


class BehaviourEncoder:
    """Texts -> vectors, the same for a behaviour whether it comes alone or among a million.

    A vector is the residual stream in front of layer m, as that layer would read it (no norm), at the last
    token or averaged over the behaviour's tokens. The paper says that shallow layers encode the behaviour and
    leaves the pooling open; the last token is the only one that has seen the whole behaviour.

    Every forward pass has the shape (batch_tokens // L, L), filled up with copies: the same kernels see the
    same shapes, so that vectors are equal bit by bit however the behaviours are grouped (fp32 on one CPU).
    LoRA adapters are left out: the layers are the pre-trained ones. (They are switched off meanwhile, so no
    other thread may train the same layers.)

    Args:
        backbone: its embedding table and first layers are used, where they are.
        num_layers: m, from 1 to one less than the backbone's layers.
        pooling: `last` or `mean`.
        precision: `fp32`, or `bf16` for autocast as in training.
        batch_tokens: padded tokens of a forward pass, from 1; a longer behaviour goes alone. None: 1024 on a
            CPU, 16384 elsewhere.
        template: of the behaviours; only the format of an interaction and its token limit matter.

    Raises:
        ConfigError: a value outside its range. BackboneError: layers of another kind.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_layers: int,
        pooling: str = "last",
        precision: str = "fp32",
        batch_tokens: int | None = None,
        template: Template | None = None,
    ) -> None:
        if not is_whole(num_layers) or not 1 <= num_layers < backbone.num_layers:
            expected = f"1 to {backbone.num_layers - 1}: some of the backbone's layers, and not all"
            raise ConfigError("num_layers (m)", repr(num_layers), expected, "choose another layer cut")
        if batch_tokens is not None and (not is_whole(batch_tokens) or batch_tokens < 1):
            expected = "a whole number from 1, or None for the device's own"
            raise ConfigError("batch_tokens", repr(batch_tokens), expected, "choose more tokens")
        for name, value, known in (("pooling", pooling, POOLINGS), ("precision", precision, PRECISIONS)):
            if value not in known:
                raise ConfigError(name, repr(value), f"one of {', '.join(known)}", "choose one of these")
        check_layers(backbone.layers[:num_layers], backbone.config)
        self.device = backbone.embed_tokens.weight.device
        default = 1024 if self.device.type == "cpu" else 16384
        self.batch_tokens = default if batch_tokens is None else batch_tokens
        self.pooling, self.precision = pooling, precision
        self.template = template or Template(instruction="")
        self.width = backbone.hidden_size
        self._embed = backbone.embed_tokens
        self._layers = DenseLayers(backbone.layers[:num_layers], backbone.decoder.rotary_emb)
        made_of = {
            "backbone": backbone.fingerprint,
            "num_layers": int(num_layers),
            "pooling": pooling,
            "precision": precision,
            "interaction": self.template.interaction,
            "max_item_tokens": self.template.max_item_tokens,
            "length_multiple": LENGTH_MULTIPLE,
            "numerics": NUMERICS,
        }
        self.fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    def encode(self, tokens: Sequence[np.ndarray]) -> np.ndarray:
        """(B, E) float32 vectors of B behaviours, in their order.

        Args:
            tokens: token ids of each behaviour.

        Raises:
            DataError: a behaviour without tokens.
        """
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        if len(lengths) and lengths.min() == 0:
            where = f"behaviour {int(lengths.argmin())} of {len(lengths)}"
            raise DataError(where, "its text is empty", "at least one token", "drop it, or give it a text")
        vectors = np.empty((len(tokens), self.width), dtype=np.float32)
        padded = padded_lengths(lengths)
        for length in np.unique(padded).tolist():
            group = np.flatnonzero(padded == length)
            rows = max(1, self.batch_tokens // length)
            for start in range(0, len(group), rows):
                chosen = group[start : start + rows]
                batch = np.resize(chosen, rows)  # repeats fill it up
                ids = torch.from_numpy(padded_tokens([tokens[b] for b in batch.tolist()], length))
                counts = torch.from_numpy(lengths[batch])
                out = self._forward(ids.to(self.device), counts.to(self.device))
                vectors[chosen] = out[: len(chosen)].cpu().numpy()
        return vectors

    @torch.no_grad()
    def _forward(self, ids_BL: Tensor, counts_B: Tensor) -> Tensor:
        """(B, E) float32 pooled states; counts are the real tokens of each row."""
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with _without_adapters(self._layers.layers), autocast:
            hidden = self._layers(self._embed(ids_BL)).float()
        return pooled(hidden, counts_B, self.pooling)
