"""The index's main results: one sentence for each kind of committed record, none of a user's own."""

from __future__ import annotations

from dataclasses import replace

from bahe_report_cases import config_of, full, inputs_of
from report_cases import NO_LLM, UNTRAINED
from test_bahe_efficiency_page import row as efficiency_row
from test_table3 import FIXED, times
from test_timing_page import VERSIONS
from test_timing_page import row as timing_row

from repro.methods.bahe.settings import dti_bahe, llm_ctr
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
    speed, convergence, efficiency, quality = headlines(inputs_of(world))
    assert "14.40 × as fast" in speed and "15.00 ×" in speed and "(timing.md)" in speed
    assert "10.00 × with AUC" in convergence and "the paper's recipe" in convergence
    assert "our recipe" not in convergence, "which nobody ran"
    assert "12.00 × less time and 6.00 × less memory at 1,024 tokens" in efficiency
    assert "18.00 × less time and 8.00 × less memory at 2,048 tokens" in efficiency
    ours, partner = quality.split(", LLM-CTR's ")
    assert ours.startswith("BAHE's AUC is 0.") and ours.endswith("(1 seed)") and "(1 seed)" in partner
    twice = "(which reads the text of each context interaction twice)"
    assert f"; it trains in 5.00 × less time than LLM-CTR {twice}, its table included; " in partner
    index = render_index(inputs_of(world))["README.md"].decode()
    assert index.index("## Main results") < index.index(f"- {speed}\n") < index.index("## Pages")


OURS = {"recipe": "tuned", "backbone_settings__lora_rank": 64}


def add_timed(world, seconds: float, build: float | None = None, signal: float = 0.6, **config) -> None:
    record = {"time.train_s": seconds} | ({} if build is None else {"time.table_build_s": build})
    for seed in range(3):
        world.add(signal, seed=seed, record=record, **config)


def test_bahe_is_set_beside_sw_where_it_has_a_row(world) -> None:
    add_timed(world, 8.0, 2.0, **config_of(full(), **OURS))
    add_timed(world, 80.0, **config_of(full(), **OURS), training__max_epochs=10)
    add_timed(world, 30.0, k=1)
    (quality,) = headlines(inputs_of(world))
    assert "; it trains in 3.00 × less than SW, its table included; " in quality, "by the usual epochs"
    assert "; trained for up to 10 epochs it has AUC 0." in quality
    assert "(3 seeds) in" not in quality, "no time is said where the table's is unknown"


def test_more_epochs_are_set_beside_dti_with_as_many(world) -> None:
    add_timed(world, 1.0, 0.5, 0.2, **config_of(dti_bahe(10, 50), **OURS))
    add_timed(world, 9.0, 0.5, 0.3, **config_of(dti_bahe(10, 50), **OURS), training__max_epochs=10)
    add_timed(world, 5.0, None, 0.9, method="dti", k=50, recipe="tuned")
    (line,) = headlines(inputs_of(world))
    longer = line.split("; trained for up to 10 epochs it has AUC ")[1]
    assert "(3 seeds) in 9.5 s, against DTI's 0." in longer and " of 1 epoch in 5.0 s: -0." in longer
    add_timed(world, 7.0, None, 0.9, method="dti", k=50, recipe="control", training__max_epochs=10)
    (line,) = headlines(inputs_of(world))
    assert " of up to 10 epochs in 7.0 s: -0." in line and "], it loses; ml-100k" in line


def test_times_on_other_devices_are_no_main_results(world) -> None:
    longer = {"training__max_epochs": 10}
    add_timed(world, 9.0, 0.5, 0.3, **config_of(full(), **OURS), **longer)
    add_timed(world, 1.0, 0.5, 0.3, **config_of(full(), **OURS))
    record = {"time.train_s": 5.0, "device.name": "Another device"}
    world.add(0.9, record=record, method="dti", k=50, recipe="tuned")
    (line,) = headlines(inputs_of(world))
    assert "(3 seeds) in 9.5 s, against DTI's 0." in line and " of 1 epoch: -0." in line


def test_an_llm_ctr_that_reads_once_is_not_said_to_read_twice(world) -> None:
    add_timed(world, 8.0, 2.0, **config_of(full(), **OURS))
    add_timed(world, 40.0, **config_of(replace(llm_ctr(10), sequences=("recent",)), **OURS))
    assert "LLM-CTR" not in headlines(inputs_of(world))[0], "by the usual sequences alone"
    add_timed(world, 50.0, **config_of(llm_ctr(10), **OURS))
    assert "5.00 × less time than LLM-CTR (which reads" in headlines(inputs_of(world))[0]


def test_an_llm_ctr_with_sequences_of_its_own_is_not_said_to_read_twice(world) -> None:
    own = ("bought", "seen")
    add_timed(world, 8.0, 2.0, **config_of(replace(full(), sequences=own), **OURS))
    add_timed(world, 40.0, **config_of(replace(llm_ctr(10), sequences=own), **OURS))
    (quality,) = headlines(inputs_of(world))
    assert "4.00 × less time than LLM-CTR, its table" in quality


def test_dti_over_bahe_has_a_line_that_says_what_it_loses(world) -> None:
    add_timed(world, 1.0, 0.5, 0.2, **config_of(dti_bahe(10, 50), **OURS))
    (alone,) = headlines(inputs_of(world))
    assert alone.startswith("DTI over BAHE at k = 50 has AUC 0.") and "against" not in alone
    add_timed(world, 8.0, 2.0, 0.2, **config_of(full(), **OURS))
    add_timed(world, 5.0, None, 0.9, method="dti", k=50, recipe="tuned")
    _, line = headlines(inputs_of(world))
    bahe, dti = line.split("; against ")[1:]
    assert bahe.startswith("BAHE's 0.") and bahe.endswith("not told apart")
    assert dti.startswith("DTI's 0.") and ": -0." in dti and "], it loses; " in dti
    assert "it trains in 1.5 s, BAHE in 10.0 s and DTI in 5.0 s, tables included; " in dti


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


def test_the_floor_stands_beside_every_auc(world) -> None:
    rates = world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    floor = f"{rates.record['metrics']['auc']:.4f}"
    world.add(**config_of(full(), recipe="tuned", backbone_settings__lora_rank=64))
    (quality,) = headlines(inputs_of(world))
    assert f"the like rates' {floor}; " in quality and "LLM-CTR" not in quality, "which nobody ran"
    world.add(recipe="control", record=times(90.0, 150.0))
    world.add(recipe="control", method="dti", k=50, fixes=FIXED, record=times(9.0, 16.0))
    assert f", the like rates {floor}; " in headlines(inputs_of(world))[0]
