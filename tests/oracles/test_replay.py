"""SASRec's block against RePlay's layer.

RePlay gets the visible positions as its attention mask and no padding mask: with its padding mask a padded
position would see nothing, which makes its row NaN in training.
"""

from __future__ import annotations

import pytest
import torch
from parity_cases import HEADS, PADDED, E
from peer_layers import call_with_tensors

from baselines.sasrec import causal_visibility

transformer = pytest.importorskip(
    "replay.nn.sequential.sasrec.transformer", reason="RePlay is not installed: nox -s oracles"
)


def replay_block(ours):
    peer = transformer.SasRecTransformerLayer(E, HEADS, num_blocks=1, dropout=0.0, activation="relu")
    own = dict(ours.named_parameters())
    blocked = torch.zeros(PADDED.shape[0], HEADS, *2 * PADDED.shape[1:])
    blocked.masked_fill_(~causal_visibility(PADDED)[:, None], -torch.inf)

    def tensors():
        for kind in ("weight", "bias"):
            attention = "attention_layers.0"
            yield f"{attention}.in_proj_{kind}", torch.cat([own[f"query.{kind}"], own[f"key_value.{kind}"]])
            yield f"{attention}.out_proj.{kind}", own[f"attention_out.{kind}"]
            yield f"attention_layernorms.0.{kind}", own[f"attention_norm.{kind}"]
            yield f"forward_layernorms.0.{kind}", own[f"forward_norm.{kind}"]
            for name, convolution in (("inner", "conv1"), ("outer", "conv2")):
                tensor = own[f"{name}.{kind}"]
                # A convolution of width 1 has one dimension more than a linear layer.
                yield (
                    f"forward_layers.0.{convolution}.{kind}",
                    tensor[..., None] if tensor.ndim == 2 else tensor,
                )

    def forward(x, visible):
        no_padding = torch.ones(x.shape[:2], dtype=torch.bool)
        inputs = (None, x, no_padding, blocked.flatten(0, 1))
        return call_with_tensors(peer, ours.training, dict(tensors()), *inputs)[:, -visible.shape[1] :]

    return forward


@pytest.mark.parametrize("name", ["sasrec block, all positions", "sasrec block, newest position"])
def test_block(compare, name):
    compare(name, replay_block)
