"""The closed form's own rules; `test_counters.py` holds it against real modules."""

from __future__ import annotations

import pytest

from repro.costs.architecture import Architecture, architecture_from, architecture_of
from repro.costs.closed_form import (
    PARTS,
    SumCounts,
    Training,
    causal_pairs,
    equation_3,
    linear,
    sum_model_cost,
    token_limit,
)
from repro.errors import BackboneError, ConfigError


def test_the_papers_example():
    assert equation_3(20, 50) == pytest.approx(14.2857, abs=1e-4)  # "14.28 times"
    assert token_limit(20, 50) == 15.0
    assert token_limit(20, 1) == 1.0  # one target per prompt is the sliding window


@pytest.mark.parametrize("formula", [equation_3, token_limit])
@pytest.mark.parametrize(("n", "k"), [(0, 5), (5, 0), (-1, 1), (1, -1)])
def test_sizes_below_one_are_refused(formula, n, k):
    with pytest.raises(ConfigError, match="at least 1"):
        formula(n, k)


@pytest.mark.parametrize(
    ("trained", "input_grad", "rank", "times"),
    [(True, True, 0, 3), (False, True, 0, 2), (True, False, 0, 2), (False, False, 0, 1)],
)
def test_a_linear_layer_trains_at_1_to_3_times_its_forward_cost(trained, input_grad, rank, times):
    (work,) = linear(7, 5, 3, trained=trained, input_grad=input_grad, rank=rank)
    assert work.forward == 2 * 7 * 5 * 3
    assert work.forward + work.backward == times * work.forward


def test_lora_by_hand():
    """x (7, 5), W (5, 3), A (5, 2), B (2, 3): four products for the adapters' gradients, one through W."""
    base, down, up = linear(7, 5, 3, trained=False, input_grad=True, rank=2)
    assert (base.forward, base.backward) == (210, 210)
    assert (down.forward, down.backward) == (140, 280)
    assert (up.forward, up.backward) == (84, 168)
    base, down, up = linear(7, 5, 3, trained=False, input_grad=False, rank=2)
    assert (base.backward, down.backward, up.backward) == (0, 140, 168)


def test_causal_pairs():
    assert causal_pairs([]) == 0
    assert causal_pairs([1, 3]) == 1 + 6


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("smollm2-135m", 134_515_008), ("qwen2.5-1.5b", 1_543_714_304), ("llama-3.1-8b", 8_030_261_248)],
)
def test_parameters_are_those_of_the_published_models(name, parameters):
    assert architecture_of(f"random:{name}").parameters == parameters


def test_an_epoch_of_the_8b_shape_is_close_to_two_flops_per_parameter_and_token():
    arch = architecture_of("random:llama-3.1-8b")
    counts = SumCounts(text=400, sums=1, text_pairs=0, sum_pairs=0)
    cost = sum_model_cost(arch, counts, Training("lora"))
    body = arch.layers * arch.layer_parameters
    assert cost.forward == pytest.approx(2 * body * 401, rel=0.04)  # the last layer is cut short
    assert cost.train == pytest.approx(2 * cost.forward, rel=0.03)
    assert sum(cost.part(name).forward for name in PARTS) == cost.forward


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"tuning": "half"}, "tuning"), ({"rank": 0}, "rank"), ({"frozen_layers": -1}, "frozen_layers")],
)
def test_bad_training_settings_are_refused(settings, match):
    with pytest.raises(ConfigError, match=match):
        Training(**settings)


@pytest.mark.parametrize("training", [Training(frozen_layers=1), Training("lora", checkpointing=True)])
def test_sum_models_have_no_frozen_layers_and_no_checkpointing(training):
    with pytest.raises(ConfigError, match="training loop of SW and DTI has neither"):
        sum_model_cost(architecture_of("random:tiny-llama"), SumCounts(9, 1, 45, 9), training)


def test_a_window_longer_than_the_positions_is_refused():
    arch = architecture_of("random:smollm2-135m")
    arch.check_length(8192, "prompt")
    with pytest.raises(ConfigError, match=r"8,193 tokens[\s\S]*8,192"):
        arch.check_length(8193, "prompt")


def test_a_config_without_sizes_is_refused():
    with pytest.raises(BackboneError, match="intermediate_size"):
        architecture_from({"num_attention_heads": 4, "hidden_size": 8, "num_hidden_layers": 2})


def test_a_head_size_of_its_own_is_read():
    config = {
        "num_attention_heads": 4, "hidden_size": 8, "num_hidden_layers": 2, "head_dim": 16,
        "intermediate_size": 5, "vocab_size": 11, "max_position_embeddings": 32,
    }  # fmt: skip
    assert architecture_from(config) == Architecture(2, 8, 4, 4, 16, 5, 11, 32, True)
