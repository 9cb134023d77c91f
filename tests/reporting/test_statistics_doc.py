"""docs/statistics.md: the budgets of the searches that it names are those of the code."""

from __future__ import annotations

from collections import Counter

from repro.experiments import bahe, baselines, selection
from repro.experiments.tiers import gpu_tier
from repro.paths import PROJECT_ROOT

WORDS = {3: "three", 8: "eight"}


def test_the_budgets_of_the_searches_are_those_of_the_code() -> None:
    text = " ".join((PROJECT_ROOT / "docs" / "statistics.md").read_text(encoding="utf-8").split())
    llm = Counter(trial.family for trial in selection.trials(gpu_tier(), "ml-100k", "dti"))
    of_bahe = Counter(trial.family for trial in bahe.trials(gpu_tier(), "ml-100k", "dti"))
    of_ids = Counter(trial.model for trial in baselines.trials(gpu_tier(), "ml-100k", "dti"))
    assert set(llm) == {"sw", "dti-minus", "dti", "dti-tuned"} and set(of_bahe) == {
        "bahe",
        "llm-ctr",
        "dti-bahe",
    }
    (number,) = {*llm.values(), *of_ids.values()}
    (fewer,) = set(of_bahe.values())
    assert f"SW, DTI- and DTI in either recipe have {WORDS[number]} trials each" in text
    assert f"BAHE, LLM-CTR and DTI over BAHE have {WORDS[fewer]} learning rates each" in text
    assert f"at k = {selection.SELECTION_K}" in text
