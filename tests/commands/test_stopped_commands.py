"""Commands that are stopped: by Ctrl-C, by a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_cases import TABLE1, start

from repro.commands import output
from repro.training.checkpoint import CheckpointFolder


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
    *floor, _, _, _, _ = lines = err.splitlines()
    assert len(floor) == 5 and all(line.endswith(": finished already") for line in floor)
    lines = lines[len(floor) :]
    assert len(lines) == 4, "resumed, two epochs, the test: one line each"
    assert all(line.startswith("sw-k1-n4-seed0-") for line in lines)
    assert all(character.isprintable() for line in lines for character in line)
    assert not list(runs.rglob("*.pt"))


def test_ctrl_c_without_a_run_is_130_too(command, monkeypatch) -> None:
    def interrupted(*pages, own):
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "render", interrupted)
    code, _, err = command("report")
    assert code == 130 and "interrupted" in err
