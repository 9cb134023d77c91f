"""The page of open questions: what was not run is said, and every number is a record's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from bahe_report_cases import cells_of, config_of, drift, full, inputs_of, page
from test_bahe_efficiency_page import row as efficiency_row

from repro.data import DATASET_NAMES, groceries
from repro.experiments.bahe_variants import CUTS, STALE
from repro.methods.bahe.settings import dti_bahe
from repro.records.measurements import write_measurement
from repro.reporting import bahe_open, leakage, stale_tables
from repro.reporting.bahe_open import CUT_TITLES

ENVIRONMENT = {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"}
LEAKAGE: dict[str, Any] = {
    "device": "Test CPU, 2 cores",
    "backbone": "tiny",
    "method": "dti-bahe",
    "layer_cut": 0.5,
    "layers": 2,
    "n": 4,
    "k": 20,
    "distance": 5,
    "seed": 0,
    "train_targets": 800,
    "test_targets": 100,
    "test_users": 7,
    "train_loss": 0.4,
    "best_auc": 0.9,
    "streaming_auc": 0.88,
    "streaming_low": 0.86,
    "streaming_high": 0.9,
    "window_auc": 0.49,
}


def text_of(world) -> str:
    return bahe_open.render(inputs_of(world))["bahe_open.md"].decode()


def sections_of(text: str) -> dict[str, str]:
    parts = text.split("\n## ")[1:]
    return {part.partition("\n")[0]: part for part in parts}


def test_without_records_every_question_says_so(world) -> None:
    sections = sections_of(text_of(world))
    assert len(sections) == 7
    for title, text in sections.items():
        assert ("not run" in text) or ("No records" in text), title
    assert bahe_open.state(inputs_of(world)) == (
        "table: not run; layer cuts: not run; stale tables: not run; leakage: not run"
    )


def test_images_and_audio_are_said_not_to_be_tested(world) -> None:
    text = text_of(world)
    assert cells_of(text, "images")[1] == cells_of(text, "audio")[1] == "not tested"


def test_a_domain_counts_once_it_has_a_run(world) -> None:
    world.add(**config_of(full()))
    result = cells_of(text_of(world), "text of another domain")[1]
    assert result.startswith("not run") and groceries.PACKAGE.install in result
    assert "--dataset groceries" in result and "groceries" in DATASET_NAMES
    world.add(**config_of(full()), dataset="groceries")
    assert cells_of(text_of(world), "text of another domain")[1] == "runs on groceries: [bahe](bahe.md)"


def panels_of(world) -> dict[str, dict[str, Any]]:
    drawn = json.loads(bahe_open.render(inputs_of(world))["bahe_open.json"])["data"]["panels"]
    return {panel["title"].split("\n")[0]: panel for panel in drawn}


def test_the_figure_has_the_tables_differences_and_costs(world) -> None:
    for name, signal, train_s in (("cut-1-6", 0.3, 90.0), ("cut-3-6", 0.6, 60.0), ("cut-5-6", 0.6, 30.0)):
        record = {"time.train_s": train_s}
        world.add(signal, record=record, **config_of(replace(full(), layer_cut=CUTS[name])))
    files = bahe_open.render(inputs_of(world))
    assert "![Layer cuts" in files["bahe_open.md"].decode()
    panels = panels_of(world)
    (line,) = panels["layer cuts: ml-100k, tier cpu"]["lines"]
    assert [x for x, _ in line["points"]] == pytest.approx([1 / 6, 1 / 2, 5 / 6], rel=1e-5)
    assert line["points"][1][1] == 0.0 and line["bounds"][1] == [0.0, 0.0], (
        "what the others are compared with"
    )
    shown = cells_of(files["bahe_open.md"].decode(), CUT_TITLES["cut-1-6"])
    assert shown[4] == f"{line['points'][0][1]:+.4f}" and line["points"][0][1] < 0
    same = cells_of(files["bahe_open.md"].decode(), CUT_TITLES["cut-5-6"])
    assert same[4] == "the same scores" and line["points"][2][1] == 0.0
    time, memory = panels["layer cuts: cost of training"]["lines"]
    assert [y for _, y in time["points"]] == [1.5, 1.0, 0.5] and [y for _, y in memory["points"]] == [1.0] * 3


def test_the_figure_without_a_reference_has_no_panel(world) -> None:
    world.add(**config_of(replace(full(), layer_cut=CUTS["cut-1-6"])))
    world.add(**config_of(replace(full(), drift=drift(*STALE["revised-10"]))))
    assert panels_of(world) == {}


@pytest.mark.parametrize(("layers", "m"), [(6, [1, 2, 3, 4, 5]), (4, [1, 1, 2, 3, 3]), (None, None)])
def test_cuts_are_named_with_the_layers_that_they_mean(world, layers, m) -> None:
    for name in ("cut-1-6", "cut-5-6"):
        config = config_of(replace(full(), layer_cut=CUTS[name]))
        world.add(**config, backbone_settings={"name": "smollm2-135m", "layers": layers, "title": "S"})
    text = text_of(world)
    for number, title in enumerate(CUT_TITLES.values()):
        known = f" (m = {m[number]} of {layers})" if m else ""
        assert (cells_of(text, title + known)[2] == "not run") == (title[0] not in "15")


def test_the_usual_cut_alone_is_no_answer(world) -> None:
    world.add(**config_of(full()))
    assert "of the layers frozen: not run" in sections_of(text_of(world))["2. Where to cut the layers"]


def test_stale_rows_are_compared_with_the_freshest_table_of_their_kind(world) -> None:
    encoded = {"revised-1": 900, "revised-10": 500, "revealed-1": 700, "revealed-never": 200}
    for name, number in encoded.items():
        method = replace(full(), drift=drift(*STALE[name]))
        signal = {"revealed-never": 0.0, "revised-10": 0.8}.get(name, 0.9)
        for seed in range(3):
            table_s = None if name.startswith("revealed") else 0.001 * number * (1 + seed)
            times = {"time.table_build_s": table_s, "time.train_s": 10.0}
            record = {"data.behaviours_encoded": number, **times}
            world.add(signal, **config_of(method), seed=seed, record=record)
    text = sections_of(text_of(world))["4. A table that ages"]
    rows = {name: cells_of(text, title) for name, title in stale_tables.TITLES.items()}
    assert rows["revised-1"][3:] == ["—", "—", "—", "64", "900", "0.90 to 2.70", "9.0% to 27.0%"]
    assert rows["revised-10"][3].startswith("-") and rows["revised-10"][6:8] == ["640", "500"]
    assert rows["revealed-never"][3].startswith("-") and rows["revealed-never"][6:] == ["—", "200", "—", "—"]
    assert rows["no-drift"][2] == rows["revised-never"][2] == "not run"
    assert "after Holm: revealed, never refreshed." in text
    (panel,) = panels_of(world).values()
    lines = {line["name"]: line["points"] for line in panel["lines"]}
    assert [x for x, _ in lines["revised"]] == [500, 900] and [x for x, _ in lines["revealed"]] == [200, 700]
    assert lines["revised"][1][1] == lines["revealed"][1][1] == 0.0 > lines["revealed"][0][1]


def test_the_seconds_of_one_seed_are_no_range(world) -> None:
    record = {"data.behaviours_encoded": 500, "time.table_build_s": 1.5, "time.train_s": 6.0}
    world.add(**config_of(replace(full(), drift=drift(*STALE["revised-10"]))), record=record)
    assert cells_of(text_of(world), stale_tables.TITLES["revised-10"])[8:] == ["1.50", "25.0%"]


def test_a_refresh_that_changes_no_score_is_said_to_change_none(world) -> None:
    for name in ("revised-1", "revised-10"):
        record = {"data.behaviours_encoded": 900 if name == "revised-1" else 500}
        world.add(**config_of(replace(full(), drift=drift(*STALE[name]))), record=record)
    text = sections_of(text_of(world))["4. A table that ages"]
    assert cells_of(text, stale_tables.TITLES["revised-10"])[3:6] == ["the same scores", "—", "—"]


def test_a_refresh_that_no_row_declares_is_left_out(world) -> None:
    world.add(**config_of(replace(full(), drift=replace(drift("revised", 1), refresh_every=63))))
    world.add(**config_of(replace(full(), drift=drift("revised", 10))))
    (group,) = stale_tables.stale_groups(inputs_of(world))
    assert tuple(group.cells) == ("revised-10",)


def leaked(world, *rows: dict[str, Any]) -> str:
    write_measurement(world.results, "leakage", "streaming", ENVIRONMENT, [LEAKAGE | row for row in rows])
    return sections_of(text_of(world))["6. Leakage of DTI over BAHE"]


def test_leakage_is_what_lies_above_one_half_beyond_the_window(world) -> None:
    text = leaked(
        world,
        {"distance": 4, "streaming_auc": 0.89},
        {},
        {"distance": 9, "streaming_auc": 0.501, "streaming_low": 0.48, "streaming_high": 0.52},
        {"method": "dti", "layer_cut": None, "layers": 4, "distance": 9, "streaming_auc": 0.7, "seed": 3},
    )
    bahe = [line for line in text.splitlines() if line.startswith("| DTI over BAHE, 50 %")]
    assert ["in the window" in bahe[0], "beyond the window" in bahe[1], "beyond reach" in bahe[2]] == [
        True
    ] * 3
    assert "+0.3800" in bahe[1] and "0.4900" in bahe[1]
    assert "beyond the window" in next(line for line in text.splitlines() if line.startswith("| DTI  "))
    assert "- DTI over BAHE, 50 % of the layers cached: leaks from 5 interactions back." in text
    assert "- DTI: leaks from 9 interactions back." in text


def test_the_number_of_seeds_and_the_reach_are_stated(world) -> None:
    text = leaked(world, {}, {"seed": 1}, {"distance": 9})
    assert "with every seed (1 to 2 seeds a row)" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| DTI over") and "| 9, " in line]
    assert [cell.strip() for cell in line.split("|")][2:6] == ["2", "4", "20", "8"]
    assert "The depth removes" not in text, "nobody ran a streaming row"


def test_reach_of_quality_rows_is_set_beside_their_prompts(world) -> None:
    """Six layers: with half of them, 3 x 10 back; a prompt of 10 + k shows 10 + k - 1 back."""
    for k in (1, 10, 50):
        world.add(**config_of(dti_bahe(10, k), recipe="tuned"))
    rows = [line for line in text_of(world).splitlines() if line.startswith("| DTI over BAHE |")]
    found = [[cell.strip() for cell in line.split("|")][2:-1] for line in rows]
    assert found == [
        ["3", "10", "1", "30", "10", "nothing can leak: all in the window"],
        ["3", "10", "10", "30", "19", "nothing"],
        ["3", "10", "50", "30", "59", "what lies 31 or more back"],
    ]


def test_the_quality_page_says_how_far_its_streaming_rows_reach(world) -> None:
    """The same rows in a line, with a link to the section that is there."""
    assert leakage.quality_line(inputs_of(world)) == ""
    for k in (1, 10, 15, 50):
        world.add(**config_of(dti_bahe(10, k), recipe="tuned", backbone_settings__lora_rank=64))
    (line,) = [line for line in page(world).splitlines() if line.startswith("- *Leakage*: ")]
    assert (
        "The rows below: DTI over BAHE, 3 × 10 = 30 back, at k = 1 nothing can leak: all in the window, at "
        "k = 10 and 15 the depth removes nothing, at k = 50 the depth removes what lies 31 or more back. "
    ) in line
    anchor = line.partition("bahe_open.md#")[2].partition(")")[0]
    headings = [title.lower().replace(".", "").replace(" ", "-") for title in sections_of(text_of(world))]
    assert anchor in headings


def test_a_leak_that_one_seed_does_not_show_is_none(world) -> None:
    text = leaked(world, {}, {"seed": 1, "streaming_low": 0.49})
    assert "cached: no leak is seen." in text


def test_what_a_target_shows_alone_has_not_leaked(world) -> None:
    assert "cached: no leak is seen." in leaked(world, {"streaming_low": 0.51, "window_auc": 0.52})


def test_lengths_beyond_the_paper_s_are_the_efficiency_page_s(world) -> None:
    row = {
        "device": "Test GPU", "device_count": 1, "backbone": "smollm2-135m", "layer_cut": 0.5, "batch": 16,
        "samples_per_s": 1.0, "train_flops_per_sample": None, "table_build_s": None, "behaviour_tokens": 16,
    }  # fmt: skip
    rows = [
        row | {"text_tokens": tokens, "method": method, "step_ms": step, "peak_gib": gib}
        for tokens in (2048, 4096)
        for method, step, gib in (("llm_ctr", 10.0 * tokens, 8.0), ("bahe", 100.0, 2.0))
    ]
    write_measurement(world.results, "bahe", "test", ENVIRONMENT, rows)
    text = sections_of(text_of(world))["1. Longer than 2,048 tokens"]
    assert "409.60 ×" in text and "4.00 ×" in text and "| 2,048" not in text


def table_row(**changes: Any) -> dict[str, Any]:
    none = ("backbone", "num_layers", "precision", "tokens")
    row = {
        "device": "Test CPU, 2 cores", "threads": 2, "measured": "storage", "repeat": 0, "width": 576,
        "behaviours": 1_000_000, "build_s": 30.0, "behaviours_per_s": 1e6 / 30, "storage": "lance",
        "open_s": 2.0, "first_read_s": 3.0, "lookups_per_s": 1e6, "vectors_per_s": 2e6, "update_s": 0.5,
        "text_bytes": 2.0**20, "index_bytes": 2.0**21, "table_bytes": 2.0**22, "export_bytes": 2.0**23,
    }  # fmt: skip
    return row | dict.fromkeys(none) | changes


STORAGE = ("storage", "open_s", "first_read_s", "lookups_per_s", "vectors_per_s", "update_s")
SIZES = ("text_bytes", "index_bytes", "table_bytes", "export_bytes")
ENCODER: dict[str, Any] = dict.fromkeys((*STORAGE, *SIZES)) | {
    "measured": "encoder", "behaviours": 500, "behaviours_per_s": 250.0, "backbone": "smollm2-135m",
    "num_layers": 15, "precision": "fp32", "tokens": 10_000,
}  # fmt: skip
TEXTS = ENCODER | {
    "measured": "texts", "threads": 1, "width": None, "num_layers": None, "precision": None,
    "behaviours_per_s": 50_000.0, "text_bytes": 2.0**20,
}  # fmt: skip


def growing(world, *rows: dict[str, Any]) -> str:
    measured = [table_row(**row) for row in rows]
    write_measurement(world.results, "behaviour_table", "test", ENVIRONMENT, measured)
    return sections_of(text_of(world))["3. A growing table"]


def test_a_growing_table_shows_what_repetitions_differ_by_and_the_rate_of_the_encoder(world) -> None:
    text = growing(world, {}, {"repeat": 1, "build_s": 50.0}, {"repeat": 2, "build_s": 31.0}, ENCODER)
    found = cells_of(text, "lance")
    assert found[1:5] == ["1,000,000", "576", "30.00 to 50.00", "2.00"]
    assert found[9:] == ["1.0", "2.0", "4.0", "8.0", "3"]
    assert cells_of(text, "smollm2-135m, 15 layers")[3:] == ["20.0", "250", "4,000", "1"]
    said = [line for line in text.splitlines() if line.endswith(": not run.")]
    assert said == ["Preparing texts: not run.", "Filling by one process and by two: not run."], (
        "an older file"
    )


def test_preparing_texts_and_filling_by_several_processes_have_tables_of_their_own(world) -> None:
    filling = ENCODER | {"measured": "filling", "storage": "lance", "threads": 1, "num_layers": 2}
    fillings = [
        filling | {"repeat": repeat, "processes": processes, "behaviours_per_s": rate, "build_s": 500 / rate}
        for processes, rates in ((1, (100.0, 140.0)), (2, (200.0, 250.0)))
        for repeat, rate in enumerate(rates)
    ]
    text = growing(world, {}, TEXTS, TEXTS | {"repeat": 1, "behaviours_per_s": 40_000.0}, ENCODER, *fillings)
    assert "Texts, Test CPU, 2 cores, 1 thread:" in text
    found = cells_of(text, "smollm2-135m |")
    assert found[1:4] == ["500", "20.0", "1.0"] and found[5:] == ["40,000 to 50,000", "20 to 25", "2"]
    assert "Filling, Test CPU, 2 cores, 1 thread a process:" in text
    lines = [line for line in text.splitlines() if line.startswith("| smollm2-135m, 2 layers")]
    one, two = ([cell.strip() for cell in line.strip("|").split("|")][4:] for line in lines)
    assert one == ["1", "3.57 to 5.00", "100 to 140", "1.00 ×", "2"]
    assert two == ["2", "2.00 to 2.50", "200 to 250", "1.88 ×", "2"], "225 over 120"
    assert "not run" not in text


def test_the_encoder_s_rate_is_taken_from_the_efficiency_sweeps_and_from_runs(world) -> None:
    """1,000 behaviours in 2 s, one build behind many rows; a run encoded 900 in 3 s."""
    rows = [efficiency_row("bahe", tokens, 10.0, 2.0) for tokens in (512, 1024)]
    rows += [efficiency_row("llm_ctr", 512, 10.0, 2.0)]
    write_measurement(world.results, "bahe", "test", ENVIRONMENT, rows)
    world.add(**config_of(full()), record={"data.behaviours_encoded": 900, "time.table_build_s": 3.0})
    text = sections_of(text_of(world))["3. A growing table"]
    (line,) = [line for line in text.splitlines() if line.startswith("| smollm2-135m shape")]
    found = [cell.strip() for cell in line.strip("|").split("|")]
    assert found[:2] == ["smollm2-135m shape, 15 layers", "A device"]
    assert found[3:] == ["1,000", "16", "500", "2,000"]
    assert "first calls included in their records' seconds: SmolLM2-135M" in text
    assert "on Test CPU, 2 cores, 300 behaviours/s" in text


def test_a_table_that_was_not_grown_to_a_million_is_said_to_be_so(world) -> None:
    rows = [table_row(behaviours=10_000, storage="memory", open_s=None, export_bytes=None)]
    write_measurement(world.results, "behaviour_table", "test", ENVIRONMENT, rows)
    text = sections_of(text_of(world))["3. A growing table"]
    assert "1,000,000 behaviours: not run" in text and cells_of(text, "memory")[4] == "—"
