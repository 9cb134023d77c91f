"""Measurements: rows typed by kind, failures named and never numbers."""

from __future__ import annotations

import json

import pytest

from repro.errors import RecordError, StorageError
from repro.records.measurements import TimingRow, list_measurements, read_measurement, write_measurement
from repro.records.schema import validate

ENVIRONMENT = {"python": "3.11.7", "torch": None, "transformers": None}
TIMING = {
    "device": "NVIDIA H100 80GB HBM3",
    "device_count": 1,
    "backbone": "smollm2-135m",
    "tuning": "full",
    "dtype": "bfloat16",
    "compile": True,
    "method": "dti",
    "k": 50,
    "n": 20,
    "batch": 8,
    "repeat": 0,
    "tokens_per_s": 430e3,
    "targets_per_s": 12e3,
    "step_ms": 30.5,
    "peak_gib": 20.25,
    "compile_s": 60,
    "mfu": None,
}
FLOPS = {
    "backbone": "smollm2-135m",
    "tuning": "lora",
    "dataset": "ml-1m",
    "method": "sw",
    "k": 1,
    "n": 20,
    "counter": "closed_form",
    "forward_flops_per_target": 1e11,
    "train_flops_per_target": 3e11,
    "ratio_to_sw": 1.0,
}
BAHE = {
    "device": "NVIDIA H100 80GB HBM3",
    "device_count": 1,
    "backbone": "smollm2-135m",
    "layer_cut": 0.5,
    "batch": 16,
    "text_tokens": 8192,
    "method": "llm_ctr",
    "step_ms": "out_of_memory",
    "samples_per_s": "out_of_memory",
    "peak_gib": "out_of_memory",
    "train_flops_per_sample": 1e15,
    "table_build_s": None,
}
BASELINE_SPEED = {
    "device": "some CPU, 2 cores",
    "threads": 2,
    "program": "ours",
    "dataset": "ml-1m",
    "protocol": "rella",
    "n": 30,
    "batch": 2048,
    "repeat": 0,
    "whole_epoch": False,
    "targets": 60000,
    "prepare_s": 0.1,
    "train_s": 4.0,
    "targets_per_s": 15e3,
    "loaded_gib": 0.4,
    "peak_gib": 0.8,
}
BEHAVIOUR_TABLE = {
    "device": "some CPU, 2 cores",
    "threads": 2,
    "measured": "storage",
    "repeat": 0,
    "behaviours": 1_000_000,
    "width": 576,
    "build_s": 20.0,
    "behaviours_per_s": 5e4,
    "storage": "lance",
    "open_s": 1.0,
    "first_read_s": 9.0,
    "lookups_per_s": 1e6,
    "vectors_per_s": 3e5,
    "update_s": 0.1,
    "text_bytes": 58_888_890,
    "index_bytes": 180_000_000,
    "table_bytes": 2_330_000_000,
    "export_bytes": 2_304_000_000,
    "backbone": None,
    "num_layers": None,
    "precision": None,
    "tokens": None,
}
KINDS = {
    "timing": TIMING,
    "flops": FLOPS,
    "bahe": BAHE,
    "baseline_speed": BASELINE_SPEED,
    "behaviour_table": BEHAVIOUR_TABLE,
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_back(tmp_path, kind):
    path = write_measurement(tmp_path, kind, "h100", ENVIRONMENT, [KINDS[kind], KINDS[kind]])
    assert path == tmp_path / kind / "h100.json"
    content = {"environment": ENVIRONMENT, "rows": [KINDS[kind]] * 2}
    assert path.read_text() == json.dumps(content, indent=1, sort_keys=True) + "\n"
    found = read_measurement(path)
    assert (found.environment, found.rows) == (ENVIRONMENT, content["rows"])
    write_measurement(tmp_path, kind, "a100", ENVIRONMENT, [])
    assert [m.path.name for m in list_measurements(tmp_path, kind)] == ["a100.json", "h100.json"]


def test_no_measurements_are_an_empty_list(tmp_path):
    assert list_measurements(tmp_path, "timing") == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_required_and_no_other_known(tmp_path, kind):
    row = KINDS[kind]
    for key in row:
        short = {name: value for name, value in row.items() if name != key}
        with pytest.raises(RecordError, match=rf"h100\.json, row 1, field {key}: missing"):
            write_measurement(tmp_path, kind, "h100", ENVIRONMENT, [row, short])
    with pytest.raises(RecordError, match="row 0, field speed: unknown key"):
        write_measurement(tmp_path, kind, "h100", ENVIRONMENT, [row | {"speed": 1}])
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("timing", "tokens_per_s", float("nan")),
        ("timing", "step_ms", -1.0),
        ("timing", "step_ms", "OOM"),
        ("timing", "k", 0),
        ("flops", "counter", "guess"),
        ("flops", "forward_flops_per_target", None),
        ("bahe", "layer_cut", 1.5),
        ("bahe", "method", "dti"),
        ("baseline_speed", "program", "another"),
        ("baseline_speed", "peak_gib", None),
        ("behaviour_table", "storage", "disk"),
        ("behaviour_table", "behaviours", 0),
    ],
)
def test_wrong_values_are_refused(tmp_path, kind, key, value):
    with pytest.raises(RecordError, match=key):
        write_measurement(tmp_path, kind, "h100", ENVIRONMENT, [KINDS[kind] | {key: value}])


def test_a_section_alone_refuses_nan_and_infinity():
    for value in (float("nan"), float("inf")):
        with pytest.raises(RecordError, match="field compile_s"):
            validate(TimingRow, TIMING | {"compile_s": value}, "row")


def test_damaged_files_are_named(tmp_path):
    path = write_measurement(tmp_path, "timing", "h100", ENVIRONMENT, [TIMING])
    whole = path.read_bytes()
    no_rows = json.dumps({"environment": ENVIRONMENT}).encode()
    nan = whole.replace(b"30.5", b"NaN")
    no_python = whole.replace(b'"python"', b'"pyton"')
    for content in (b"", whole[:50], no_rows, nan, no_python, b"[]", b'{"environment": {}, "rows": 3}'):
        path.write_bytes(content)
        with pytest.raises(RecordError, match=r"h100\.json"):
            read_measurement(path)
    with pytest.raises(StorageError, match="No such file"):
        read_measurement(path.with_name("none.json"))
    stray = tmp_path / "elsewhere" / "h100.json"
    stray.parent.mkdir()
    stray.write_bytes(whole)
    with pytest.raises(RecordError, match="kind 'elsewhere'"):
        read_measurement(stray)
