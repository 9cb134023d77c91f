"""Files that grow while rows are measured: what stays, what makes way, and when."""

from __future__ import annotations

import pytest

from repro.errors import RecordError
from repro.records import growing
from repro.records.growing import UNFINISHED, GrowingMeasurement
from repro.records.measurements import read_measurement

NUMBERS = ("step_ms", "samples_per_s", "peak_gib", "train_flops_per_sample", "table_build_s")
FIXED = dict.fromkeys(NUMBERS, 1.0) | {"device": "CPU", "device_count": 1, "backbone": "b", "layer_cut": 0.5}


def row(tokens: int, batch: int = 4) -> dict:
    return FIXED | {"method": "bahe", "text_tokens": tokens, "batch": batch}


def opened(root, batch: int = 4) -> GrowingMeasurement:
    return GrowingMeasurement(root, "bahe", "name", lambda row, rows: row["batch"] == batch)


def lengths(path) -> list[int]:
    return [row["text_tokens"] for row in read_measurement(path).rows]


@pytest.fixture
def whole(tmp_path):
    """A finished file of three rows."""
    file = opened(tmp_path)
    for tokens in (1, 2, 3):
        file.put([row(tokens)])
        assert lengths(file.path) == list(range(1, tokens + 1)), "every row is on disk at once"
    return file.finish()


def test_rows_are_replaced_one_by_one(whole, tmp_path) -> None:
    file = opened(tmp_path)
    file.put([row(2), row(4)], lambda old: old["text_tokens"] == 2)
    assert lengths(whole) == [1, 3, 2, 4]
    assert file.finish() == whole and not (tmp_path / UNFINISHED).exists()


@pytest.mark.parametrize("changed", ["settings", "environment"])
def test_a_whole_file_stands_until_its_successor_is_whole(whole, tmp_path, monkeypatch, changed) -> None:
    batch = 8 if changed == "settings" else 4
    if changed == "environment":
        other = growing.environment() | {"torch": "0.1"}
        monkeypatch.setattr(growing, "environment", lambda: other)
    before = whole.read_bytes()
    opened(tmp_path, batch).put([row(7, batch)])  # and is cut off
    assert whole.read_bytes() == before
    file = opened(tmp_path, batch)
    assert file.rows == [row(7, batch)], "a later run goes on from there"
    file.put([row(8, batch)])
    assert whole.read_bytes() == before
    assert file.finish() == whole and lengths(whole) == [7, 8]
    assert not list((tmp_path / UNFINISHED).rglob("*.json"))
    assert opened(tmp_path, batch).rows == file.rows


def test_a_run_that_measures_nothing_changes_nothing(whole, tmp_path) -> None:
    before = whole.read_bytes()
    assert opened(tmp_path, batch=8).finish() == whole
    assert whole.read_bytes() == before
    assert not opened(tmp_path / "empty").finish().exists()


def test_a_damaged_file_is_not_overwritten(whole, tmp_path) -> None:
    whole.write_text("{")
    with pytest.raises(RecordError, match=r"name\.json"):
        opened(tmp_path)
    assert whole.read_text() == "{"
