"""The fixes' numbers for every pair, and their settings."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prompt_cases import Case, cases

from repro.backbones.fix_settings import Fixes, Reset
from repro.backbones.fixes import alibi_bias, reset_ratio
from repro.backbones.visibility import query_blocks
from repro.errors import ConfigError


def test_the_ratio_is_half_way_in_the_middle_of_the_window() -> None:
    """n = 4: at d = 2 the mean of the range; further away more; the target's own text never."""
    reset = Reset(a_min=0.2, a_max=0.6, tau=1.0)
    blocks = type("Blocks", (), {"distance": torch.tensor([[[0, 1, 2, 3, 4]]], dtype=torch.int16)})
    ratio = reset_ratio(blocks, reset, n=4)[0, 0]
    assert ratio[0] == 0
    assert math.isclose(float(ratio[2]), 0.4, rel_tol=1e-6)
    assert math.isclose(float(ratio[4]), 0.2 + 0.4 / (1 + math.exp(-2)), rel_tol=1e-6)
    assert (ratio[1:].diff() > 0).all()


@given(cases(), st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 10))
def test_ratios_stay_in_their_range_and_spare_target_instruction_and_sums(case: Case, a, b, tau) -> None:
    batch = case.pack()
    low, high = sorted((a, b))
    blocks = query_blocks(batch, True, 4)
    ratio = reset_ratio(blocks, Reset(low, high, tau), case.settings.n)
    of_context = blocks.visible & (blocks.distance > 0)
    assert (ratio[~of_context] == 0).all()
    assert (ratio[of_context] >= low - 1e-6).all() and (ratio[of_context] <= high + 1e-6).all()
    key = blocks.key_index[:, None].expand_as(blocks.visible)[of_context]
    assert ((key >= batch.num_prefix) & (key < batch.num_text)).all()


@given(cases(), st.floats(0, 2))
def test_the_bias_falls_with_distance_and_is_never_positive(case: Case, slope) -> None:
    blocks = query_blocks(case.pack(), True, 4)
    bias = alibi_bias(blocks, slope)
    assert bias.dtype == torch.float32
    assert (bias[blocks.visible] <= 0).all()
    assert torch.equal(bias, -slope * blocks.offset)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"a_min": -0.1}, "reset range"),
        ({"a_max": 1.1}, "reset range"),
        ({"a_min": 0.6, "a_max": 0.5}, "reset range"),
        ({"a_max": math.nan}, "reset range"),
        ({"a_min": math.nan}, "reset range"),
        ({"tau": 0.0}, "reset tau"),
        ({"tau": -1.0}, "reset tau"),
        ({"tau": math.nan}, "reset tau"),
        ({"tau": math.inf}, "reset tau"),
        ({"layers": "first"}, "reset layers"),
        ({"mixing": "keys"}, "reset mixing"),
    ],
)
def test_reset_settings_out_of_range_are_refused(arguments, where) -> None:
    with pytest.raises(ConfigError) as error:
        Reset(**arguments)
    assert error.value.where == where


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"position": "alibi"}, "position"),
        ({"position": "alibi-plain-keys", "alibi_slope": -0.1}, "alibi_slope"),
        ({"position": "alibi-plain-keys", "alibi_slope": math.nan}, "alibi_slope"),
        ({"position": "alibi-plain-keys", "alibi_slope": math.inf}, "alibi_slope"),
    ],
)
def test_position_settings_out_of_range_are_refused(arguments, where) -> None:
    with pytest.raises(ConfigError) as error:
        Fixes(**arguments)
    assert error.value.where == where


def test_at_test_positions_stay_and_the_reset_goes_unless_asked_for() -> None:
    trained = Fixes(Reset(), "alibi-plain-keys", 0.2)
    assert trained.at_test() == Fixes(None, "alibi-plain-keys", 0.2)
    kept = Fixes(Reset(at_test=True), "alibi-rotated-keys", 0.1)
    assert kept.at_test() == kept
    assert Fixes().at_test() == Fixes()
