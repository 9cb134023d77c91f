"""Every documented command: in this process where that shows the same, else as a process of its own."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from baselines.rates import Rates
from repro import cli, leakage, paths
from repro.commands import output
from repro.experiments.leakage import LeakageRun, leakage_runs
from repro.experiments.tiers import TIERS
from repro.methods.sum_model import SumModel
from repro.pipeline import Workshop
from repro.records import publish as publish_module
from repro.records.environment import device_name
from repro.records.measurements import read_measurement
from repro.training.checkpoint import CheckpointFolder

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def own_folders(tmp_path, monkeypatch) -> Path:
    """Runs, reports and cache below tmp_path; committed results too, which are empty."""
    for name in ("runs", "reports", "cache"):
        monkeypatch.setenv(f"REPRO_{name.upper()}_DIR", str(tmp_path / name))
    shutil.copytree(ROOT / "reports" / "reference", tmp_path / "reports" / "reference")
    monkeypatch.setattr(paths, "results_dir", lambda: tmp_path / "results")
    return tmp_path


@pytest.fixture
def command(own_folders, monkeypatch, capsys):
    """Runs `python -m repro ARGUMENTS` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        errors = io.StringIO()
        monkeypatch.setattr(cli, "error_console", Console(file=errors, highlight=False))
        monkeypatch.setattr(sys, "argv", ["repro", *arguments])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        captured = capsys.readouterr()
        return code, captured.out, captured.err + errors.getvalue()

    return run


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


TABLE1 = ("table1", "--tier", "test", "--dataset", "synthetic")


def test_table1_trains_renders_and_does_not_train_again(command, own_folders, monkeypatch) -> None:
    code, out, err = command(*TABLE1, "--rows", "headline")
    assert code == 0, err
    assert "table1.md" in out
    page = (own_folders / "reports" / "table1.md").read_text()
    assert "synthetic" in page
    records = sorted((own_folders / "runs" / "test" / "synthetic").glob("*/record.json"))
    assert [path.parent.name.rsplit("-", 2)[0] for path in records] == [
        *("constant", "dti-k50-n4", "dti-minus-k50-n4", "item-rate", "rates-4-n4", "rates"),
        *("sw-k1-n4", "user-rate", "zero-shot-k1-n4"),
    ]
    times = [path.stat().st_mtime_ns for path in records]
    for model in (SumModel, Rates):
        monkeypatch.setattr(model, "forward", lambda *arguments: pytest.fail("trained again"))
    assert command(*TABLE1, "--rows", "headline")[0] == 0
    assert [path.stat().st_mtime_ns for path in records] == times
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (own_folders / "reports" / "table1.md").read_text() == page


def test_the_page_is_rendered_after_each_row(command, monkeypatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(Workshop, "run", lambda self, config: done.append(config.method.name))
    monkeypatch.setattr(output, "render", lambda *pages: done.append(f"render {' '.join(pages)}"))
    assert command("figure2", *TABLE1[1:], "--rows", "sw,dti-5", "--seeds", "2")[0] == 0
    page = "render table1 figure2"
    floor = ("rates", "rates-4", "constant", "user-rate", "item-rate")
    methods = (*floor, "sw", "sw", "dti", "dti")
    assert done == [step for method in methods for step in (method, page)]


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


def test_figure2_uses_the_runs_of_table1(command, own_folders, monkeypatch) -> None:
    assert command(*TABLE1, "--rows", "dti-50")[0] == 0
    monkeypatch.setattr(SumModel, "forward", lambda *arguments: pytest.fail("trained again"))
    code, out, err = command("figure2", *TABLE1[1:], "--rows", "dti-50")
    assert code == 0, err
    assert "figure2.md" in out
    assert (own_folders / "reports" / "figure2.md").exists()


def test_table2_and_report(command, own_folders) -> None:
    code, out, err = command("table2", "--dataset", "synthetic")
    assert code == 0, err
    assert "synthetic-rella.json" in out
    assert (own_folders / "reports" / "table2.md").exists()
    assert command("report")[0] == 0
    assert {"table1.md", "table2.md", "figure2.md", "README.md"} <= files_below(own_folders / "reports")


def test_bahe_efficiency_measures_and_renders(command, own_folders) -> None:
    chosen = ("--tier", "test", "--lengths", "64", "--behaviour-tokens", "8")
    code, out, err = command("bahe-efficiency", *chosen)
    assert code == 0, err
    assert "bahe, 64 tokens" in out and "llm_ctr, 64 tokens" in out
    assert len(list((own_folders / "runs" / "bahe").glob("efficiency-test-tiny-llama-*.json"))) == 1
    page = (own_folders / "reports" / "bahe_efficiency.md").read_text(encoding="utf-8")
    assert "tiny-llama shape" in page and "behaviours of 8 tokens" in page


def test_report_check_names_a_page_that_was_edited(command, own_folders) -> None:
    """Pages are compared with what the committed records alone give."""
    assert command("report")[0] == 0
    assert command("report", "--check")[0] == 0
    page = own_folders / "reports" / "table1.md"
    page.write_text(page.read_text() + "edited\n")
    code, _, err = command("report", "--check")
    assert code == 1
    assert "table1.md" in err


@pytest.mark.parametrize("kind", ["sw", "streaming"])
def test_show_prompt(command, kind) -> None:
    code, out, err = command("show-prompt", "--tier", "test", "--dataset", "synthetic", "--kind", kind)
    assert code == 0, err
    assert "SUM" in out


WRONG = {
    "tier": (("table1", "--tier", "huge"), tuple(TIERS)),
    "data set": ((*TABLE1[:3], "--dataset", "netflix"), ("ml-100k", "--dataset")),
    "data set of table 2": (("table2", "--dataset", "netflix"), ("ml-100k", "--dataset")),
    "row": ((*TABLE1, "--rows", "dti-51"), ("dti-50", "headline")),
    "protocol": ((*TABLE1, "--protocol", "random"), ("dti, rella, per-user",)),
    "no seeds": ((*TABLE1, "--seeds", "0"), ("at least 1",)),
    "negative seeds": ((*TABLE1, "--seeds", "-3"), ("at least 1",)),
    "no seeds of the baselines": (("baselines", *TABLE1[1:], "--seeds", "0"), ("at least 1",)),
    "ablation": (("bahe-ablation", *TABLE1[1:], "--rows", "cut-1-6"), ("no-cache", "mean-pooling")),
    "open question": (("bahe-open", *TABLE1[1:], "--rows", "no-cache"), ("cuts", "leakage")),
    "a tier of the leakage": (
        ("bahe-open", "--rows", "leakage", "--tier", "gpu"),
        ("--tier", "of their own"),
    ),
    "no seeds of the leakage": (("bahe-open", "--rows", "leakage", "--seeds", "0"), ("at least 1",)),
    "no folder": (("table1", "--tier", "test", "--dataset", "ml-1m"), ("ml-1m", "--data-dir")),
    "empty folder": (
        ("table1", "--tier", "test", "--dataset", "ml-1m", "--data-dir", "EMPTY"),
        ("ratings.dat",),
    ),
    "kind": (("show-prompt", "--tier", "test", "--kind", "both"), ("sw or streaming",)),
    "k": (("show-prompt", "--tier", "test", "--dataset", "synthetic", "--k", "0"), ("k", "1")),
    "n": (("show-prompt", "--tier", "test", "--dataset", "synthetic", "--n", "-1"), ("n",)),
    "selection": (("select", "--tier", "huge"), tuple(TIERS)),
    "figure": (("figure2", "--tier", "huge"), tuple(TIERS)),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_message_and_leaves_nothing(command, own_folders, name) -> None:
    arguments, said = WRONG[name]
    (own_folders / "EMPTY").mkdir()
    before = files_below(own_folders)
    arguments = tuple(str(own_folders / "EMPTY") if part == "EMPTY" else part for part in arguments)
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert "expected: " in err
    assert "to fix: " in err
    assert "Traceback" not in err
    for word in said:
        assert word in err.split("error: ")[1]
    assert files_below(own_folders) == before


@pytest.fixture
def own_table(own_folders) -> Path:
    """A CSV with 12 users of 20 interactions each."""
    path = own_folders / "own.csv"
    lines = ["user,item,text,label,timestamp"]
    for user in range(12):
        for step in range(20):
            item = (user * 7 + step * 3) % 23
            lines.append(f"u{user},i{item},Item {item},{(user + step) % 2},{step}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_own_data(command, own_table, own_folders) -> None:
    arguments = (*TABLE1[:3], "--dataset", "table", "--data-dir", str(own_table), "--rows", "zero-shot")
    text = own_table.read_text()
    own_table.write_text(text.replace("label", "rating", 1))
    code, _, err = command(*arguments)
    assert code == 2
    assert "label" in err
    own_table.write_text(text)
    code, _, err = command(*arguments)
    assert code == 0, err
    assert list((own_folders / "runs" / "test" / "table").glob("zero-shot-*/record.json"))


def test_other_data_is_another_run(command, own_table, own_folders) -> None:
    arguments = (*TABLE1[:3], "--dataset", "table", "--data-dir", str(own_table), "--rows", "zero-shot")
    assert command(*arguments)[0] == 0
    own_table.write_text(own_table.read_text().replace("Item 7", "Item seven"))
    assert command(*arguments)[0] == 0
    assert len(list((own_folders / "runs" / "test" / "table").glob("zero-shot-*/record.json"))) == 2


def test_publish_is_refused_on_a_dirty_tree_before_training(command, own_folders, monkeypatch) -> None:
    state = {"sha": "0" * 40, "dirty": True}
    monkeypatch.setattr(publish_module, "git_state", lambda repository: state)
    code, _, err = command(*TABLE1, "--rows", "zero-shot", "--publish")
    assert code == 2
    assert "uncommitted changes" in err
    assert not (own_folders / "results").exists()
    assert not (own_folders / "runs").exists(), "refused before anything is trained"
    state["dirty"] = False
    assert command(*TABLE1, "--rows", "zero-shot", "--publish")[0] == 0
    published = files_below(own_folders / "results")
    assert {Path(name).name for name in published} == {
        *("record.json", "scores.parquet", "synthetic-rella-test.parquet")
    }


def test_a_full_disk_while_a_checkpoint_is_saved(command, own_folders, monkeypatch) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    code, _, err = command(*TABLE1, "--rows", "sw")
    assert code == 2
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert not list((own_folders / "runs").rglob("*.partial"))
    assert not list((own_folders / "runs").rglob("sw-*/record.json"))


def start(own_folders: Path, *arguments: str, code: str = "") -> subprocess.Popen:
    """A real `python -m repro`; `code` runs first."""
    program = f"{code}\nfrom repro.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


CTRL_C_IN_THE_FIFTH_STEP = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner may have started us with it ignored
from repro.methods.sum_batches import SumBatches
load, calls = SumBatches.load, []
def wrapped(self, chosen, device):
    calls.append(None)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGINT)
    return load(self, chosen, device)
SumBatches.load = wrapped
"""


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_the_same_command_goes_on(own_folders, command) -> None:
    stopped = start(own_folders, *TABLE1, "--rows", "sw", code=CTRL_C_IN_THE_FIFTH_STEP)
    out, err = stopped.communicate(timeout=120)
    assert stopped.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "interrupted" in err
    runs = own_folders / "runs"
    assert not list(runs.rglob("sw-*/record.json"))
    (state,) = runs.rglob("state.pt")
    saved = CheckpointFolder(state.parent, state.parent.name).load("state.pt")
    assert saved is not None
    assert saved["progress"]["step"] == 5

    code, out, err = command(*TABLE1, "--rows", "sw")
    assert code == 0, err
    assert "going on from step 5 of 12" in err
    assert "table1.md" in out
    lines = err.splitlines()
    assert len(lines) == 4, "resumed, two epochs, the test: one line each"
    assert all(line.startswith("sw-k1-n4-seed0-") for line in lines), "the floor is not run again"
    assert all(character.isprintable() for line in lines for character in line)
    assert not list(runs.rglob("*.pt"))


def test_ctrl_c_without_a_run_is_130_too(command, monkeypatch) -> None:
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "render", interrupted)
    assert command("report")[0] == 130


def test_help_names_every_command(command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for name in ("table1", "table2", "figure2", "report", "show-prompt", "select", "bench-attention"):
        assert name in out


def test_the_request_is_checked_before_torch_is_imported(own_folders) -> None:
    """A typing error is answered at once."""
    check = "import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))"
    process = start(own_folders, *TABLE1, "--rows", "dti-51", code=check)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("error: ")
    assert out == "False\n"


def test_variants_and_fp8_are_measured_one_by_one(command) -> None:
    code, _, err = command("timing", "--tier", "test", "--variants", "--fp8", "tensorwise")
    assert code == 2 and "one of the two" in err
