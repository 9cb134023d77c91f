"""Whatever is changed in committed results by hand is named, and data that is not here is said to be so."""

from __future__ import annotations

import importlib.metadata
import json

import numpy as np
import pytest

from baselines import rates
from repro.data import TEST, TRAIN, groceries, protocols
from repro.records.columns import scores_bytes
from repro.records.store import Run, RunStore
from repro.regression.committed import _measurement_problems, check_committed
from repro.regression.findings import Verdict

METRICS = "committed records, metrics and counts"
DATA = "data of synthetic, protocol rella"
FLOOR = "floor of synthetic, protocol rella"
FILES = "committed measurements and references"


def check(world, data_dir=None):
    found = check_committed(world.gate.results, world.gate.published, data_dir)
    return {each.metric: each for each in found}


def a_run(world) -> Run:
    return RunStore(world.gate.results / "runs", world.gate.results / "targets").list()[0]


def edit_record(run: Run, **sections) -> None:
    for section, values in sections.items():
        run.record[section] |= values
    (run.path / "record.json").write_text(json.dumps(run.record))


def statistics_row(dataset: str) -> dict:
    return {
        **{"dataset": dataset, "title": dataset, "protocol": "rella", "sparsity": 0.9, "sha256": "0" * 64},
        **dict.fromkeys(("users", "items", "samples", "items_pruned"), 5),
        **dict.fromkeys(("train_targets", "validation_targets", "test_targets"), 5),
    }


def add_statistics(world, dataset: str) -> None:
    folder = world.gate.results / "statistics"
    folder.mkdir()
    environment = {"python": "3.11.9", "torch": None, "transformers": None}
    content = {"environment": environment, "rows": [statistics_row(dataset)]}
    (folder / f"{dataset}-rella.json").write_text(json.dumps(content))


def test_untouched_results_match(world) -> None:
    found = check(world)
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(
        (METRICS, DATA, FLOOR, FILES), Verdict.MATCH
    )
    assert (found[METRICS].spread, found[FLOOR].spread) == ("7 files", "5 files")


def test_one_changed_score_is_found_in_the_metrics(world) -> None:
    run = a_run(world)
    target, score = run.targets().target, run.scores().copy()
    score[np.argmax(score)] = 0.0
    (run.path / "scores.parquet").write_bytes(scores_bytes(target, score))
    found = check(world)[METRICS]
    assert found.verdict is Verdict.DIFFERS
    assert str(run.path) in found.note and "metrics.log_loss" in found.note


@pytest.mark.parametrize(("metric", "change"), [("auc", 2e-6), ("log_loss", -2e-6), ("gauc_users", 1)])
def test_a_changed_metric_is_found(world, metric, change) -> None:
    run = a_run(world)
    edit_record(run, metrics={metric: run.record["metrics"][metric] + change})
    found = check(world)[METRICS]
    assert found.verdict is Verdict.DIFFERS and f"metrics.{metric}" in found.note


def test_a_difference_of_rounding_is_none(world) -> None:
    run = a_run(world)
    edit_record(run, metrics={"auc": run.record["metrics"]["auc"] + 1e-7})
    assert check(world)[METRICS].verdict is Verdict.MATCH


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_changed_count_is_found(world, split) -> None:
    edit_record(a_run(world), data={f"{split}_targets": 23})
    found = check(world)[DATA]
    assert found.verdict is Verdict.DIFFERS and f"{split}_targets is 23" in found.note


@pytest.mark.parametrize("change", ["config", "epochs"])
def test_a_trained_run_without_training_targets_is_found(world, change) -> None:
    """Only a language model as it was loaded has none."""
    store = RunStore(world.gate.results / "runs", world.gate.results / "targets")
    untrained, fitted = (
        next(run for run in store.list() if run.record["config"]["method"] == name)
        for name in ("zero-shot", "rates")
    )
    assert untrained.record["data"]["train_targets"] == 0
    if change == "config":  # fitted on its training targets, in no epoch
        assert fitted.record["time"]["epochs"] == 0
        edit_record(fitted, data={"train_targets": 0})
    else:
        edit_record(untrained, time={"epochs": 1})
    found = check(world)[DATA]
    assert found.verdict is Verdict.DIFFERS and "train_targets is 0" in found.note


def own_answer_counted(data, settings):
    """Like rates of an item without leaving the row itself out."""
    rows, item, label = data.targets(TRAIN), data.interactions.item, data.interactions.label
    shown = np.bincount(item[rows], minlength=len(data.items))
    liked = np.bincount(item[rows], weights=label[rows], minlength=len(data.items))
    return liked[item], shown[item]


def answers_of_the_test_counted(data, settings):
    """The same, over test targets as well."""
    rows = np.concatenate([data.targets(TRAIN), data.targets(TEST)])
    item, label = data.interactions.item, data.interactions.label
    shown = np.bincount(item[rows], minlength=len(data.items))
    liked = np.bincount(item[rows], weights=label[rows], minlength=len(data.items))
    own = np.isin(np.arange(len(item)), rows)
    return liked[item] - own * label, shown[item] - own


@pytest.mark.parametrize("leak", [own_answer_counted, answers_of_the_test_counted])
def test_a_leak_into_the_item_rate_is_found(world, monkeypatch, leak) -> None:
    monkeypatch.setattr(rates, "_item", leak)
    found = check(world)
    assert {name for name, each in found.items() if not each.passes} == {FLOOR}
    assert found[FLOOR].note.count("scores differ") == 3  # rates, rates-4, item-rate


def test_one_changed_score_of_the_floor_is_found(world) -> None:
    run = next(
        run
        for run in RunStore(world.gate.results / "runs", world.gate.results / "targets").list()
        if run.record["config"]["method"] == "constant"
    )
    score = run.scores().copy()
    score[5] += 3e-5
    (run.path / "scores.parquet").write_bytes(scores_bytes(run.targets().target, score))
    found = check(world)[FLOOR]
    assert found.verdict is Verdict.DIFFERS and "1 scores differ, target 5" in found.note


def test_a_changed_configuration_has_another_run_id(world) -> None:
    edit_record(a_run(world), config={"n": 99})
    (found,) = check(world).values()
    assert found.verdict is Verdict.DIFFERS and "run_id" in found.note


def test_a_changed_checksum_of_data_is_found(world) -> None:
    edit_record(a_run(world), data={"sha256": "0" * 64})
    found = check(world)
    assert found[METRICS].verdict is Verdict.DIFFERS
    assert found[DATA].verdict is Verdict.DIFFERS


def test_a_changed_protocol_is_found(world, monkeypatch) -> None:
    """A split by other shares: no record knows, but the data prepared again."""
    split = protocols._split
    monkeypatch.setattr(protocols, "_split", lambda *arguments: np.roll(split(*arguments), 100))
    assert check(world)[DATA].verdict in (Verdict.DIFFERS, Verdict.NOT_RUN)


def test_data_that_is_not_here_is_said_to_be_unchecked(world) -> None:
    add_statistics(world, "ml-1m")
    found = check(world)["data of ml-1m, protocol rella"]
    assert found.verdict is Verdict.NOT_CHECKED
    assert "ml-1m is not here" in found.note


def test_data_whose_package_is_not_installed_is_said_to_be_unchecked(world, tmp_path, monkeypatch) -> None:
    """Also where --data-dir names the folder of another data set."""
    add_statistics(world, "groceries")
    distribution = importlib.metadata.distribution

    def without_groceries(name):
        if name == groceries.PACKAGE.name:
            raise importlib.metadata.PackageNotFoundError(name)
        return distribution(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_groceries)
    for data_dir in (None, tmp_path):
        found = check(world, data_dir)["data of groceries, protocol rella"]
        assert found.verdict is Verdict.NOT_CHECKED
        assert groceries.PACKAGE.install in found.note


def test_a_named_folder_without_the_data_fails(world, tmp_path) -> None:
    add_statistics(world, "ml-1m")
    found = check(world, tmp_path)["data of ml-1m, protocol rella"]
    assert found.verdict is Verdict.NOT_RUN and not found.passes


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("flops/a.json", '{"environment": {}, "rows": []}'),
        ("references/planted.json", "{}"),
        ("references/planted.json", "{"),
        ("references/unknown.txt", ""),
        ("guesses/a.json", "{}"),
    ],
)
def test_a_file_that_its_schema_refuses_is_named(world, path, content) -> None:
    target = world.gate.results / path
    target.parent.mkdir(exist_ok=True)
    target.write_text(content)
    (found,) = [each for each in check(world).values() if not each.passes]
    assert found.verdict is Verdict.DIFFERS
    assert path.split("/")[0] in found.note


def test_trials_of_bahe_are_no_measurements_and_measurements_are_read(tmp_path) -> None:
    (tmp_path / "selection" / "bahe").mkdir(parents=True)
    (tmp_path / "selection" / "bahe" / "gpu-ml-100k.json").write_text('{"rows": [], "settings": {}}')
    assert _measurement_problems(tmp_path) == (1, [])
    (tmp_path / "bahe").mkdir()
    (tmp_path / "bahe" / "efficiency.json").write_text('{"rows": [], "settings": {}}')
    number, problems = _measurement_problems(tmp_path)
    assert number == 2 and len(problems) == 1 and "efficiency.json" in problems[0]
