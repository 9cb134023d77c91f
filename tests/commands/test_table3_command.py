"""`table3`: runs that end by the page's rule, and the page of their times."""

from __future__ import annotations

import json
from statistics import mean
from typing import Any

import pytest
from command_cases import files_below
from report_cases import table_rows

from baselines.rates import Rates
from repro.experiments import table3
from repro.methods.sum_model import SumModel
from repro.records.environment import device_name

pytestmark = pytest.mark.usefixtures("on_the_processor")
TABLE3 = ("table3", "--tier", "test", "--dataset", "synthetic")
FLOOR = {"rates", "rates-4-n4", "constant", "user-rate", "item-rate"}


def records(own_folders) -> dict[str, dict[str, Any]]:
    """Own runs' records by their folder, below runs."""
    runs = own_folders / "runs"
    paths = sorted(runs.glob("test/synthetic/*/record.json"))
    return {str(path.parent.relative_to(runs)): json.loads(path.read_text()) for path in paths}


def trained(own_folders) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Records of the runs that are trained, by method and k, as the page names them."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records(own_folders).values():
        config = record["config"]
        if config["method"] in ("sw", "dti"):
            ours = "DTI" if config["fixes"]["reset"] else "DTI, our recipe"
            title = "SW" if config["method"] == "sw" else ours
            found.setdefault((title, str(config["k"])), []).append(record)
    return found


@pytest.fixture
def shorter(monkeypatch) -> str:
    """A rule that ends sooner. What the page says of the real one."""
    said = f"at most {table3.MAX_EPOCHS} epochs, stopped after {table3.PATIENCE} without"
    monkeypatch.setattr(table3, "MAX_EPOCHS", 6)
    monkeypatch.setattr(table3, "PATIENCE", 1)
    return said


def epochs_by_the_rule(auc: list[float]) -> int:
    """After how many epochs of these validation AUCs training ends; a tie but for rounding is a tie."""
    auc = [round(each, 9) for each in auc]
    for epoch in range(len(auc)):
        if epoch - auc.index(max(auc[: epoch + 1])) == table3.PATIENCE:
            return epoch + 1
    return table3.MAX_EPOCHS


def page_rows(own_folders) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of the times of the user's own table by method and k."""
    page = (own_folders / "reports" / "table3.md").read_text(encoding="utf-8")
    heading = f"synthetic, tier test, tiny Llama shape, random weights, full, {device_name()} (yours)"
    times = page.split(f"\n## {heading}\n")[1].split("### Time until convergence")[1].split("\n#")[0]
    return {(row["method"], row["k"]): row for row in table_rows(times)}


@pytest.mark.slow
def test_table3_trains_by_its_rule_renders_times_and_does_not_train_again(
    command, own_folders, monkeypatch, shorter
) -> None:
    code, out, err = command(*TABLE3)
    assert code == 0, err
    assert str(own_folders / "reports" / "table3.md") in out
    runs = trained(own_folders)
    asked = {("SW", "1"), ("DTI", "50"), ("DTI", "30"), ("DTI", "10"), ("DTI, our recipe", "50")}
    assert set(runs) == asked and all(len(each) == 1 for each in runs.values())
    names = {folder.rsplit("/", 1)[1].rsplit("-", 2)[0] for folder in records(own_folders)}
    assert names == FLOOR | {"sw-k1-n4", "dti-k50-n4", "dti-k30-n4", "dti-k10-n4"}
    files = {
        f"{folder}/{name}" for folder in records(own_folders) for name in ("record.json", "scores.parquet")
    }
    assert files_below(own_folders / "runs") == files | {"targets/synthetic-rella-test.parquet"}
    assert not (own_folders / "results").exists()

    shown = page_rows(own_folders)
    assert set(shown) == asked | {("Like rates, the floor", "—")}
    (sw,) = runs["SW", "1"]
    of_sw = [entry["auc"] for entry in sw["validation"]]
    for row, (record,) in runs.items():
        time, auc = record["time"], [entry["auc"] for entry in record["validation"]]
        assert (record["status"], record["config"]["recipe"]) == ("ok", "control")
        assert time["epochs"] == len(auc) == epochs_by_the_rule(auc)
        assert auc[time["best_epoch"]] == pytest.approx(max(auc), abs=1e-9)
        assert 0 < time["train_to_best_s"] <= time["train_s"]
        assert shown[row]["to the best epoch"] == f"{time['train_to_best_s']:.1f} s"
        assert shown[row]["until stopped"] == f"{time['train_s']:.1f} s"
        reduction = sw["time"]["train_to_best_s"] / time["train_to_best_s"]
        assert shown[row]["reduction"] == f"{reduction:.2f} ×"
        assert shown[row]["best of epochs"] == f"{time['best_epoch'] + 1} of {time['epochs']}"
        assert shown[row]["AUC"] == f"{record['metrics']['auc']:.4f}"
        reached = [entry["train_s"] for entry in record["validation"] if entry["auc"] >= max(of_sw) - 1e-9]
        when = f"{reached[0]:.1f} s (1 of 1)" if reached else "never (0 of 1)"
        assert shown[row]["until SW's validation AUC"] == when

    times = {path: path.stat().st_mtime_ns for path in (own_folders / "runs").rglob("*.*")}
    page = (own_folders / "reports" / "table3.md").read_text(encoding="utf-8")
    assert shorter in page
    for model in (SumModel, Rates):
        monkeypatch.setattr(model, "forward", lambda *arguments: pytest.fail("trained again"))
    assert command(*TABLE3)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (own_folders / "runs").rglob("*.*")} == times
    assert (own_folders / "reports" / "table3.md").read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_table3_shows_means_over_seeds_and_not_the_one_epoch_runs(command, own_folders, monkeypatch) -> None:
    monkeypatch.setattr(table3, "MAX_EPOCHS", 1)
    assert command("table1", *TABLE3[1:], "--rows", "dti-10")[0] == 0
    (before,) = trained(own_folders)["DTI", "10"]
    code, _, err = command(*TABLE3, "--rows", "dti-10", "--seeds", "2")
    assert code == 0, err
    runs = [each for each in trained(own_folders)["DTI", "10"] if each["run_id"] != before["run_id"]]
    assert [each["config"]["seed"] for each in runs] == [0, 1]
    row = page_rows(own_folders)["DTI", "10"]
    assert row["runs"] == "2" and row["best of epochs"] == "1 of 1, 1 of 1"
    assert row["AUC"] == f"{mean(each['metrics']['auc'] for each in runs):.4f}"
    assert row["to the best epoch"] == f"{mean(each['time']['train_to_best_s'] for each in runs):.1f} s"
    assert row["reduction"] == "—", "without SW there is nothing to set it beside"
