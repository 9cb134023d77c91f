"""docs/data.md says what the code does: its examples run, its numbers are the code's."""

import re

import numpy as np
import pandas as pd
import pytest

from repro.data import DATASET_NAMES, PROTOCOLS, load_prepared, split_statistics
from repro.paths import PROJECT_ROOT

PAGE = (PROJECT_ROOT / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
TARGET_ROWS = re.findall(r"^\| (ml-\w+|groceries) \| ([\w-]+) \| ([\d, |]+) \|$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("code", EXAMPLES, ids=[code.splitlines()[-1][:40] for code in EXAMPLES])
def test_examples_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.arange(300)
    log = {"user": rows % 9, "item": rows % 11, "rating": rows % 5 + 1, "timestamp": rows}
    pd.DataFrame({**log, "text": [f"Thing {row % 11}" for row in rows]}).to_csv("my_log.csv")
    names: dict = {}
    exec(code, names)
    assert names["data"].is_target.sum() > 100


def test_own_data_takes_five_lines():
    (own,) = [code for code in EXAMPLES if "my_log.csv" in code]
    assert len([line for line in own.splitlines() if line]) == 5


@pytest.mark.parametrize(
    ("name", "protocol", "numbers"), TARGET_ROWS, ids=[f"{a}-{b}" for a, b, _ in TARGET_ROWS]
)
def test_target_counts(name, protocol, numbers, request):
    if name == "groceries":
        request.getfixturevalue("groceries_package")
    data_dir = request.getfixturevalue("ml_1m_dir") if name == "ml-1m" else None
    prepared = load_prepared(name, protocol, data_dir)
    splits = split_statistics(prepared)
    found = [prepared.counts[key] for key in ("users", "items", "interactions")]
    found += [row["targets"] for row in splits] + [splits[2]["users"]]
    assert found == [int(number.replace(",", "")) for number in numbers.split(" | ")]


def test_every_data_set_and_protocol_is_described():
    assert len(TARGET_ROWS) == 6
    for name in (*DATASET_NAMES, *PROTOCOLS):
        assert f"`{name}`" in PAGE


def test_item_text_examples(ml_1m_dir):
    for data in (
        load_prepared("ml-100k"),
        load_prepared("ml-1m", data_dir=ml_1m_dir),
        load_prepared("synthetic"),
    ):
        assert any(f"| `{text}` |" in PAGE for text in data.items.text)


def test_item_text_example_of_groceries(groceries_package):
    (example,) = re.findall(r"^\| `groceries` \| `product type.*?` \| `(.*?)` \|$", PAGE, flags=re.MULTILINE)
    assert example in groceries_package.items.text
