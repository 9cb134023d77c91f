"""Table 1's page: rows, sections, comparisons and what they allow to say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from report_cases import NO_LLM, UNTRAINED, table

from repro.errors import RecordError
from repro.reporting import render_all

GOLDEN = Path(__file__).parent / "golden"
ENVIRONMENT = {"python": "3.11.9", "torch": None, "transformers": None}
FIXES = {"reset": {"a_min": 0.0, "a_max": 0.5}, "position": "alibi-rotated-keys", "alibi_slope": 0.01}


def page(world, own=False):
    render_all(world.results, world.runs if own else None, world.reports, only=["table1"])
    return (world.reports / "table1.md").read_text()


def small_world(world):
    """What the golden page shows: floor, seeds, failure, an unequal device, rows not run, a tuned row."""
    world.add(0.5, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    world.add(0.05, method="zero-shot", tuning=None, training=None, record=UNTRAINED)
    for seed in range(3):
        world.add(0.6, seed=seed)
        world.add(0.57, seed=seed, method="dti", k=50, fixes=FIXES, record={"time.train_s": 9.0})
    world.add(0.3, method="dti-minus", k=50, sum_layout="inline-positions", record={"time.train_s": 8.0})
    world.add(method="dti-minus", k=40, sum_layout="inline-positions", record={"status": "out_of_memory"})
    world.add(method="dti", k=5, fixes=FIXES, record={"status": "diverged"})
    world.add(0.5, method="dti", k=10, fixes=FIXES, record={"device.name": "Another device"})
    world.add(0.6, method="dti", k=50, recipe="tuned", record={"time.train_s": 9.0})


def test_golden_page(world, tmp_path):
    small_world(world)
    text = page(world)
    expected = (GOLDEN / "table1.md").read_text()
    assert text == expected, f"if the change is meant: cp {world.reports}/table1.md {GOLDEN}/table1.md"


def test_13_rows_in_the_papers_order_after_the_references(world):
    world.add()
    world.add(0.05, method="zero-shot", tuning=None, training=None, record=UNTRAINED)
    rows = table(page(world), "Scores")
    ks = (5, 10, 20, 30, 40, 50)
    expected = ["SW, k = 1", *(f"DTI-, k = {k}" for k in ks), *(f"DTI, k = {k}" for k in ks)]
    assert list(rows) == ["Like rates", "Zero-shot", *expected]
    assert [row["AUC"] for row in rows.values()].count("not run") == 13


def test_without_records_it_says_not_run(world):
    assert "not run" in page(world)


def test_relative_auc_and_the_papers_values_of_the_same_k(world):
    sw = world.add(0.6).record["metrics"]["auc"]
    dti = world.add(0.5, method="dti", k=20).record["metrics"]["auc"]
    row = table(page(world), "Scores")["DTI, k = 20"]
    assert row["relative AUC"] == f"{100 * (dti / sw - 1):+.2f} %"
    assert row["AUC (paper, ML-1M, 8B)"] == "0.8102"
    assert row["relative AUC (paper, ML-1M, 8B)"] == "-0.10 %"
    assert row["log loss (paper, ML-1M, 8B)"] == "0.5257"


def test_the_papers_own_data_set_has_a_column_of_its_own(world):
    world.add(dataset="amazon-cds")
    row = table(page(world), "Scores")["SW, k = 1"]
    assert row["AUC (paper, 8B)"] == "0.8596"


def test_training_time_and_its_ratio(world):
    world.add(record={"time.train_s": 7200.0})
    world.add(method="dti", k=50, record={"time.train_s": 600.0, "time.epochs": 2})
    world.add(method="dti", k=40, record={"time.train_s": 600.0, "device.name": "another"})
    rows = table(page(world), "Scores")
    assert rows["SW, k = 1"]["training time"] == "2.00 h (1 epoch)"
    assert rows["DTI, k = 50"]["training time"] == "10.0 min (2 epochs)"
    assert rows["DTI, k = 50"]["SW time / time"] == "12.00 ×"
    assert rows["DTI, k = 40"]["SW time / time"] == "—"


def test_a_section_for_each_recipe_n_backbone_and_protocol(world):
    world.add()
    world.add(n=20)
    world.add(recipe="tuned", training__learning_rate=1e-3)
    world.add(protocol="rella")
    world.add(backbone_settings__layers=30, backbone_settings__title="SmolLM2, whole")
    headings = re.findall(r"^## (ml.*)$", page(world), re.MULTILINE)
    assert len(headings) == len(set(headings)) == 5
    assert sum("recipe tuned" in each for each in headings) == 1
    assert sum("protocol rella" in each for each in headings) == 1
    assert sum("n = 20" in each for each in headings) == 1
    assert sum("SmolLM2, whole" in each for each in headings) == 1


def test_a_recipe_without_sw_is_compared_with_the_other_recipes_one(world):
    world.add(0.6)
    world.add(0.5, method="dti", k=50, recipe="tuned")
    text = page(world)
    tuned = text.split("recipe tuned\n")[1]
    assert "SW, k = 1, recipe paper" in table(tuned, "Scores")
    assert "DTI, k = 50" in table(tuned, "Differences to SW")
    assert not any(name.startswith("DTI-") for name in table(tuned, "Scores"))


def test_control_runs_are_not_in_the_table(world):
    world.add(0.6)
    world.add(0.1, method="dti", k=50, recipe="control")
    assert table(page(world), "Scores")["DTI, k = 50"]["AUC"] == "not run"


def test_runs_until_convergence_are_no_sw_to_borrow_where_those_of_dti_are_left_out(world):
    world.add(0.9, recipe="control", training__max_epochs=10)
    world.add(0.8, method="dti", k=50, recipe="control", training__max_epochs=10)
    world.add(0.5, method="dti", k=50, recipe="tuned")
    text = page(world)
    assert "Not run: SW and another row are needed." in text
    world.add(0.6)
    tuned = page(world).split("recipe tuned\n")[1]
    rows = table(tuned, "Scores")
    assert [name for name in rows if name.startswith("SW")] == ["SW, k = 1, recipe paper"]
    assert "stand on [table3](table3.md), not here." in text


def test_times_of_runs_that_shared_a_device_say_so(world):
    world.add()
    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    assert "shared a device" not in page(world), "nobody's time is shown that is no measure"
    for name in ("din", "sim"):
        world.add(0.4, method=name, n=10, **NO_LLM)
    assert "Of the runs of DIN and SIM, several shared a device: their times are no measure" in page(world)


def test_variants_of_a_row_are_lines_of_their_own_with_what_differs(world):
    world.add(0.6)
    world.add(0.5, method="dti", k=50)
    world.add(0.4, method="dti", k=50, sum_layout="inline-visible")
    rows = table(page(world), "Scores")
    assert "DTI, k = 50, sum_layout = deferred" in rows
    assert "DTI, k = 50, sum_layout = inline-visible" in rows
    assert "DTI, k = 50" not in rows


def test_references_need_the_same_test_targets_and_backbone(world):
    world.add()
    world.add(0.4, method="din", n=20, **NO_LLM)
    world.add(0.4, method="sasrec", n=10, **NO_LLM, record={"data.sha256": "9" * 64})
    world.add(0.05, method="zero-shot", tuning=None, backbone="another", record=UNTRAINED)
    rows = table(page(world), "Scores")
    assert [name for name in rows if "k =" not in name] == ["Like rates", "DIN, n = 20"]
    assert rows["Like rates"]["AUC"] == "not run"


def test_committed_and_yours_stand_beside_each_other_and_are_never_pooled(world):
    committed = world.add(0.6, seed=0).record["metrics"]["auc"]
    mine = world.add(0.4, seed=1, own=True, record={"device.name": "my GPU"}).record["metrics"]["auc"]
    text = page(world, own=True)
    row = table(text, "Committed beside yours")["SW, k = 1"]
    assert row["AUC, committed"] == f"{committed:.4f} (n = 1) on Test CPU, 2 cores"
    assert row["AUC, yours"] == f"{mine:.4f} (n = 1) on my GPU"
    assert table(text, "Scores, yours")["SW, k = 1"]["seeds"] == "1"
    assert "yours" not in page(world, own=False)


def test_rows_of_both_sides_are_merged_in_the_tables_order(world):
    world.add(0.5, method="dti", k=50)
    world.add(0.4, method="dti", k=50, window="tokens", own=True)
    world.add(0.05, method="zero-shot", tuning=None, training=None, record=UNTRAINED, own=True)
    rows = table(page(world, own=True), "Committed beside yours")
    assert list(rows)[:3] == ["Like rates", "Zero-shot", "SW, k = 1"]
    assert list(rows)[-2:] == ["DTI, k = 50, window = interactions", "DTI, k = 50, window = tokens"]
    assert "DTI, k = 50" not in rows
    assert rows["DTI, k = 50, window = tokens"]["AUC, committed"] == "not run"


def test_a_published_run_is_not_shown_as_yours_too(world):
    world.add(seed=0)
    world.add(seed=0, own=True)
    assert "yours" not in page(world, own=True)


def test_runs_of_yours_alone(world):
    world.add(own=True)
    text = page(world, own=True)
    assert table(text, "Committed beside yours")["SW, k = 1"]["AUC, committed"] == "not run"
    assert "### Scores, committed" not in text


def test_differences_are_paired_and_holm_adjusted(world):
    world.add(0.6)
    world.add(0.6, method="dti", k=5)  # the same scores: no difference at all
    world.add(0.2, method="dti", k=50)
    rows = table(page(world), "Differences to SW")
    assert rows["DTI, k = 5"]["AUC − AUC of SW"] == "+0.0000"
    assert rows["DTI, k = 5"]["p (Holm)"] == "1.000"
    assert float(rows["DTI, k = 50"]["AUC − AUC of SW"]) < -0.1
    assert rows["DTI, k = 50"]["p"] == "< 0.001"
    assert rows["DTI, k = 50"]["p (Holm)"] == "0.002"  # of two rows


def test_no_loss_is_claimed_on_ml_1m_only_and_with_three_seeds(world):
    for dataset in ("ml-1m", "ml-100k"):
        for seed in range(3):
            world.add(0.6, dataset=dataset, seed=seed)
            world.add(1.0, dataset=dataset, seed=seed, method="dti", k=50)
            world.add(0.3, dataset=dataset, seed=seed, method="dti", k=40)
        world.add(0.7, dataset=dataset, method="dti", k=30)
    small, large = page(world).split("## ml-1m")
    rows = table(large, "Differences to SW")
    assert {name: row["no loss"] for name, row in rows.items()} == {
        "DTI, k = 30": "needs 3 seeds",
        "DTI, k = 40": "not shown",
        "DTI, k = 50": "yes",
    }
    assert "It holds for: DTI, k = 50." in large
    assert "no loss" not in table(small, "Differences to SW")["DTI, k = 50"]
    assert "never here" in small


def test_the_smallest_detectable_difference_follows_from_the_paired_se(world):
    world.add(0.6)
    world.add(0.5, method="dti", k=50)
    text = page(world)
    row = table(text, "Differences to SW")["DTI, k = 50"]
    assert float(row["smallest detectable"]) == pytest.approx(2.8016 * float(row["SE"]), abs=3e-4)
    assert f"can detect is {row['smallest detectable']} AUC" in text


def test_the_configuration_in_words_comes_from_the_records(world):
    world.add(training__learning_rate=3e-3)
    world.add(training__learning_rate=3e-3, method="dti", k=5, instruction="hidden")
    text = page(world)
    assert "4,000 training, 500 validation and 300 test targets" in text
    assert "learning rate: 0.003" in text
    assert re.search(r"\| SW, k = 1 +\| `instruction` = visible +\|", text)
    assert re.search(r"\| DTI, k = 5 +\| `instruction` = hidden +\|", text)
    assert "`window` = interactions" in text


def test_stale_rows_are_marked_and_compared_with_stale_ones_only(world):
    world.add(0.6)
    world.add(0.5, method="dti", k=50, numerics={"method": 0, "trainer": 0})
    text = page(world)
    assert table(text, "Scores")["DTI, k = 50"]["AUC"].endswith("stale")
    assert "Not run: SW and another row are needed." in text


def test_provenance_names_commits_devices_and_checksums(world):
    world.add()
    world.add(method="dti", k=5, record={"git.sha": "b" * 40, "git.dirty": True})
    text = page(world).split("## Provenance")[1]
    assert "`" + "a" * 40 + "`" in text
    assert "`" + "b" * 40 + "`, with uncommitted changes" in text
    for part in ("1 × Test CPU, 2 cores", "c" * 64, "d" * 64, "torch 2.13.0"):
        assert part in text


def write_trials(world, *rows):
    folder = world.results / "selection"
    folder.mkdir(parents=True)
    keys = ("family", "learning_rate", "alibi_slope", "validation_auc", "validation_log_loss")
    content = [dict(zip(keys, row, strict=True)) | {"device": "some CPU"} for row in rows]
    text = json.dumps({"environment": ENVIRONMENT, "git": {"sha": "e" * 40, "dirty": False}, "rows": content})
    (folder / "cpu-ml-100k.json").write_text(text)


def test_every_setting_tried_is_listed_with_the_best_in_bold(world):
    rows = [("sw", 1e-4, None, 0.6, 0.65), ("sw", 2e-4, None, 0.7, 0.64), ("dti", 1e-4, 0.01, 0.65, None)]
    write_trials(world, *rows)
    text = page(world)
    assert "Number of trials: dti: 1, sw: 2. Made at commit `eeeeeeeeee`." in text
    assert re.search(r"\| sw +\| 0.0001 +\| — +\| 0.6000 +\| 0.6500 ", text)
    assert re.search(r"\| sw +\| 0.0002 +\| — +\| \*\*0.7000\*\* ", text)
    assert re.search(r"\| dti +\| 0.0001 +\| 0.01 +\| \*\*0.6500\*\* +\| — ", text)


def test_a_damaged_file_of_trials_is_named(world):
    write_trials(world, ("sw", -1.0, None, 0.6, 0.65))
    with pytest.raises(RecordError, match=r"cpu-ml-100k\.json, field rows\.0\.learning_rate"):
        page(world)


def test_scores_that_do_not_give_the_recorded_metric_are_refused(world):
    run = world.add(0.6)
    other = world.add(0.5, seed=1)
    (run.path / "scores.parquet").write_bytes((other.path / "scores.parquet").read_bytes())
    with pytest.raises(RecordError, match=r"metrics\.auc"):
        page(world)
    assert not (world.reports / "table1.md").exists()


def test_nothing_is_called_good_without_the_floor(world):
    world.add(0.9)
    text = page(world)
    assert "is not run, so no row can be called good" in text
    assert "Clearly above the floor" not in text


def add_floor(world, signal, method="rates"):
    return world.add(signal, method=method, n=None, **NO_LLM, training=None, record=UNTRAINED)


def verdicts(text):
    return {name: row["clearly above"] for name, row in table(text, "Above the floor").items()}


def test_clearly_above_the_floor_needs_both_metrics_and_three_seeds(world):
    add_floor(world, 0.1)
    for seed in range(3):
        world.add(0.9, seed=seed)
    world.add(0.9, method="dti", k=50)
    world.add(0.0, method="dti", k=10)
    text = page(world)
    assert verdicts(text) == {"SW, k = 1": "yes", "DTI, k = 50": "needs 3 seeds", "DTI, k = 10": "no"}
    assert "Clearly above the floor: SW, k = 1." in text


def test_the_bar_is_the_strongest_of_the_floor(world):
    add_floor(world, 0.1)
    add_floor(world, 0.95, method="item-rate")
    for seed in range(3):
        world.add(0.9, seed=seed)
    text = page(world)
    assert verdicts(text) == {"SW, k = 1": "no"}
    assert "Item's like rate alone in AUC" in text
    assert "Item's like rate alone" not in table(text, "Scores")


def test_baselines_with_records_change_nothing_that_is_said_of_dti(world):
    for seed in range(3):
        world.add(0.6, seed=seed)
        world.add(0.5, seed=seed, method="dti", k=50)
        world.add(0.45, seed=seed, method="dti", k=10)
    before = table(page(world), "Differences to SW")
    add_floor(world, 0.55)
    for name in ("din", "sasrec", "gru4rec"):
        world.add(0.55, method=name, n=10, **NO_LLM)
    after = table(page(world), "Differences to SW")
    assert {name: after[name] for name in before} == before
    assert after["DIN"]["p (Holm)"] == "—"
