"""The efficiency page: ratios from rows beside the claim, failures named, the build paid back."""

from __future__ import annotations

import json

import pytest

from repro.paths import PROJECT_ROOT
from repro.records.measurements import write_measurement
from repro.reporting import bahe_efficiency
from repro.reporting.inputs import load_inputs

REFERENCE = PROJECT_ROOT / "reports" / "reference"
VERSIONS = {"python": "3.12", "torch": "2.11.0", "transformers": "5.17.0"}
BAHE, LLM_CTR = "bahe", "llm_ctr"


def row(method: str, tokens: int, step_ms, peak_gib, **changes) -> dict:
    """16 samples per step; a table of 1,000 behaviours that took 2 s."""
    ours = method == BAHE
    size = changes.get("behaviour_tokens", 16)
    speed = step_ms if isinstance(step_ms, str) else 16e3 / step_ms
    return {
        "device": "A device", "device_count": 1, "backbone": "random:smollm2-135m", "layers": 30,
        "layer_cut": 0.5 if ours else 0.0, "batch": 16, "text_tokens": tokens, "method": method,
        "step_ms": step_ms, "samples_per_s": speed, "peak_gib": peak_gib, "repeat": 0, "dtype": "bfloat16",
        "train_flops_per_sample": 1e9 * tokens / (64 if ours else 1), "compile": True, "cuda_graph": True,
        "table_build_s": 2.0 if ours else None, "table_behaviours": 1000 if ours else None,
        "behaviour_tokens": size, "behaviours": tokens // size, "reserved_gib": None, "mfu": None,
    } | changes  # fmt: skip


def page(tmp_path, rows) -> tuple[str, dict]:
    if rows:
        write_measurement(tmp_path, "bahe", "efficiency-gpu-smollm2-135m-a-device", VERSIONS, rows)
    files = bahe_efficiency.render(load_inputs(tmp_path, None, REFERENCE))
    assert set(files) == {f"bahe_efficiency.{kind}" for kind in ("md", "json", "png", "svg")}
    return files["bahe_efficiency.md"].decode(), json.loads(files["bahe_efficiency.json"])["data"]


def cells(text: str, first_headers: tuple[str, ...], first_cell: str) -> dict[str, str]:
    """The row that begins with a cell in the table whose headers begin so."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    split = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block] for block in blocks]
    (table,) = [each for each in split if tuple(each[0][: len(first_headers)]) == first_headers]
    (found,) = [line for line in table[2:] if line[0] == first_cell]
    return dict(zip(table[0], found, strict=True))


MAIN, BUILD = ("text tokens", "behaviours"), ("text tokens", "table")
TITLE = "smollm2-135m shape, 30 layers, A device"


def test_ratios_are_those_of_means_and_stand_beside_the_claim(tmp_path) -> None:
    rows = [
        row(BAHE, 1024, 4.0, 2.0), row(BAHE, 1024, 6.0, 2.0, repeat=1),
        row(LLM_CTR, 1024, 48.0, 8.0), row(LLM_CTR, 1024, 52.0, 8.0, repeat=1),
    ]  # fmt: skip
    text, data = page(tmp_path, rows)
    found = cells(text, MAIN, "1,024")
    assert found["BAHE, step, ms"] == "5.00 (4.00 to 6.00)"
    assert (found["time ratio"], found["memory ratio"]) == ("10.00 ×", "4.00 ×")
    assert (found["FLOPs ratio"], found["behaviours"]) == ("64.00 ×", "64")
    claim = cells(text, ("model and device",), TITLE)
    assert (claim["time, measured"], claim["memory, measured"]) == ("10.00 ×", "4.00 ×")
    assert (claim["time, 5 × reached"], claim["memory, 5 × reached"]) == ("yes", "no")
    assert "2 repetitions" in text and "behaviours of 16 tokens" in text
    (ratios,) = [panel for panel in data["panels"] if panel["y"] == "ratio"]
    lines = {line["name"]: line["points"] for line in ratios["lines"]}
    assert lines["time"] == [[1024, 10.0]] and lines["claimed"] == [[1024, 5.0]]


def test_rows_of_a_cpu_or_a_cut_shape_come_last_and_have_no_verdict(tmp_path) -> None:
    cpu, cut = {"device": "A CPU, 2 cores", "layers": 4}, {"device": "B device", "layers": 4}
    rows = [
        each
        for changes in (cpu, cut, {})
        for each in (
            row(BAHE, 1024, 4.0, 2.0, **changes, table_build_s=0.01),
            row(LLM_CTR, 1024, 48.0, 12.0, **changes),
        )
    ]
    text, _ = page(tmp_path, rows)
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## smollm2")]
    assert titles[0] == TITLE and len(titles) == 3
    judged = [cells(text, ("model and device",), title) for title in titles]
    assert [each["time, 5 × reached"] for each in judged] == [
        "yes", "a reduced shape on a CPU, no verdict", "a reduced shape, no verdict",
    ]  # fmt: skip
    assert judged[1]["time, measured"] == "12.00 ×", "the ratio stays"
    assert judged[0]["time, all new"] == "3.37 ×", "48 ms / (4 + 16 x 64 x 0.01 ms)"


def test_the_build_is_paid_back_by_what_a_sample_saves(tmp_path) -> None:
    """(50 - 10) ms / 16 = 2.5 ms saved a sample: 2 s take 800 samples; all new: 10 + 16 x 64 x 2 ms."""
    text, _ = page(tmp_path, [row(BAHE, 1024, 10.0, 2.0), row(LLM_CTR, 1024, 50.0, 8.0)])
    found = cells(text, BUILD, "1,024")
    assert list(found.values())[1:] == ["1,000, 2 s", "2 ms", "2.5 ms", "800", "0.02 ×"]


def test_a_table_that_costs_more_than_it_saves_is_never_paid_back(tmp_path) -> None:
    text, _ = page(tmp_path, [row(BAHE, 512, 10.0, 2.0), row(LLM_CTR, 512, 9.0, 8.0)])
    assert cells(text, BUILD, "512")["samples until paid back"] == "never"


def test_out_of_memory_is_named_and_has_no_ratio(tmp_path) -> None:
    failed = row(LLM_CTR, 2048, "out_of_memory", "out_of_memory")
    text, data = page(tmp_path, [row(BAHE, 2048, 10.0, 2.0), failed])
    found = cells(text, MAIN, "2,048")
    assert found["LLM-CTR, step, ms"] == found["LLM-CTR, peak, GiB"] == "OOM"
    assert found["time ratio"] == found["memory ratio"] == "LLM-CTR OOM"
    assert found["FLOPs ratio"] == "64.00 ×", "counted, not measured"
    claim = cells(text, ("model and device",), TITLE)
    assert (claim["time, measured"], claim["time, 5 × reached"]) == ("LLM-CTR OOM", "—")
    assert "out_of_memory" not in json.dumps(data)
    for panel in data["panels"][:2]:
        lines = {line["name"]: line for line in panel["lines"]}
        assert lines["LLM-CTR"]["points"] == [] and lines["LLM-CTR"]["failed"] == {"OOM": [2048]}
        assert "failed" not in lines["BAHE"]


def test_a_side_that_was_not_measured_leaves_gaps(tmp_path) -> None:
    text, _ = page(tmp_path, [row(BAHE, 1024, 10.0, 2.0), row(LLM_CTR, 4096, 99.0, 8.0)])
    assert cells(text, MAIN, "1,024")["LLM-CTR, step, ms"] == "—"
    assert cells(text, MAIN, "4,096")["behaviours"] == "—"
    assert cells(text, BUILD, "1,024")["samples until paid back"] == "—"


def test_sizes_of_a_behaviour_stand_side_by_side(tmp_path) -> None:
    rows = [
        row(BAHE, 1024, 10.0, 2.0), row(BAHE, 1024, 20.0, 4.0, behaviour_tokens=8),
        row(LLM_CTR, 1024, 40.0, 8.0), row(BAHE, 512, 10.0, 2.0),
    ]  # fmt: skip
    text, _ = page(tmp_path, rows)
    assert cells(text, MAIN, "1,024")["time ratio"] == "4.00 ×", "of the usual size"
    sizes = cells(text, ("text tokens", "time ratio, 8 tokens per behaviour"), "1,024")
    assert list(sizes.values())[1:] == ["2.00 ×", "4.00 ×", "0.01 ×", "0.02 ×", "2.00 ×", "4.00 ×"]
    with pytest.raises(ValueError, match="not enough"):
        cells(text, ("text tokens", "time ratio, 8 tokens per behaviour"), "512")


def test_a_page_without_records_says_so(tmp_path) -> None:
    text, data = page(tmp_path, [])
    assert "Not run." in text and "No records." in text and data["panels"] == []
    assert bahe_efficiency.state(load_inputs(tmp_path, None, REFERENCE)) == "not run"
