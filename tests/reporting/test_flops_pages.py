"""The cost pages: every figure from a record, the taken-apart ratio adds up, absence is said."""

from __future__ import annotations

import json
import re
from copy import deepcopy

import pytest
from test_bahe_efficiency_page import row as efficiency_row

from repro.costs.closed_form import equation_3, token_limit
from repro.experiments.flops import LENGTHS
from repro.paths import PROJECT_ROOT
from repro.records.measurements import list_measurements, write_measurement
from repro.reporting import check, render_all
from repro.reporting.flops_rows import agreement, prompt_sweeps
from repro.reporting.flops_steps import steps
from repro.reporting.flops_vs_length import ONE_SEQUENCE, one_sequence_text
from repro.reporting.inputs import load_inputs

PAGES = ["flops_vs_k", "flops_vs_length", "projection"]
REFERENCE = PROJECT_ROOT / "reports" / "reference"
COMMITTED = list_measurements(PROJECT_ROOT / "results", "flops")
ENVIRONMENT = {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"}


def committed_rows(start: str) -> list[dict]:
    return deepcopy(next(file.rows for file in COMMITTED if file.path.name.startswith(start)))


def add(world, rows, name, own=False, kind="flops"):
    write_measurement(world.runs if own else world.results, kind, name, ENVIRONMENT, rows)


def rendered(world) -> dict[str, str]:
    render_all(world.results, world.runs, world.reports, PAGES)
    return {name: (world.reports / f"{name}.md").read_text() for name in PAGES}


def test_without_records_every_page_says_not_run(world):
    pages = rendered(world)
    assert "## ml-100k\n\nNot run." in pages["flops_vs_k"] and "## ml-1m\n\nNot run." in pages["flops_vs_k"]
    assert "Not run." in pages["flops_vs_length"] and "Not run." in pages["projection"]
    assert json.loads((world.reports / "flops_vs_k.json").read_text())["data"] == {"panels": []}


def test_committed_counts_agree_exactly():
    """The acceptance of the counts themselves: within 0.1 % on the 135M and 8B shapes; here to rounding."""
    assert len(COMMITTED) == 3
    for file in COMMITTED:
        found = agreement(file.rows)
        assert {counter for _, counter, _, _ in found} == {"fvcore", "torch"}
        assert all(float(worst) < 1e-12 for *_, worst in found)


@pytest.mark.parametrize("dataset", ["ml-100k", "ml-1m"])
@pytest.mark.parametrize("method", ["dti", "dti-minus"])
def test_the_ratio_is_taken_apart_without_a_rest(world, dataset, method):
    add(world, committed_rows(f"k-{dataset}"), "k")
    (sweep,) = prompt_sweeps(load_inputs(world.results, None, REFERENCE))
    for backbone, _ in sweep.backbones:
        found = steps(sweep, backbone, method, 20, 50)
        assert float(found[0][1]) == pytest.approx(equation_3(20, 50), abs=5e-4)
        assert float(found[1][1]) == token_limit(20, 50)
        row = sweep.one(method, 20, 50, backbone)
        assert float(found[-1][1]) == pytest.approx(1 / row["ratio_to_sw"], abs=5e-4)
        changes = sum(float(change) for _, _, change, _ in found[1:])
        assert float(found[0][1]) + changes == pytest.approx(1 / row["ratio_to_sw"], abs=6e-3)
        forward = (
            sweep.one("sw", 20, 1, backbone)["forward_flops_per_target"] / row["forward_flops_per_target"]
        )
        assert float(found[-2][1]) == pytest.approx(forward, abs=5e-4)


def test_the_figure_shows_what_the_records_hold(world):
    add(world, rows := committed_rows("k-ml-100k"), "k")
    rendered(world)
    panels = json.loads((world.reports / "flops_vs_k.json").read_text())["data"]["panels"]
    assert [panel["title"] for panel in panels] == [f"ml-100k, n = {n}" for n in (10, 20, 50)]
    counted = {line["name"]: dict(map(tuple, line["points"])) for line in panels[1]["lines"]}
    wanted = next(
        row
        for row in rows
        if (row["method"], row["n"], row["k"], row["tuning"], row["counter"])
        == ("dti", 20, 50, "lora", "closed_form")
    )
    assert counted["DTI counted, llama-3.1-8b, lora"][50] == pytest.approx(
        1 / wanted["ratio_to_sw"], rel=1e-5
    )
    assert counted["equation 3 (paper)"][50] == pytest.approx(14.2857, abs=1e-4)
    assert counted["token limit"][50] == 15.0


def test_one_edited_figure_of_a_record_changes_the_page(world):
    rows = committed_rows("k-ml-100k")
    add(world, rows, "k")
    render_all(world.results, None, world.reports)
    assert check(world.results, None, world.reports) == []
    for row in rows:
        if (row["method"], row["n"], row["k"]) == ("dti", 20, 50):
            row["ratio_to_sw"] *= 0.99
    add(world, rows, "k")
    assert {text.split(",")[0].split(":")[0] for text in check(world.results, None, world.reports)} >= {
        "flops_vs_k.md",
        "flops_vs_k.json",
    }


def test_own_rows_stand_beside_committed_ones(world):
    rows = committed_rows("k-ml-100k")
    add(world, rows, "k")
    add(world, rows, "k", own=True)
    assert "(yours)" not in rendered(world)["flops_vs_k"], "the same rows count as committed"
    rows[0]["forward_flops_per_target"] *= 1.01
    add(world, rows, "k", own=True)
    assert "## ml-100k (yours)" in rendered(world)["flops_vs_k"]


def test_a_text_beyond_the_positions_is_said(world):
    add(world, committed_rows("length"), "length")
    page = rendered(world)["flops_vs_length"]
    smollm2 = page.split("## smollm2-135m")[1].split("## ")[0]
    assert re.search(r"\| 16,384 .*beyond the model's positions", smollm2)
    assert "beyond" not in page.split("## qwen2.5-1.5b")[1]


def test_what_feature_parallel_saves_is_said_per_length_and_of_each_model(world):
    add(world, rows := committed_rows("length"), "length")
    page = rendered(world)["flops_vs_length"]
    train = {
        (row["backbone"], row["method"], row["length"]["text_tokens"]): row["train_flops_per_target"]
        for row in rows
        if row["counter"] == "closed_form"
    }
    said = {}
    for backbone in ("smollm2-135m", "qwen2.5-1.5b"):
        ratios = {
            tokens: f"{train[backbone, ONE_SEQUENCE, tokens] / train[backbone, 'bahe', tokens]:.3f} ×"
            for tokens in LENGTHS
        }
        lines = page.split(f"## {backbone}")[1].split("## ")[0].splitlines()
        cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|")][2:]
        assert {int(line[1].replace(",", "")): line[6] for line in cells} == ratios
        said[backbone] = f"{ratios[512]} at 512 and {ratios[16_384]} at 16,384 text tokens ({backbone})"
    text = one_sequence_text(load_inputs(world.results, None, REFERENCE))
    assert all(each in text for each in said.values()) and text in page
    assert "one long sequence" not in rendered(world)["projection"], "it has no stated rate"
    add(world, [row for row in rows if row["method"] != ONE_SEQUENCE], "length")
    assert "## Feature parallel" not in rendered(world)["flops_vs_length"]


TIMING = {
    "device": "NVIDIA H100 80GB HBM3", "device_count": 1, "backbone": "random:llama-3.1-8b", "tuning": "lora",
    "dtype": "bfloat16", "compile": True, "method": "dti", "k": 50, "n": 20, "batch": 8, "repeat": 0,
    "tokens_per_s": 17e3, "targets_per_s": 776.007, "step_ms": 30.5, "peak_gib": 20.25, "compile_s": 60,
    "mfu": 0.55,
}  # fmt: skip


def test_projection_takes_measured_mfu_and_times_and_marks_the_rest(world):
    add(world, committed_rows("k-ml-1m"), "k")
    before = rendered(world)["projection"]
    assert "0.40, assumed, none measured" in before and "not run" in before
    add(world, [TIMING], "h100", kind="timing")
    line = next(
        line
        for line in rendered(world)["projection"].splitlines()
        if line.startswith("| ML-1M") and "DTI, k = 50" in line and "ours" in line
    )
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[3:5] == ["ours, ml-1m", "5.37"]
    assert cells[6:8] == ["0.40, assumed, none measured", "not run"], "nobody measured an A100"
    assert cells[10] == "0.55, measured on NVIDIA H100 80GB HBM3, dti, k = 50"
    assert cells[11] == "0.28", "776,007 targets at 776.007 per second"
    assert "(projected)" in cells[8] and "(projected)" in cells[12]


def test_every_cell_of_table_3_has_its_memory_and_whether_it_fits(world):
    lines = rendered(world)["projection"].split("### Memory of one GPU")[1].split("## BAHE")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if "paper length" in line]
    assert len(cells) == 12 and all("closed form" in line[5] for line in cells), "nothing was counted"
    assert [line[4] for line in cells[:4]] == ["757", "1,072", "1,773", "2,474"]
    for line in cells:
        assert 16 < float(line[7]) < 37.3 < float(line[6]) < 74.5
        assert line[8:11] == ["with checkpointing", "yes", "yes"]
    add(world, committed_rows("k-ml-1m"), "k")
    page = rendered(world)["projection"].split("### Memory of one GPU")[1].split("## BAHE")[0]
    assert page.count("counted on other prompts") == 12 and "closed form" not in page


def test_a_day_of_bahe_has_hours_price_memory_and_its_table_apart(world):
    add(world, rows := committed_rows("length"), "length")
    page = rendered(world)["projection"].split("## BAHE")[1]
    row = next(
        row
        for row in rows
        if (row["backbone"], row["method"], row["counter"]) == ("qwen2.5-1.5b", "bahe", "closed_form")
        and row["length"]["text_tokens"] == 2048
    )
    day, encoding = (
        [cell.strip() for cell in line.split("|")]
        for part in ("### A day of training", "### Encoding the table")
        for line in page.split(part)[1].split("## ")[0].splitlines()
        if line.startswith("| qwen2.5-1.5b | 2,048") and "LLM-CTR" not in line
    )
    hours = 50e6 * row["train_flops_per_target"] / (312e12 * 0.4) / 3600
    assert day[4] == f"{hours:,.1f} (projected)" and day[5] == f"{hours / 8:,.1f}"
    assert day[6] == f"{1.80 * hours:,.0f}" and day[8:10] == ["yes", "yes"]
    million = 1e6 * row["length"]["table_flops_per_behaviour"] / (312e12 * 0.4) / 3600
    assert encoding[3:6] == ["128", "0.400, assumed, none measured", f"{million:,.3f} (projected)"]
    assert encoding[7] == f"{million * 50 * 128:,.1f} (projected)"


def test_bahe_is_projected_with_the_mfu_of_its_own_steps(world):
    """Rows of another length of a behaviour, of a cut shape or of another backbone are not of the step."""
    add(world, rows := committed_rows("length"), "length")
    step = {"backbone": "random:qwen2.5-1.5b", "layers": 28, "device": "NVIDIA H100 80GB HBM3"}
    own = [efficiency_row("bahe", 2048, 16.0, 2.0, **step, mfu=mfu) for mfu in (0.1, 0.2, 0.3)]
    others = [
        efficiency_row("bahe", 2048, 16.0, 2.0, **step | other, mfu=0.9, table_build_s=9.0)
        for other in ({"behaviour_tokens": 8}, {"layers": 4}, {"backbone": "random:smollm2-135m"})
    ]
    add(world, [*own, *others], "efficiency", kind="bahe")
    page = rendered(world)["projection"].split("## BAHE")[1]
    rate, _, encoding = (
        [cell.strip() for cell in line.split("|")]
        for line in page.splitlines()
        if line.startswith("| qwen2.5-1.5b | 2,048") and "LLM-CTR" not in line
    )
    row = next(
        row
        for row in rows
        if (row["backbone"], row["method"], row["counter"]) == ("qwen2.5-1.5b", "bahe", "closed_form")
        and row["length"]["text_tokens"] == 2048
    )
    assert rate[6] == f"{312e12 * 0.2 / row['train_flops_per_target']:,.1f}"
    assert rate[7] == "0.200, measured on NVIDIA H100 80GB HBM3, assumed for the A100 80 GB"
    encoder = row["length"]["table_flops_per_behaviour"] * 1000 / 2.0 / 989e12
    assert encoding[4].startswith(f"{encoder:.3f}, measured on")
    assert "An MFU of 0.40, assumed elsewhere on this page, does not hold for BAHE (0.200 to 0.200)." in page
    a100 = efficiency_row("bahe", 2048, 16.0, 2.0, **step | {"device": "NVIDIA A100-SXM4-80GB"}, mfu=0.5)
    add(world, [*own, a100], "efficiency", kind="bahe")
    page = rendered(world)["projection"].split("## BAHE")[1]
    assert "0.500, measured on NVIDIA A100-SXM4-80GB |" in page, "the device's own comes first"
    assert "does not hold for" not in page
    assert " 1,000.0 " in page, "samples per second, measured"


def test_records_of_a_second_device_move_no_projection_by_the_first(world):
    add(world, committed_rows("length"), "length")
    step = {"backbone": "random:qwen2.5-1.5b", "layers": 28}
    h100, h200 = step | {"device": "NVIDIA H100 80GB HBM3"}, step | {"device": "NVIDIA H200"}
    rows = [efficiency_row("bahe", 2048, 16.0, 2.0, **h100, mfu=mfu) for mfu in (0.1, 0.2)]
    add(world, rows, "h100", kind="bahe")
    before = rendered(world)["projection"]
    assert "0.150, measured on NVIDIA H100 80GB HBM3, assumed for the A100" in before
    others = [efficiency_row("bahe", 2048, 9.0, 2.0, **h200, mfu=0.3, table_build_s=9.0) for _ in range(3)]
    add(world, others, "h200", kind="bahe")
    assert rendered(world)["projection"] == before


def test_timing_of_an_unlisted_device_is_nobodys_measurement(world):
    add(world, committed_rows("k-ml-1m"), "k")
    add(world, [TIMING | {"device": "NVIDIA RTX 9090", "mfu": None}], "other", kind="timing")
    page = rendered(world)["projection"]
    assert "0.28" not in [cell.strip() for line in page.splitlines() for cell in line.split("|")]
    assert "0.40, assumed, none measured" in page
