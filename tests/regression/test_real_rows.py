"""Planted damage in a row of the project's own fast set, against its committed list."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

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

    reference = read_reference(REFERENCES, "dti")
    assert reference is not None
    reference["threads"] = retraining.THREADS  # tests share the cores; threads matter to rounding alone
    if stale_reason(reference, ROWS["dti"](1)[0]):
        pytest.skip("the list of dti is stale: the gate says so")
    monkeypatch.setattr(packing, "pad_batch", leaking)
    found = {each.metric: each for each in retrain("dti", reference, ROWS["dti"], Workshop())}
    assert max(seen) > 0.5
    assert found["dti, AUC"].verdict is Verdict.WORSE
