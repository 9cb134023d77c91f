"""A changed tokenizer, template, mask or weight shows before anything is trained."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from planted_gate import gate_in
from tokenizers import pre_tokenizers

from repro.backbones.spec import BackboneSpec
from repro.data import protocols
from repro.methods.sliding_window import sliding_window
from repro.pipeline import Workshop
from repro.prompts import packing, templates
from repro.regression import prompts
from repro.regression.findings import Verdict
from repro.regression.prompts import PromptProbe, compare_prompts, prompt_state

CHECKSUMS = "checksums of data, tokens, prompt rows"


def failing(reference, state) -> set[str]:
    """Metrics that do not pass."""
    return {each.metric for each in compare_prompts(reference, state) if not each.passes}


@pytest.fixture
def probe(tmp_path):
    return gate_in(tmp_path).probe


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return prompt_state(gate_in(tmp_path_factory.mktemp("probe")).probe, Workshop())


def test_nothing_changed(probe, reference) -> None:
    state = prompt_state(probe, Workshop())
    assert state == reference
    assert failing(reference, state) == set()
    assert [len(scores) for scores in reference["scores"].values()] == [48, 24, 48]


def test_a_changed_template(probe, reference, monkeypatch) -> None:
    changed = replace(templates.template_for("synthetic"), interaction="\n{text} :")
    monkeypatch.setattr(prompts, "template_for", lambda dataset: changed)
    assert CHECKSUMS in failing(reference, prompt_state(probe, Workshop()))


def test_a_changed_split(probe, reference, monkeypatch) -> None:
    monkeypatch.setattr(protocols, "MIN_ITEM_INTERACTIONS", 40)
    (found,) = [
        each for each in compare_prompts(reference, prompt_state(probe, Workshop())) if not each.passes
    ]
    assert found.metric == CHECKSUMS and found.note.startswith("data, dti: changed")


def test_a_sum_that_sees_its_own_answer(probe, reference, monkeypatch) -> None:
    pad_batch = packing.pad_batch

    def leaking(batch, *sizes):
        hi = batch.hi.copy()
        hi[len(batch.tokens) :] += batch.hi[len(batch.tokens) :] < batch.num_text
        return pad_batch(replace(batch, hi=hi), *sizes)

    monkeypatch.setattr(packing, "pad_batch", leaking)
    found = failing(reference, prompt_state(probe, Workshop()))
    assert {CHECKSUMS, "untrained model, dti-minus, train prompts"} <= found


def test_changed_weights(probe, reference) -> None:
    workshop = Workshop()
    with torch.no_grad():
        workshop.backbone(probe.tier).layers[0].mlp.up_proj.weight[0, 0] += 0.05
    found = failing(reference, prompt_state(probe, workshop))
    assert CHECKSUMS not in found and "untrained model, sw, test prompts" in found


def test_other_rounding_passes(probe, reference) -> None:
    state = copy.deepcopy(reference)
    state["scores"]["sw, test prompts"][3] += 0.9e-4
    assert failing(reference, state) == set()
    state["scores"]["sw, test prompts"][3] += 0.2e-4
    assert failing(reference, state) == {"untrained model, sw, test prompts"}


def test_missing_scores_differ(reference) -> None:
    state = copy.deepcopy(reference)
    state["scores"].pop("sw, test prompts")
    assert failing(reference, state) == {"untrained model, sw, test prompts"}


def test_smollm2_without_its_digit_rule(probe) -> None:
    """No title of MovieLens tells the two tokenizers apart; the odd texts do."""
    tier = replace(probe.tier, backbone=BackboneSpec(layers=1, train_embeddings=False))
    real = PromptProbe(tier, "ml-100k", "dti", {"sw": sliding_window(2)})
    workshop = Workshop()
    reference = prompt_state(real, workshop)
    assert failing(reference, prompt_state(real, workshop)) == set()
    rule = pre_tokenizers.ByteLevel(add_prefix_space=False)
    workshop.backbone(tier).tokenizer.backend_tokenizer.pre_tokenizer = rule
    (found,) = [each for each in compare_prompts(reference, prompt_state(real, workshop)) if not each.passes]
    assert found.verdict is Verdict.DIFFERS and found.note.startswith("tokens of odd texts: changed")
