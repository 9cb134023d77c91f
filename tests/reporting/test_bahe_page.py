"""reports/bahe.md: which rows meet, differences, and costs that count the table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from bahe_report_cases import cells_of, config_of, full, inputs_of
from report_cases import NO_LLM, UNTRAINED, table

from repro.errors import RecordError
from repro.methods.bahe.settings import dti_bahe, llm_ctr
from repro.reporting import render_all
from repro.reporting.bahe_quality_rows import groups

TUNED = {"recipe": "tuned", "backbone_settings__lora_rank": 64}
FAST, SLOW = 20.0, 100.0


def page(world, own=False) -> str:
    render_all(world.results, world.runs if own else None, world.reports, ["bahe"])
    return (world.reports / "bahe.md").read_text()


def add(world, method, signal=0.6, train_s=FAST, build_s=10.0, seeds=1, **changes):
    record = {"time.train_s": train_s, "data.tokens_raw": 40_000}
    if build_s is not None:
        record["time.table_build_s"] = build_s
    return [
        world.add(signal, seed=seed, record=record, **config_of(method, **TUNED), **changes)
        for seed in range(seeds)
    ]


def add_family(world, seeds=1, bahe=0.6, text=0.6, rows=0.6, **changes) -> None:
    add(world, full(), bahe, seeds=seeds, **changes)
    add(world, llm_ctr(10), text, SLOW, None, seeds, **changes)
    add(world, dti_bahe(10, 50), rows, seeds=seeds, **changes)


def add_others(world) -> None:
    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    world.add(0.3, method="din", **NO_LLM)
    world.add(0.3, method="din", **NO_LLM | {"n": 30})
    world.add(0.4, k=1)
    world.add(0.4, method="dti", k=50, recipe="tuned")
    world.add(0.4, method="dti", k=50)  # the paper's recipe stands on Table 1's page
    world.add(0.4, method="dti", k=10, recipe="tuned")


def scores(text: str) -> dict[str, dict[str, str]]:
    return table("### x\n" + text.split("\n## ")[1].split("**Differences")[0], "x")


def costs(text: str) -> dict[str, dict[str, str]]:
    return table("### x\n" + text.split("**Cost of training:**")[1].split("**Above")[0], "x")


def test_without_records_it_says_not_run(world) -> None:
    world.add()
    assert "All rows: not run." in page(world)


def test_rows_stand_in_order_with_the_familys_history_length_alone(world) -> None:
    add_family(world)
    add_others(world)
    assert list(scores(page(world))) == [
        *("Like rates", "DIN", "SW", "DTI, recipe tuned, k = 50"),
        *("LLM-CTR", "BAHE", "DTI over BAHE, k = 50"),
    ]


def test_control_runs_belong_to_other_pages(world) -> None:
    world.add(**config_of(full()))
    assert groups(inputs_of(world)) == []
    add_family(world)
    world.add(**config_of(replace(full(), layer_cut=0.25)))
    (group,) = groups(inputs_of(world))
    assert sum(row.slot[0] == "bahe" for row in group.rows["committed"]) == 1


def test_the_familys_settings_are_stated(world) -> None:
    add_family(world)
    stated = next(line for line in page(world).splitlines() if line.startswith("The family's settings"))
    assert "n = 10; LoRA rank: 64; share of layers frozen: 0.5; vector of a behaviour: last" in stated


def test_runs_on_other_targets_never_meet(world) -> None:
    add_family(world)
    world.add(0.4, k=1, record={"data.train_targets": 3000})
    assert "SW" not in scores(page(world))


def test_variants_of_a_row_are_told_apart(world) -> None:
    add(world, full())
    add(world, full(), training__learning_rate=3e-3)
    names = list(scores(page(world)))
    assert names == ["BAHE, training.learning_rate = 0.0004", "BAHE, training.learning_rate = 0.003"]


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
    shown = {"BAHE", "DIN", "DTI over BAHE, k = 50", "DTI, recipe tuned, k = 50", "LLM-CTR", "SW"}
    assert set(lines) == shown
    assert [x for x, _ in lines["BAHE"]["points"]] == [30.0, 50.0], "training and table"
    assert [x for x, _ in lines["SW"]["points"]] == [100.0]
    above = table("### x\n" + text.split("**Above the floor:**")[2].split("<details>")[0], "x")
    (_, gain), (low, high) = lines["SW"]["points"][0], lines["SW"]["bounds"][0]
    assert above["SW"]["AUC − AUC of the floor"] == f"{gain:+.4f}"
    assert f"[{low:+.4f}, {high:+.4f}]" in text
    every = [line for panel in data["panels"] for line in panel["lines"] if line["name"] == "BAHE"]
    assert len(every) == 2 and every[0]["colour"] == every[1]["colour"]


def test_records_of_another_device_change_no_verdict_of_this_one(world) -> None:
    """A device is a section with pairs and an adjustment of its own; what it lacks is borrowed and named."""
    add_family(world, seeds=3, bahe=0.9)
    add_others(world)
    alone = page(world)
    for seed in range(3):
        elsewhere = {"device.name": "Other GPU", "time.train_s": 1.0}
        world.add(0.9, seed=seed, record=elsewhere, **config_of(full(), **TUNED))
        world.add(0.4, seed=seed, record=elsewhere, k=1)
    both = page(world)
    section = "## ml-100k" + alone.split("## ml-100k")[1].split("\n## ")[0]
    assert section in both and both.count("\n## ml-100k") == 2
    other = next(part for part in both.split("\n## ") if "Other GPU\n" in part)
    shown = list(scores("\n## " + other))
    assert shown == [
        *("Like rates", "DIN, on Test CPU, 2 cores", "SW", "DTI, recipe tuned, k = 50, on Test CPU, 2 cores"),
        "BAHE",
    ]
    assert "\nBAHE − LLM-CTR" not in other and "Not run here: LLM-CTR; DTI over BAHE, k = 50." in other


def test_the_strongest_id_model_is_chosen_by_validation(world) -> None:
    add_family(world)
    add_others(world)
    epochs = [{"epoch": 0, "auc": 0.9, "log_loss": 0.6}]
    worse = [{"epoch": 0, "auc": 0.1, "log_loss": 0.6}]
    world.add(0.2, method="sim", **NO_LLM, record={"validation": epochs})
    world.add(0.9, method="sasrec", **NO_LLM, record={"validation": worse})
    world.add(0.2, method="sim", **NO_LLM | {"n": 30}, record={"validation": epochs})
    text = page(world)
    assert list(scores(text))[:3] == ["Like rates", "DIN", "SIM"] and "SASRec" not in text
    assert {"BAHE − SIM", "DTI, recipe tuned, k = 50 − SIM", "BAHE − DIN"} <= set(compared(world))
    assert costs(text)["SIM"]["training"] == costs(text)["DIN"]["total"] == "—", "several shared a device"


def test_too_many_pairs_for_the_draws_are_said(world, monkeypatch) -> None:
    add_family(world, seeds=3)
    assert "too few to tell" not in page(world)
    monkeypatch.setattr("repro.reporting.bahe_quality.ALPHA", 0.001)
    assert "2,000 draws are too few to tell 2 pairs apart." in page(world)


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


LONGER = {"training.max_epochs": 10}  # the tier's are 1


def compared(world, own=False) -> list[str]:
    section = page(world, own).split("**Differences of AUC**")[1].split("\n\n")[1]
    return [line.split("|")[1].strip() for line in section.splitlines()[2:]]


def test_what_reads_less_or_trains_longer_is_compared_with_its_usual_form(world) -> None:
    add_family(world)
    add(world, replace(llm_ctr(10), sequences=("recent",)), signal=0.5, build_s=None)
    add(world, replace(llm_ctr(10), sequences=("recent",)), signal=0.5, build_s=None, **LONGER)
    add(world, full(), signal=0.7, **LONGER)
    assert compared(world) == [
        "BAHE − LLM-CTR",
        "DTI over BAHE, k = 50 − BAHE",
        "LLM-CTR (recent alone) − LLM-CTR",
        "LLM-CTR (up to 10 epochs; recent alone) − LLM-CTR (1 epoch)",
        "BAHE (up to 10 epochs) − BAHE (1 epoch)",
        "BAHE (up to 10 epochs) − LLM-CTR (1 epoch)",
    ]


def test_what_trains_longer_is_compared_with_what_trains_as_long(world) -> None:
    add_family(world)
    add_others(world)
    add(world, dti_bahe(10, 50), signal=0.7, **LONGER)
    streaming = "DTI over BAHE, k = 50 (up to 10 epochs) − "
    assert [each for each in compared(world) if each.startswith(streaming)] == [
        streaming + "DTI over BAHE, k = 50 (1 epoch)",
        streaming + "BAHE (1 epoch)",
        streaming + "DTI, recipe tuned, k = 50 (1 epoch)",
    ]
    add(world, full(), signal=0.7, **LONGER)
    add(world, full(), signal=0.7, **{"training.max_epochs": 5})
    world.add(0.4, k=1, recipe="control", **LONGER)  # table 3's
    world.add(0.4, method="dti", k=50, recipe="control", **LONGER)
    world.add(0.4, method="dti", k=50, recipe="control", fixes={"reset": {"a_max": 0.5}}, **LONGER)
    world.add(0.4, method="dti", k=10, recipe="control", **LONGER)
    world.add(0.4, k=1, recipe="control", **{"training.max_epochs": 3})
    found = compared(world)
    assert [each for each in found if each.startswith(streaming)] == [
        streaming + "DTI over BAHE, k = 50 (1 epoch)",
        streaming + "BAHE (up to 10 epochs)",
        streaming + "DTI, recipe tuned, k = 50 (up to 10 epochs)",
    ]
    bahe = "BAHE (up to 10 epochs) − "
    assert [each for each in found if each.startswith(bahe)] == [
        *(bahe + "BAHE (1 epoch)", bahe + "LLM-CTR (1 epoch)", bahe + "SW (up to 10 epochs)"),
        *(bahe + "DTI, recipe tuned, k = 50 (up to 10 epochs)", bahe + "DIN"),
    ]
    assert "BAHE (up to 5 epochs) − SW (1 epoch)" in found and "up to 3" not in page(world)


def test_control_runs_alone_bring_no_row(world) -> None:
    add_family(world)
    world.add(0.4, k=1, recipe="control", **LONGER)
    assert "SW" not in scores(page(world)) and "Not run here: SW; DTI" in page(world)


def test_a_failed_row_is_not_called_not_run_and_a_variant_is_no_usual_row(world) -> None:
    add(world, full())
    assert "Not run here: LLM-CTR; SW; DTI" in page(world)
    add(world, replace(llm_ctr(10), sequences=("recent",)), build_s=None)
    assert "Not run here: LLM-CTR; SW; DTI" in page(world)
    world.add(record={"status": "out_of_memory"}, **config_of(llm_ctr(10), **TUNED))
    text = page(world)
    assert scores(text)["LLM-CTR"]["AUC"] == "OOM" and "Not run here: SW; DTI" in text


def test_a_row_that_is_no_usual_one_says_so_even_alone(world) -> None:
    add(world, replace(llm_ctr(10), sequences=("recent",)), build_s=None)
    add(world, full(), **LONGER)
    assert list(scores(page(world))) == ["LLM-CTR (recent alone)", "BAHE (up to 10 epochs)"]


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


def test_differences_say_which_side_is_higher(world) -> None:
    add_family(world, seeds=3, bahe=0.9, text=0.2, rows=0.9)
    text = page(world)
    assert "- higher: BAHE against LLM-CTR." in text
    assert "- not told apart: DTI over BAHE, k = 50 against BAHE." in text
    assert "Rows with fewer than 3 seeds" not in text
    assert cells_of(text, "BAHE − LLM-CTR")[1].startswith("+0.")
    world.add(0.4, k=1)
    assert "Rows with fewer than 3 seeds: SW." in page(world)


def test_no_loss_is_claimed_on_ml_1m_alone(world) -> None:
    add_family(world, seeds=3)
    assert "no loss" not in page(world)
    add_family(world, seeds=3, bahe=0.9, text=0.2, dataset="ml-1m", protocol="rella", tier="gpu")
    add_family(world, dataset="ml-1m", protocol="rella", tier="paper")
    text = page(world).split("\n## ml-1m")
    assert cells_of(text[1], "BAHE − LLM-CTR")[-1] == "yes"
    assert cells_of(text[2], "BAHE − LLM-CTR")[-1] == "needs 3 seeds"


def test_own_runs_stand_apart(world) -> None:
    add_family(world)
    world.add(0.9, own=True, record={"time.table_build_s": 1.0}, **config_of(full(), **TUNED))
    text = page(world, own=True)
    assert "### Committed" in text and "### Yours" in text


def test_every_trial_is_listed_and_a_damaged_file_is_named(world) -> None:
    folder = world.results / "selection" / "bahe"
    folder.mkdir(parents=True)
    trial = {"family": "bahe", "learning_rate": 0.001, "alibi_slope": None, "device": "a CPU"}
    trial |= {"validation_auc": 0.71, "validation_log_loss": 0.6}
    content = {"environment": {"python": "3.11", "torch": None, "transformers": None}}
    content |= {"git": {"sha": "a" * 40, "dirty": False}, "code_sha256": "c" * 64}
    rows = [trial, trial | {"learning_rate": 0.003, "validation_auc": None}]
    path = folder / "cpu-ml-100k.json"
    path.write_text(json.dumps(content | {"rows": rows}))
    add_family(world)
    text = page(world)
    assert "**0.7100**" in text and "bahe: 2" in text
    assert "every setting tried for LLM-CTR, BAHE and DTI over BAHE is listed" in text
    path.write_text(json.dumps(content | {"rows": [trial | {"validation_auc": 7.0}]}))
    with pytest.raises(RecordError, match=r"cpu-ml-100k.json.*validation_auc"):
        page(world)


def add_trials(world, name: str, key: str, families: dict[str, list[tuple[float, float | None]]]) -> None:
    """A file of trials: by family or model, learning rates with their validation AUCs."""
    own = {"alibi_slope": None} if key == "family" else {"n": 30, "weight_decay": 0.1, "dropout": 0.1}
    own |= {} if key == "family" else {"best_epoch": 0}
    rows = [
        {key: family, "learning_rate": rate, "validation_auc": auc, "validation_log_loss": 0.6, **own}
        | {"device": "a GPU"}
        for family, trials in families.items()
        for rate, auc in trials
    ]
    content = {"environment": {"python": "3.11", "torch": None, "transformers": None}, "rows": rows}
    content |= {"git": {"sha": "a" * 40, "dirty": False}, "code_sha256": "c" * 64}
    path = world.results / "selection" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def rates_of(world, part: int) -> str:
    section = page(world).split("\n## ")[part]
    return next(line for line in section.splitlines() if line.startswith("Learning rates chosen"))


def test_where_each_rate_was_chosen_is_read_from_the_trials(world) -> None:
    """The planted rate is 4e-4 everywhere; of the trials, the best must be it."""
    chosen = [(4e-4, 0.7), (1e-3, 0.6), (3e-3, None)]
    add_trials(world, "bahe/cpu-ml-100k", "family", {"bahe": chosen, "dti-bahe": chosen, "llm-ctr": chosen})
    add_trials(world, "cpu-ml-100k", "family", {"sw": chosen[:2], "dti-tuned": [(4e-4, 0.6), (1e-3, 0.7)]})
    add_trials(world, "baselines/cpu-ml-1m-din", "model", {"din": [(1e-3, 0.6), (4e-4, 0.7)]})
    for dataset in ("ml-100k", "ml-1m"):
        add_family(world, dataset=dataset)
        add(world, dti_bahe(10, 10), dataset=dataset)
        world.add(0.3, method="din", **NO_LLM, dataset=dataset)
        world.add(0.4, k=1, dataset=dataset)
        world.add(0.4, method="dti", k=50, recipe="tuned", dataset=dataset)
    family = "LLM-CTR; BAHE; DTI over BAHE, k = 50, 10 (3 trials per method, below)"
    sw, din = "SW (2 trials, [table1](table1.md))", "DIN (2 trials, [baselines](baselines.md))"
    end = "Rates chosen on no data set: DTI, recipe tuned, k = 50. A difference between rows of these kinds "
    end += "may be the rate's. DTI over BAHE, k = 10: trials were at k = 50 only."
    assert rates_of(world, 1) == (
        f"Learning rates chosen on this data set: {sw} — {family}. "
        f"Rates chosen on ml-1m, not on this data set: {din}. {end}"
    )
    assert rates_of(world, 2) == (
        f"Learning rates chosen on this data set: {din}. "
        f"Rates chosen on ml-100k, not on this data set: {sw} — {family}. {end}"
    )


def test_rates_that_nobody_searched_are_said_to_be_so(world) -> None:
    add_family(world)
    assert "Learning rates chosen on no data set: LLM-CTR; BAHE; DTI over BAHE, k = 50." in page(world)
