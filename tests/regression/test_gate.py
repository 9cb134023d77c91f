"""The whole gate: an untouched world passes, one number changed anywhere does not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from planted_behaviours import mean_of_tokens
from planted_gate import ROWS as PLANTED
from planted_gate import planted_runs

from repro import cli
from repro.errors import ConfigError, RecordError
from repro.evaluation.metrics import evaluate_scores
from repro.experiments.regression import ROWS, SEEDS, regression_gate
from repro.records.columns import scores_bytes
from repro.records.store import RunStore
from repro.regression import gate as gate_module
from repro.regression.findings import Finding, Verdict
from repro.regression.gate import Gate, difference
from repro.regression.references import (
    BEHAVIOURS,
    MIN_RUNS,
    PROMPTS,
    SCORES,
    processor_fingerprint,
    read_reference,
)
from repro.regression.score_list import METRIC, check_score_list, score_checksums
from repro.reporting.scores import run_digest


def failing(findings) -> set[str]:
    return {name for name, each in findings.items() if not each.passes}


def test_an_untouched_world_passes(world) -> None:
    findings = world.findings()
    assert failing(findings) == set()
    assert {each.verdict for each in findings.values()} == {Verdict.MATCH}
    assert {"planted, AUC", "planted, log loss", "pages against records"} <= set(findings)


def test_one_changed_score_fails(world) -> None:
    run = RunStore(world.gate.results / "runs", world.gate.results / "targets").list()[0]
    score = run.scores().copy()
    score[np.argmax(score)] = 0.0
    (run.path / "scores.parquet").write_bytes(scores_bytes(run.targets().target, score))
    assert "committed records, metrics and counts" in failing(world.findings(rows={}))


@pytest.mark.parametrize("method", ["sw", "rates-4"])
def test_one_score_off_by_a_thousandth_fails(world, method) -> None:
    """The pages print checksums of scores; the list has them in any case, and no metric needs to move."""
    runs = RunStore(world.gate.results / "runs", world.gate.results / "targets").list()
    run = next(run for run in runs if run.record["config"]["method"] == method)
    score = run.scores().copy()
    score[np.argmax(score)] -= 0.001 if score.max() > 0.5 else -0.001  # the largest stays so, or nearly
    (run.path / "scores.parquet").write_bytes(scores_bytes(run.targets().target, score))
    findings = world.findings(rows={})
    assert METRIC in failing(findings)
    assert run.run_id in findings[METRIC].note


def test_pages_alone_betray_a_changed_score(world) -> None:
    """Even where the record's metrics and the list are made to fit it."""
    store = RunStore(world.gate.results / "runs", world.gate.results / "targets")
    run = next(run for run in store.list() if run.record["config"]["method"] == "sw")
    score = run.scores().copy()
    score[np.argmax(score)] += 2e-5  # moves no printed figure
    (run.path / "scores.parquet").write_bytes(scores_bytes(run.targets().target, score))
    metrics = evaluate_scores(run.targets().label, score, run.targets().group)
    (run.path / "record.json").write_text(
        json.dumps(run.record | {"metrics": run.record["metrics"] | metrics})
    )
    path = world.gate.references / "scores.json"
    listed = json.loads(path.read_text()) | {"scores": score_checksums(world.gate.results)}
    path.write_text(json.dumps(listed))
    findings = world.findings(rows={})
    assert failing(findings) == {"pages against records"}
    (again,) = [each for each in store.list() if each.run_id == run.run_id]
    assert run_digest(again) in findings["pages against records"].note


def test_a_run_that_only_the_list_or_only_the_results_have_fails(world) -> None:
    run = RunStore(world.gate.results / "runs", world.gate.results / "targets").list()[0]
    path = world.gate.references / "scores.json"
    listed = json.loads(path.read_text())
    listed["scores"]["gone"] = listed["scores"].pop(run.run_id)
    path.write_text(json.dumps(listed))
    (found,) = check_score_list(world.gate.results)
    assert not found.passes
    assert f"{run.run_id}: not in the list" in found.note and "--update" in found.note
    assert "gone: in the list, but no committed run" in found.note


@pytest.mark.parametrize("git", [{"dirty": True}, {"sha": None, "dirty": None}])
def test_references_of_uncommitted_sources_are_not_run(world, git) -> None:
    for name in (PROMPTS, BEHAVIOURS, SCORES, "planted", "planted-bahe"):
        path = world.gate.references / f"{name}.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"git": content["git"] | git}))
    findings = world.findings()
    for metric in (PROMPTS, BEHAVIOURS, METRIC, "planted", "planted-bahe"):
        assert findings[metric].verdict is Verdict.NOT_RUN and "--update" in findings[metric].note


def test_the_processor_is_told_by_model_and_instruction_sets(tmp_path) -> None:
    told = tmp_path / "cpuinfo"

    def kind(text: str) -> str | None:
        told.write_text(text)
        return processor_fingerprint(told)

    base = "processor\t: 0\nmodel name\t: Some CPU\ncpu MHz\t: 2000\nflags\t: sse avx2\n"
    assert kind(base) == kind(base.replace("2000", "3000") + base.replace("avx2", "avx"))  # the first counts
    assert len({kind(base), kind(base.replace("avx2", "avx2 avx512f")), kind(base.replace("Some", "B"))}) == 3
    assert kind("nothing: of use\n") is None
    assert processor_fingerprint(tmp_path / "missing") is None


def test_one_changed_figure_of_a_page_fails(world) -> None:
    page = world.gate.reports / "table1.md"
    lines = page.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("| SW, k = 1") and "n = 1" in line)
    start = lines[number].index("0.")
    lines[number] = lines[number][:start] + "0.9999" + lines[number][start + 6 :]
    page.write_text("\n".join(lines) + "\n")
    findings = world.findings(rows={})
    assert failing(findings) == {"pages against records"}
    assert "0.9999" in findings["pages against records"].note


@pytest.mark.parametrize("name", [PROMPTS, BEHAVIOURS, "planted", "planted-bahe"])
def test_a_missing_reference_is_not_run(world, name) -> None:
    (world.gate.references / f"{name}.json").unlink()
    findings = world.findings(rows={row: PLANTED[row] for row in PLANTED if row == name})
    assert failing(findings) == {name}
    assert findings[name].verdict is Verdict.NOT_RUN and "--update" in findings[name].note


@pytest.mark.parametrize("name", [PROMPTS, BEHAVIOURS, "planted-dti-bahe"])
@pytest.mark.parametrize("cut", [slice(0, 100), slice(-3, None), slice(0, 0)])
def test_a_damaged_reference_is_not_run_and_named(world, name, cut) -> None:
    path = world.gate.references / f"{name}.json"
    path.write_bytes(path.read_bytes()[cut])
    findings = world.findings(rows={row: PLANTED[row] for row in PLANTED if row == name})
    assert findings[name].verdict is Verdict.NOT_RUN and str(path) in findings[name].note
    assert failing(findings) == {name, "committed measurements and references"}


def test_a_wrong_pooling_fails_where_no_row_is_trained(world, monkeypatch) -> None:
    mean_of_tokens(monkeypatch)
    assert "untrained, vectors, m = 2 of 4, last" in failing(world.findings(rows={}))


def test_update_brings_a_damaged_reference_back_and_says_what_changed(world) -> None:
    path = world.gate.references / "planted.json"
    before = path.read_bytes()
    content = json.loads(before)
    for run in content["runs"]:
        run["auc"] -= 0.1
    path.write_text(json.dumps(content))
    gate = replace(world.gate, rows={"planted": planted_runs})
    lines = "\n".join(gate.update(world.workshop))
    after = json.loads(path.read_bytes())
    assert after["runs"] == [
        run | {"train_s": new["train_s"]}
        for run, new in zip(json.loads(before)["runs"], after["runs"], strict=True)
    ]
    (row,) = [line for line in lines.splitlines() if line.startswith("| planted, AUC")]
    assert "+0.1000" in row
    assert "all match" in lines


def test_a_new_reference_has_no_difference(world) -> None:
    reference = read_reference(world.gate.references, "planted")
    assert "—" in difference("planted", None, reference)


def test_the_command_exits_with_1_on_a_failure(monkeypatch, capfd) -> None:
    found = [Finding("a", Verdict.MATCH)]
    monkeypatch.setattr(Gate, "check", lambda self, workshop: iter(found))
    assert exit_code(monkeypatch, "regression") == 0
    assert "regression: ok" in capfd.readouterr().out
    found.append(Finding("b", Verdict.TOO_GOOD))
    assert exit_code(monkeypatch, "regression") == 1
    assert "FAILED" in capfd.readouterr().out


def test_update_is_refused_on_a_dirty_tree(monkeypatch) -> None:
    def dirty() -> None:
        raise RecordError("tree", "uncommitted changes", "a clean git tree", "commit")

    monkeypatch.setattr("repro.commands.output.require_clean_tree", dirty)
    monkeypatch.setattr(gate_module, "prompt_state", lambda *arguments: pytest.fail("started"))
    assert exit_code(monkeypatch, "regression", "--update") == 2


def test_an_unknown_row_is_a_users_error() -> None:
    with pytest.raises(ConfigError, match="'nothing'"):
        regression_gate("sw,nothing", None)
    assert list(regression_gate("din,sw", None).rows) == ["din", "sw"]
    assert regression_gate("none", None).rows == {}


def test_the_projects_own_rows_have_a_run_for_each_seed() -> None:
    gate = regression_gate(None, None)
    assert gate.seeds == SEEDS >= MIN_RUNS
    assert set(gate.rows) == set(ROWS) >= {"sw", "dti", "bahe", "dti-bahe", "din", "sasrec"}
    for configs in [*gate.rows.values(), planted_runs]:
        assert [config.seed for config in configs(SEEDS)] == list(range(SEEDS))
        assert {(config.dataset, config.protocol) for config in gate.rows["sw"](1)} == {("ml-100k", "dti")}


def exit_code(monkeypatch, *arguments: str) -> int:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("sys.argv", ["repro", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code or 0
