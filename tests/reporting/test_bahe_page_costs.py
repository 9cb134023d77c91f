"""reports/bahe.md: costs that count the table, beside partners of as many epochs, and the figure."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from bahe_report_cases import (
    FAST,
    LONGER,
    SLOW,
    TUNED,
    add,
    add_family,
    add_others,
    add_trials,
    config_of,
    costs,
    full,
    page,
)
from report_cases import table

from repro.methods.bahe.settings import dti_bahe, llm_ctr


def test_the_table_is_part_of_the_total(world) -> None:
    add_family(world)
    add_others(world)
    rows = costs(page(world))
    assert (rows["BAHE"]["training"], rows["BAHE"]["table"], rows["BAHE"]["total"]) == (
        *("20.0 s", "10.0 s"),
        "30.0 s",
    )
    assert rows["BAHE"]["LLM-CTR / row"] == "3.33 ×"
    assert rows["LLM-CTR"]["table"] == rows["LLM-CTR"]["LLM-CTR / row"] == "—"
    assert rows["BAHE"]["tokens or vectors per target"] == "10.0"
    assert "Like rates" not in rows


def test_totals_are_set_beside_sw_s_too(world) -> None:
    add_family(world)
    add_others(world)  # SW: 100 s without a table
    rows = costs(page(world))
    assert (rows["BAHE"]["SW / row"], rows["LLM-CTR"]["SW / row"]) == ("3.33 ×", "1.00 ×")
    assert rows["SW"]["SW / row"] == "—"
    add(world, full(), train_s=45.0, build_s=5.0, **{"training.max_epochs": 10})
    assert costs(page(world))["BAHE (up to 10 epochs)"]["SW / row"] == "2.00 × (1 epoch)"
    times = {"time.train_s": 300.0}
    world.add(0.4, k=1, recipe="control", record=times, **{"training.max_epochs": 10})
    rows = costs(page(world))
    found = {name: row["SW / row"] for name, row in rows.items() if name[:2] in ("SW", "BA", "LL")}
    longer = " (up to 10 epochs)"
    expected = {"SW": "—", f"SW{longer}": "—", "BAHE": "3.33 ×", f"BAHE{longer}": "6.00 ×"}
    assert found == expected | {"LLM-CTR": "1.00 ×"}


def test_a_partner_that_trains_as_long_counts_before_one_with_the_same_settings(world) -> None:
    add_family(world)
    world.add(0.4, k=1)  # 100 s, one epoch
    add(world, full(), train_s=45.0, build_s=5.0, **LONGER)
    other = {"training.max_epochs": 10, "training.learning_rate": 3e-3}
    world.add(0.4, k=1, recipe="control", record={"time.train_s": 300.0}, **other)
    assert costs(page(world))["BAHE (up to 10 epochs)"]["SW / row"] == "6.00 ×"


def test_a_partner_that_trains_longer_does_not_count(world) -> None:
    add(world, full())
    add(world, full(), **LONGER)
    world.add(0.4, k=1, recipe="control", record={"time.train_s": 300.0}, **LONGER)
    rows = costs(page(world))
    assert rows["BAHE"]["SW / row"] == "—" and rows["BAHE (up to 10 epochs)"]["SW / row"] == "10.00 ×"


def test_the_figure_shows_gain_and_cost_of_each_device_apart(world) -> None:
    """A method's points go by cost, and what the page does not compare is left out."""
    add_family(world)
    add_others(world)
    add(world, full(), signal=0.9, train_s=45.0, build_s=5.0, **LONGER)
    add(world, dti_bahe(10, 10))
    elsewhere = {"device": {"name": "Other GPU", "count": 1}, "time.train_s": FAST, "time.table_build_s": 1.0}
    world.add(0.6, record=elsewhere, **config_of(full(), **TUNED))
    text, data = page(world), json.loads((world.reports / "bahe.json").read_text())["data"]
    assert "![AUC above the floor" in text
    titles = [panel["title"].split("\n") for panel in data["panels"]]
    assert [title[1] for title in titles] == ["Other GPU", "Test CPU, 2 cores"]
    assert [line["name"] for line in data["panels"][0]["lines"] if line["style"] == "line"] == ["BAHE"]
    lines = {line["name"]: line for line in data["panels"][1]["lines"]}
    shown = {"BAHE", "DIN", "DTI over BAHE, k = 50", "DTI, our recipe, k = 50", "LLM-CTR", "SW"}
    assert set(lines) == shown
    assert [x for x, _ in lines["BAHE"]["points"]] == [30.0, 50.0], "training and table"
    assert [x for x, _ in lines["SW"]["points"]] == [100.0]
    above = table("### x\n" + text.split("**Above the floor:**")[2].split("<details>")[0], "x")
    (_, gain), (low, high) = lines["SW"]["points"][0], lines["SW"]["bounds"][0]
    assert above["SW"]["AUC − AUC of the floor"] == f"{gain:+.4f}"
    assert f"[{low:+.4f}, {high:+.4f}]" in text
    every = [line for panel in data["panels"] for line in panel["lines"] if line["name"] == "BAHE"]
    assert len(every) == 2 and every[0]["colour"] == every[1]["colour"]
    colours = [line["colour"] for line in data["panels"][1]["lines"]]
    assert len(set(colours)) == len(colours) == 6


def test_without_a_floor_nothing_is_drawn(world) -> None:
    add_family(world)
    page(world)
    assert json.loads((world.reports / "bahe.json").read_text())["data"]["panels"] == []


def test_of_several_partners_the_one_alike_counts(world) -> None:
    add(world, full())
    add(world, llm_ctr(10), train_s=300.0, build_s=None)
    add(world, replace(llm_ctr(10), sequences=("recent",)), train_s=SLOW, build_s=None)
    rows = costs(page(world))
    assert rows["BAHE"]["LLM-CTR / row"] == "10.00 ×"
    assert len(rows) == 3


def test_epochs_are_the_best_and_all_of_them(world) -> None:
    times = {"time.train_s": FAST, "time.table_build_s": 1.0, "data.tokens_raw": 40_000}
    for seed, (best, epochs) in enumerate([(4, 7), (5, 8)]):
        record = times | {"time.best_epoch": best, "time.epochs": epochs}
        record["validation"] = [{"epoch": e, "auc": 0.7, "log_loss": 0.6} for e in range(epochs)]
        world.add(seed=seed, record=record, **config_of(full(), **TUNED), **LONGER)
    (row,) = costs(page(world)).values()
    assert row["best of epochs"] == "5 to 6 of 7 to 8"
    assert "Trials had" not in page(world), "there were none"
    trials = [(4e-4, 0.7), (1e-3, 0.6)]
    add_trials(world, "bahe/cpu-ml-100k", "family", {"bahe": trials, "dti-bahe": trials, "llm-ctr": trials})
    assert "Trials had as many epochs as the rows that name none." in page(world)


def test_whether_the_larger_k_took_less_time_is_said(world) -> None:
    add(world, dti_bahe(10, 50), train_s=21.0)
    assert "training time than k" not in page(world)
    add(world, dti_bahe(10, 10), train_s=FAST)
    longer = {"training__max_epochs": 10}
    add(world, dti_bahe(10, 50), train_s=SLOW, **longer)
    text = page(world)
    assert text.count("training time than k = 10") == 1, "rows trained otherwise are not compared"
    assert "took no less training time than k = 10: 21.0 s against 20.0 s." in text
    add(world, dti_bahe(10, 5), train_s=30.0)
    assert "DTI over BAHE, k = 10 took less training time than k = 5: 20.0 s against 30.0 s." in page(world)


def test_without_a_table_s_cost_there_is_no_total(world) -> None:
    add(world, full(), build_s=None)
    add(world, llm_ctr(10), train_s=SLOW, build_s=None)
    rows = costs(page(world))
    assert [rows["BAHE"][name] for name in ("training", "table", "total", "LLM-CTR / row")] == [
        *("20.0 s", "—", "—", "—")
    ]
    assert rows["LLM-CTR"]["total"] == "100.0 s"


@pytest.mark.parametrize("setting", ["training__precision", "compiled", "batch_sizes__max_tokens"])
def test_times_taken_under_other_conditions_are_not_compared(world, setting) -> None:
    add(world, full(), **{setting: {"compiled": True, "training__precision": "fp32"}.get(setting, 64)})
    add(world, llm_ctr(10), train_s=SLOW, build_s=None)
    assert costs(page(world))["BAHE"]["LLM-CTR / row"] == "—"
