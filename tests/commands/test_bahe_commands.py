"""Commands about BAHE: its rows, and the questions that its paper leaves open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_cases import TABLE1

from repro import leakage
from repro.behaviours.drift import KINDS
from repro.commands import output
from repro.experiments.bahe_variants import ABLATIONS, STALE
from repro.experiments.leakage import LeakageRun, leakage_runs
from repro.pipeline import Workshop
from repro.records.environment import device_name
from repro.records.measurements import read_measurement
from repro.reporting import stale_tables


def test_bahe_trains_its_rows_and_renders_its_page(command, own_folders) -> None:
    place = ("--tier", "test", "--dataset", "synthetic", "--rows", "bahe,dti-bahe-10,din")
    code, out, err = command("bahe", *place, "--seeds", "1")
    assert code == 0, err
    assert "bahe.md" in out
    page = (own_folders / "reports" / "bahe.md").read_text()
    for row in ("Like rates", "DIN", "BAHE", "DTI over BAHE, k = 10"):
        assert f"| {row} " in page
    records = (own_folders / "runs" / "test" / "synthetic").glob("*/record.json")
    names = {path.parent.name.rsplit("-", 2)[0] for path in records}
    assert {"bahe-n4", "dti-bahe-k10-n4", "din-n4", "rates"} <= names
    code, _, err = command("select", "--bahe", "--models", "din", "--tier", "test")
    assert code == 2 and "--models" in err


def trained_below(own_folders: Path, count: int) -> list[dict[str, Any]]:
    """Finished records of BAHE on the synthetic data."""
    paths = (own_folders / "runs" / "test" / "synthetic").glob("bahe-*/record.json")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert len(records) == count and {record["status"] for record in records} == {"ok"}
    return records


@pytest.mark.slow
def test_bahe_ablation_trains_every_row_and_renders_its_page(command, own_folders) -> None:
    code, out, err = command("bahe-ablation", *TABLE1[1:], "--seeds", "1")
    assert code == 0, err
    assert "bahe_ablation.md" in out
    page = (own_folders / "reports" / "bahe_ablation.md").read_text(encoding="utf-8")
    for ablation in ABLATIONS.values():
        (line,) = [
            line for line in page.splitlines() if line.startswith(f"| {ablation.title} ") and "n = 1" in line
        ]
        assert "not run" not in line
    kinds = {
        (found["cached"], found["feature_parallel"], found["lower"], found["pooling"])
        for found in (each["config"]["behaviours"] for each in trained_below(own_folders, len(ABLATIONS)))
    }
    assert len(kinds) == len(ABLATIONS), "each row is another model"


@pytest.mark.slow
def test_bahe_open_trains_tables_that_age_and_renders_their_page(command, own_folders) -> None:
    code, out, err = command("bahe-open", *TABLE1[1:], "--rows", "stale", "--seeds", "1")
    assert code == 0, err
    assert "bahe_open.md" in out
    page = (own_folders / "reports" / "bahe_open.md").read_text(encoding="utf-8")
    for title in stale_tables.TITLES.values():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {title} ") and "n = 1" in line]
        assert "not run" not in line
    records = trained_below(own_folders, 1 + len(STALE))
    encoded = {
        (drift["kind"], drift["refresh_every"]): record["data"]["behaviours_encoded"]
        for record in records
        if (drift := record["config"]["behaviours"]["drift"]) is not None
    }
    assert len(encoded) == len(STALE)
    for kind in KINDS:
        often, never = encoded[kind, 16], encoded[kind, None]
        assert often >= encoded[kind, 160] >= encoded[kind, 800] >= never and often > never


def leakage_row(run: LeakageRun) -> dict[str, Any]:
    counts = dict.fromkeys(("layers", "train_targets", "test_targets", "test_users"), 1)
    names = ("train_loss", "streaming_auc", "streaming_low", "streaming_high", "window_auc")
    return leakage.settings_of(run, device_name()) | counts | dict.fromkeys(names, 0.5)


@pytest.fixture
def measured(monkeypatch) -> list[int]:
    """Seeds of leakage rows, as they are "measured" on this processor."""
    done: list[int] = []

    def measure(workshop: Workshop, run: LeakageRun) -> dict[str, Any]:
        done.append(run.config.seed)
        return leakage_row(run)

    monkeypatch.setattr(Workshop, "device_name", property(lambda self: device_name()))
    monkeypatch.setattr(leakage, "measure_leakage", measure)
    return done


def test_open_questions_are_trained_first_and_leakage_is_measured_last(
    command, monkeypatch, own_folders, measured
) -> None:
    done: list[str] = []
    monkeypatch.setattr(Workshop, "run", lambda self, config: done.append(config.method.name))
    monkeypatch.setattr(
        output, "render", lambda *pages, **options: done.append(f"render, {len(measured)} measured")
    )
    code, out, err = command("bahe-open", *TABLE1[1:], "--rows", "cut-1-6,leakage")
    assert code == 0, err
    trained = [step for step in done if not step.startswith("render")]
    assert trained == ["rates", "rates-4", "constant", "user-rate", "item-rate", "bahe"]
    number = len(leakage_runs(1))
    renders = [f"render, {each} measured" for each in (*range(1, number + 1), number)]
    assert done[-number - 1 :] == renders, "the page is rendered after each row, and in the end"
    (path,) = (own_folders / "runs" / "leakage").glob("streaming-*.json")
    assert str(path) in out and len(read_measurement(path).rows) == number


def test_leakage_rows_that_are_there_are_not_measured_again(command, own_folders, measured) -> None:
    number = len(leakage_runs(1))
    assert command("bahe-open", "--rows", "leakage")[0] == 0
    code, out, err = command("bahe-open", "--rows", "leakage", "--seeds", "2")
    assert code == 0 and f"{number} of {2 * number} rows are there already" in out, err
    assert measured == [0] * number + [1] * number
    shutil.move(own_folders / "runs" / "leakage", own_folders / "results" / "leakage")
    assert command("bahe-open", "--rows", "leakage")[0] == 0
    assert len(measured) == 2 * number, "committed rows count"
    assert not (own_folders / "runs" / "leakage").exists()
    assert "DTI over BAHE, 75 %" in (own_folders / "reports" / "bahe_open.md").read_text()
