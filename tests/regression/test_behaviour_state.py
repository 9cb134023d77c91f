"""A wrong pooling, layer cut, template, weight or a leaked answer shows before anything is trained."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from planted_behaviours import first_token, mean_of_tokens, one_layer_fewer, other_m, own_answer
from planted_gate import gate_in

from repro.experiments.run_config import RunConfig
from repro.pipeline import Workshop
from repro.prompts import templates
from repro.regression import behaviours
from repro.regression.behaviours import NUM_BEHAVIOURS, PARTS, behaviour_state, compare_behaviours

CHECKSUMS = "checksums of behaviours and who reads them"
VECTORS = "vectors, m = 2 of 4, last"
OVER_VECTORS = {
    f"untrained, head of {method}, {split} targets"
    for method in ("bahe", "dti-bahe")
    for split in ("train", "test")
}
OVER_TEXT = {f"untrained, head of llm-ctr, {split} targets" for split in ("train", "test")}


def failing(reference, state) -> set[str]:
    """Metrics that do not pass."""
    return {each.metric for each in compare_behaviours(reference, state) if not each.passes}


@pytest.fixture
def probe(tmp_path):
    return gate_in(tmp_path).behaviours


NUM_ITEMS = 1_682  # of ml-100k, some with the same text


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return behaviour_state(gate_in(tmp_path_factory.mktemp("probe")).behaviours, Workshop())


def test_nothing_changed(probe, reference) -> None:
    state = behaviour_state(probe, Workshop())
    assert state == reference
    assert failing(reference, state) == set()
    assert len(compare_behaviours(reference, state)) == 2 + len(OVER_VECTORS | OVER_TEXT)
    vectors = reference["values"][VECTORS]
    assert len(vectors) == NUM_BEHAVIOURS and {len(values) for values in vectors.values()} == {PARTS}
    numbers = [int(number) for number in vectors]
    assert {number % 2 for number in numbers} == {0, 1}, "an item's two answers are numbered in turn"
    assert max(numbers) >= 2 * NUM_ITEMS > min(numbers), "and those without an answer after all of them"
    assert len(reference["values"]["head of dti-bahe, train targets"]) >= 5, "a whole streaming row"


@pytest.mark.parametrize("damage", [first_token, mean_of_tokens, one_layer_fewer])
def test_a_wrong_encoder(probe, reference, monkeypatch, damage) -> None:
    """Who reads which behaviour stays as it was, and LLM-CTR has no encoder."""
    damage(monkeypatch)
    assert failing(reference, behaviour_state(probe, Workshop())) == {f"untrained, {VECTORS}", *OVER_VECTORS}


def test_another_layer_cut(probe, reference, monkeypatch) -> None:
    other_m(monkeypatch)
    found = failing(reference, behaviour_state(probe, Workshop()))
    assert found == {f"untrained, {VECTORS}", "untrained, vectors, m = 1 of 4, last", *OVER_VECTORS}


def test_an_item_with_its_answer(probe, reference, monkeypatch) -> None:
    own_answer(monkeypatch)
    state = behaviour_state(probe, Workshop())
    found = {each.metric: each for each in compare_behaviours(reference, state) if not each.passes}
    assert set(found) == {CHECKSUMS, *OVER_VECTORS, *OVER_TEXT}
    assert "behaviours of all items" not in found[CHECKSUMS].note
    assert found[CHECKSUMS].note.count("changed") == 6, "of each method both splits"


def test_a_changed_template(probe, reference, monkeypatch) -> None:
    changed = replace(templates.template_for("synthetic"), interaction="\n{text} :")
    monkeypatch.setattr(behaviours, "template_for", lambda dataset: changed)
    assert {CHECKSUMS, f"untrained, {VECTORS}"} <= failing(reference, behaviour_state(probe, Workshop()))


@pytest.mark.parametrize("layer", [1, 2])
def test_changed_weights(probe, reference, layer) -> None:
    """Of a lower layer, of an upper one."""
    workshop = Workshop()
    method = probe.methods["bahe"]
    tier = RunConfig(method, "tuned", probe.tier, probe.dataset, probe.protocol, 0).with_backbone
    with torch.no_grad():
        workshop.backbone(tier).layers[layer].mlp.up_proj.base_layer.weight[0, 0] += 0.5
    found = failing(reference, behaviour_state(probe, workshop))
    assert CHECKSUMS not in found and OVER_VECTORS & found and OVER_TEXT & found
    assert (f"untrained, {VECTORS}" in found) == (layer == 1)


def test_other_rounding_passes(reference) -> None:
    state = copy.deepcopy(reference)
    values = state["values"][VECTORS]
    name, size = next(iter(values)), torch.tensor(list(values.values())).square().mean().sqrt().item()
    values[name][3] += 0.9e-4 * size
    assert failing(reference, state) == set()
    values[name][3] += 0.2e-4 * size
    assert failing(reference, state) == {f"untrained, {VECTORS}"}


@pytest.mark.parametrize("missing", ["group", "behaviour", "value"])
def test_missing_values_differ(reference, missing) -> None:
    for one, other in ((0, 1), (1, 0)):
        states = [copy.deepcopy(reference), copy.deepcopy(reference)]
        values = states[1]["values"][VECTORS]
        if missing == "group":
            states[1]["values"].pop(VECTORS)
        elif missing == "behaviour":
            values.pop(next(iter(values)))
        else:
            next(iter(values.values())).pop()
        assert failing(states[one], states[other]) == {f"untrained, {VECTORS}"}
