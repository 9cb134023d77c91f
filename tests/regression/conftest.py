"""One small gate for all tests of this folder; see `planted_gate`."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from planted_gate import World, gate_in, write_table

from repro.experiments.baselines import baseline_runs
from repro.experiments.table1 import table1_runs
from repro.pipeline import Workshop
from repro.records.store import RunStore
from repro.regression import references, retraining
from repro.reporting import render_all


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests share the cores, and tensors are tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retraining, "THREADS", 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def committed_sources():
    """References are refused where no commit holds the sources that made them, as while one works on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "git_state", lambda: {"sha": "0" * 40, "dirty": False})
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> World:
    """References of five seeds, committed runs and their pages, made once by the gate's own functions."""
    folder = tmp_path_factory.mktemp("gate")
    write_table(folder / "planted.csv")
    gate, workshop = gate_in(folder), Workshop(folder / "planted.csv")
    committed = RunStore(gate.results / "runs", gate.results / "targets")
    runs = table1_runs(gate.probe.tier, "synthetic", "rella", "zero-shot,sw", 1)
    runs += baseline_runs(gate.probe.tier, "synthetic", "rella", "floor", 1)
    for config in runs:
        replace(workshop, store=committed).run(config)
    list(gate.update(workshop))
    render_all(gate.results, None, gate.reports)
    return World(gate, workshop)


@pytest.fixture
def world(made, tmp_path) -> World:
    """A copy to damage; data, tokens and weights are loaded anew where a test damages what makes them."""
    for name in ("results", "reports"):
        shutil.copytree(getattr(made.gate, name), tmp_path / name)
    return World(gate_in(tmp_path), made.workshop)
