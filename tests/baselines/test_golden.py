"""Our layers give what FuxiCTR's and RePlay's gave with the same weights: values, gradients, statistics.

golden.json holds those libraries' values; `nox -s oracles -- --update-golden` writes it.
"""

from __future__ import annotations

import pytest
import torch
from parity_cases import CASES, assert_same, read_golden

from baselines.layers import Dice


@pytest.mark.parametrize("name", CASES)
def test_layer_gives_the_committed_values(name):
    assert_same(CASES[name].outcome(), read_golden()[name])


def test_there_is_no_committed_value_without_a_case():
    assert set(read_golden()) == set(CASES)


def test_a_wrong_layer_is_noticed(monkeypatch):
    """The comparison can fail: a variance with Bessel's correction inside the batch is another Dice."""
    name = "dice, training"
    original = Dice._statistics

    def corrected(self, x, mask):
        mean, var = original(self, x, mask)
        return mean, var * len(x) / (len(x) - 1)

    monkeypatch.setattr(Dice, "_statistics", corrected)
    with pytest.raises(AssertionError, match="output"):
        assert_same(CASES[name].outcome(), read_golden()[name])


def test_every_case_has_a_gradient_for_every_parameter():
    for case in CASES.values():
        values = case.outcome()
        for parameter, _ in case.layer().named_parameters():
            assert torch.isfinite(values[f"gradient {parameter}"]).all()
