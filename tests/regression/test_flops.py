"""FLOP files counted again: an untouched copy matches, an edited or missing row is named."""

from __future__ import annotations

import json
import shutil

import pytest

from repro import paths
from repro.regression.findings import Verdict
from repro.regression.flops import check_flops, count_again, row_problems

NAMES = ("k-ml-100k-dti", "k-ml-1m-rella", "length")
COMMITTED = paths.PROJECT_ROOT / "results" / "flops"


@pytest.fixture(scope="module")
def counted():
    """Of every committed file: its rows, and those counted again."""
    stated = {name: json.loads((COMMITTED / f"{name}.json").read_text())["rows"] for name in NAMES}
    return {name: (rows, count_again(name, rows, None)) for name, rows in stated.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_committed_rows_are_counted_again(counted, name) -> None:
    stated, again = counted[name]
    assert row_problems(stated, again) == []
    methods = {row["method"] for row in again}
    assert methods >= ({"llm-ctr", "bahe"} if name == "length" else {"din", "sasrec"})
    assert "k-ml-100k" not in name or methods >= {"sw", "dti", "dti-minus"}


@pytest.mark.slow
@pytest.mark.parametrize("column", ["forward_flops_per_target", "tokens_text", "linear layers"])
def test_every_edited_column_is_named(counted, column) -> None:
    stated, again = counted["k-ml-100k-dti"]
    edited = json.loads(json.dumps(stated))
    row = next(row for row in edited if (row["method"], row["k"], row["n"]) == ("dti", 5, 10))
    table = row if column in row else row["prompt"]
    table = table if column in table else table["forward_parts"]
    table[column] *= 1 + 1e-6
    (problem,) = row_problems(edited, again)
    assert "dti, 5, 10, closed_form" in problem
    assert len(row_problems([each for each in stated if each["method"] != "sasrec"], again)) == 6


def test_an_edited_row_of_absent_data_fails(tmp_path) -> None:
    """DIN's and SASRec's FLOPs are the same on any data."""
    (tmp_path / "flops").mkdir()
    path = tmp_path / "flops" / "k-ml-1m-rella.json"
    shutil.copy(COMMITTED / path.name, path)
    (found,) = check_flops(tmp_path, None)
    assert found.verdict is Verdict.MATCH and found.spread.startswith("12 of ")
    content = json.loads(path.read_text())
    row = next(row for row in content["rows"] if row["method"] == "din" and row["counter"] == "torch")
    row["train_flops_per_target"] += 1000.0
    path.write_text(json.dumps(content))
    (found,) = check_flops(tmp_path, None)
    assert found.verdict is Verdict.DIFFERS and "din, 20, torch: train_flops_per_target" in found.note
