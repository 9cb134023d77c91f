"""Run ids: independent of key order, sensitive to everything else."""

from __future__ import annotations

import copy
import hashlib
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from repro.errors import RecordError
from repro.records.run_id import canonical_json, run_id

BASE = {"method": "dti", "k": 50, "n": 10, "seed": 0}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.text(min_size=1), values, max_size=5).map(lambda extra: extra | BASE)


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(inner) for inner in value] if isinstance(value, list) else value


@given(configs)
def test_order_of_keys_does_not_matter(config):
    assert run_id(reversed_keys(config), "cpu") == run_id(config, "cpu")


@given(configs)
def test_an_id_survives_a_round_trip_through_json(config):
    assert run_id(json.loads(json.dumps(config)), "cpu") == run_id(config, "cpu")


@given(configs, values, st.data())
def test_any_changed_value_changes_the_id(config, value, data):
    key = data.draw(st.sampled_from(sorted(config)))
    assume(key not in ("method", "seed") or value is not None)
    changed = config | {key: value}
    assume(canonical_json(changed) != canonical_json(config))
    assert run_id(changed, "cpu")[-10:] != run_id(config, "cpu")[-10:]


def test_nested_values_added_keys_and_the_device_change_the_id():
    base = BASE | {"fixes": {"reset": {"layers": "last"}}}
    nested = copy.deepcopy(base)
    nested["fixes"]["reset"]["layers"] = "all"
    variants = [run_id(c, "cpu") for c in (base, nested, base | {"x": None})] + [run_id(base, "gpu")]
    assert len(set(variants)) == 4


def test_prefix_reads_and_hex_is_the_stated_hash():
    content = '{"config":{"k":50,"method":"dti","n":10,"seed":0},"device":"cpu"}'
    digest = hashlib.sha256(content.encode()).hexdigest()[:10]
    assert run_id(BASE, "cpu") == f"dti-k50-n10-seed0-{digest}"
    assert run_id({"method": "rates", "k": None, "seed": 3}, "cpu").startswith("rates-seed3-")
    assert run_id(BASE | {"method": "a/../b c"}, "cpu").startswith("a-..-b-c-k50-")


def test_what_json_cannot_say_is_refused():
    for value, message in (
        (float("nan"), "setting: nan"),
        (float("inf"), "setting: inf"),
        ({1: "a"}, "setting: key 1 of type int"),
        ([{"a": {2.5: 0}}], r"setting\.0\.a: key 2\.5 of type float"),
        ({"a", "b"}, "setting: a set"),
        ([np.float32(1)], r"setting\.0: a float32"),
    ):
        with pytest.raises(RecordError, match=message):
            run_id(BASE | {"setting": value}, "cpu")
    for key in ("method", "seed"):
        with pytest.raises(RecordError, match=f"field {key}"):
            run_id({**BASE, key: None}, "cpu")
