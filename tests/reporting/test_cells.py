"""What may be pooled into a cell, and what never is."""

from __future__ import annotations

import pytest

from repro.reporting.cells import build_cells, closest, comparable_times, differing, pool, setting_text
from repro.reporting.lines import auc_text, seeds_text

OLD = {"method": 2, "trainer": 2}


def cells(world):
    return build_cells(world.committed.list())


def test_seeds_of_one_configuration_are_one_cell(world):
    for seed in (2, 0, 1):
        world.add(seed=seed)
    (cell,) = cells(world)
    assert [run.record["config"]["seed"] for run in cell.runs] == [0, 1, 2]
    assert auc_text(cell).count("±") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"n": 20},
        {"recipe": "tuned"},
        {"backbone": "another"},
        {"backbone_settings__layers": 30},
        {"tuning": "lora"},
        {"instruction": "hidden"},
        {"fixes__alibi_slope": 0.5},
        {"training__learning_rate": 1e-4},
        {"training__precision": "fp32"},
        {"loss": "answers"},
        {"record": {"device.name": "another device"}},
        {"record": {"device.count": 2}, "window": "tokens"},
        {"record": {"data.sha256": "1" * 64}, "seed": 1},
        {"record": {"data.train_targets": 3999}, "seed": 1},
    ],
)
def test_different_configurations_are_never_pooled(world, change):
    runs = [world.add(seed=0), world.add(**({"seed": 1} | change))]
    assert len(cells(world)) == 2
    with pytest.raises(ValueError, match="do not belong into one cell"):
        pool(runs)


def test_spread_is_the_sample_standard_deviation(world):
    values = [world.add(seed=seed).record["metrics"]["auc"] for seed in (0, 1)]
    spread = abs(values[0] - values[1]) / 2**0.5
    (cell,) = cells(world)
    assert auc_text(cell) == f"{sum(values) / 2:.4f} ± {spread:.4f}"


def test_one_seed_says_so_and_has_no_spread(world):
    world.add()
    (cell,) = cells(world)
    assert auc_text(cell).endswith("(n = 1)")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("out_of_memory", "OOM"),
        ("diverged", "diverged"),
        ("interrupted", "interrupted"),
        ("rehearsal", "rehearsal"),
    ],
)
def test_a_failed_run_is_a_word_never_a_number(world, status, text):
    world.add(record={"status": status})
    (cell,) = cells(world)
    assert (auc_text(cell), seeds_text(cell)) == (text, "0")
    assert cell.mean("metrics", "log_loss") is None


def test_failures_beside_results_are_counted(world):
    for seed, status in enumerate(["ok", "diverged", "diverged", "out_of_memory"]):
        world.add(seed=seed, record={"status": status})
    (cell,) = cells(world)
    assert seeds_text(cell) == "1 (1 OOM, 2 diverged)"
    assert auc_text(cell).endswith("(n = 1)")


def test_stale_runs_are_marked_and_never_pooled_with_current_ones(world):
    world.add(seed=0, numerics=OLD)
    (cell,) = cells(world)
    assert cell.stale
    assert auc_text(cell).endswith(", stale")
    world.add(seed=1)
    (cell,) = cells(world)
    assert not cell.stale
    assert [run.record["config"]["seed"] for run in cell.runs] == [1]
    assert [run.record["config"]["seed"] for run in cell.superseded] == [0]


def test_a_method_without_numerics_here_is_not_stale(world):
    world.add(method="din", numerics={"method": 17, "trainer": 99})
    assert not cells(world)[0].stale


def test_settings_that_differ_are_named_at_their_depth(world):
    world.add(fixes={"reset": None, "position": "rope"})
    world.add(fixes={"reset": {"layers": "last"}, "position": "rope"})
    found = cells(world)
    assert differing(found) == ["fixes.reset.layers"]
    assert sorted(setting_text(cell, "fixes.reset.layers") for cell in found) == ["last", "none"]


def test_a_checksum_is_shortened(world):
    world.add(backbone_sha256="0123456789abcdef" * 4)
    (cell,) = cells(world)
    assert setting_text(cell, "backbone_sha256") == "0123456789"


def test_the_closest_candidate_shares_most_settings_and_staleness(world):
    world.add(method="dti", k=5, training__learning_rate=1e-4, instruction="hidden")
    world.add(training__learning_rate=1e-4)
    world.add(training__learning_rate=2e-4)
    world.add(training__learning_rate=1e-4, instruction="hidden", numerics=OLD)
    found = cells(world)
    dti = next(cell for cell in found if cell.method == "dti")
    chosen = closest(dti, [cell for cell in found if cell.method == "sw"])
    assert chosen is not None
    assert chosen.config["training"]["learning_rate"] == 1e-4
    assert not chosen.stale


def test_times_compare_on_the_same_device_and_precision_only(world):
    world.add()
    world.add(method="dti", k=5)
    world.add(method="dti", k=10, training__precision="fp32")
    world.add(method="dti", k=20, record={"device.name": "another"})
    world.add(method="dti", k=30, compiled=True)
    world.add(method="dti", k=40, batch_sizes__max_tokens=8192)
    world.add(method="dti", k=50, training__learning_rate=1.0)
    sw = next(cell for cell in cells(world) if cell.method == "sw")
    same = {cell.k: comparable_times(cell, sw) for cell in cells(world)}
    assert same == {1: True, 5: True, 10: False, 20: False, 30: False, 40: False, 50: True}
