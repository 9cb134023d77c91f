"""The timing page: ratios from rows, failures named, the paper's ratios beside."""

from __future__ import annotations

import json

import pytest
from test_table3 import times

from repro.paths import PROJECT_ROOT
from repro.records.measurements import list_measurements, write_measurement
from repro.reporting import timing
from repro.reporting.flops_rows import timing_rows
from repro.reporting.headlines import savings
from repro.reporting.inputs import load_inputs

REFERENCE = PROJECT_ROOT / "reports" / "reference"
RESULTS = PROJECT_ROOT / "results"
VERSIONS = {"python": "3.12", "torch": "2.11.0", "transformers": "5.17.0"}


def row(method: str, k: int, repeat: int, targets, **changes) -> dict:
    return {
        "device": "A device", "device_count": 1, "backbone": "random:smollm2-135m", "tuning": "full",
        "dtype": "bfloat16 autocast", "compile": True, "method": method, "k": k, "n": 20, "batch": 9,
        "repeat": repeat, "tokens_per_s": 1000.0 * (1 + repeat), "targets_per_s": targets, "step_ms": 80.0,
        "peak_gib": 20.0 + k, "compile_s": 40.0, "mfu": 0.25,
    } | changes  # fmt: skip


def page(tmp_path, rows) -> tuple[str, dict]:
    if rows:
        write_measurement(tmp_path, "timing", "gpu-ml-100k-a-device", VERSIONS, rows)
    inputs = load_inputs(tmp_path, None, REFERENCE)
    files = timing.render(inputs)
    assert set(files) == {"timing.md", "timing.json", "timing.png", "timing.svg"}
    return files["timing.md"].decode(), files


def test_speed_up_is_the_ratio_of_mean_targets_per_second(tmp_path) -> None:
    rows = [
        row("sw", 1, 0, 90.0),
        row("sw", 1, 1, 110.0),
        row("dti", 50, 0, 1400.0),
        row("dti", 50, 1, 1480.0),
    ]
    text, files = page(tmp_path, rows)
    (header,) = [line for line in text.splitlines() if line.startswith("| k ")]
    assert header.split("|")[9].strip() == "repetitions"
    (line,) = [line for line in text.splitlines() if line.startswith("| 50 ")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["50", "14.40", "15.00", "—", "—"], "no FLOP record"
    assert cells[5:9] == ["1,440", "1,500", "1,000 to 2,000", "2"]
    assert cells[9:] == ["80.0", "9", "120", "70.00", "0.250", "40"]
    assert "measured once more" not in text
    assert "smollm2-135m shape, full, n = 20, A device" in text
    assert b"14.4" in files["timing.json"]


def test_the_bounds_of_the_real_prompts_are_those_of_the_flop_records(tmp_path) -> None:
    """Of the file's data set, model and tuning; the figure shows the counted FLOPs."""
    (counted,) = [file for file in list_measurements(RESULTS, "flops") if "k-ml-100k" in file.path.name]
    write_measurement(tmp_path, "flops", "k-ml-100k-dti", VERSIONS, counted.rows)
    rows = [row("sw", 1, 0, 100.0), row("dti", 50, 0, 1300.0), row("dti", 7, 0, 500.0)]
    other = {"backbone": "random:llama-3.1-8b"}  # counted with LoRA only
    rows += [row("sw", 1, 0, 100.0, **other), row("dti", 50, 0, 1300.0, **other)]
    text, files = page(tmp_path, rows)
    cells = [[c.strip() for c in line.split("|")[1:6]] for line in text.splitlines() if line[:2] == "| "]
    sweep, full_8b = [line for line in cells if line[0] == "50"]
    assert sweep[2:] == ["15.00", "14.09", "13.55"] and full_8b[2:] == ["15.00", "—", "—"]
    assert ["1 (SW)", "1.00", "1.00", "1.00", "1.00"] in cells
    assert ["7", "5.00", "5.44", "—", "—"] in cells, "a k that nobody counted"
    panel, *_ = json.loads(files["timing.json"])["data"]["panels"]
    (line,) = [line for line in panel["lines"] if line["name"] == "counted FLOPs"]
    wanted = next(
        each
        for each in counted.rows
        if (each["method"], each["n"], each["k"], each["tuning"]) == ("dti-minus", 20, 50, "full")
    )
    assert line["points"][0] == [1, 1.0] and line["points"][1][0] == 50
    assert line["points"][1][1] == pytest.approx(1 / wanted["ratio_to_sw"], rel=1e-5)
    said = savings(load_inputs(tmp_path, None, REFERENCE))
    limits = [each.row[3] for each in said]
    assert limits == ["limit 15.00 ×; 13.55 × by FLOPs of these prompts", "limit 15.00 ×"]


def test_a_cut_model_has_no_bounds_of_the_whole_one(tmp_path) -> None:
    (counted,) = [file for file in list_measurements(RESULTS, "flops") if "k-ml-100k" in file.path.name]
    write_measurement(tmp_path, "flops", "k-ml-100k-dti", VERSIONS, counted.rows)
    text, _ = page(tmp_path, [row("sw", 1, 0, 100.0, layers=4), row("dti", 50, 0, 1300.0, layers=4)])
    assert "14.09" not in text and "13.55" not in text


def test_the_bounds_are_not_those_of_another_data_set(tmp_path) -> None:
    (counted,) = [file for file in list_measurements(RESULTS, "flops") if "k-ml-1m" in file.path.name]
    write_measurement(tmp_path, "flops", "k-ml-1m-rella", VERSIONS, counted.rows)
    text, files = page(tmp_path, [row("sw", 1, 0, 100.0), row("dti", 50, 0, 1300.0)])
    (line,) = [line for line in text.splitlines() if line.startswith("| 50 ")]
    assert [cell.strip() for cell in line.split("|")[3:6]] == ["15.00", "—", "—"]
    assert b"counted FLOPs" not in files["timing.json"]


def test_the_sliding_window_counts_with_what_was_measured_after_the_last_k(tmp_path) -> None:
    rows = [row("sw", 1, 0, 90.0), row("dti", 50, 0, 1400.0), row("sw", 1, 1, 110.0, compile_s=2.0)]
    text, _ = page(tmp_path, rows)
    (line,) = [line for line in text.splitlines() if line.startswith("| 50 ")]
    assert line.split("|")[2].strip() == "14.00"
    assert "measured once more after the last k" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| 1 (SW) ")]
    assert line.split("|")[-2].strip() == "40", "compilation is that of the first time"


def test_a_row_without_memory_or_without_sw_has_no_ratio(tmp_path) -> None:
    failed = row("dti", 50, 0, "out_of_memory", tokens_per_s="out_of_memory", step_ms="out_of_memory")
    text, _ = page(tmp_path, [failed])
    (line,) = [line for line in text.splitlines() if line.startswith("| 50 ")]
    assert "out of memory" in line and "15.00" in line


def test_a_base_in_fp8_is_compared_with_itself_in_a_table_of_its_own(tmp_path) -> None:
    stored = [row("sw", 1, 0, 100.0), row("dti", 50, 0, 1300.0)]
    fp8 = {"fp8": "tensorwise", "fp8_difference": 0.0314, "mfu": None}
    rounded = [row("sw", 1, 0, 150.0, **fp8), row("dti", 50, 0, 1800.0, **fp8)]
    name = "gpu-ml-100k-a-device-fp8-tensorwise"
    write_measurement(tmp_path, "timing", name, VERSIONS | {"torchao": "0.18.0"}, rounded)
    text, files = page(tmp_path, stored)
    lines = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| 50 ")]
    assert lines[:2] == ["13.00", "12.00"]
    (title,) = [line for line in text.splitlines() if line.startswith("## ") and "fp8" in line]
    assert title.endswith("A device, frozen base in fp8, tensorwise")
    assert "3.14% of their norm" in text and f"`timing/{name}.json`: " in text
    assert b"fp8" not in files["timing.json"], "the figure is of the stored base"
    assert [each["targets_per_s"] for each in timing_rows(load_inputs(tmp_path, None, REFERENCE))] == [
        100.0,
        1300.0,
    ]


def test_a_cut_model_says_so_and_is_no_projections_measurement(tmp_path) -> None:
    whole = [row("sw", 1, 0, 100.0), row("dti", 50, 0, 1300.0)]
    cut = [row("sw", 1, 0, 10.0, layers=4), row("dti", 50, 0, 70.0, layers=4)]
    variant = row("dti", 50, 0, 70.0, layers=1, variant="our recipe")
    text, _ = page(tmp_path, [*whole, *cut, variant])
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles[:2] == [
        "## smollm2-135m shape, full, n = 20, A device",
        "## smollm2-135m shape, 4 layers, full, n = 20, A device",
    ]
    assert "## Variants of DTI, smollm2-135m shape, 1 layer, full, A device" in titles
    assert [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| 50 ")][:2] == [
        "13.00",
        "7.00",
    ]
    inputs = load_inputs(tmp_path, None, REFERENCE)
    assert [each["targets_per_s"] for each in timing_rows(inputs)] == [100.0, 1300.0]
    assert [sweep.cut for sweep in timing.sweeps(inputs)] == [False, True]


def test_the_papers_ratios_are_those_of_its_hours(tmp_path) -> None:
    text, _ = page(tmp_path, [])
    assert "Not run." in text
    assert [line for line in text.splitlines() if line.startswith("| ML-1M") and "| 12.95" in line]


def test_variants_are_compared_with_our_recipe_in_a_table_of_their_own(tmp_path) -> None:
    sweep = [row("sw", 1, 0, 100.0), row("dti", 50, 0, 1300.0)]
    own = [
        row("dti", 50, 0, 1200.0, variant="our recipe"),
        row("dti", 50, 1, 1240.0, variant="our recipe"),
        row("dti", 50, 0, 1000.0, variant="reset of the last layer"),
        row("dti", 50, 0, "out_of_memory", variant="ALiBi, un-rotated keys", tokens_per_s="out_of_memory")
        | dict.fromkeys(("step_ms", "peak_gib", "compile_s", "mfu"), "out_of_memory"),
    ]
    write_measurement(tmp_path, "timing", "gpu-ml-100k-a-device-variants", VERSIONS, own)
    text, files = page(tmp_path, sweep)
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.strip("|").split("|")][1:]
        for line in text.splitlines()
        if line.startswith("| ")
    }
    assert cells["our recipe"][:3] == ["—", "1,220", "1,500"]
    assert cells["our recipe"][3] == "1,000 to 2,000"
    assert cells["reset of the last layer"][0] == "+22.0%"
    assert cells["ALiBi, un-rotated keys"][:2] == ["out of memory", "—"]
    assert cells["50"][0] == "13.00", "the sweep's own rows"
    assert "## Variants of DTI, smollm2-135m shape, full, A device" in text
    assert "`timing/gpu-ml-100k-a-device-variants.json`: " in text
    assert b"variant" not in files["timing.json"]
    rows = timing_rows(load_inputs(tmp_path, None, REFERENCE))
    assert [each["targets_per_s"] for each in rows] == [100.0, 1300.0], "projections go by the sweep"


def test_variants_whose_steps_were_not_replayed_are_named(tmp_path) -> None:
    for launched, said in (
        ((True, True, False), "replayed as CUDA graphs; those of *c* were launched kernel by kernel."),
        ((True, False, None), "replayed as CUDA graphs; those of *b*, *c* were launched kernel by kernel."),
        ((True, True, True), "All steps were replayed as CUDA graphs."),
        ((False, None, False), "All steps were launched kernel by kernel."),
    ):
        given = zip("abc", launched, strict=True)
        text, _ = page(
            tmp_path, [row("dti", 50, 0, 1200.0, variant=name, cuda_graph=graph) for name, graph in given]
        )
        assert said in text


def test_provenance_names_the_commit_where_the_file_does(tmp_path) -> None:
    rows = [row("sw", 1, 0, 90.0)]
    text, _ = page(tmp_path, rows)
    assert "a-device.json`: python 3.12, torch 2.11.0, transformers 5.17.0\n" in text
    made = VERSIONS | {"commit": f"{'a' * 40}-dirty"}
    write_measurement(tmp_path, "timing", "gpu-ml-100k-a-device", made, rows)
    text = timing.render(load_inputs(tmp_path, None, REFERENCE))["timing.md"].decode()
    assert f"a-device.json`: commit {'a' * 40}-dirty, python 3.12" in text


def test_variants_have_no_ratio_where_our_recipe_ran_out_of_memory(tmp_path) -> None:
    failed = dict.fromkeys(("tokens_per_s", "step_ms", "peak_gib", "compile_s", "mfu"), "out_of_memory")
    own = [
        row("dti", 50, 0, "out_of_memory", variant="our recipe") | failed,
        row("dti", 50, 0, 1000.0, variant="reset of the last layer", step_ms=153.123456),
    ]
    text, _ = page(tmp_path, own)
    assert "| our recipe " in text and "out of memory" in text and "153.123456" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("| reset of the last layer ")]
    assert line.split("|")[2].strip() == "—" and "1,000" in line


def test_steps_of_a_training_run_without_memory_say_what_that_means(tmp_path) -> None:
    failed = dict.fromkeys(("tokens_per_s", "step_ms", "peak_gib", "compile_s", "mfu"), "out_of_memory")
    title = "our recipe, steps of a training run"
    own = [row("dti", 50, 0, 1200.0, variant="our recipe"), row("dti", 50, 0, 1000.0, variant=title)]
    text, _ = page(tmp_path, own)
    assert "would have run out" not in text
    own[1] = row("dti", 50, 0, "out_of_memory", variant=title) | failed
    text, _ = page(tmp_path, own)
    assert f"*{title}*, out of memory: a training run on this device, " in text
    link = "docs/performance.md#aims-and-results"
    assert link in text, "the heading that it leads to is there:"
    heading = "## Aims and results\n"
    assert heading in (PROJECT_ROOT / "docs" / "performance.md").read_text()


def add_trained(world, **config) -> None:
    """SW and DTI until convergence: 4 and 2 epochs; 5 s of validation and test on either side."""
    common = {"recipe": "control", "n": 20, **config}
    world.add(**common, record=times(40.0, 80.0, epochs=4))
    world.add(**common, method="dti", k=50, record=times(5.0, 5.0, best=1, epochs=2))


def test_what_training_runs_reach_stands_below_the_sweep_of_their_model_and_device(world) -> None:
    def text(**changes) -> str:
        rows = [row("sw", 1, 0, 100.0, **changes), row("dti", 50, 0, 1300.0, **changes)]
        write_measurement(world.results, "timing", "gpu-ml-100k-a-device", VERSIONS, rows)
        return timing.render(load_inputs(world.results, None, REFERENCE))["timing.md"].decode()

    device = {"device": "Test CPU, 2 cores"}
    assert "steps are of equal tokens" in text(**device) and "Training runs until" not in text(**device)
    add_trained(world)
    said = "SW's time is 8.00 × (an epoch) and 8.50 × (the whole run, all clocks) that of DTI, our recipe"
    assert f"with steps of equal targets: {said}, k = 50. [table3](table3.md)" in text(**device)
    for other in ({}, device | {"tuning": "lora"}, device | {"n": 10}, device | {"backbone": "random:x"}):
        assert "Training runs until" not in text(**other)
        assert "No run until convergence of this model on this device has records." in text(**other)
    in_fp8 = text(**device, fp8="tensorwise", fp8_difference=0.1)
    assert "Training runs until" not in in_fp8 and "No run until" not in in_fp8
