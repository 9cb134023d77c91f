"""Every key of a record is required, typed and described; every fault is named."""

from __future__ import annotations

import copy
import re

import pytest

from repro.errors import RecordError
from repro.paths import PROJECT_ROOT
from repro.records.atomic import json_bytes
from repro.records.measurements import ROWS
from repro.records.run_id import run_id
from repro.records.schema import Metrics, Record, Section, is_stale, parse_record, validate_record

OPTIONAL = {"validation.0.train_loss", "validation.0.train_s", "config.learning_rate", "environment.peft"}
# Its keys are the configuration's own and not looked into.
OPEN = ("config.fixes.",)


def places(value, prefix=""):
    """Dotted path of every key in a nested table."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{prefix}{key}"
            yield from places(inner, f"{prefix}{key}.")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, f"{prefix}{index}.")


def parent_of(record, place):
    *path, key = place.split(".")
    for part in path:
        record = record[int(part)] if isinstance(record, list) else record[part]
    return record, key


def with_id(record):
    """The record with the run id that its configuration asks for."""
    return record | {"run_id": run_id(record["config"], record["device"]["name"])}


def test_a_complete_record_passes(record, interrupted):
    validate_record(record)
    validate_record(interrupted)
    assert parse_record(json_bytes(record), "record.json") == record


def test_every_missing_key_is_named(record):
    for place in list(places(record)):
        damaged = copy.deepcopy(record)
        table, key = parent_of(damaged, place)
        del table[key]
        if place in OPTIONAL or place.startswith(OPEN):
            validate_record(with_id(damaged))
            continue
        with pytest.raises(RecordError, match=rf"some/record\.json, field {re.escape(place)}: missing"):
            validate_record(damaged, "some/record.json")


def test_every_unknown_key_is_named(record):
    for section in (
        "",
        "metrics",
        "validation.0",
        "data",
        "time",
        "memory",
        "device",
        "git",
        "config.numerics",
    ):
        damaged = copy.deepcopy(record)
        place = f"{section}.surprise" if section else "surprise"
        table, key = parent_of(damaged, place)
        table[key] = 1
        with pytest.raises(RecordError, match=rf"field {re.escape(place)}: unknown key"):
            validate_record(with_id(damaged))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema", 2),
        ("status", "done"),
        ("config.method", "DTI with spaces"),
        ("config.recipe", "mine"),
        ("config.k", 0),
        ("config.k", True),
        ("config.k", 50.0),
        ("config.sum_layout", "inline"),
        ("config.tier", "../elsewhere"),
        ("config.seed", "0"),
        ("config.numerics.method", None),
        ("metrics.auc", 1.1),
        ("metrics.auc", None),
        ("metrics.auc", "0.7"),
        ("metrics.log_loss", -0.1),
        ("validation.0.auc", None),
        ("data.sha256", "abc"),
        ("data.test_targets", -1),
        ("time.train_s", -1.0),
        ("memory.peak_gib", "8 GiB"),
        ("device.count", 0),
        ("environment.torch", 2),
        ("environment.peft", 0.18),
        ("git.sha", "main"),
        ("code_sha256", None),
    ],
)
def test_wrong_values_are_named(record, place, value):
    table, key = parent_of(record, place)
    table[key] = value
    with pytest.raises(RecordError, match=rf"field {re.escape(place)}"):
        validate_record(record)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_of_a_record_may_be_nan_or_infinite(record, value):
    for place in [
        p for p in places(record) if isinstance(parent_of(record, p)[0][parent_of(record, p)[1]], float)
    ]:
        damaged = copy.deepcopy(record)
        table, key = parent_of(damaged, place)
        table[key] = value
        with pytest.raises(RecordError, match=rf"field {re.escape(place)}: -?(nan|inf)"):
            validate_record(damaged)


@pytest.mark.parametrize("status", ["out_of_memory", "diverged", "interrupted", "rehearsal"])
def test_a_run_that_is_not_ok_carries_no_metric(record, status):
    validate_record(record | {"status": status, "metrics": {}})
    for metrics in (record["metrics"], {"auc": None}, {"auc": 0.0}, None):
        with pytest.raises(RecordError, match="field metrics"):
            validate_record(record | {"status": status, "metrics": metrics})
    with pytest.raises(RecordError, match="field metrics"):
        validate_record(record | {"metrics": {}})


def test_gauc_may_be_undefined_but_not_left_out(record):
    record["metrics"] |= {"gauc": None, "gauc_users": 0}
    validate_record(record)


def test_a_record_of_another_configuration_is_refused(record):
    record["config"]["k"] = 40
    with pytest.raises(RecordError, match=r"field run_id.*\n.*dti-k40-n10-seed0-"):
        validate_record(record)
    record["config"]["k"] = 50
    record["device"]["name"] = "another CPU"
    with pytest.raises(RecordError, match="field run_id"):
        validate_record(record)


def test_epochs_agree(record):
    record["validation"].append(record["validation"][0] | {"epoch": 2})
    with pytest.raises(RecordError, match=r"field validation: epochs \[0, 2\]"):
        validate_record(record)
    record["validation"] = record["validation"][:1]
    record["time"]["best_epoch"] = 1
    with pytest.raises(RecordError, match=r"field time\.best_epoch"):
        validate_record(record)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'{"schema": NaN}', b'{"schema": Infinity}', b"\xff\xfe{}", b'{"schema": 1}'],
)
def test_damaged_json_names_the_file(text):
    with pytest.raises(RecordError, match=r"folder/record\.json"):
        parse_record(text, "folder/record.json")


def test_staleness_is_any_difference_in_numerics(record):
    assert not is_stale(record, {"method": 1, "trainer": 1})
    assert is_stale(record, {"method": 2, "trainer": 1})
    assert is_stale(record, {"method": 1, "trainer": 2})
    assert is_stale(record, {"method": 0, "trainer": 1})


def keys_of(section, seen=None):
    """Every key of a section and of the sections inside of it."""
    for name, field in section.model_fields.items():
        yield field.alias or name
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, Section):
                yield from keys_of(part)


def test_the_documentation_names_every_key():
    text = (PROJECT_ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    keys = {*keys_of(Record), *keys_of(Metrics)}
    keys |= {key for row in ROWS.values() for key in row.model_fields}
    assert len(keys) > 60
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []
