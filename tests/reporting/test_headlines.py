"""The index's table of savings: a line for each kind of committed record, none of a user's own."""

from __future__ import annotations

from bahe_report_cases import config_of, full, inputs_of
from report_cases import table_rows
from test_bahe_efficiency_page import row as efficiency_row
from test_table3 import FIXED, times
from test_timing_page import VERSIONS
from test_timing_page import row as timing_row

from repro.methods.bahe.settings import llm_ctr
from repro.records.measurements import write_measurement
from repro.reporting.headlines import savings, savings_table
from repro.reporting.pages import render_index


def add_all(world, own: bool = False) -> None:
    root = world.runs if own else world.results
    rows = [timing_row("sw", 1, 0, 100.0), timing_row("dti", 50, 0, 1440.0)]
    write_measurement(root, "timing", "gpu-ml-100k-a-device", VERSIONS, rows)
    lengths = ((1024, 60.0, 12.0), (2048, 90.0, 16.0))
    rows = [efficiency_row("llm_ctr", tokens, step, gib) for tokens, step, gib in lengths]
    rows += [efficiency_row("bahe", tokens, 5.0, 2.0) for tokens, _, _ in lengths]
    write_measurement(root, "bahe", "efficiency-gpu-a-device", VERSIONS, rows)
    world.add(own=own, recipe="control", record=times(90.0, 150.0))
    world.add(own=own, recipe="control", method="dti", k=50, fixes=FIXED, record=times(9.0, 16.0))
    for method, seconds, build in ((full(), 8.0, 2.0), (llm_ctr(10), 50.0, None)):
        record = {"time.train_s": seconds, "time.table_build_s": build}
        world.add(
            own=own, record=record, **config_of(method, recipe="tuned", backbone_settings__lora_rank=64)
        )


def test_a_line_for_each_kind_of_record(world) -> None:
    add_all(world)
    best, epoch, speed, time, _, memory = savings(inputs_of(world))
    method = "DTI, paper's recipe, k = 50"
    assert best.row[:2] == (method, "training time to the best epoch, SW / DTI") and best.page == "table3"
    assert best.row[3] == "12.95 × (ML-1M, 8B)"
    assert best.measured.startswith("10.00 ×; AUC − SW's +0.0000 [")
    assert best.measured.endswith("]: not told apart, reaches SW's validation AUC in 1 of 1 seed")
    assert epoch.row[:2] == (method, "time of a training epoch, SW / DTI") and epoch.measured == "9.38 ×"
    assert speed.row[:2] == ("DTI, our recipe, k = 50", "targets per second, DTI / SW, steps of equal tokens")
    assert (speed.row[3], speed.measured, speed.page) == ("limit 15.00 ×", "14.40 ×", "timing")
    assert time.row[1] == "time of a step, LLM-CTR / BAHE, table apart, at 1,024 and 2,048 tokens"
    assert (time.row[3], time.measured) == ("5 ×", "12.00 × and 18.00 ×")
    assert memory.row[1].startswith("peak memory, LLM-CTR / BAHE, ")
    assert (memory.row[3], memory.measured, memory.page) == ("5 ×", "6.00 × and 8.00 ×", "bahe_efficiency")
    index = render_index(inputs_of(world))["README.md"].decode()
    parts = (
        "## Main results",
        "### What is saved",
        "| 14.40 × ",
        "### What is lost",
        "### Scores",
        "## Pages",
    )
    places = [index.index(text) for text in parts]
    assert places == sorted(places)


def test_what_is_left_where_every_behaviour_is_new_is_said(world) -> None:
    """60 ms over 5 ms and 16 samples of 64 behaviours at 10 ms for 1,000 of them; 90 ms over twice that."""
    lengths = ((1024, 60.0, 12.0), (2048, 90.0, 16.0))
    rows = [efficiency_row("llm_ctr", tokens, step, gib) for tokens, step, gib in lengths]
    rows += [efficiency_row("bahe", tokens, 5.0, 2.0, table_build_s=0.01) for tokens, _, _ in lengths]
    write_measurement(world.results, "bahe", "efficiency-gpu-a-device", VERSIONS, rows)
    anew = next(each for each in savings(inputs_of(world)) if ", all new, " in each.row[1])
    assert anew.row[3] == "—" and anew.measured == "3.94 × and 3.53 ×"


def test_a_reduced_shape_is_no_main_result(world) -> None:
    rows = [
        efficiency_row(method, tokens, 5.0, 2.0, layers=4)
        for method in ("llm_ctr", "bahe")
        for tokens in (1024, 2048)
    ]
    write_measurement(world.results, "bahe", "efficiency-gpu-a-device", VERSIONS, rows)
    sweep = [timing_row("sw", 1, 0, 100.0, layers=4), timing_row("dti", 50, 0, 1440.0, layers=4)]
    write_measurement(world.results, "timing", "cpu-ml-100k-a-device", VERSIONS, sweep)
    assert savings(inputs_of(world)) == []


def test_own_records_are_no_main_results(world) -> None:
    add_all(world, own=True)
    assert savings(inputs_of(world)) == []
    assert "Main results" not in render_index(inputs_of(world))["README.md"].decode()


def test_half_a_comparison_is_none(world) -> None:
    write_measurement(
        world.results, "timing", "gpu-ml-100k-a-device", VERSIONS, [timing_row("dti", 50, 0, 9.0)]
    )
    rows = [efficiency_row("llm_ctr", 1024, 60.0, 12.0), efficiency_row("bahe", 1024, 5.0, 2.0)]
    write_measurement(world.results, "bahe", "efficiency-gpu-a-device", VERSIONS, rows)
    world.add(recipe="control", record=times(90.0, 150.0))
    assert savings(inputs_of(world)) == [] and savings_table(inputs_of(world)) == ""


def test_what_dti_loses_is_said_of_methods_from_three_seeds_on(world) -> None:
    def said() -> str:
        return savings(inputs_of(world))[0].measured

    def add(seed: int) -> None:
        world.add(0.9, seed=seed, recipe="control", record=times(90.0, 150.0))
        world.add(0.1, seed=seed, recipe="control", method="dti", k=50, fixes=FIXED, record=times(9.0, 16.0))

    add(0)
    assert "]: loses in these runs, reaches SW's" in said()
    add(1)
    add(2)
    assert said().endswith("]: loses, reaches SW's validation AUC in 3 of 3 seeds")


def test_recipes_and_data_sets_have_lines_of_their_own(world) -> None:
    world.add(recipe="control", record=times(90.0, 150.0))
    world.add(recipe="control", method="dti", k=50, fixes=FIXED, record=times(9.0, 15.0))
    world.add(recipe="control", dataset="synthetic", record=times(90.0, 150.0))
    world.add(recipe="control", dataset="synthetic", method="dti", k=50, record=times(18.0, 15.0))
    best = [each for each in savings(inputs_of(world)) if "best epoch" in each.row[1]]
    assert [(each.row[0], each.row[2].partition(",")[0], each.measured[:7]) for each in best] == [
        ("DTI, paper's recipe, k = 50", "ml-100k", "10.00 ×"),
        ("DTI, our recipe, k = 50", "synthetic", "5.00 ×;"),
    ]
    assert best[1].row[3] == "—", "the paper has no hours of our recipe"


def test_each_device_is_a_column(world) -> None:
    for device, speed in (("A device", 1440.0), ("Another device", 1200.0)):
        rows = [timing_row("sw", 1, 0, 100.0, device=device), timing_row("dti", 50, 0, speed, device=device)]
        write_measurement(world.results, "timing", f"gpu-ml-100k-{device[:3].lower()}", VERSIONS, rows)
    world.add(recipe="control", record=times(90.0, 150.0))
    world.add(recipe="control", method="dti", k=50, fixes=FIXED, record=times(9.0, 15.0))
    *trained, speed = table_rows(savings_table(inputs_of(world)))
    assert (speed["A device"], speed["Another device"]) == ("14.40 ×", "12.00 ×")
    assert all(row["A device"] == row["Another device"] == "—" for row in trained)
    assert "device" not in speed["model and data"] and speed["page"] == "[timing](timing.md)"
