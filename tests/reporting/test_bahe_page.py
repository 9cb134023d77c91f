"""reports/bahe.md: which rows meet, differences between them, and where their rates were chosen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from bahe_report_cases import (
    LONGER,
    TUNED,
    add,
    add_family,
    add_others,
    add_trials,
    cells_of,
    compared,
    config_of,
    costs,
    full,
    inputs_of,
    page,
    scores,
)
from report_cases import NO_LLM

from repro.errors import RecordError
from repro.methods.bahe.settings import dti_bahe, llm_ctr
from repro.reporting.bahe_quality_rows import groups


def test_without_records_it_says_not_run(world) -> None:
    world.add()
    assert "All rows: not run." in page(world)


def test_rows_stand_in_order_with_the_familys_history_length_alone(world) -> None:
    add_family(world)
    add_others(world)
    assert list(scores(page(world))) == [
        *("Like rates", "DIN", "SW", "DTI, our recipe, k = 50"),
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
        *("Like rates", "DIN, on Test CPU, 2 cores", "SW", "DTI, our recipe, k = 50, on Test CPU, 2 cores"),
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
    assert {"BAHE − SIM", "DTI, our recipe, k = 50 − SIM", "BAHE − DIN"} <= set(compared(world))
    assert costs(text)["SIM"]["training"] == costs(text)["DIN"]["total"] == "—", "several shared a device"


def test_too_many_pairs_for_the_draws_are_said(world, monkeypatch) -> None:
    add_family(world, seeds=3)
    assert "too few to tell" not in page(world)
    monkeypatch.setattr("repro.reporting.bahe_quality.ALPHA", 0.001)
    assert "2,000 draws are too few to tell 2 pairs apart." in page(world)


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
        streaming + "DTI, our recipe, k = 50 (1 epoch)",
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
        streaming + "DTI, our recipe, k = 50 (up to 10 epochs)",
    ]
    bahe = "BAHE (up to 10 epochs) − "
    assert [each for each in found if each.startswith(bahe)] == [
        *(bahe + "BAHE (1 epoch)", bahe + "LLM-CTR (1 epoch)", bahe + "SW (up to 10 epochs)"),
        *(bahe + "DTI, our recipe, k = 50 (up to 10 epochs)", bahe + "DIN"),
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
    end = "Rates chosen on no data set: DTI, our recipe, k = 50. A difference between rows of these kinds "
    end += "may be the rate's. DTI over BAHE, k = 10: trials were at k = 50 only."
    assert rates_of(world, 1) == (
        f"Learning rates chosen on this data set: {sw} — {family}. "
        f"Rates chosen on ml-1m, not on this data set: {din}. {end}"
    )
    assert rates_of(world, 2) == (
        f"Learning rates chosen on this data set: {din}. "
        f"Rates chosen on ml-100k, not on this data set: {sw} — {family}. {end}"
    )


def test_the_rate_of_the_strongest_id_model_is_looked_up_under_its_own_name(world) -> None:
    add_trials(world, "baselines/cpu-ml-100k-sim", "model", {"sim": [(1e-3, 0.6), (4e-4, 0.7)]})
    add_family(world)
    epochs = [{"epoch": 0, "auc": 0.9, "log_loss": 0.6}]
    world.add(0.2, method="sim", **NO_LLM, record={"validation": epochs})
    assert "chosen on this data set: SIM (2 trials, [baselines](baselines.md))" in page(world)


def test_rates_that_nobody_searched_are_said_to_be_so(world) -> None:
    add_family(world)
    assert "Learning rates chosen on no data set: LLM-CTR; BAHE; DTI over BAHE, k = 50." in page(world)
