"""The index's main results: one sentence for each kind of committed record, none of a user's own."""

from __future__ import annotations

from bahe_report_cases import config_of, full, inputs_of
from report_cases import NO_LLM, UNTRAINED
from test_bahe_efficiency_page import row as efficiency_row
from test_table3 import FIXED, times
from test_timing_page import VERSIONS
from test_timing_page import row as timing_row

from repro.methods.bahe.settings import llm_ctr
from repro.records.measurements import write_measurement
from repro.reporting.headlines import headlines
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


def test_a_sentence_for_each_kind_of_record(world) -> None:
    add_all(world)
    speed, convergence, efficiency = headlines(inputs_of(world))
    assert "14.40 × as fast" in speed and "15.00 ×" in speed and "(timing.md)" in speed
    assert "at equal tokens per step" in speed and "in training runs" not in speed, "none of that model"
    assert "10.00 × in the paper's recipe (AUC 0." in convergence
    assert "minus SW's +0.0000 [" in convergence and "]: not told apart); SW has AUC 0." in convergence
    assert "our recipe" not in convergence, "which nobody ran"
    assert "12.00 × less time and 6.00 × less memory at 1,024 tokens" in efficiency
    assert "18.00 × less time and 8.00 × less memory at 2,048 tokens" in efficiency
    assert "(claimed: 5 × and 5 ×), its table apart (" in efficiency
    index = render_index(inputs_of(world))["README.md"].decode()
    places = [index.index(text) for text in ("## Main results", f"- {speed}\n", "| BAHE ", "## Pages")]
    assert places == sorted(places)


def test_what_is_left_where_every_behaviour_is_new_is_said(world) -> None:
    """60 ms over 5 ms and 16 samples of 64 behaviours at 10 ms for 1,000 of them; 90 ms over twice that."""
    lengths = ((1024, 60.0, 12.0), (2048, 90.0, 16.0))
    rows = [efficiency_row("llm_ctr", tokens, step, gib) for tokens, step, gib in lengths]
    rows += [efficiency_row("bahe", tokens, 5.0, 2.0, table_build_s=0.01) for tokens, _, _ in lengths]
    write_measurement(world.results, "bahe", "efficiency-gpu-a-device", VERSIONS, rows)
    (sentence,) = headlines(inputs_of(world))
    assert ", its table apart (3.94 × and 3.53 × in time if every behaviour were new); " in sentence


def test_a_reduced_shape_is_no_main_result(world) -> None:
    rows = [
        efficiency_row(method, tokens, 5.0, 2.0, layers=4)
        for method in ("llm_ctr", "bahe")
        for tokens in (1024, 2048)
    ]
    write_measurement(world.results, "bahe", "efficiency-gpu-a-device", VERSIONS, rows)
    assert headlines(inputs_of(world)) == []


def test_own_records_are_no_main_results(world) -> None:
    add_all(world, own=True)
    assert headlines(inputs_of(world)) == []
    assert "Main results" not in render_index(inputs_of(world))["README.md"].decode()


def test_half_a_comparison_is_none(world) -> None:
    write_measurement(
        world.results, "timing", "gpu-ml-100k-a-device", VERSIONS, [timing_row("dti", 50, 0, 9.0)]
    )
    rows = [efficiency_row("llm_ctr", 1024, 60.0, 12.0), efficiency_row("bahe", 1024, 5.0, 2.0)]
    write_measurement(world.results, "bahe", "efficiency-gpu-a-device", VERSIONS, rows)
    world.add(recipe="control", record=times(90.0, 150.0))
    assert headlines(inputs_of(world)) == []


def test_what_dti_loses_is_said_of_methods_from_three_seeds_on(world) -> None:
    def sentence() -> str:
        return headlines(inputs_of(world))[0]

    def add(seed: int) -> None:
        world.add(0.9, seed=seed, recipe="control", record=times(90.0, 150.0))
        world.add(0.1, seed=seed, recipe="control", method="dti", k=50, fixes=FIXED, record=times(9.0, 16.0))

    add(0)
    assert "]: it loses in these runs); SW has" in sentence()
    add(1)
    add(2)
    assert "]: it loses); SW has" in sentence()


def test_training_runs_stand_beside_the_sweep_of_their_model(world) -> None:
    device = "Test CPU, 2 cores"
    rows = [
        timing_row(method, k, 0, speed, device=device, n=10)
        for method, k, speed in (("sw", 1, 100.0), ("dti", 50, 1440.0))
    ]
    write_measurement(world.results, "timing", "cpu-ml-100k-a-device", VERSIONS, rows)
    world.add(recipe="control", record=times(90.0, 150.0))
    world.add(recipe="control", method="dti", k=50, fixes=FIXED, record=times(9.0, 15.0))
    assert (
        "; in training runs of equal targets per step 10.00 × (DTI, k = 50, ml-100k) per epoch; "
        in (headlines(inputs_of(world))[0])
    )
    elsewhere = {"device.name": "Another device"}
    world.add(recipe="control", record=times(90.0, 150.0) | elsewhere)
    world.add(recipe="control", method="dti", k=50, fixes=FIXED, record=times(1.0, 15.0) | elsewhere)
    world.add(recipe="control", dataset="synthetic", record=times(90.0, 150.0))
    world.add(recipe="control", dataset="synthetic", method="dti", k=50, record=times(18.0, 15.0))
    assert (
        "per step 10.00 × (DTI, k = 50, ml-100k) and 10.00 × (DTI, our recipe, k = 50, synthetic) per epoch; "
        in (headlines(inputs_of(world))[0])
    )


def test_the_floor_stands_beside_every_auc(world) -> None:
    rates = world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    floor = f"{rates.record['metrics']['auc']:.4f}"
    world.add(recipe="control", record=times(90.0, 150.0))
    world.add(recipe="control", method="dti", k=50, fixes=FIXED, record=times(9.0, 16.0))
    assert f", the like rates {floor}; " in headlines(inputs_of(world))[0]
