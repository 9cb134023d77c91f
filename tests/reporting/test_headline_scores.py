"""The index's table of quality: committed rows alone, verdicts as on BAHE's page."""

from __future__ import annotations

from dataclasses import replace

from bahe_report_cases import config_of, full, inputs_of
from report_cases import NO_LLM, UNTRAINED, table_rows

from repro.methods.bahe.settings import dti_bahe, llm_ctr
from repro.reporting.headline_groups import main_groups
from repro.reporting.headline_scores import headline_scores
from repro.reporting.pages import PAGES, render_index

OURS = {"recipe": "tuned", "backbone_settings__lora_rank": 64}
LONGER = {"training__max_epochs": 10}
OTHER = {"device.name": "Another device", "time.train_s": 1.0}


def add(world, method, signal: float = 0.6, seeds: int = 3, seconds: float = 8.0, **changes) -> None:
    record = {"time.train_s": seconds, "time.table_build_s": 2.0}
    for seed in range(seeds):
        world.add(signal, seed=seed, record=record, **config_of(method, **OURS), **changes)


def add_dti(world, signal: float = 0.9, seeds: int = 3, **changes) -> None:
    settings = {"recipe": "tuned"} | changes
    for seed in range(seeds):
        world.add(signal, seed=seed, method="dti", k=50, **settings)


def text_of(world) -> str:
    return headline_scores(main_groups(inputs_of(world)))


def rows_of(world) -> dict[tuple[str, str], dict[str, str]]:
    """By row and epochs."""
    text = text_of(world)
    return {(row["row"], row["epochs at most"]): row for row in table_rows(text)} if text else {}


def test_without_committed_rows_of_the_family_there_is_no_table(world) -> None:
    add_dti(world)
    record = {"time.train_s": 8.0}
    world.add(own=True, record=record, **config_of(full(), **OURS))
    assert text_of(world) == ""
    assert "Main results" not in render_index(inputs_of(world))["README.md"].decode()


def test_differences_to_dti_carry_the_verdict_of_bahe_s_page(world) -> None:
    add(world, full(), 0.2)
    add(world, llm_ctr(10), 0.9)
    add_dti(world)
    rows = rows_of(world)
    lower = rows["BAHE", "1"]["AUC − DTI's"]
    assert lower.startswith("-0.") and lower.endswith(", lower")
    assert rows["LLM-CTR", "1"]["AUC − DTI's"] == "+0.0000, not told apart"
    assert rows["DTI, our recipe, k = 50", "1"]["AUC − DTI's"] == "—"
    assert rows["BAHE", "1"]["training and table"] == "10.0 s" and rows["BAHE", "1"]["seeds"] == "3"


def test_single_runs_are_no_verdict_on_methods(world) -> None:
    add(world, full(), 0.2, seeds=1)
    add_dti(world, seeds=1)
    assert rows_of(world)["BAHE", "1"]["AUC − DTI's"].endswith(", lower in these runs")


def test_what_trains_longer_is_paired_with_dti_that_trains_as_long(world) -> None:
    add(world, full(), 0.2)
    add(world, full(), 0.6, **LONGER)
    add_dti(world, 0.6)
    assert rows_of(world)["BAHE", "10"]["AUC − DTI's"] == "+0.0000, not told apart (DTI: 1 epoch)"
    add_dti(world, 0.95, recipe="control", **LONGER)
    rows = rows_of(world)
    assert rows["BAHE", "10"]["AUC − DTI's"].endswith(", lower")
    assert ("DTI, our recipe, k = 50", "10") in rows


def test_floor_and_the_strongest_id_model_are_there_without_times(world) -> None:
    add(world, full())
    add(world, replace(llm_ctr(10), sequences=("recent",)))
    add(world, dti_bahe(10, 10))
    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    world.add(0.3, method="din", **NO_LLM)
    assert [name for name, _ in rows_of(world)] == ["Like rates", "DIN", "BAHE"]
    better = {"validation": [{"epoch": 0, "auc": 0.99, "log_loss": 0.6}]}
    world.add(0.3, method="sim", **NO_LLM, record=better)
    rows = rows_of(world)
    assert [name for name, _ in rows] == ["Like rates", "SIM", "BAHE"]
    assert rows["SIM", "—"]["training and table"] == rows["Like rates", "—"]["training and table"] == "—"
    assert rows["BAHE", "1"]["clearly above the floor"] in ("yes", "no")


def test_of_a_data_set_the_largest_size_is_a_main_result(world) -> None:
    add(world, full(), 0.2)
    for seed in range(3):
        record = {"time.train_s": 8.0, "data.train_targets": 75_683}
        world.add(0.6, seed=seed, record=record, **config_of(full(), **OURS), tier="gpu")
    titles = [line for line in text_of(world).splitlines() if line.startswith("**")]
    assert titles == ["**ml-100k, protocol dti, tier gpu (75,683 training, 300 test targets)**"]


def test_groceries_come_last(world) -> None:
    world.add(0.2, record={"time.train_s": 8.0}, **config_of(full(), **OURS))
    record = {"time.train_s": 8.0, "data.train_targets": 91_249}
    world.add(0.2, record=record, **config_of(full(), **OURS), dataset="groceries")
    assert [each.group.dataset for each in main_groups(inputs_of(world))] == ["ml-100k", "groceries"]


def test_devices_stand_side_by_side(world) -> None:
    for seed in range(3):
        world.add(0.6, seed=seed, record=OTHER, **config_of(full(), **OURS))
    add(world, full(), 0.2)
    add(world, dti_bahe(10, 50), 0.2)
    shown = [(row["row"], row["device"]) for row in table_rows(text_of(world))]
    assert shown == [
        ("BAHE", "Another device"),
        ("BAHE", "Test CPU, 2 cores"),
        ("DTI over BAHE, k = 50", "Test CPU, 2 cores"),
    ]


def test_what_has_no_device_of_its_own_stands_there_once(world) -> None:
    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED | OTHER)
    add(world, full(), 0.2)
    world.add(0.6, record=OTHER, **config_of(full(), **OURS))
    add_dti(world)
    rows = [(row["row"], row["device"]) for row in table_rows(text_of(world))]
    assert rows[0] == ("Like rates", "—") and rows[1] == ("DTI, our recipe, k = 50", "Test CPU, 2 cores")
    assert [name for name, _ in rows[2:]] == ["BAHE", "BAHE"], (
        "DTI is not shown again beside the other device"
    )


def test_the_data_have_the_name_that_the_statistics_give_that_very_copy(world) -> None:
    add(world, full(), 0.2)
    named = {"dataset": "ml-100k", "title": "ML (timestamps partly interpolated)"}
    world.add_statistics(**named)
    assert "interpolated" not in text_of(world), "another copy"
    world.add_statistics(**named, sha256="d" * 64)
    assert "\n**ML (timestamps partly interpolated): ml-100k, protocol dti, tier cpu" in text_of(world)
    for name in ("bahe", "table1", "baselines"):
        world.add(recipe="tuned")
        world.add(0.3, method="din", **NO_LLM)
        (text,) = (
            content for file, content in PAGES[name].render(inputs_of(world)).items() if file.endswith(".md")
        )
        assert b"\n\nData set: ML (timestamps partly interpolated), see [data]" in text
