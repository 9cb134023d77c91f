"""Layers over packed sequences: what the same layers give for padded rows, in values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_backbones import tiny_backbone

from repro.backbones.dense_layers import DenseLayers
from repro.backbones.interval_tables import causal_tables
from repro.backbones.loading import load_backbone, trainable_parameters
from repro.backbones.packed_layers import PackedLayers, packed_rows
from repro.backbones.spec import BackboneSpec

FAMILIES = {"llama": {"attention_bias": True}, "qwen2": {}, "qwen3": {}, "gemma": {}}
LENGTHS = (7, 0, 1, 4)
CPU = torch.device("cpu")


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=7), padding=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_place_sees_what_stands_before_it_in_its_own_sequence(lengths, padding) -> None:
    total = sum(lengths) + padding
    lo, hi, copy, seen_as, slope, position, first, stop, copies = causal_tables(np.array(lengths), total)
    sequence = np.concatenate([np.repeat(np.arange(len(lengths)), lengths), 100 + np.arange(padding)])
    place = np.arange(total)
    expected = (sequence[:, None] == sequence) & (place <= place[:, None])
    assert np.array_equal((seen_as >= lo[:, None]) & (seen_as < hi[:, None]), expected)
    for key in range(total):
        seen_by = np.flatnonzero(expected[:, key])
        assert first[key] <= seen_by.min() and seen_by.max() < stop[key] <= total
        assert not expected[: first[key], key:].any() and not expected[stop[key] :, : key + 1].any()
    assert len(slope) == len(position) == 0 and not copy.any() and (copies == total).all()


def states(backbone, packed: bool, lengths=LENGTHS, alike: bool = False):
    """States at real places and the gradients of what is trained and of the input."""
    generator = torch.Generator().manual_seed(0)
    total = sum(lengths)
    hidden = torch.randn(total, backbone.hidden_size, generator=generator).requires_grad_(True)
    weight = torch.randn(total, backbone.hidden_size, generator=generator)
    rotary, norm = backbone.decoder.rotary_emb, backbone.decoder.norm
    if packed:
        padding = 0 if alike else 3
        given = torch.cat([hidden, hidden.new_ones(padding, hidden.shape[1])])
        rows = packed_rows(np.array(lengths), total + padding, CPU, alike)
        out = PackedLayers(backbone.layers, rotary, norm)(given, rows)[:total]
    else:
        real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        given = torch.zeros(*real.shape, hidden.shape[1]).masked_scatter(real[..., None], hidden)
        out = norm(DenseLayers(backbone.layers, rotary)(given))[real]
    trained = [hidden, *trainable_parameters(backbone).values()]
    return out, torch.autograd.grad((out * weight).sum(), trained, allow_unused=True)


def assert_equal(backbone, **case) -> None:
    (a, grads_a), (b, grads_b) = (
        states(backbone, True, **case),
        states(backbone, False, lengths=case["lengths"]),
    )
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    compared = 0
    for one, other in zip(grads_a, grads_b, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            compared += 1
            assert (one - other).norm() <= 1e-3 * other.norm().clamp(min=1e-3)
    assert compared > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_are_those_of_padded_rows(family) -> None:
    assert_equal(tiny_backbone(family, **FAMILIES[family]), lengths=LENGTHS)


def test_so_they_are_with_adapters() -> None:
    backbone = load_backbone(BackboneSpec("random:tiny-llama", tuning="lora", lora_rank=2))
    with torch.no_grad():
        for parameter in trainable_parameters(backbone).values():
            parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(1))
    assert_equal(backbone, lengths=LENGTHS)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_sequences_of_one_length_may_take_plain_causal_attention(family) -> None:
    assert_equal(tiny_backbone(family), lengths=(5, 5, 5), alike=True)


@pytest.mark.slow
def test_compiled_layers_are_the_same_and_each_half_is_compiled_once_for_a_size() -> None:
    torch._dynamo.reset()
    backbone = load_backbone(BackboneSpec("random:tiny-llama", tuning="lora", lora_rank=2))
    rotary, norm = backbone.decoder.rotary_emb, backbone.decoder.norm
    rows = packed_rows(np.array(LENGTHS), 16, CPU)
    hidden = torch.randn(16, backbone.hidden_size, generator=torch.Generator().manual_seed(0)).requires_grad_(
        True
    )
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    torch._dynamo.utils.counters.clear()
    outcome = []
    for compiled in (True, False):
        found = PackedLayers(backbone.layers, rotary, norm, compiled)(hidden, rows)
        trained = [hidden, *trainable_parameters(backbone).values()]
        outcome.append([found, *torch.autograd.grad((found * weight).sum(), trained)])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4, "norm, two halves, and the last"
    for ours, expected in zip(*outcome, strict=True):
        assert (ours - expected).norm() <= 1e-4 * expected.norm().clamp(min=1e-3)


def test_all_lengths_of_all_models_of_a_process_are_compiled(monkeypatch) -> None:
    """Torch's own limit, eight versions of a function, would leave the later ones uncompiled, unnoticed."""
    torch._dynamo.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    own = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, dynamic: own(function, backend=count, dynamic=dynamic)
    )
    sizes = range(4, 24)
    for backbone in (tiny_backbone("llama"), tiny_backbone("qwen2")):
        layers = PackedLayers(
            backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm, compiled=True
        )
        before = len(graphs)
        for size in sizes:
            hidden = torch.zeros(size, backbone.hidden_size, requires_grad=True)
            layers(hidden, packed_rows(np.array([size]), size, CPU))
        assert len(graphs) - before >= 3 * len(sizes), "two halves and the last one, for every size"
    monkeypatch.undo()
    torch._dynamo.reset()
