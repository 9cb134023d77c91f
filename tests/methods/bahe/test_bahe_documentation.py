"""docs/bahe.md: its examples run, and it names what the code has."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from repro.behaviours.drift import KINDS
from repro.behaviours.pooling import POOLINGS
from repro.behaviours.table import keeps_tables
from repro.experiments.bahe import FAMILIES
from repro.paths import PROJECT_ROOT

PAGE = (PROJECT_ROOT / "docs" / "bahe.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
SEQUENCES = ("purchase", "search")


@pytest.fixture
def shop(tmp_path, monkeypatch) -> None:
    """A folder with events.csv, whose columns are those of the page, and later.csv with a new item."""
    (header,) = re.findall(r"^user,item,.*$", PAGE, flags=re.MULTILINE)
    rows = np.arange(300)
    columns = {
        "user": rows % 9,
        "item": rows % 11,
        "text": [f"kettle, {row % 11} l" for row in rows],
        "label": rows * 7 // 3 % 2,
        "timestamp": rows,
        "sequence": [SEQUENCES[row // 9 % 2] for row in rows],
    }
    events = pd.DataFrame(columns)[header.split(",")]
    events.to_csv(tmp_path / "events.csv", index=False)
    new = events.tail(9).assign(item=99, text="toaster", timestamp=300 + np.arange(9))
    pd.concat([events, new]).to_csv(tmp_path / "later.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPRO_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.usefixtures("shop")
def test_the_examples_run() -> None:
    own, outside, later, new = {}, {}, {}, {}
    (code,) = [each for each in EXAMPLES if "events.csv" in each and "later.csv" not in each]
    exec(code, own)
    assert own["run"].status == "ok"
    assert own["run"].record["config"]["behaviours"]["sequences"] == list(SEQUENCES)
    (code,) = [each for each in EXAMPLES if "my-image-encoder" in each]
    exec(code, outside)
    assert np.array_equal(outside["found"].numpy(), outside["vectors"][1:])
    (code,) = [each for each in EXAMPLES if "look_up" in each]
    exec(code, later)
    wanted = later["later"]
    assert (later["table"].rows(wanted.text) < 0).sum() == 3, "one item is new: no, yes and alone"
    expected = later["encoder"].encode(wanted.tokens_of(np.arange(len(wanted))))
    assert np.array_equal(later["served"], expected)
    (code,) = [each for each in EXAMPLES if "later.csv" in each]
    exec(code, new)
    assert np.array_equal(new["row"], np.arange(300, 309)) and (new["score"] > 0).all()
    missing = new["table"].rows(new["behaviours"].text) < 0
    assert missing.sum() == 3 or not keeps_tables(), "the toaster: no, yes and alone"
    assert len(EXAMPLES) == 4


def test_the_page_names_methods_settings_and_sessions() -> None:
    names = (*FAMILIES, *KINDS, *POOLINGS, "table_build_s", "behaviours_encoded")
    assert [name for name in names if f"`{name}`" not in PAGE and f'"{name}"' not in PAGE] == []
    sessions = set(re.findall(r"def (bahe\w*|bench_table)\(", (PROJECT_ROOT / "noxfile.py").read_text()))
    assert sessions == set(re.findall(r"\| `nox -s (\w+)` \|", PAGE))


def test_paths_on_the_page_exist() -> None:
    paths = re.findall(r"`((?:repro|tests)/[\w/.]+)`", PAGE)
    assert paths and all((PROJECT_ROOT / path).exists() for path in paths)
