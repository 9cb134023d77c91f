"""Which runs make up Table 1: names, order, groups, ids."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from repro.data import default_protocol
from repro.errors import ConfigError
from repro.experiments.run_config import RunConfig
from repro.experiments.selected import SELECTED
from repro.experiments.table1 import DEFAULT, GROUPS, HEADLINE, KS, ROWS, row_names, table1_runs
from repro.experiments.tiers import TIERS, tier_named
from repro.methods.numerics import NUMERICS
from repro.records.run_id import run_id
from repro.records.schema import Config, validate

PAPER_ROWS = {"sw"} | {f"{name}-{k}" for name in ("dti-minus", "dti") for k in (5, 10, 20, 30, 40, 50)}


def runs_of(tier: str, rows: str | None = None, seeds: int = 1) -> list[RunConfig]:
    dataset = tier_named(tier).datasets[0]
    return table1_runs(tier_named(tier), dataset, default_protocol(dataset), rows, seeds)


def test_all_13_rows_of_the_paper_by_default_headline_first() -> None:
    names = row_names(None)
    assert len(PAPER_ROWS) == 13
    assert set(names) >= PAPER_ROWS
    assert set(names) - PAPER_ROWS <= {"zero-shot", "dti-tuned-50"}, "our own: a reference and our recipe"
    assert tuple(names[: len(HEADLINE)]) == HEADLINE
    assert {"sw", "dti-minus-50", "dti-50"} <= set(HEADLINE)
    assert names == list(DEFAULT) == row_names("all")
    assert len(names) == len(set(names))
    assert set(KS) == {5, 10, 20, 30, 40, 50}


def test_selections_of_rows_and_groups() -> None:
    assert row_names("headline") == list(HEADLINE)
    assert row_names("dti-5, sw") == ["dti-5", "sw"]
    assert row_names("sw,headline,sw") == ["sw", *[name for name in HEADLINE if name != "sw"]]
    assert row_names("tuned") == [f"dti-tuned-{k}" for k in sorted(KS, reverse=True)]
    for group, names in GROUPS.items():
        assert set(names) <= set(ROWS), group


@pytest.mark.parametrize("wrong", ["dti-51", "DTI-50", "sw,", "sw,,dti-5", "headlines", "bahe"])
def test_an_unknown_row_is_refused_and_the_known_ones_are_named(wrong) -> None:
    with pytest.raises(ConfigError) as caught:
        row_names(wrong)
    assert "headline" in caught.value.expected
    assert "dti-minus-50" in caught.value.expected


def test_names_say_method_and_k() -> None:
    for name in ROWS:
        config = runs_of("test", name)[0]
        if name in ("sw", "zero-shot"):
            assert (config.method.name, config.method.prompt.k) == (name, 1)
            continue
        family, k = name.rsplit("-", 1)
        assert config.method.name == ("dti" if family == "dti-tuned" else family)
        assert config.method.prompt.k == int(k)
        assert config.recipe == ("tuned" if family == "dti-tuned" else "paper")
        assert (config.method.fixes.position != "rope") == (family == "dti")
        assert (config.method.fixes.reset is not None) == (family == "dti")


def test_rows_of_a_table_differ_in_their_method_and_selected_settings_only() -> None:
    for tier in TIERS:
        runs = runs_of(tier, ",".join(ROWS))
        same = [
            asdict(replace(run.tier, training=replace(run.tier.training, learning_rate=1.0))) for run in runs
        ]
        assert all(first == second for first, second in pairwise(same))
        for run in runs:
            family = {"zero-shot": "sw"}.get(run.method.name, run.method.name)
            family = "dti-tuned" if run.recipe == "tuned" else family
            chosen = SELECTED[tier][family]
            assert run.tier.training.learning_rate == chosen.learning_rate
            if run.method.fixes.position != "rope":
                assert run.method.fixes.alibi_slope == chosen.alibi_slope
            assert run.method.prompt.n == run.tier.n


def test_seeds_of_a_row_come_together_and_zero_shot_has_one() -> None:
    runs = runs_of("test", "headline", seeds=3)
    assert [(run.method.name, run.seed) for run in runs] == [
        ("zero-shot", 0),
        *[("sw", seed) for seed in range(3)],
        *[("dti-minus", seed) for seed in range(3)],
        *[("dti", seed) for seed in range(3)],
    ]


def test_every_run_has_an_id_of_its_own() -> None:
    ids = [
        run_id(run.resolved(), device)
        for tier in TIERS
        for run in runs_of(tier, ",".join(ROWS), seeds=2)
        for device in ("one", "two")
    ]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("tier", TIERS)
def test_every_row_resolves_to_what_a_record_needs(tier) -> None:
    for run in runs_of(tier, ",".join(ROWS)):
        resolved = run.resolved()
        assert json.loads(json.dumps(resolved, allow_nan=False)) is not None
        validate(Config, json.loads(json.dumps(resolved)), "config")
        assert resolved["numerics"]["method"] == NUMERICS[run.method.name]
        assert (resolved["training"] is None) == (run.method.name == "zero-shot")
        assert (resolved["tuning"] is None) == (run.method.name == "zero-shot")
        assert resolved["tier"] == tier
        assert "checkpoint_every_s" not in (resolved["training"] or {}), "it moves no number"


def test_whatever_moves_numbers_moves_the_id() -> None:
    run = runs_of("test", "dti-5")[0]
    tier = run.tier
    others = [
        replace(run, seed=1),
        replace(run, dataset="synthetic"),
        replace(run, protocol="per-user"),
        replace(run, recipe="tuned"),
        replace(run, method=replace(run.method, prompt=replace(run.method.prompt, k=6))),
        replace(run, method=replace(run.method, fixes=replace(run.method.fixes, alibi_slope=0.5))),
        replace(run, method=replace(run.method, prompt=replace(run.method.prompt, n=5))),
        replace(run, tier=replace(tier, loss="answers")),
        replace(run, tier=replace(tier, min_context=6)),
        replace(run, tier=replace(tier, subset=replace(tier.subset, train_targets=95))),
        replace(run, tier=replace(tier, subset=replace(tier.subset, test_targets=None))),
        replace(run, tier=replace(tier, backbone=replace(tier.backbone, layers=1))),
        replace(run, tier=replace(tier, training=replace(tier.training, learning_rate=1e-5))),
        replace(run, tier=replace(tier, training=replace(tier.training, clip_norm=2.0))),
        replace(run, tier=replace(tier, training=replace(tier.training, precision="bf16"))),
    ]
    unchanged = run_id(run.resolved(), "device")
    for other in others:
        assert run_id(other.resolved(), "device") != unchanged, other
    often = replace(run, tier=replace(tier, training=replace(tier.training, checkpoint_every_s=7.0)))
    assert run_id(often.resolved(), "device") == unchanged


def test_a_wrong_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match="recipe"):
        replace(runs_of("test", "sw")[0], recipe="best")
