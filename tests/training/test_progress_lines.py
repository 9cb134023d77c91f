"""A bar with speeds and ETA on a terminal; one plain line per event elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from repro.training import progress as progress_module
from repro.training.progress import RunProgress


@pytest.fixture
def fake_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now[0])
    return now


def test_without_a_terminal_one_line_per_event_and_nothing_else(capsys, fake_time) -> None:
    progress = RunProgress("sw-seed0", 100)
    with progress:
        progress.resume(10)
        for _ in range(20):
            fake_time[0] += 1.0
            progress.step(0.5, 8, 1000)
        progress.event("epoch 1 of 2: " + "a long line " * 30)
        progress.event("done")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("sw-seed0: ") for line in lines)
    assert captured.err.isascii()
    assert all(character.isprintable() for line in lines for character in line)


def test_other_processes_say_nothing(capsys) -> None:
    progress = RunProgress("sw", 10, quiet=True)
    with progress:
        progress.step(0.5, 8, 100)
        progress.event("done")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_loss_speeds_and_time_left(fake_time) -> None:
    progress = RunProgress("sw", 100)
    screen = io.StringIO()
    progress.console = Console(file=screen, force_terminal=True, width=200)
    with progress:
        progress.resume(40)
        for _ in range(30):  # 0.1 s, 8 targets and 1,000 tokens each
            fake_time[0] += 0.1
            progress.step(0.25, 8, 1000)
        assert progress._bar is not None
        task = progress._bar.tasks[0]
        assert (task.completed, task.total) == (70, 100)
        assert task.fields["state"].startswith("loss 0.2500 ")
        tokens, _, targets, _ = task.fields["state"].removeprefix("loss 0.2500 ").split()
        assert float(tokens.replace(",", "")) == pytest.approx(10_000, rel=0.01)
        assert float(targets) == pytest.approx(80, rel=0.01)
        progress._bar.refresh()
    text = screen.getvalue()
    for part in ("sw", "70/100", "loss 0.2500", "tokens/s", "targets/s", "0:00:"):
        assert part in text
