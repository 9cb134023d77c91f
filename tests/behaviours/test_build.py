"""A table filled by two real processes: what one process writes, each behaviour encoded once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from behaviour_cases import many, tiny

from repro.behaviours.build import fill_in_parallel, partition_of
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import MemoryTable, look_up, open_table
from repro.paths import PROJECT_ROOT

PROCESSES, CHUNK, LIMIT_S = 2, 40, 120


def launch(folder: Path, victim: int = 0, deadly_call: int = 0) -> int:
    """`accelerate launch` of the script beside; its exit code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # accelerate starts several processes under this flag alone; without a GPU they are processes on the CPU.
    settings = f"--multi_gpu --num_processes {PROCESSES} --num_machines 1 --mixed_precision no"
    command = [sys.executable, "-m", "accelerate.commands.launch", *settings.split()]
    script = Path(__file__).with_name("fill_in_processes.py")
    command += [
        "--main_process_port",
        str(port),
        "--dynamo_backend",
        "no",
        str(script),
        str(folder),
        *map(str, (CHUNK, victim, deadly_call)),
    ]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the processes that it started, too
        raise


def results(folder: Path) -> list[dict]:
    return [json.loads(Path(f"{folder}-{rank}.json").read_text()) for rank in range(PROCESSES)]


@pytest.fixture
def expected():
    """The behaviours, an encoder, and what it gives in this process."""
    backbone = tiny()
    behaviours, encoder = many(backbone), BehaviourEncoder(backbone, 2)
    return behaviours, encoder, encoder.encode(behaviours.tokens_of(np.arange(len(behaviours))))


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path, expected) -> None:
    pytest.importorskip("lance")
    behaviours, encoder, vectors = expected
    folder = tmp_path / "table"
    assert launch(folder) == 0
    first, second = results(folder)
    parts = np.bincount([partition_of(text, 2) for text in behaviours.text])
    assert [sum(each["encoded"]) for each in (first, second)] == parts.tolist()
    rounds = -(-parts.max() // CHUNK)
    assert first["rows"] == second["rows"] == first["missing"] == second["missing"] == len(behaviours)
    assert len(first["encoded"]) == len(second["encoded"]) == rounds
    assert first["version"] == second["version"] == 1 + rounds, "one version a round, not one a process"
    table = open_table(folder, encoder.fingerprint, encoder.width)
    assert np.array_equal(look_up(table, behaviours, np.arange(len(behaviours))), vectors)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
@pytest.mark.parametrize("victim", [0, PROCESSES - 1], ids=["first", "last"])
def test_one_process_killed_leaves_the_last_version_and_the_next_run_goes_on(
    tmp_path, expected, victim
) -> None:
    """The first one commits and holds the lock; the others write only."""
    pytest.importorskip("lance")
    behaviours, encoder, vectors = expected
    folder = tmp_path / "table"
    assert launch(folder, victim, deadly_call=2) != 0
    table = open_table(folder, encoder.fingerprint, encoder.width)
    there = table.rows(behaviours.text) >= 0
    assert 0 < there.sum() == len(table) == PROCESSES * CHUNK
    found = look_up(table, behaviours, np.flatnonzero(there))
    assert np.array_equal(found, vectors[there])
    assert fill_in_parallel(table, behaviours, encoder) == (~there).sum()
    assert np.array_equal(look_up(table, behaviours, np.arange(len(behaviours))), vectors)


def test_alone_or_in_memory_it_is_a_plain_fill(expected) -> None:
    behaviours, encoder, vectors = expected
    table = MemoryTable(encoder.fingerprint, encoder.width)
    assert fill_in_parallel(table, behaviours, encoder) == len(behaviours)
    assert np.array_equal(look_up(table, behaviours, np.arange(len(behaviours))), vectors)


def test_partitions_are_even_and_the_same_everywhere() -> None:
    texts = [f"\nmovie {i}: yes" for i in range(4000)]
    counts = np.bincount([partition_of(text, 4) for text in texts], minlength=4)
    assert counts.min() > 900
    assert [partition_of(text, 1000) for text in texts[:3]] == [960, 875, 510]
