"""Planted damage in BAHE's family: retrained rows fail, on their own kind of machine or on any."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planted_behaviours import (
    first_token,
    mean_of_tokens,
    one_layer_fewer,
    other_m,
    own_answer,
    own_answer_in_training,
    wired_otherwise,
)
from planted_gate import ROWS

from repro.regression import references
from repro.regression.findings import Verdict
from repro.regression.references import read_reference
from repro.regression.retraining import retrain, train

HERE, ELSEWHERE = "0" * 64, "f" * 64  # processors; the lists are made to be of `HERE`
OVER_BEHAVIOURS = ("planted-bahe", "planted-dti-bahe")


def verdicts(world, monkeypatch, name: str, processor: str) -> list[Verdict]:
    """Of AUC and log loss."""
    reference = read_reference(world.gate.references, name)
    reference["environment"]["processor"] = HERE
    monkeypatch.setattr(references, "processor_fingerprint", lambda: processor)
    return [each.verdict for each in retrain(name, reference, ROWS[name], world.workshop)]


@pytest.mark.parametrize("name", OVER_BEHAVIOURS)
def test_an_undamaged_run_matches(world, monkeypatch, name) -> None:
    assert verdicts(world, monkeypatch, name, HERE) == [Verdict.MATCH, Verdict.MATCH]


@pytest.mark.parametrize("name", OVER_BEHAVIOURS)
@pytest.mark.parametrize(
    ("damage", "verdict"),
    [
        (first_token, Verdict.WORSE),
        (own_answer, Verdict.TOO_GOOD),
        (own_answer_in_training, Verdict.WORSE),
    ],
)
def test_wrong_pooling_and_a_leaked_answer_fail_on_any_machine(
    world, monkeypatch, name, damage, verdict
) -> None:
    damage(monkeypatch)
    assert verdicts(world, monkeypatch, name, ELSEWHERE)[0] is verdict


@pytest.mark.parametrize("damage", [mean_of_tokens, one_layer_fewer, other_m, wired_otherwise])
def test_what_moves_auc_a_little_fails_on_the_lists_own_kind_of_machine(world, monkeypatch, damage) -> None:
    """Elsewhere the look before training sees another pooling or m, but not a run's own wiring."""
    damage(monkeypatch)
    assert verdicts(world, monkeypatch, "planted-bahe", HERE) == [Verdict.MOVED, Verdict.MOVED]


def test_a_table_on_disk_is_neither_read_nor_written(world, tmp_path) -> None:
    """One there may hold the vectors of an older program, whose fingerprint is that of today's."""
    workshop = replace(world.workshop, tables=tmp_path / "tables")
    assert train(ROWS["planted-bahe"](1)[0], workshop)["status"] == "ok"
    assert not (tmp_path / "tables").exists()
