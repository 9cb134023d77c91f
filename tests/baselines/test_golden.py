"""Our layers give what FuxiCTR's and RePlay's gave with the same weights: values, gradients, statistics.

golden.json holds those libraries' values; `nox -s oracles -- --update-golden` writes it.
"""

from __future__ import annotations

import pytest
import torch
from parity_cases import CASES, assert_same, read_golden

from baselines.dice import Dice


@pytest.mark.parametrize("name", CASES)
def test_layer_gives_the_committed_values(name):
    assert_same(CASES[name].outcome(), read_golden()[name])


def test_there_is_no_committed_value_without_a_case():
    assert set(read_golden()) == set(CASES)


def test_a_wrong_layer_is_noticed(monkeypatch):
    """The comparison can fail: with another eps, Dice is another layer."""
    name, original = "dice, training", Dice.__init__
    monkeypatch.setattr(Dice, "__init__", lambda self, width: original(self, width, eps=0.01))
    with pytest.raises(AssertionError, match="output"):
        assert_same(CASES[name].outcome(), read_golden()[name])


def test_every_case_has_a_gradient_for_every_parameter():
    for case in CASES.values():
        values = case.outcome()
        for parameter, _ in case.layer().named_parameters():
            assert torch.isfinite(values[f"gradient {parameter}"]).all()
