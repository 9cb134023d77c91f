"""Planted damage in rows of the project's own fast set, against their committed lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_behaviours import first_token, own_answer

from repro import paths
from repro.backbones.spec import SMOLLM2
from repro.backbones.tokenizer import answer_ids, load_tokenizer
from repro.experiments.regression import ROWS
from repro.pipeline import Workshop
from repro.prompts import packing
from repro.regression import retraining
from repro.regression.findings import Verdict
from repro.regression.references import read_reference
from repro.regression.retraining import retrain, stale_reason

REFERENCES = paths.PROJECT_ROOT / "results" / "references"


def auc_verdict(name: str) -> Verdict:
    """Of a row's first seed, trained as the program is now."""
    reference = read_reference(REFERENCES, name)
    assert reference is not None
    reference["threads"] = retraining.THREADS  # tests share the cores; threads matter to rounding alone
    if stale_reason(reference, ROWS[name](1)[0]):
        pytest.skip(f"the list of {name} is stale: the gate says so")
    return retrain(name, reference, ROWS[name], Workshop())[0].verdict


@pytest.mark.slow
def test_dti_that_sees_its_own_answer_is_worse(monkeypatch) -> None:
    """SmolLM2 on ml-100k: a [SUM] of a training prompt also sees the answer after its target."""
    answers = answer_ids(load_tokenizer(SMOLLM2))
    pad_batch, seen = packing.pad_batch, []

    def leaking(batch, *sizes):
        num_text, hi = len(batch.tokens), batch.hi.copy()
        after = np.minimum(hi[num_text:], num_text - 1)
        leaks = np.isin(batch.tokens[after], answers)
        seen.append(leaks.mean())
        hi[num_text:] += leaks
        return pad_batch(replace(batch, hi=hi), *sizes)

    monkeypatch.setattr(packing, "pad_batch", leaking)
    assert auc_verdict("dti") is Verdict.WORSE
    assert max(seen) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "verdict"), [(first_token, Verdict.WORSE), (own_answer, Verdict.TOO_GOOD)]
)
def test_damaged_dti_over_bahe_fails(monkeypatch, damage, verdict) -> None:
    damage(monkeypatch)
    assert auc_verdict("dti-bahe") is verdict
