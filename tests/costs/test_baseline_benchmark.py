"""Our part of the speed comparison, in a process of its own; `nox -s oracles` tests the libraries' parts."""

from __future__ import annotations

import pytest

from repro.costs import baseline_benchmark
from repro.costs.baseline_programs import Setup
from repro.costs.programs import ProgramFailedError
from repro.errors import ConfigError

SMALL = Setup("ml-100k", "dti", None, targets=300, threads=1, n=5, batch_targets=100)


@pytest.mark.slow
def test_our_program_measures_itself():
    row = baseline_benchmark._row("ours", SMALL, 0, whole_epoch=False)
    assert row["targets"] == 300
    assert row["targets_per_s"] == pytest.approx(300 / row["train_s"])
    assert 0 < row["loaded_gib"] <= row["peak_gib"]


def test_a_missing_library_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline_benchmark, "PEER_OF", {"nothing": "no-such-library"})
    with pytest.raises(ConfigError, match="no-such-library"):
        baseline_benchmark.run_benchmark(None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_program_that_fails_says_why():
    with pytest.raises(ProgramFailedError, match="KeyError"):
        baseline_benchmark._run_alone("unknown", SMALL)
