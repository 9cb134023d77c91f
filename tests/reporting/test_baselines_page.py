"""reports/baselines.md: floor first, verdicts, published values at the published history length only."""

from __future__ import annotations

import json

import pytest
from report_cases import NO_LLM, UNTRAINED, table

from repro.errors import RecordError
from repro.reporting import render_all

ENVIRONMENT = {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"}
ML_1M = {"dataset": "ml-1m", "protocol": "rella", "tier": "gpu"}


def page(world, own=False):
    render_all(world.results, world.runs if own else None, world.reports, ["baselines"])
    return (world.reports / "baselines.md").read_text()


def add_floor(world, signal=0.1, **changes):
    return world.add(signal, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED, **changes)


def add_din(world, signal, seeds=3, n=30, **changes):
    return [world.add(signal, seed=s, method="din", n=n, **NO_LLM, **changes) for s in range(seeds)]


def scores(text):
    """Rows of the first section's table."""
    return table("### x\n" + text.split("\n## ")[1].split("Strongest of")[0], "x")


def above(text):
    """Rows of the first section's table against the floor."""
    return table("### x\n" + text.split("Strongest of")[1].split("<details>")[0], "x")


def test_without_records_it_says_not_run(world):
    assert "All rows: not run." in page(world)


def test_without_the_floor_nothing_is_called_good(world):
    add_din(world, 0.9)
    text = page(world)
    assert "so no row can be called good" in text
    assert "Clearly above" not in text.split("## ")[1]


def test_the_floor_comes_first_and_decides_who_is_clearly_above(world):
    add_din(world, 0.9)
    add_din(world, 0.9, n=20, seeds=1)
    world.add(0.1, method="gru4rec", n=30, **NO_LLM)
    add_floor(world)
    world.add(0.2, method="rates-20", n=20, **NO_LLM, training=None, record=UNTRAINED)
    text = page(world)
    rows = scores(text)
    names = ["Like rates", "Like rates of the last 20", "DIN, n = 20", "DIN, n = 30", "GRU4Rec, n = 30"]
    assert list(rows) == names
    assert "Clearly above the floor: DIN, n = 30." in text
    rows = above(text)
    assert list(rows) == ["DIN, n = 20", "DIN, n = 30", "GRU4Rec, n = 30"]
    assert [row["clearly above"] for row in rows.values()] == ["needs 3 seeds", "yes", "no"]


def test_published_values_stand_beside_the_published_history_length_alone(world):
    add_floor(world, **ML_1M)
    runs = add_din(world, 0.99, **ML_1M)
    add_din(world, 0.99, n=20, **ML_1M)
    world.add(0.99, method="sim", n=30, **NO_LLM, **ML_1M)
    rows = scores(page(world))
    mean = sum(run.record["metrics"]["auc"] for run in runs) / 3
    assert rows["DIN, n = 30"]["published AUC"] == "0.7962"
    assert rows["DIN, n = 30"]["ours − published"] == f"{mean - 0.7962:+.4f}"
    assert rows["DIN, n = 30"]["reproduced"] == ("yes" if mean >= 0.7932 else "no")
    assert rows["DIN, n = 20"]["published AUC"] == "—"
    assert rows["SIM, n = 30"]["reproduced"] == "needs 3 seeds"


def test_other_data_sets_have_no_published_column(world):
    add_floor(world)
    add_din(world, 0.9)
    assert "published AUC" not in scores(page(world))["DIN, n = 30"]


def test_llm_rows_do_not_appear(world):
    world.add()
    assert "All rows: not run." in page(world)


def test_own_runs_stand_apart(world):
    add_floor(world)
    add_din(world, 0.9, seeds=1, own=True)
    text = page(world, own=True)
    assert "### Committed" in text and "### Yours" in text


TRIAL = {
    "model": "din",
    "n": 30,
    "learning_rate": 0.001,
    "weight_decay": 0.3,
    "dropout": 0.1,
    "validation_auc": 0.8,
    "validation_log_loss": 0.5,
    "best_epoch": 3,
    "device": "a GPU",
}


def write_trials(world, rows):
    folder = world.results / "selection" / "baselines"
    folder.mkdir(parents=True)
    content = {"environment": ENVIRONMENT, "git": {"sha": "a" * 40, "dirty": False}}
    content |= {"code_sha256": "c" * 64, "rows": rows}
    (folder / "gpu-ml-1m-din.json").write_text(json.dumps(content))


def test_every_trial_is_listed_and_the_best_is_bold(world):
    write_trials(world, [TRIAL, TRIAL | {"dropout": 0.3, "validation_auc": 0.7, "best_epoch": None}])
    text = page(world)
    assert "**0.8000**" in text and "0.7000" in text and "**0.7000**" not in text
    assert "2 trials" in text


def test_a_damaged_trials_file_is_named(world):
    write_trials(world, [TRIAL | {"dropout": 2.0}])
    with pytest.raises(RecordError, match=r"gpu-ml-1m-din.json.*dropout"):
        page(world)
