"""The page of BAHE's ablations: which records are which row, and what stands in a row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bahe_report_cases import cells_of, config_of, full, inputs_of
from report_cases import NO_LLM, UNTRAINED

from repro.experiments.bahe_variants import ABLATIONS
from repro.paths import PROJECT_ROOT
from repro.records.measurements import list_measurements, write_measurement
from repro.reporting import bahe_ablation
from repro.reporting.bahe_ablation import TITLES
from repro.reporting.flops_vs_length import one_sequence_text

HEADERS = 13


def text_of(world) -> str:
    return bahe_ablation.render(inputs_of(world))["bahe_ablation.md"].decode()


def seconds(train: float, build: float | None = None) -> dict:
    return {"time.train_s": train} | ({} if build is None else {"time.table_build_s": build})


def test_without_records_every_row_is_named_as_not_run(world) -> None:
    text = text_of(world)
    assert all(title in text for title in TITLES.values()) and "not run." in text
    assert bahe_ablation.state(inputs_of(world)) == "not run"


@pytest.mark.parametrize("row", list(ABLATIONS))
def test_a_declared_method_is_found_in_its_own_row(world, row) -> None:
    other = "no-cache" if row == "full" else "full"
    for name in (row, other):
        world.add(**config_of(ABLATIONS[name].change(full())))
    text = text_of(world)
    run = {name: cells_of(text, title) for name, title in TITLES.items()}
    assert [name for name, cells in run.items() if cells[2] == "not run"] == [
        name for name in ABLATIONS if name not in (row, other)
    ]
    assert run[row][1:3] == ["1", f"{float(run[row][2].split()[0]):.4f} (n = 1)"]


def test_times_steps_and_differences_come_from_the_records(world) -> None:
    base = world.add(**config_of(full(), recipe="tuned"), record=seconds(100.0, 8.0))
    world.add(
        0.2, **config_of(replace(full(), cached=False)), record=seconds(150.0) | {"memory.peak_gib": 3.0}
    )
    text = text_of(world)
    first, second = cells_of(text, "BAHE "), cells_of(text, TITLES["no-cache"])
    # 4,000 training targets in batches of 64 are 63 steps.
    assert first[8:] == ["100.0 s", "1.00 ×", f"{1e5 / 63:,.1f}", "8.0 s", "1.50 GiB"]
    assert second[8:] == ["150.0 s", "1.50 ×", f"{1.5e5 / 63:,.1f}", "—", "3.00 GiB"]
    assert first[2].startswith(f"{base.record['metrics']['auc']:.4f}") and first[4:8] == ["—"] * 4
    assert second[4].startswith("-") and len(second) == HEADERS
    assert "needs" not in text and "fewer than 3 seeds" in text


def test_the_very_same_scores_are_said_and_not_tested(world) -> None:
    for seed in range(3):
        world.add(**config_of(full(), recipe="tuned"), seed=seed)
        world.add(**config_of(replace(full(), cached=False)), seed=seed)
    text = text_of(world)
    cells = cells_of(text, TITLES["no-cache"])
    assert cells[1] == "3" and cells[4:8] == ["the same scores", "—", "—", "—"]
    assert "Nothing can be compared" not in text
    for seed in range(3):
        world.add(0.0, **config_of(replace(full(), pooling="mean")), seed=seed)
    assert cells_of(text_of(world), TITLES["mean-pooling"])[6] == "< 0.001", "Holm over one row, not two"


@pytest.mark.parametrize(("floor", "said"), [(None, False), (0.1, False), (0.99, True)])
def test_rows_below_the_floor_are_no_ranking(world, floor, said) -> None:
    world.add(**config_of(full(), recipe="tuned"))
    world.add(0.5, **config_of(replace(full(), pooling="mean")))
    if floor is not None:
        world.add(floor, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    text = text_of(world)
    assert ("Every row is below the like rates (0." in text and "at most 1 epoch:" in text) == said


def test_times_are_a_range_and_of_named_versions(world) -> None:
    for seed, train_s in enumerate((90.0, 110.0)):
        world.add(**config_of(full(), recipe="tuned"), seed=seed, record={"time.train_s": train_s})
    assert "several versions" not in text_of(world)
    record = {"git": {"sha": "b" * 40, "dirty": False}}
    world.add(**config_of(replace(full(), cached=False)), record=record)
    text = text_of(world)
    assert cells_of(text, "BAHE ")[8] == "100.0 s (90.0 s to 110.0 s)"
    assert f"by commit: `{'a' * 10}`: BAHE — `{'b' * 10}`: without caching" in text


def test_a_row_of_one_seed_is_compared_with_that_seed_alone(world) -> None:
    """Else a row with the same scores would differ by what the other seeds add to the mean."""
    for seed, signal in enumerate((0.6, 0.2, 0.2)):
        world.add(signal, **config_of(full(), recipe="tuned"), seed=seed)
    world.add(0.6, **config_of(replace(full(), cached=False)))
    text = text_of(world)
    full_auc, cells = cells_of(text, "BAHE ")[2], cells_of(text, TITLES["no-cache"])
    assert cells[1] == "1" and cells[4] == "+0.0000" and cells[2].split()[0] != full_auc.split()[0]
    assert "Of these runs, told apart" in text and "after Holm: none" in text and "fewer than 3 seeds" in text


def test_what_a_row_can_detect_stands_in_the_row(world) -> None:
    """A row whose seeds differ widely needs a larger difference, and does not speak for the others."""
    for seed, signal in enumerate((0.9, 0.2, 0.5)):
        world.add(0.8, **config_of(full(), recipe="tuned"), seed=seed)
        world.add(0.7, **config_of(replace(full(), cached=False)), seed=seed)
        world.add(signal, **config_of(replace(full(), pooling="mean")), seed=seed)
    text = text_of(world)
    calm, unstable = (cells_of(text, TITLES[name])[7] for name in ("no-cache", "mean-pooling"))
    assert float(calm) < float(unstable)
    assert f"is between {calm} and {unstable} AUC, depending on the row" in text


def test_the_page_says_whose_learning_rate_the_rows_have(world) -> None:
    assert "All rows have the learning rate that was chosen for the first" in text_of(world)


def test_a_clearly_worse_row_is_told_apart(world) -> None:
    for seed in range(3):
        world.add(1.0, **config_of(full(), recipe="tuned"), seed=seed)
        world.add(0.0, **config_of(replace(full(), pooling="mean")), seed=seed)
    assert f"after Holm: {TITLES['mean-pooling']}." in text_of(world)


def test_other_settings_devices_and_methods_make_other_groups(world) -> None:
    world.add(**config_of(full()))
    world.add(**config_of(replace(full(), cached=False)))
    world.add(**config_of(replace(full(), cached=False, pooling="mean")))  # two changes: no row of this page
    world.add(**config_of(replace(full(), feature_parallel=False)), training__learning_rate=1e-3)
    world.add(**config_of(replace(full(), pooling="mean")), record={"device.name": "Other CPU"})
    groups = bahe_ablation.groups(inputs_of(world))
    assert sorted(tuple(group.cells) for group in groups) == [
        ("full", "no-cache"),
        ("mean-pooling",),
        ("one-sequence",),
    ]


def test_a_failure_stands_in_the_place_of_its_number(world) -> None:
    world.add(**config_of(full()))
    world.add(**config_of(replace(full(), cached=False)), record={"status": "out_of_memory"})
    cells = cells_of(text_of(world), TITLES["no-cache"])
    assert cells[2] == "OOM" and set(cells[3:]) == {"—"}


def test_the_floor_of_the_same_targets_stands_on_top(world) -> None:
    for name in ("full", "no-cache"):
        world.add(**config_of(ABLATIONS[name].change(full())))
    assert cells_of(text_of(world), "Like rates")[2] == "not run"
    rates = {"method": "rates", "recipe": "tuned", "numerics": {"method": 3, "trainer": 2}}
    run = world.add(0.1, **rates)
    world.add(0.3, **rates, protocol="rella", record={"data.sha256": "e" * 64})
    assert cells_of(text_of(world), "Like rates")[2] == f"{run.record['metrics']['auc']:.4f} (n = 1)"


def test_what_feature_parallel_saves_on_longer_texts_is_said_beside_the_rows(world) -> None:
    (lengths,) = (
        file for file in list_measurements(PROJECT_ROOT / "results", "flops") if file.path.stem == "length"
    )
    write_measurement(world.results, "flops", "length", lengths.environment, lengths.rows)
    assert "Feature parallel against" not in text_of(world), "no row, nothing beside it"
    for name in ("full", "one-sequence"):
        world.add(**config_of(ABLATIONS[name].change(full())))
    text = text_of(world)
    assert one_sequence_text(inputs_of(world)) in text and "[flops_vs_length](flops_vs_length.md)" in text
