"""What a table's filling costs: per behaviour and device, by whoever filled it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bahe_cases import TEMPLATE, backbone

from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.lance_table import LanceTable
from repro.behaviours.table import fill
from repro.behaviours.texts import Behaviours, behaviours_of
from repro.data.interactions import Items
from repro.errors import RecordError
from repro.methods.bahe import filled_table as module
from repro.methods.bahe.filled_table import COSTS, filled_table

SECONDS = 5.0  # that a filling takes by the planted clock


def behaviours_for(*titles: str) -> Behaviours:
    whole = backbone()
    items = Items(titles, titles, ((),) * len(titles))
    return behaviours_of(items, whole.tokenizer, TEMPLATE, (whole.yes_id, whole.no_id))


FEW, MANY = behaviours_for("Alien", "Up"), behaviours_for("Alien", "Up", "Heat", "Big")


@pytest.fixture
def encoder(monkeypatch) -> BehaviourEncoder:
    """With a clock by which every filling takes `SECONDS`."""
    ticks = iter(np.arange(1000) * SECONDS)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    return BehaviourEncoder(backbone(), 2, template=TEMPLATE)


def fillings(tables: Path) -> list[dict]:
    (path,) = tables.glob(f"*/{COSTS}")
    return json.loads(path.read_text())["fillings"]


def test_in_memory_the_cost_is_this_filling_s(encoder) -> None:
    table, each = filled_table(None, FEW, encoder)
    assert len(table) == len(FEW) == 6 and each == SECONDS / 6


@pytest.fixture
def tables(tmp_path) -> Path:
    pytest.importorskip("lance", reason="without Lance, tables are in memory")
    return tmp_path / "tables"


def test_fillings_of_several_data_sets_are_averaged_per_behaviour(tables, encoder) -> None:
    assert filled_table(tables, FEW, encoder)[1] == SECONDS / 6
    assert filled_table(tables, MANY, encoder)[1] == 2 * SECONDS / 12
    assert filled_table(tables, FEW, encoder)[1] == 2 * SECONDS / 12, "nothing was missing"
    assert [each["behaviours"] for each in fillings(tables)] == [6, 6]


def test_fillings_of_another_device_do_not_count(tables, encoder, monkeypatch) -> None:
    filled_table(tables, FEW, encoder)
    monkeypatch.setattr(module, "device_name", lambda kind: "another device")
    assert filled_table(tables, FEW, encoder)[1] is None
    assert filled_table(tables, MANY, encoder)[1] == SECONDS / 6
    assert len({each["device"] for each in fillings(tables)}) == 2


@pytest.mark.parametrize("deleted", ["the folder", "the rows alone"])
def test_a_table_built_anew_forgets_what_the_old_one_cost(tables, encoder, deleted) -> None:
    filled_table(tables, MANY, encoder)
    (folder,) = tables.iterdir()
    shutil.rmtree(folder if deleted == "the folder" else folder / "table.lance")
    assert filled_table(tables, FEW, encoder)[1] == SECONDS / 6
    assert len(fillings(tables)) == 1


def test_a_lost_cost_is_unknown_and_a_damaged_one_is_an_error(tables, encoder) -> None:
    filled_table(tables, FEW, encoder)
    (cost,) = tables.glob(f"*/{COSTS}")
    cost.unlink()
    assert filled_table(tables, FEW, encoder)[1] is None
    cost.write_text('{"fillings": [{"seconds": 1.0}]}')
    with pytest.raises(RecordError, match=r"fillings\.json.*fillings\.0\.behaviours"):
        filled_table(tables, FEW, encoder)
    cost.write_text('{"fillings": [{"sec')
    with pytest.raises(RecordError, match=r"fillings\.json") as error:
        filled_table(tables, FEW, encoder)
    assert error.value.fix.startswith("delete this file:")
    cost.unlink()
    assert len(filled_table(tables, FEW, encoder)[0]) == len(FEW), "the advice works"


def test_the_cost_is_written_before_anybody_else_may_fill(tables, encoder, monkeypatch) -> None:
    held, write_file = [], module.write_file

    def watched(path, content):
        held.append(LanceTable(path.parent, encoder.fingerprint, encoder.width)._lock.acquire)
        with pytest.raises(TimeoutError):
            held[-1](timeout=0)
        write_file(path, content)

    monkeypatch.setattr(module, "write_file", watched)
    table, _ = filled_table(tables, FEW, encoder)
    assert len(held) == 1 and fill(table, FEW, encoder) == 0
