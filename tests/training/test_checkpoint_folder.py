"""Checkpoints: refused when damaged or of another run, whole or absent when the disk is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_task import toy_task

from repro.errors import CheckpointError, StorageError
from repro.training.checkpoint import (
    BEST_FILE,
    STATE_FILE,
    CheckpointFolder,
    load_snapshot,
    snapshot,
    trained_parameters,
)
from repro.training.loop import Trainer
from repro.training.settings import TrainingSettings

SETTINGS = TrainingSettings(learning_rate=1e-2, max_epochs=3, patience=9, checkpoint_every_s=0.0)


def train(
    folder: Path, run_id: str = "toy", settings: TrainingSettings = SETTINGS, stop_after=None
) -> Trainer:
    """Trains the toy task; `stop_after`: KeyboardInterrupt at this load of a training batch."""
    task = toy_task()
    if stop_after is not None:
        load = task.train.load

        def interrupted(key, device):
            if task.train.loads >= stop_after:
                raise KeyboardInterrupt
            return load(key, device)

        task.train.load = interrupted
    trainer = Trainer(task, settings, 0, CheckpointFolder(folder, run_id), run_id)
    trainer.train()
    return trainer


@pytest.fixture
def interrupted_folder(tmp_path) -> Path:
    """A folder with a checkpoint of the second epoch."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=11)
    assert {path.name for path in tmp_path.iterdir()} == {STATE_FILE, BEST_FILE}
    return tmp_path


def edited(path: Path, change) -> None:
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def test_snapshot_holds_trained_parameters_only_and_comes_back() -> None:
    model = toy_task().model
    kept = snapshot(model)
    assert (
        set(kept)
        == set(trained_parameters(model))
        == {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert not torch.equal(snapshot(model)["out.bias"], kept["out.bias"])  # a copy, not a view
    load_snapshot(model, kept)
    assert all(torch.equal(value, kept[name]) for name, value in snapshot(model).items())


@pytest.mark.parametrize("change", [lambda s: s.pop("out.bias"), lambda s: s.update(x=s["out.bias"])])
def test_a_snapshot_of_another_model_is_refused(change) -> None:
    model = toy_task().model
    values = snapshot(model)
    change(values)
    with pytest.raises(ValueError, match=r"out\.bias|x"):
        load_snapshot(model, values)


def test_no_checkpoint_is_none(tmp_path) -> None:
    assert CheckpointFolder(tmp_path / "none", "run").load(STATE_FILE) is None
    CheckpointFolder(tmp_path / "none", "run").delete()


def test_a_checkpoint_of_another_configuration_is_refused(interrupted_folder) -> None:
    before = (interrupted_folder / STATE_FILE).read_bytes()
    with pytest.raises(CheckpointError) as caught:
        train(interrupted_folder, run_id="other")
    assert caught.value.where == str(interrupted_folder / STATE_FILE)
    assert "toy" in caught.value.found
    assert "delete" in caught.value.fix
    assert (interrupted_folder / STATE_FILE).read_bytes() == before


@pytest.mark.parametrize("name", [STATE_FILE, BEST_FILE])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(interrupted_folder, name, share) -> None:
    path = interrupted_folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError) as caught:
        train(interrupted_folder)
    assert caught.value.where == str(path)


def test_a_file_that_is_something_else_is_refused(interrupted_folder) -> None:
    path = interrupted_folder / STATE_FILE
    for content in (b"not a checkpoint", os.urandom(4096)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            train(interrupted_folder)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(interrupted_folder)


class Code:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


def test_a_checkpoint_cannot_run_code(interrupted_folder, tmp_path) -> None:
    torch.save({"run_id": "toy", "progress": Code(tmp_path / "proof")}, interrupted_folder / STATE_FILE)
    with pytest.raises(CheckpointError):
        train(interrupted_folder)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("progress"),
        lambda s: s["progress"].update(unknown=1),
        lambda s: s["progress"].pop("history") and s["progress"].update(history=3, best_epoch="x"),
        lambda s: s.pop("optimizer"),
        lambda s: s.update(optimizer={}),
        lambda s: s["optimizer"]["param_groups"].pop(),
        lambda s: s["parameters"].pop("out.bias"),
        lambda s: s["parameters"].update({"out.bias": torch.zeros(7)}),
        lambda s: s["random"].pop("cpu"),
    ],
)
def test_a_whole_checkpoint_with_other_content_is_refused(interrupted_folder, change) -> None:
    edited(interrupted_folder / STATE_FILE, change)
    with pytest.raises(CheckpointError) as caught:
        train(interrupted_folder)
    assert caught.value.where == str(interrupted_folder / STATE_FILE)


def test_a_missing_best_epoch_is_an_error_not_the_last_epoch(interrupted_folder) -> None:
    (interrupted_folder / BEST_FILE).unlink()
    with pytest.raises(CheckpointError, match=BEST_FILE):
        train(interrupted_folder)


def test_only_one_state_is_kept_and_delete_removes_everything(interrupted_folder) -> None:
    (interrupted_folder / ".state.pt.partial").write_bytes(b"of a killed process")
    trainer = train(interrupted_folder)
    assert trainer.checkpoints is not None
    trainer.checkpoints.delete()
    assert not interrupted_folder.exists()


class FullDisk:
    """A file that takes `room` bytes and then fails as a full disk does."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *arguments) -> None:
        self.file.close()


@pytest.mark.parametrize("room", [0, 10, 1000, 3000])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch, room) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    folder.save(STATE_FILE, {"value": torch.arange(1000)})
    before = (tmp_path / STATE_FILE).read_bytes()
    assert len(before) > 3000
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: FullDisk(real(path, mode), room))
    with pytest.raises(StorageError) as caught:
        folder.save(STATE_FILE, {"value": torch.zeros(1000)})
    monkeypatch.undo()
    assert caught.value.where == str(tmp_path / STATE_FILE)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    assert (tmp_path / STATE_FILE).read_bytes() == before
    state = folder.load(STATE_FILE)
    assert state is not None
    assert torch.equal(state["value"], torch.arange(1000))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_at_the_last_moment(tmp_path, monkeypatch, call) -> None:
    folder = CheckpointFolder(tmp_path, "run")
    folder.save(STATE_FILE, {"value": 1})

    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(StorageError, match="error"):
        folder.save(STATE_FILE, {"value": 2})
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    assert folder.load(STATE_FILE) == {"value": 1}


def test_a_folder_that_cannot_be_made(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        CheckpointFolder(tmp_path / "file" / "run", "run").save(STATE_FILE, {})


LIMITED = """
import resource, sys
import torch
from pathlib import Path
from repro.errors import StorageError
from repro.training.checkpoint import STATE_FILE, CheckpointFolder

folder = CheckpointFolder(Path(sys.argv[1]), "run")
folder.save(STATE_FILE, {"value": torch.arange(1000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    folder.save(STATE_FILE, {"value": torch.zeros(100_000), "more": torch.zeros(100_000)})
except StorageError as error:
    print("StorageError:", error.where)
assert torch.equal(folder.load(STATE_FILE)["value"], torch.arange(1000))
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_a_real_limit_on_the_size_of_files(tmp_path) -> None:
    """A write that the operating system itself refuses, in a process of its own: torch must not abort it."""
    answer = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [f"StorageError: {tmp_path / STATE_FILE}", "done"]
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_training_stops_with_the_last_good_checkpoint_when_the_disk_fills_up(tmp_path, monkeypatch) -> None:
    whole = train(tmp_path / "whole")
    replaced, real = [], Path.replace

    def full_after_nine(path, target):
        replaced.append(target)
        if len(replaced) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", full_after_nine)
    with pytest.raises(StorageError, match="free space"):
        train(tmp_path / "run")
    monkeypatch.setattr(Path, "replace", real)
    again = train(tmp_path / "run")
    assert again.progress.history != []
    for entry, expected in zip(again.progress.history, whole.progress.history, strict=True):
        assert replace_time(entry) == replace_time(expected)


def replace_time(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if name != "train_s"}


def test_checkpoints_come_as_often_as_set(tmp_path, monkeypatch) -> None:
    saved: list[str] = []
    real = CheckpointFolder.save
    monkeypatch.setattr(
        CheckpointFolder, "save", lambda self, name, state: (saved.append(name), real(self, name, state))
    )
    train(tmp_path / "a")
    assert saved.count(STATE_FILE) == 21 + 3  # after each step, and after each evaluation
    saved.clear()
    train(tmp_path / "b", settings=replace(SETTINGS, checkpoint_every_s=1e6))
    assert saved.count(STATE_FILE) == 3
