"""The table in memory and on disk: the same promises."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from behaviour_cases import TEMPLATE, WIDTH, make_behaviours, many, random_rows, tiny

from repro.behaviours import table as table_module
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import MemoryTable, fill, look_up, open_table
from repro.errors import ConfigError, DataError, TableError
from repro.paths import PROJECT_ROOT
from repro.prompts.templates import Template

HAS_LANCE = importlib.util.find_spec("lance") is not None
FINGERPRINT = "f" * 64


def test_rows_are_found_in_the_order_they_were_added(folder) -> None:
    table = open_table(folder, FINGERPRINT, WIDTH)
    assert (len(table), table.vectors().shape, table.rows(["a"]).tolist()) == (0, (0, WIDTH), [-1])
    first, second = random_rows(5), random_rows(3, first=5)
    versions = [table.version, table.add(*first), table.add(*second)]
    assert versions == sorted(set(versions)) and table.version == versions[-1]
    assert len(table) == 8
    assert table.rows([second[0][1], "none", first[0][0]]).tolist() == [6, -1, 0]
    vectors = table.vectors()
    assert vectors.dtype == torch.float32 and vectors.device.type == "cpu"
    assert np.array_equal(vectors.numpy(), np.concatenate([first[1], second[1]]))
    if folder is not None:
        again = open_table(folder, FINGERPRINT, WIDTH)
        assert again.version == table.version
        assert torch.equal(again.vectors(), vectors)


def test_vectors_that_were_given_out_stay_as_they_were(folder) -> None:
    table = open_table(folder, FINGERPRINT, WIDTH)
    table.add(*random_rows(4))
    given = table.vectors()
    copy = given.clone()
    table.add(*random_rows(4, first=4))
    assert table.vectors().shape == (8, WIDTH)
    assert torch.equal(given, copy) and torch.equal(table.vectors()[:4], copy)


def test_vectors_of_any_encoder_are_taken(folder) -> None:
    """Of images, say: half precision, not contiguous, a key of their own."""
    table = open_table(folder, "images", 8)
    outside = np.arange(48, dtype=np.float16).reshape(8, 6).T
    table.add([f"image {i}" for i in range(6)], outside)
    assert np.array_equal(table.vectors().numpy(), outside.astype(np.float32))


def test_only_what_is_missing_is_encoded(folder, monkeypatch) -> None:
    monkeypatch.setattr(table_module, "CHUNK", 7)
    backbone = tiny()
    behaviours, encoder = make_behaviours(backbone), BehaviourEncoder(backbone, 2)
    table = open_table(folder, encoder.fingerprint, encoder.width)
    asked: list[int] = []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda tokens: asked.append(len(tokens)) or encode(tokens))
    assert fill(table, behaviours, encoder) == len(behaviours) == sum(asked)
    assert max(asked) <= 7
    assert (fill(table, behaviours, encoder), sum(asked)) == (0, len(behaviours))
    more = make_behaviours(backbone, ("Alien", "Brazil"))
    assert fill(table, more, encoder) == 3 == asked[-1], "Brazil alone, with no and with yes"
    expected = encode(more.tokens_of(np.arange(len(more))))
    assert np.array_equal(look_up(table, more, np.arange(len(more))), expected)


def test_a_missing_behaviour_is_an_error_unless_it_may_be_encoded(folder) -> None:
    backbone = tiny()
    behaviours, encoder = many(backbone, 4), BehaviourEncoder(backbone, 2)
    table = open_table(folder, encoder.fingerprint, encoder.width)
    fill(table, many(backbone, 3), encoder)
    wanted = np.arange(len(behaviours))
    with pytest.raises(TableError, match=r"3 of 12 behaviours are missing, '.ntitle 3 word"):
        look_up(table, behaviours, wanted)
    expected = encoder.encode(behaviours.tokens_of(wanted))
    assert np.array_equal(look_up(table, behaviours, wanted, encoder), expected)
    with pytest.raises(TableError, match="vectors of another encoder"):
        look_up(table, behaviours, wanted, BehaviourEncoder(backbone, 1))


def test_another_encoder_or_template_is_refused(folder) -> None:
    backbone = tiny()
    encoder, other = BehaviourEncoder(backbone, 2), BehaviourEncoder(backbone, 1)
    table = open_table(folder, encoder.fingerprint, encoder.width)
    fill(table, make_behaviours(backbone), encoder)
    with pytest.raises(TableError, match=f"fingerprint {encoder.fingerprint[:12]}.*"):
        fill(table, make_behaviours(backbone), other)
    if folder is not None:
        with pytest.raises(TableError, match="delete the table and build it again"):
            open_table(folder, other.fingerprint, other.width)
        with pytest.raises(TableError):
            open_table(folder, encoder.fingerprint, encoder.width + 1)
    short = make_behaviours(backbone, template=Template(TEMPLATE.instruction, max_item_tokens=5))
    with pytest.raises(ConfigError, match="give the encoder their template"):
        fill(table, short, encoder)


def test_without_pylance_a_table_is_in_memory(tmp_path, monkeypatch, caplog) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lance" else find(name))
    assert isinstance(open_table(tmp_path / "table", FINGERPRINT, WIDTH), MemoryTable)
    assert "pylance is not installed" in caplog.text
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "lance", None)
    from repro.behaviours.lance_table import LanceTable

    with pytest.raises(TableError, match="python -m pip install pylance"):
        LanceTable(tmp_path / "table", FINGERPRINT, WIDTH)


def test_nothing_but_a_table_on_disk_imports_pylance() -> None:
    names = sorted(path.stem for path in Path(table_module.__file__).parent.glob("[a-z]*.py"))
    assert {"build", "encoding", "lance_table", "table"} <= set(names)
    code = "import sys; sys.modules['lance'] = None; import " + ", ".join(
        f"repro.behaviours.{n}" for n in names
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)


@pytest.mark.skipif(not HAS_LANCE, reason="pylance is not installed")
def test_of_two_that_fill_one_table_one_encodes(tmp_path) -> None:
    backbone = tiny()
    behaviours, encoder = many(backbone), BehaviourEncoder(backbone, 2)
    tables = [open_table(tmp_path / "table", encoder.fingerprint, encoder.width) for _ in range(2)]
    added: list[int] = []
    threads = [
        threading.Thread(target=lambda t=t: added.append(fill(t, behaviours, encoder))) for t in tables
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [0, len(behaviours)]
    assert [len(table) for table in tables] == [len(behaviours)] * 2


@pytest.mark.skipif(not HAS_LANCE, reason="pylance is not installed")
@pytest.mark.parametrize("shared", [True, False], ids=["one opening", "two openings"])
def test_of_two_that_add_the_same_behaviours_at_once_one_is_refused(tmp_path, monkeypatch, shared) -> None:
    """Each holds on after it found them missing until the other has, too; under the lock it never does."""
    from repro.behaviours.lance_table import LanceTable

    tables = [LanceTable(tmp_path / "table", FINGERPRINT, WIDTH) for _ in range(2)]
    both, write = threading.Barrier(2), LanceTable.write

    def held_on(table, texts, vectors):
        written = write(table, texts, vectors)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.5)
        return written

    monkeypatch.setattr(LanceTable, "write", held_on)
    refused: list[str] = []

    def add(table: LanceTable) -> None:
        try:
            table.add(*random_rows(5))
        except DataError as error:
            refused.append(error.found)

    threads = [threading.Thread(target=add, args=(tables[0 if shared else i],)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[:26] for found in refused] == ["5 are in the table already"]
    again = open_table(tmp_path / "table", FINGERPRINT, WIDTH)
    assert (len(again), again.version) == (5, 2)
    assert np.array_equal(again.vectors().numpy(), random_rows(5)[1])
