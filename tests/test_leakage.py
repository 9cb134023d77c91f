"""The leakage measurement on small data: what reach allows, what the two formats show, and its file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repro.experiments.leakage import DISTANCES, LAYER_CUTS, K, LeakageRun, N, leakage_runs
from repro.leakage import is_measured, leakage_file, measure_leakage, settings_of
from repro.pipeline import Workshop
from repro.records.measurements import read_measurement
from repro.records.store import RunStore

MEASURED = dict.fromkeys(("layers", "train_targets", "test_targets", "test_users"), 1) | dict.fromkeys(
    ("train_loss", "streaming_auc", "streaming_low", "streaming_high", "window_auc"), 0.5
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    root = tmp_path_factory.mktemp("leakage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_CACHE_DIR", str(root / "cache"))
        yield Workshop(store=RunStore(root / "runs", root / "runs" / "targets"))


def run_of(method: str, distance: int, layer_cut: float | None, num_interactions: int) -> LeakageRun:
    """A declared run on less data, in smaller steps."""
    for run in leakage_runs(1, num_interactions):
        cut = getattr(run.config.method, "layer_cut", None)
        if (run.config.method.name, run.planted.distance, cut) == (method, distance, layer_cut):
            tier = run.config.tier
            training = replace(tier.training, batch_targets=64)
            config = replace(run.config, tier=replace(tier, training=training))
            return replace(run, config=config, planted=replace(run.planted, per_user=30))
    raise AssertionError("no such run is declared")


def test_two_upper_layers_leak_what_one_cannot(workshop, tmp_path) -> None:
    """The label lies one interaction beyond the window: in reach of two layers, out of reach of one."""
    control, leaking, tight = (
        measure_leakage(workshop, run_of("dti-bahe", distance, cut, 25_000))
        for distance, cut in ((N, 0.75), (N + 1, 0.5), (N + 1, 0.75))
    )
    assert control["streaming_auc"] > 0.85 and control["window_auc"] > 0.85, "the label is in the window"
    assert leaking["layers"] == 2 and leaking["streaming_low"] > 0.7
    assert abs(leaking["window_auc"] - 0.5) < 0.05, "alone, a target has nothing to read beyond its window"
    assert tight["layers"] == 1 and tight["streaming_low"] < 0.5 < tight["streaming_high"]
    # One layer reads the window alone: the two formats are the same computation.
    assert tight["streaming_auc"] == pytest.approx(tight["window_auc"], abs=1e-3)
    file = leakage_file(tmp_path, workshop.device_name, leakage_runs(1))
    file.put([control, leaking])
    file.put([tight])
    again = leakage_file(tmp_path, workshop.device_name, leakage_runs(3))
    assert again.rows == [control, leaking, tight] == read_measurement(file.finish()).rows
    known = [run for run in leakage_runs(3) if is_measured(run, workshop.device_name, again.rows)]
    places = [(run.config.method.layer_cut, run.planted.distance, run.config.seed) for run in known]
    assert places == [(0.5, N + 1, 0), (0.75, N, 0), (0.75, N + 1, 0)]


def test_a_file_is_of_one_device_and_of_declared_settings(tmp_path) -> None:
    runs = leakage_runs(1)
    old = replace(runs[0], planted=replace(runs[0].planted, distance=30))
    rows = [settings_of(run, "Some CPU, 2 cores") | MEASURED for run in (old, *runs)]
    written = leakage_file(tmp_path, "Some CPU, 2 cores", [old, *runs])
    written.put(rows)
    assert written.path == tmp_path / "leakage" / "streaming-some-cpu-2-cores.json"
    assert leakage_file(tmp_path, "Another GPU", runs).rows == []
    assert leakage_file(tmp_path, "Some CPU, 2 cores", runs).rows == rows[1:]
    assert leakage_file(tmp_path, "Some CPU, 2 cores", runs[1:]).rows == rows[2:]


def test_dti_is_measured_on_the_same_data(workshop) -> None:
    found = measure_leakage(workshop, run_of("dti", N + 1, None, 3_000))
    over_bahe = measure_leakage(workshop, run_of("dti-bahe", N + 1, 0.5, 3_000))
    assert found["layer_cut"] is None and (found["layers"], over_bahe["layers"]) == (4, 2)
    same = ("n", "k", "distance", "train_targets", "test_targets", "test_users", "best_auc")
    assert [found[key] for key in same] == [over_bahe[key] for key in same]
    assert found["test_targets"] > found["test_users"] > 1


def test_every_method_is_declared_at_every_distance_and_seed() -> None:
    runs = leakage_runs(2)
    assert len(runs) == 2 * len(DISTANCES) * (1 + len(LAYER_CUTS))
    assert {run.planted.seed - run.config.seed for run in runs} == {0}
    assert {run.config.resolved()["k"] for run in runs} == {K}
    assert {run.config.training.max_epochs for run in runs} == {1}, "nothing is chosen by validation"
    assert min(DISTANCES) == N, "the control"
