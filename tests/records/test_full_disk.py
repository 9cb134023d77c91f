"""A disk that fills up, a process that dies: a run is there whole, or as before."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from repro.errors import StorageError
from repro.records import atomic
from repro.records.measurements import write_measurement

SYSTEM_CALLS = ("open", "write", "fsync", "replace", "rename")


class FailingDisk:
    """Counts calls that touch the disk and lets the n-th one fail."""

    def __init__(self, monkeypatch, fail_at=None, error=errno.ENOSPC):
        self.calls, self.fail_at, self.error = 0, fail_at, error
        for name in SYSTEM_CALLS:
            monkeypatch.setattr(atomic.os, name, self._wrap(getattr(os, name)))

    def _wrap(self, function):
        def wrapped(*arguments, **keywords):
            self.calls += 1
            if self.calls == self.fail_at:
                raise OSError(self.error, os.strerror(self.error))
            return function(*arguments, **keywords)

        return wrapped


def calls_of(action):
    """How many disk calls an action makes."""
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch)
        action()
    return disk.calls


def temporary_files(folder):
    return [path for path in Path(folder).rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_a_failure_at_any_point_leaves_a_new_run_whole_or_absent(
    tmp_path, store, record, scores, error, targets
):
    def fresh_store(name):
        fresh = type(store)(tmp_path / name, tmp_path / name / "targets")
        fresh.save_targets("ml-100k", "dti", "test", *targets)
        return fresh

    whole = fresh_store("whole")
    num_calls = calls_of(lambda: whole.save(record, scores))
    assert num_calls >= 8
    left = set()
    for fail_at in range(1, num_calls + 1):
        broken = fresh_store(f"broken-{fail_at}")
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, fail_at, error)
            with pytest.raises(StorageError, match="nothing half-written") as caught:
                broken.save(record, scores)
        assert os.strerror(error) in str(caught.value)
        assert temporary_files(broken.runs) == []
        runs = broken.list()
        left.add(len(runs))
        if runs:  # the name was in place, only its durability was not confirmed
            assert np.array_equal(runs[0].scores(), scores)
        assert np.array_equal(broken.save(record, scores).scores(), scores)
    assert left == {0, 1}


def test_a_failure_at_any_point_leaves_an_interrupted_run_readable(store, record, interrupted, scores):
    store.save(interrupted)
    folder = store.folder("test", "ml-100k", record["run_id"])
    before = (folder / "record.json").read_bytes()
    num_calls = calls_of(lambda: store.save(record, scores))
    for fail_at in range(1, num_calls + 1):
        (folder / "scores.parquet").unlink(missing_ok=True)
        (folder / "record.json").write_bytes(before)
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, fail_at)
            with pytest.raises(StorageError):
                store.save(record, scores)
        assert temporary_files(folder) == []
        (run,) = store.list()
        assert run.record in (interrupted, record)
        if run.status == "ok":
            assert np.array_equal(run.scores(), scores)


def test_a_failure_while_writing_targets_or_measurements_leaves_what_was_there(tmp_path, store, targets):
    def save_targets():
        store.save_targets("ml-1m", "rella", "test", *targets)

    for fail_at in (1, 2, 3, 4):
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, fail_at)
            with pytest.raises(StorageError):
                save_targets()
        assert temporary_files(store.targets_folder) == []
        assert not store.targets_path("ml-1m", "rella", "test").exists()
    environment = {"python": "3.11", "torch": None, "transformers": None}
    path = write_measurement(tmp_path, "flops", "sweep", environment, [])
    before = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        FailingDisk(patch, 2)
        with pytest.raises(StorageError):
            write_measurement(tmp_path, "flops", "sweep", environment | {"numpy": "2.0"}, [])
    assert path.read_bytes() == before
    assert temporary_files(path.parent) == []


def test_short_writes_are_completed(monkeypatch, tmp_path):
    real_write = os.write
    monkeypatch.setattr(atomic.os, "write", lambda handle, data: real_write(handle, data[:3]))
    atomic.write_file(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


SAVE = """
import json, resource, signal, sys
import numpy as np
from pathlib import Path
from repro.errors import StorageError
from repro.records.store import RunStore
root, limit = Path(sys.argv[1]), int(sys.argv[2])
record = json.loads(sys.stdin.read())
store = RunStore(root, root / "targets")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    store.save(record, np.linspace(0, 1, 50, dtype=np.float32))
except StorageError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_real_size_limit_leaves_nothing(store, record):
    for limit, code in ((1, 3), (300, 3), (900, 3), (1 << 20, 0)):  # nothing, half a file, one of two, all
        done = subprocess.run(
            [sys.executable, "-c", SAVE, str(store.runs), str(limit)],
            input=json.dumps(record),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert temporary_files(store.runs) == []
        assert len(store.list()) == (code == 0)
        assert code == 0 or "File too large" in done.stdout


KILLED = """
import os, sys
from repro.records import atomic
real, calls = os.fsync, 0
def fsync(handle):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    real(handle)
atomic.os.fsync = fsync
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_process_leaves_no_run_and_its_leftovers_go(store, record, scores):
    done = subprocess.run(
        [sys.executable, "-c", KILLED + SAVE, str(store.runs), str(1 << 20), "2"],
        input=json.dumps(record),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert store.list() == []
    (leftover,) = [path for path in temporary_files(store.runs) if path.is_dir()]
    long_ago = time.time() - 2 * atomic.LEFTOVER_AGE_S
    os.utime(leftover, (long_ago, long_ago))
    store.save(record, scores)
    assert len(store.list()) == 1
    assert temporary_files(store.runs) == []


def test_a_file_in_the_way_is_a_storage_error(store, record, scores):
    (store.runs / "test").write_text("not a folder")
    with pytest.raises(StorageError, match=record["run_id"]):
        store.save(record, scores)
    assert (store.runs / "test").read_text() == "not a folder"
