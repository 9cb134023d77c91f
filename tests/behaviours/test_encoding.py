"""Vectors of behaviours: what the model's own layers give, whatever they are batched with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from behaviour_cases import TEMPLATE, make_behaviours, many, tiny

from repro.backbones.loading import trainable_parameters
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import MemoryTable, fill, look_up
from repro.errors import ConfigError, DataError
from repro.prompts.templates import Template

LAYERS = 2


def all_tokens(behaviours) -> list[np.ndarray]:
    return behaviours.tokens_of(np.arange(len(behaviours)))


@pytest.mark.parametrize("name", ["random:tiny-llama", "random:tiny-qwen"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vectors_are_the_models_own_hidden_states(name, pooling) -> None:
    from repro.backbones.loading import load_backbone
    from repro.backbones.spec import BackboneSpec

    backbone = load_backbone(BackboneSpec(name))
    behaviours = make_behaviours(backbone)
    vectors = BehaviourEncoder(backbone, LAYERS, pooling).encode(all_tokens(behaviours))
    for ids, vector in zip(all_tokens(behaviours), vectors, strict=True):
        own = backbone.model(input_ids=torch.from_numpy(ids).long()[None], output_hidden_states=True)
        states = own.hidden_states[LAYERS][0].detach()
        expected = states[-1] if pooling == "last" else states.mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_cached_and_on_the_fly_are_equal_bit_by_bit(pooling) -> None:
    backbone = tiny()
    behaviours = many(backbone)
    encoder = BehaviourEncoder(backbone, LAYERS, pooling)
    table = MemoryTable(encoder.fingerprint, encoder.width)
    assert fill(table, behaviours, encoder) == len(behaviours)
    everyone = np.arange(len(behaviours))
    cached = look_up(table, behaviours, everyone)
    empty = MemoryTable(encoder.fingerprint, encoder.width)
    rng = np.random.default_rng(0)
    for chosen in (everyone[:1], everyone[::-1], rng.permutation(everyone)[:17], everyone[[3, 3, 5]]):
        assert np.array_equal(look_up(empty, behaviours, chosen, encoder), cached[chosen])
    assert len(np.unique(cached, axis=0)) == len(behaviours), "no two behaviours alike"
    assert len(empty) == 0, "encoded on the fly, not added"


def test_bf16_is_close_to_fp32_and_to_itself_in_other_batches() -> None:
    backbone = tiny()
    behaviours = many(backbone)
    exact = BehaviourEncoder(backbone, LAYERS).encode(all_tokens(behaviours))
    rounded = BehaviourEncoder(backbone, LAYERS, precision="bf16")
    vectors = rounded.encode(all_tokens(behaviours))
    alone = np.concatenate([rounded.encode([ids]) for ids in all_tokens(behaviours)[:9]])
    distance = np.linalg.norm(vectors - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 1e-4 < distance.max() < 5e-2
    small = BehaviourEncoder(backbone, LAYERS, precision="bf16", batch_tokens=32)
    for other in (alone, small.encode(all_tokens(behaviours))[:9]):
        apart = np.linalg.norm(vectors[:9] - other, axis=1) / np.linalg.norm(vectors[:9], axis=1)
        assert apart.max() < 1e-2


def test_adapters_are_left_out_and_stay_as_they_were() -> None:
    backbone = tiny(tuning="lora", lora_rank=4)
    behaviours = make_behaviours(backbone)
    encoder = BehaviourEncoder(backbone, LAYERS)
    before = encoder.encode(all_tokens(behaviours))
    trained = trainable_parameters(backbone)
    frozen = next(iter(trained.values())).requires_grad_(False)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.3)
    assert np.array_equal(encoder.encode(all_tokens(behaviours)), before)
    assert np.array_equal(BehaviourEncoder(tiny(), LAYERS).encode(all_tokens(behaviours)), before)
    assert not frozen.requires_grad
    assert set(trainable_parameters(backbone)) == set(list(trained)[1:])
    states = backbone.decoder(torch.arange(5)[None]).last_hidden_state
    with backbone.model.disable_adapter():
        assert not torch.allclose(backbone.decoder(torch.arange(5)[None]).last_hidden_state, states)


def test_everything_that_changes_a_vector_changes_the_fingerprint() -> None:
    backbone = tiny()
    usual = BehaviourEncoder(backbone, LAYERS).fingerprint
    others = [
        BehaviourEncoder(tiny(layers=3), LAYERS),
        BehaviourEncoder(backbone, 1),
        BehaviourEncoder(backbone, LAYERS, "mean"),
        BehaviourEncoder(backbone, LAYERS, precision="bf16"),
        BehaviourEncoder(backbone, LAYERS, template=Template("", interaction="\n- {text}:")),
        BehaviourEncoder(backbone, LAYERS, template=Template("", max_item_tokens=5)),
    ]
    assert len({usual, *(encoder.fingerprint for encoder in others)}) == 7
    same = BehaviourEncoder(tiny(tuning="lora"), LAYERS, batch_tokens=64, template=TEMPLATE)
    assert same.fingerprint == usual, "neither adapters, batching nor the instruction change a vector"


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="one of last, mean"):
        BehaviourEncoder(tiny(), LAYERS, "max")
    with pytest.raises(ConfigError, match="one of fp32, bf16"):
        BehaviourEncoder(tiny(), LAYERS, precision="int8")


def test_an_empty_behaviour_is_refused_and_no_behaviour_is_none() -> None:
    encoder = BehaviourEncoder(tiny(), LAYERS)
    with pytest.raises(DataError, match="behaviour 1 of 2: its text is empty"):
        encoder.encode([np.array([3, 4]), np.array([], dtype=np.int32)])
    assert encoder.encode([]).shape == (0, encoder.width)
