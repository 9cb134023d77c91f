"""`build-table` under `accelerate launch`: two processes share the work, and the table is that of one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from repro.behaviours.build import partition_of
from repro.cli import app
from repro.costs import filling_benchmark
from repro.costs.filling_benchmark import fill_by_command, filling_rows
from repro.costs.programs import ProgramFailedError
from repro.experiments.tiers import test_tier as tier_of_tests
from repro.methods.bahe.filled_table import fillings_of
from repro.records.environment import environment
from repro.records.measurements import read_measurement, write_measurement

lance = pytest.importorskip("lance")
ARGUMENTS = ("test", "synthetic")


def written(tables: Path) -> list[dict[str, np.ndarray]]:
    """Vectors by text, of every part that was written at once."""
    (folder,) = tables.iterdir()
    parts = []
    for fragment in lance.dataset(str(folder / "table.lance")).get_fragments():
        rows = fragment.to_table(columns=["text", "vector"])
        vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
        parts.append(dict(zip(rows["text"].to_pylist(), vectors, strict=True)))
    return parts


@pytest.mark.slow
@pytest.mark.usefixtures("on_the_processor")
def test_two_processes_fill_by_command_what_one_fills(tmp_path) -> None:
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    shared.mkdir()
    filling = fill_by_command(shared, 2, *ARGUMENTS)
    tier, dataset = ARGUMENTS
    given = ("build-table", "--tier", tier, "--dataset", dataset, "--tables", str(alone))
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0 and str(alone) in done.output, done.output
    (folder,) = alone.iterdir()
    (own,) = fillings_of(folder)
    assert (filling["processes"], own["processes"]) == (2, 1)
    assert filling["behaviours"] == own["behaviours"] and filling["device"] == own["device"]
    parts = written(shared)
    writers = [{partition_of(text, 2) for text in part} for part in parts]
    assert sorted(map(tuple, writers)) == [(0,), (1,)], "each wrote its own behaviours, and nothing else"
    assert sum(map(len, parts)) == filling["behaviours"], "none of them twice"
    together, expected = {**parts[0], **parts[1]}, {k: v for part in written(alone) for k, v in part.items()}
    assert together.keys() == expected.keys()
    assert all(np.array_equal(together[text], vector) for text, vector in expected.items()), "bit by bit"


@pytest.mark.parametrize("ended", ["with an error", "never"])
def test_a_filling_that_fails_says_why(tmp_path, monkeypatch, ended) -> None:
    def run(command, timeout, **settings):
        if ended == "never":
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 2, stdout="error: the disk is full")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ProgramFailedError, match=r"ended with 2:\nerror: the disk|more than 3,600 s"):
        fill_by_command(tmp_path, 1, *ARGUMENTS)


def test_rows_hold_what_the_fillings_say(monkeypatch, tmp_path, own_cache) -> None:
    asked = []

    def planted(tables: Path, processes: int, *names: str) -> dict:
        assert tables.is_dir() and tables.parent == own_cache and names == ("test", "ml-100k")
        asked.append(processes)
        return {"behaviours": number, "seconds": 8.0 / processes, "processes": processes}

    monkeypatch.setattr(filling_benchmark, "fill_by_command", planted)
    monkeypatch.setattr(filling_benchmark, "num_cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(filling_benchmark, "behaviours_of", lambda *_: Planted())
    number = len(Planted())
    rows = list(filling_rows(tier_of_tests(), 2))
    assert asked == [1, 2, 1, 2] and [row["repeat"] for row in rows] == [0, 0, 1, 1]
    assert [row["behaviours_per_s"] for row in rows[:2]] == [number / 8, number / 4]
    assert {row["threads"] for row in rows} == {1} and {row["num_layers"] for row in rows} == {2}
    path = write_measurement(tmp_path, "behaviour_table", "test", environment(), rows)
    assert read_measurement(path).rows == rows
    monkeypatch.setattr(filling_benchmark, "num_cores", lambda: 1)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert [row["processes"] for row in filling_rows(tier_of_tests(), 1)] == [1]


class Planted:
    """Behaviours of which only the number counts."""

    tokens = np.zeros(70, dtype=np.int32)

    def __len__(self) -> int:
        return 10


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("REPRO_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def on_the_processor(monkeypatch) -> None:
    """Nothing runs on a GPU, where there is one: vectors of the CPU are equal bit by bit."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
