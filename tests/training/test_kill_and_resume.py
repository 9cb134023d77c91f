"""A real process is killed at many moments; the same run taken up again ends with the very same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("forked_runs.py")
PROJECT_ROOT = DRIVER.parents[2]
KILL, INTERRUPT = int(getattr(signal, "SIGKILL", 9)), int(signal.SIGINT)
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

ROW, OTHER_ROW = "dti-5", "sw"
# 6 steps in each of 2 epochs, a checkpoint after each step, one batch per evaluation and one of the test.
KILLS = {
    "third step": ["load", 3],
    "first evaluation": ["load", 7],
    "second epoch's first step": ["load", 8],
    "test": ["load", 15],
    "after the last checkpoint of an epoch": ["saved", 6],
    "between best and state": ["saved", 7],
    "while a checkpoint is replaced": ["rename", 4],
    "while the best is replaced": ["rename", 7],
    "before the record": ["record", 1],
    "after the record": ["recorded", 1],
}
INTERRUPTS = {
    "in the optimiser": ["optimizer", 9],
    "in an evaluation": ["load", 7],
    "in the test": ["load", 15],
}


def run_plans(plans: dict, folder: Path) -> dict:
    variables = {"REPRO_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, str(DRIVER), str(folder)],
        input=json.dumps(plans),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=PROJECT_ROOT,
        env={**os.environ, **variables, "PYTHONPATH": str(PROJECT_ROOT)},
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout) | {"stderr": answer.stderr}


def numbers(result: dict) -> dict:
    """What of a run must not depend on how often it was interrupted."""
    record = result["record"]
    times = {"train_s"}
    return {
        "run_id": record["run_id"],
        "status": record["status"],
        "metrics": record["metrics"],
        "data": record["data"],
        "validation": [{k: v for k, v in entry.items() if k not in times} for entry in record["validation"]],
        "best": (record["time"]["best_epoch"], record["time"]["epochs"]),
        "scores": result["scores"],
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    plans: dict = {"whole": {"row": ROW}, "other whole": {"row": OTHER_ROW}}
    plans |= {f"kill: {name}": {"row": ROW, "kills": [[*at, KILL]]} for name, at in KILLS.items()}
    plans |= {f"ctrl-c: {name}": {"row": ROW, "kills": [[*at, INTERRUPT]]} for name, at in INTERRUPTS.items()}
    again = ["load", 3, KILL]
    plans["killed again and again"] = {"row": ROW, "kills": [again, again, again, again]}
    plans["other"] = {"row": OTHER_ROW, "kills": [["load", 5, KILL], ["optimizer", 3, INTERRUPT]]}
    return run_plans(plans, tmp_path_factory.mktemp("runs"))


def test_a_whole_run_is_what_it_is_compared_with(results) -> None:
    record = results["whole"]["record"]
    assert results["whole"]["exits"] == [[0]]
    assert record["status"] == "ok"
    assert record["data"]["train_targets"] == 48
    assert len(results["whole"]["scores"]) == 24
    assert len(set(results["whole"]["scores"])) > 12
    assert numbers(results["other whole"])["scores"] != results["whole"]["scores"]


@pytest.mark.parametrize("name", KILLS)
def test_killed_once(results, name) -> None:
    result = results[f"kill: {name}"]
    assert result["exits"] == [[-KILL], [0]], results["stderr"]
    assert numbers(result) == numbers(results["whole"])
    recorded = name == "after the record"
    assert ("record.json" in result["files"][0]) == recorded, "a killed run has no record"


@pytest.mark.parametrize("name", INTERRUPTS)
def test_interrupted_once(results, name) -> None:
    result = results[f"ctrl-c: {name}"]
    assert result["exits"] == [[130], [0]], results["stderr"]
    assert "state.pt" in result["files"][0]
    assert "record.json" not in result["files"][0]
    assert numbers(result) == numbers(results["whole"])


def test_killed_again_and_again(results) -> None:
    """Each attempt takes two steps further and dies in the third."""
    result = results["killed again and again"]
    assert result["exits"] == [[-KILL]] * 4 + [[0]], results["stderr"]
    assert numbers(result) == numbers(results["whole"])


def test_a_sliding_window_run_too(results) -> None:
    result = results["other"]
    assert result["exits"] == [[-KILL], [130], [0]], results["stderr"]
    assert numbers(result) == numbers(results["other whole"])


def test_a_finished_run_leaves_records_only(results) -> None:
    for name, result in results.items():
        if name in ("stderr", "kill: after the record"):
            continue
        assert result["files"][-1] == ["record.json", "scores.parquet", "synthetic-rella-test.parquet"], name


def test_times_of_a_resumed_run_are_sums(results) -> None:
    for name, result in results.items():
        if name != "stderr":
            time = result["record"]["time"]
            assert 0 < time["train_to_best_s"] <= time["train_s"], name
            assert time["data_s"] > 0, name
            assert time["eval_s"] > 0, name


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path) -> None:
    """Same batches, so same numbers but for rounding.

    7 batches of 7 targets: the last step has a batch for one process only. Micro-batches are so small that
    the two processes have different numbers of them.
    """
    if not _gloo():
        pytest.skip("this build of torch has no gloo")
    sizes = {"max_tokens": 150, "text_multiple": 1, "sum_multiple": 1}  # no padding, which depends on the cut
    two, one = {"batch_targets": 7}, {"batch_targets": 14}
    plans = {
        "one": {"row": ROW, "settings": one, "sizes": sizes},
        "two": {"row": ROW, "settings": two, "sizes": sizes, "processes": 2},
    }
    results = run_plans(plans, tmp_path)
    assert results["two"]["exits"] == [[0, 0]], results["stderr"]
    first, second = results["one"]["record"], results["two"]["record"]
    assert second["device"]["count"] == 2
    # Every micro-batch has an instruction of its own, so the number of tokens depends a little on the cut.
    assert second["data"]["tokens_raw"] == pytest.approx(first["data"]["tokens_raw"], rel=0.03)
    assert second["data"]["train_targets"] == first["data"]["train_targets"] == 48
    assert results["two"]["scores"] == pytest.approx(results["one"]["scores"], abs=1e-5)
    assert second["metrics"]["log_loss"] == pytest.approx(first["metrics"]["log_loss"], abs=1e-5)
    for entry, other in zip(second["validation"], first["validation"], strict=True):
        assert entry["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
        assert entry["log_loss"] == pytest.approx(other["log_loss"], abs=1e-5)


def _gloo() -> bool:
    import torch.distributed

    return torch.distributed.is_available() and torch.distributed.is_gloo_available()
