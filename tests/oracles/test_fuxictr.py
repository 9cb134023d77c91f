"""DIN's attention, Dice and DCNv2's cross network against FuxiCTR's layers.

FuxiCTR lets padding into Dice's batch statistics and we leave it out. So padded histories are compared in
evaluation mode, and in training mode by showing FuxiCTR the real interactions one at a time.
"""

from __future__ import annotations

import pytest
from parity_cases import CASES, UNITS, E
from peer_layers import call_with

layers = pytest.importorskip("fuxictr.pytorch.layers", reason="FuxiCTR is not installed: nox -s oracles")

BATCH_NORM = {"running_mean": "bn.running_mean", "running_var": "bn.running_var"}
# DIN_Attention's network is a list: linear, Dice, linear, Dice, linear.
PARTS = {"first": 0, "activations.0": 1, "rest.0": 2, "activations.1": 3, "out": 4}
ATTENTION = {our: f"attention_layer.mlp.{index}" for our, index in PARTS.items()} | {
    f"activations.{layer}.{our}": f"attention_layer.mlp.{2 * layer + 1}.{their}"
    for layer in range(2)
    for our, their in BATCH_NORM.items()
}


def fuxi_attention(softmax):
    return layers.DIN_Attention(E, list(UNITS), "Dice", use_softmax=softmax)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("dice")])
def test_dice(compare, name):
    peer = layers.Dice(UNITS[0])
    compare(name, lambda ours: lambda x: call_with(peer, ours, {"": "", **BATCH_NORM}, x))


@pytest.mark.parametrize(
    ("name", "softmax"),
    [
        ("din attention, training, no padding", False),
        ("din attention, evaluation, padding", False),
        ("din attention, softmax, training, no padding", True),
        ("din attention, softmax, evaluation, padding", True),
    ],
)
def test_attention(compare, name, softmax):
    peer = fuxi_attention(softmax)
    compare(
        name,
        lambda ours: lambda target, past, mask: call_with(peer, ours, ATTENTION, target, past, mask),
    )


def test_attention_in_training_mode_with_padding(compare):
    """Each real interaction is a history of one for FuxiCTR, so its statistics hold no padding either."""
    peer = fuxi_attention(softmax=False)

    def of_real_ones(ours):
        def forward(target, past, mask):
            user, place = mask.nonzero(as_tuple=True)
            weighted = call_with(peer, ours, ATTENTION, target[user], past[user, place][:, None])
            return past.new_zeros(target.shape).index_add(0, user, weighted)

        return forward

    compare("din attention, training, padding", of_real_ones)


def test_cross_network(compare):
    peer = layers.CrossNetV2(E, 2)
    names = {"layers": "cross_layers"}
    compare("dcnv2 cross network", lambda ours: lambda x_0: call_with(peer, ours, names, x_0))
