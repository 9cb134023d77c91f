"""Requests that cannot be met: one message, at once, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_cases import TABLE1, files_below, start

from repro.experiments.tiers import TIERS
from repro.records import publish as publish_module

WRONG = {
    "tier": (("table1", "--tier", "huge"), tuple(TIERS)),
    "data set": ((*TABLE1[:3], "--dataset", "netflix"), ("ml-100k", "--dataset")),
    "data set of table 2": (("table2", "--dataset", "netflix"), ("ml-100k", "--dataset")),
    "row": ((*TABLE1, "--rows", "dti-51"), ("dti-50", "headline")),
    "empty row": ((*TABLE1, "--rows", ""), ("headline", "--rows")),
    "empty row of table 3": (("table3", *TABLE1[1:], "--rows", ""), ("headline", "--rows")),
    "empty open question": (("bahe-open", *TABLE1[1:], "--rows", ""), ("cuts", "leakage")),
    "share past the last": ((*TABLE1, "--share", "5/4"), ("1 <= i <= n",)),
    "share of nothing": (("bahe", *TABLE1[1:], "--share", "0/2"), ("1 <= i <= n",)),
    "protocol": ((*TABLE1, "--protocol", "random"), ("dti, rella, per-user",)),
    "no seeds": ((*TABLE1, "--seeds", "0"), ("at least 1",)),
    "negative seeds": ((*TABLE1, "--seeds", "-3"), ("at least 1",)),
    "no seeds of the baselines": (("baselines", *TABLE1[1:], "--seeds", "0"), ("at least 1",)),
    "ablation": (("bahe-ablation", *TABLE1[1:], "--rows", "cut-1-6"), ("no-cache", "mean-pooling")),
    "open question": (("bahe-open", *TABLE1[1:], "--rows", "no-cache"), ("cuts", "leakage")),
    "a tier of the leakage": (
        ("bahe-open", "--rows", "leakage", "--tier", "gpu"),
        ("--tier", "of their own"),
    ),
    "no seeds of the leakage": (("bahe-open", "--rows", "leakage", "--seeds", "0"), ("at least 1",)),
    "no folder": (("table1", "--tier", "test", "--dataset", "ml-1m"), ("ml-1m", "--data-dir")),
    "empty folder": (
        ("table1", "--tier", "test", "--dataset", "ml-1m", "--data-dir", "EMPTY"),
        ("ratings.dat",),
    ),
    "kind": (("show-prompt", "--tier", "test", "--kind", "both"), ("sw or streaming",)),
    "k": (("show-prompt", "--tier", "test", "--dataset", "synthetic", "--k", "0"), ("k", "1")),
    "n": (("show-prompt", "--tier", "test", "--dataset", "synthetic", "--n", "-1"), ("n",)),
    "selection": (("select", "--tier", "huge"), tuple(TIERS)),
    "timing": (("timing", "--tier", "huge"), tuple(TIERS)),
    "data set of timing": (("timing", "--tier", "test", "--dataset", "netflix"), ("ml-100k", "--dataset")),
    "no repetitions of the table's benchmark": (
        ("bench-table", "--sizes", "4096", "--repeats", "0"),
        ("at least 1", "--repeats"),
    ),
    "row of table 3": (("table3", *TABLE1[1:], "--rows", "dti-51"), ("dti-50", "--rows")),
    "no seeds of table 3": (("table3", *TABLE1[1:], "--seeds", "0"), ("at least 1",)),
    "figure": (("figure2", "--tier", "huge"), tuple(TIERS)),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_message_and_leaves_nothing(command, own_folders, name) -> None:
    arguments, said = WRONG[name]
    (own_folders / "EMPTY").mkdir()
    before = files_below(own_folders)
    arguments = tuple(str(own_folders / "EMPTY") if part == "EMPTY" else part for part in arguments)
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert "expected: " in err
    assert "to fix: " in err
    assert "Traceback" not in err
    for word in said:
        assert word in err.split("error: ")[1]
    assert files_below(own_folders) == before


def test_publish_is_refused_on_a_dirty_tree_before_training(command, own_folders, monkeypatch) -> None:
    state = {"sha": "0" * 40, "dirty": True}
    monkeypatch.setattr(publish_module, "git_state", lambda repository: state)
    code, _, err = command(*TABLE1, "--rows", "zero-shot", "--publish")
    assert code == 2
    assert "uncommitted changes" in err
    assert not (own_folders / "results").exists()
    assert not (own_folders / "runs").exists(), "refused before anything is trained"
    state["dirty"] = False
    assert command(*TABLE1, "--rows", "zero-shot", "--publish")[0] == 0
    published = files_below(own_folders / "results")
    assert {Path(name).name for name in published} == {
        *("record.json", "scores.parquet", "synthetic-rella-test.parquet")
    }


def test_the_request_is_checked_before_torch_is_imported(own_folders) -> None:
    """A typing error is answered at once."""
    check = "import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))"
    process = start(own_folders, *TABLE1, "--rows", "dti-51", code=check)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("error: ")
    assert out == "False\n"
