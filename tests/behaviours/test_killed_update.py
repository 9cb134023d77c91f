"""A process that is killed in the middle of an update: the table opens at its last version, whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from growing_table import FINGERPRINT, WIDTH, rows

from repro.behaviours.lance_table import LanceTable
from repro.paths import PROJECT_ROOT

pytest.importorskip("lance")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here"),
]
BEFORE, ADDED = 10, 40_000  # rows
FIRST_VERSION = 2  # of a table that was made and filled once
BYTES = ADDED * WIDTH * 4
LIMIT_S = 60


def largest(folder: Path, pattern: str) -> int:
    """Size of the largest file that matches, -1 if there is none."""
    sizes = [-1]
    for path in folder.glob(pattern):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # renamed in the meantime
            continue
    return max(sizes)


def files(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(f"table.lance/{pattern}")))


# Name -> whether the moment has come, given the table's folder.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "data begun": lambda f: largest(f, "table.lance/data/.tmp*") >= 0,
    "data half written": lambda f: largest(f, "table.lance/data/.tmp*") > BYTES // 2,
    "data whole, no version": lambda f: files(f, "data/*.lance") > files(f, "_versions/*.manifest") - 1,
    "version begun": lambda f: files(f, "_transactions/*") > 2,
    "vectors half exported": lambda f: largest(f, "vectors.f32") > BYTES // 2,
}


def start(folder: Path, count: int) -> subprocess.Popen:
    driver = Path(__file__).with_name("growing_table.py")
    command = [sys.executable, str(driver), str(folder), str(count)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline().strip(), "it has opened the table"
    return process


def stop_in(process: subprocess.Popen, moment: Callable[[], bool]) -> None:
    """Stop the process in a moment of any of its updates: seen, stopped, and still so."""
    end = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < end:
        if moment():
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            if moment():
                return
            process.send_signal(signal.SIGCONT)
    process.kill()
    pytest.fail("the moment never came")


def kill(process: subprocess.Popen) -> list[int]:
    """Kill it; the versions that it had reported since the start."""
    process.send_signal(signal.SIGKILL)
    reported, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGKILL
    return [int(line) for line in reported.split()]


def check_whole(folder: Path) -> LanceTable:
    """Every row there, as it was written, and the table can grow."""
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    texts, vectors = rows(0, len(table))
    assert np.array_equal(table.rows(texts), np.arange(len(table)))
    assert np.array_equal(table.vectors().numpy(), vectors)
    with table.exclusive():
        table.add(*rows(len(table), 5))
    assert np.array_equal(table.vectors().numpy(), rows(0, len(table))[1])
    left = [path.name for path in (folder / "table.lance" / "data").iterdir()]
    assert len(left) == len(table._dataset.get_fragments()), "nothing is left of the killed update"
    return table


def new_table(folder: Path) -> Path:
    LanceTable(folder, FINGERPRINT, WIDTH).add(*rows(0, BEFORE))
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_moment_it_opens_at_the_last_version(tmp_path, moment) -> None:
    folder = new_table(tmp_path / "table")
    process = start(folder, ADDED)
    stop_in(process, lambda: MOMENTS[moment](folder))
    last = max(kill(process), default=FIRST_VERSION)
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    assert len(table) == BEFORE + ADDED * (table.version - FIRST_VERSION)
    if moment.startswith("data"):
        assert table.version == last, "the update that was killed left no version"
    else:
        assert table.version in (last, last + 1), "made, and perhaps not reported yet"
    check_whole(folder)


@pytest.mark.parametrize("delay_s", [0.02, 0.1, 0.3, 0.5, 0.8])
def test_killed_at_any_time_nothing_reported_is_lost(tmp_path, delay_s) -> None:
    """Small updates, one after the other: most of the time goes into making versions."""
    folder = new_table(tmp_path / "table")
    process = start(folder, 20)
    time.sleep(delay_s)
    reported = kill(process)
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    last = max(reported, default=FIRST_VERSION)
    assert table.version in (last, last + 1)
    assert len(table) == BEFORE + 20 * (table.version - FIRST_VERSION)
    check_whole(folder)


def test_a_table_killed_while_it_was_made_is_made_again(tmp_path) -> None:
    (tmp_path / "table" / "table.lance" / "_transactions").mkdir(parents=True)
    (tmp_path / "table" / "table.lance" / "_transactions" / "0-a.txn").write_bytes(b"x")
    check_whole(new_table(tmp_path / "table"))
