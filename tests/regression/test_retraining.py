"""Planted damage in what trains and tests: each makes the retrained run fail, an undamaged one passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_gate import TIER, planted_runs

from repro.backbones.tokenizer import answer_ids, tiny_tokenizer
from repro.data import TRAIN
from repro.methods import numerics
from repro.prompts import packing
from repro.regression import references, retraining
from repro.regression.findings import Verdict
from repro.regression.references import read_reference
from repro.regression.retraining import retrain, stale_reason
from repro.training.loop import Trainer

KIND = "0" * 64  # of a processor
MATCH = {"planted, AUC": Verdict.MATCH, "planted, log loss": Verdict.MATCH}


def verdicts(world, runs=planted_runs) -> dict[str, Verdict]:
    """By metric; data is prepared anew, since some damage is in its preparation."""
    reference = read_reference(world.gate.references, "planted")
    found = retrain("planted", reference, runs, replace(world.workshop, _data={}))
    return {each.metric: each.verdict for each in found}


def damage_packed(monkeypatch, damage) -> None:
    """`damage(batch)` changes every packed batch before it is padded, whoever packs it."""
    pad_batch = packing.pad_batch
    monkeypatch.setattr(packing, "pad_batch", lambda batch, *sizes: pad_batch(damage(batch), *sizes))


def sees_its_answer(batch):
    """Every [SUM] also sees the token after its target's text, if that is the answer."""
    num_text, hi = len(batch.tokens), batch.hi.copy()
    after = np.minimum(hi[num_text:], num_text - 1)
    hi[num_text:] += np.isin(batch.tokens[after], answer_ids(tiny_tokenizer()))
    return replace(batch, hi=hi)


def labels_shifted(batch):
    return replace(batch, label=np.roll(batch.label, 1))


def test_an_undamaged_run_matches_and_leaves_nothing_behind(world) -> None:
    before = sorted(world.gate.results.rglob("*"))
    store = world.workshop.store.runs
    assert verdicts(world) == MATCH
    assert sorted(world.gate.results.rglob("*")) == before
    assert not (store / TIER.name).exists()


@pytest.mark.parametrize("damage", [sees_its_answer, labels_shifted])
def test_damaged_training_prompts_end_worse(world, monkeypatch, damage) -> None:
    damage_packed(monkeypatch, damage)
    assert verdicts(world)["planted, AUC"] is Verdict.WORSE


def test_an_evaluation_on_the_training_split_is_too_good(world, monkeypatch) -> None:
    monkeypatch.setattr("repro.pipeline.TEST", TRAIN)  # targets, scores and record agree with each other
    found = verdicts(world)
    assert found["planted, AUC"] is Verdict.TOO_GOOD
    assert found["planted, record"] is Verdict.DIFFERS  # another number of targets


def test_scores_of_other_targets_than_recorded_differ(world, monkeypatch) -> None:
    """The training split scored in place of the test split, as many targets: only its metrics betray it."""
    reference = read_reference(world.gate.references, "planted")
    subset = replace(TIER.subset, train_targets=reference["test_targets"])
    runs = [replace(run, tier=replace(TIER, subset=subset)) for run in planted_runs(1)]
    reference["config"] = retraining.settings(runs[0])
    scores = Trainer.scores

    def of_train(self, batches):
        return scores(self, self.task.train if batches is self.task.test else batches)

    monkeypatch.setattr(Trainer, "scores", of_train)
    found = retrain("planted", reference, lambda seeds: runs, world.workshop)
    assert found[-1].verdict is Verdict.DIFFERS and "metrics.auc" in found[-1].note


def moved_a_little(world) -> dict:
    reference = read_reference(world.gate.references, "planted")
    reference["runs"][0]["auc"] += 0.0005
    reference["environment"]["processor"] = KIND
    return reference


def test_a_small_move_fails_on_the_same_kind_of_machine(world, monkeypatch) -> None:
    """There, any move is the program's."""
    monkeypatch.setattr(references, "processor_fingerprint", lambda: KIND)
    found = retrain("planted", moved_a_little(world), planted_runs, world.workshop)
    assert [each.verdict for each in found] == [Verdict.MOVED, Verdict.MATCH]
    assert not found[0].passes and "raise the numerics" in found[0].note


@pytest.mark.parametrize("elsewhere", ["another", "unknown", "versions", "device", "not told"])
def test_a_small_move_is_seed_noise_elsewhere(world, monkeypatch, elsewhere) -> None:
    monkeypatch.setattr(references, "processor_fingerprint", lambda: KIND)
    reference = moved_a_little(world)
    if elsewhere == "another":
        reference["environment"]["processor"] = "f" * 64
    elif elsewhere == "unknown":  # a list of before processors were written down
        reference["environment"].pop("processor")
    elif elsewhere == "versions":
        reference["environment"]["numpy"] = "1.0"
    elif elsewhere == "device":
        reference["device"] = "another, 2 cores"
    else:  # two systems that do not tell their processor are not known to be of one kind
        monkeypatch.setattr(references, "processor_fingerprint", lambda: None)
        reference["environment"]["processor"] = None
    found = retrain("planted", reference, planted_runs, world.workshop)
    assert [each.verdict for each in found] == [Verdict.WITHIN_NOISE, Verdict.MATCH]


def test_another_number_of_threads_makes_the_reference_stale(world, monkeypatch) -> None:
    monkeypatch.setattr(retraining, "train", lambda *arguments: pytest.fail("trained"))
    reference = read_reference(world.gate.references, "planted") | {"threads": 7}
    (found,) = retrain("planted", reference, planted_runs, world.workshop)
    assert found.verdict is Verdict.NOT_RUN and "7 threads" in found.note


def test_raised_numerics_make_the_reference_stale(world, monkeypatch) -> None:
    monkeypatch.setitem(numerics.NUMERICS, "dti", numerics.NUMERICS["dti"] + 1)
    monkeypatch.setattr(retraining, "train", lambda *arguments: pytest.fail("trained"))
    reference = read_reference(world.gate.references, "planted")
    (found,) = retrain("planted", reference, planted_runs, world.workshop)
    assert found.verdict is Verdict.NOT_RUN
    assert "numerics changed" in found.note and "--update" in found.note


def test_changed_settings_make_the_reference_stale(world) -> None:
    reference = read_reference(world.gate.references, "planted")
    training = replace(TIER.training, learning_rate=2e-3)
    changed = replace(planted_runs(1)[0], tier=replace(TIER, training=training))
    assert stale_reason(reference, planted_runs(1)[0]) == ""
    assert stale_reason(reference, changed) == "settings changed (training.learning_rate)"


def test_a_row_without_reference_is_not_run(world) -> None:
    (found,) = retrain("planted", None, planted_runs, world.workshop)
    assert (found.verdict, found.passes) == (Verdict.NOT_RUN, False)


def test_missing_data_is_not_run(world, tmp_path) -> None:
    reference = read_reference(world.gate.references, "planted")
    elsewhere = replace(world.workshop, data_dir=tmp_path / "missing.csv", _data={})
    (found,) = retrain("planted", reference, planted_runs, elsewhere)
    assert found.verdict is Verdict.NOT_RUN and "missing.csv" in found.note
