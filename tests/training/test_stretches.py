"""Stretches of steps between two looks at the losses: about a second each, and equal on all processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from repro.training.stretches import STRETCH_S, StretchLength


@pytest.fixture
def length() -> StretchLength:
    return StretchLength(SimpleNamespace(num_processes=1))  # type: ignore[arg-type]


def test_it_doubles_until_a_stretch_takes_its_time(length) -> None:
    step_s, lengths = STRETCH_S / 20.5, []
    for _ in range(7):
        lengths.append(length.steps)
        length.adapt(length.steps * step_s)
    assert lengths == [1, 2, 4, 8, 16, 20, 20]


def test_slow_steps_are_looked_at_one_by_one(length) -> None:
    length.steps = 20
    length.adapt(20 * 3 * STRETCH_S)
    assert length.steps == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_divergence_ends_every_process() -> None:
    """None waits in the next step for another that has read of the divergence first."""
    driver = Path(__file__).with_name("diverging_processes.py")
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(driver.parents[2])}
    done = subprocess.run(
        [sys.executable, str(driver)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 0], done.stderr
