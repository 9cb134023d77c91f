"""The whole gate: an untouched world passes, one number changed anywhere does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from planted_gate import planted_runs

from repro import cli
from repro.errors import ConfigError, RecordError
from repro.experiments.regression import ROWS, SEEDS, regression_gate
from repro.records.columns import scores_bytes
from repro.records.store import RunStore
from repro.regression import gate as gate_module
from repro.regression.findings import Finding, Verdict
from repro.regression.gate import Gate, difference
from repro.regression.references import MIN_RUNS, PROMPTS, read_reference


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


@pytest.mark.parametrize("name", [PROMPTS, "planted"])
def test_a_missing_reference_is_not_run(world, name) -> None:
    (world.gate.references / f"{name}.json").unlink()
    findings = world.findings()
    assert failing(findings) == {name}
    assert findings[name].verdict is Verdict.NOT_RUN and "--update" in findings[name].note


def test_update_brings_a_damaged_reference_back_and_says_what_changed(world) -> None:
    path = world.gate.references / "planted.json"
    before = path.read_bytes()
    content = json.loads(before)
    for run in content["runs"]:
        run["auc"] -= 0.1
    path.write_text(json.dumps(content))
    lines = "\n".join(world.gate.update(world.workshop))
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

    monkeypatch.setattr(cli, "require_clean_tree", dirty)
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
    assert set(gate.rows) == set(ROWS) >= {"sw", "dti", "din", "sasrec"}
    for configs in [*gate.rows.values(), planted_runs]:
        assert [config.seed for config in configs(SEEDS)] == list(range(SEEDS))
        assert {(config.dataset, config.protocol) for config in gate.rows["sw"](1)} == {("ml-100k", "dti")}


def exit_code(monkeypatch, *arguments: str) -> int:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("sys.argv", ["repro", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code or 0
