"""The search on validation: the same budget for every family, and what was written down is its result."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from repro import paths
from repro.experiments.selected import SELECTED
from repro.experiments.selection import trials
from repro.experiments.table1 import ROWS
from repro.experiments.tiers import TIERS, tier_named

FILES = sorted((paths.results_dir() / "selection").glob("*.json"))


def test_every_family_gets_the_same_number_of_trials_and_no_trial_twice() -> None:
    found = list(trials(tier_named("test"), "ml-100k", "dti"))
    counts = Counter(trial.family for trial in found)
    assert set(counts) == {row.family for row in ROWS.values()}
    assert len(set(counts.values())) == 1, counts
    settings = [(trial.family, trial.learning_rate, trial.alibi_slope) for trial in found]
    assert len(set(settings)) == len(settings)
    for trial in found:
        assert trial.config.tier.training.learning_rate == trial.learning_rate
        assert trial.config.seed == 0
        if trial.alibi_slope is not None:
            assert trial.config.method.fixes.alibi_slope == trial.alibi_slope


def test_trials_train_on_what_the_tier_trains_on_and_read_next_to_no_test_target() -> None:
    for name in TIERS:
        tier = tier_named(name)
        for trial in trials(tier, tier.datasets[0], "dti"):
            assert trial.config.tier.subset.train_targets == tier.subset.train_targets
            assert trial.config.tier.subset.test_targets == 1
            assert trial.config.tier.backbone == tier.backbone


def test_every_tier_has_a_choice_for_every_family() -> None:
    assert set(SELECTED) == set(TIERS)
    for chosen in SELECTED.values():
        assert set(chosen) == {row.family for row in ROWS.values()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_selected_is_what_the_trials_say(path) -> None:
    """Best validation AUC of each family, over exactly the trials that are declared."""
    rows = json.loads(path.read_text())["rows"]
    tier_name, dataset = path.stem.split("-", 1)
    declared = trials(tier_named(tier_name), dataset, "dti")
    expected = {(t.family, t.learning_rate, t.alibi_slope) for t in declared}
    assert {(r["family"], r["learning_rate"], r["alibi_slope"]) for r in rows} == expected
    assert len(rows) == len(expected)
    for family, chosen in SELECTED[tier_name].items():
        best = max(
            (row for row in rows if row["family"] == family and row["validation_auc"] is not None),
            key=lambda row: row["validation_auc"],
        )
        assert chosen.learning_rate == best["learning_rate"], family
        if best["alibi_slope"] is not None:
            assert chosen.alibi_slope == best["alibi_slope"], family
