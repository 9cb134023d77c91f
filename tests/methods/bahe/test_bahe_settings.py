"""Bad settings are refused, and a record says what applies to a method."""

from __future__ import annotations

import pytest

from repro.behaviours.drift import Drift
from repro.errors import ConfigError
from repro.methods.bahe.settings import BaheMethod, bahe, dti_bahe, llm_ctr


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "other"}, "name"),
        ({"n": 0}, "n"),
        ({"k": 5}, "k"),
        ({"name": "dti-bahe"}, "k"),
        ({"sequences": ()}, "sequences"),
        ({"sequences": ("liked", "liked")}, "sequences"),
        ({"layer_cut": 0.0}, "layer_cut"),
        ({"layer_cut": 1.0}, "layer_cut"),
        ({"pooling": "max"}, "pooling"),
        ({"lora_rank": 0}, "lora_rank"),
        ({"lower": "trained"}, "lower"),
        ({"lower": "thawed", "cached": False}, "lower"),
        ({"name": "llm-ctr", "drift": Drift("revised", 0.5, None)}, "drift"),
    ],
)
def test_a_wrong_setting_is_named(changes, named) -> None:
    with pytest.raises(ConfigError, match=f"setting '{named}'"):
        BaheMethod(**{"name": "bahe", "n": 4} | changes)


@pytest.mark.parametrize(
    ("share", "layers", "lower"), [(0.5, 30, 15), (1 / 6, 30, 5), (5 / 6, 6, 5), (0.5, 5, 2), (0.5, 3, 2)]
)
def test_the_layer_cut_counts_layers(share, layers, lower) -> None:
    assert BaheMethod("bahe", 4, layer_cut=share).num_lower(layers) == lower


@pytest.mark.parametrize(("share", "layers"), [(0.1, 4), (0.9, 4), (0.5, 1)])
def test_a_cut_without_a_lower_or_an_upper_layer_is_refused(share, layers) -> None:
    with pytest.raises(ConfigError, match=r"m = \d"):
        BaheMethod("bahe", 4, layer_cut=share).num_lower(layers)


def test_what_does_not_apply_is_null() -> None:
    of_bahe, of_text, of_rows = bahe(4).resolved(), llm_ctr(4).resolved(), dti_bahe(4, 10).resolved()
    assert of_bahe["behaviours"]["layer_cut"] == 0.5 and of_bahe["k"] is None
    assert of_bahe["behaviours"]["sequences"] == ["liked", "disliked", "recent"]
    assert {key for key, value in of_text["behaviours"].items() if value is not None} == {"sequences"}
    assert of_rows["behaviours"]["sequences"] is of_rows["behaviours"]["feature_parallel"] is None
    assert (of_rows["k"], of_rows["sum_layout"], of_rows["window"]) == (10, "deferred", "interactions")
    assert set(of_bahe) == set(of_text) == set(of_rows)
