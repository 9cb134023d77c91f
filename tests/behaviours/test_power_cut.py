"""A power cut: data reach the disk before the version that names them, and an error names the way back."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from behaviour_cases import WIDTH, random_rows

from repro.behaviours.lance_files import manifests
from repro.behaviours.lance_table import LanceTable
from repro.errors import StorageError, TableError

pytest.importorskip("lance")
FINGERPRINT = "f" * 64


def opened(folder: Path) -> LanceTable:
    return LanceTable(folder, FINGERPRINT, WIDTH)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Version 1 is empty; 2 has 50 rows and 3 has 80."""
    table = opened(tmp_path / "table")
    table.add(*random_rows(50))
    table.add(*random_rows(30, first=50))
    return tmp_path / "table"


@pytest.fixture
def order(monkeypatch, tmp_path) -> list[str]:
    """Names below the temporary folder in the order in which they are fsynced, and "commit"."""
    import lance

    seen: list[str] = []
    fsync, commit = os.fsync, lance.LanceDataset.commit

    def synced(handle: int) -> None:
        of = {path.stat().st_ino: path for path in (tmp_path, *tmp_path.rglob("*"))}
        seen.append(str(of[os.fstat(handle).st_ino].relative_to(tmp_path)))
        fsync(handle)

    def committed(*args, **options):
        seen.append("commit")
        return commit(*args, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(lance.LanceDataset, "commit", committed)
    return seen


@pytest.mark.skipif(os.name != "posix", reason="folders are fsynced on POSIX systems alone")
def test_data_reach_the_disk_before_the_version_and_the_version_before_add_returns(tmp_path, order) -> None:
    table = opened(tmp_path / "table")
    made = manifests(tmp_path / "table" / "table.lance")[1].name
    versions = "table/table.lance/_versions"
    assert order == [f"{versions}/{made}", versions, "table/table.lance", "table", "."]
    order.clear()
    table.add(*random_rows(5))
    (data,) = (path.name for path in (tmp_path / "table" / "table.lance" / "data").iterdir())
    newest = manifests(tmp_path / "table" / "table.lance")[2].name
    data_synced = [f"table/table.lance/data/{data}", "table/table.lance/data", "table/table.lance"]
    assert order == [*data_synced, "commit", f"{versions}/{newest}", versions]


def test_data_that_do_not_reach_the_disk_make_no_version(folder, monkeypatch) -> None:
    table = opened(folder)

    def broken(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError, match=r"Input/output error"):
        table.add(*random_rows(5, first=80))
    monkeypatch.undo()
    assert (opened(folder).version, len(opened(folder))) == (3, 80)


def named(error: TableError) -> list[Path]:
    """The files that it says to delete."""
    found = re.search(r"delete (.*) and run the same command again", error.fix)
    assert found is not None
    return [Path(each) for each in found[1].split(" and ")]


@pytest.mark.parametrize("left", [0, 1, 40, -1])
def test_a_newest_manifest_that_is_not_whole_is_named_with_the_version_before(folder, left) -> None:
    newest = manifests(folder / "table.lance")[3]
    newest.write_bytes(newest.read_bytes()[:left])
    with pytest.raises(TableError, match="version 2 is whole, with 50 behaviours") as error:
        opened(folder)
    assert named(error.value) == [newest]
    newest.unlink()
    table = opened(folder)
    assert (table.version, len(table)) == (2, 50)
    assert np.array_equal(table.vectors().numpy(), random_rows(50)[1])
    with table.exclusive():
        table.add(*random_rows(30, first=50))
    again = opened(folder)
    assert (again.version, len(again)) == (3, 80)
    assert np.array_equal(again.vectors()[50:].numpy(), random_rows(30, first=50)[1])
    again.verify()


def test_data_of_the_newest_version_that_are_not_whole_are_found_too(folder) -> None:
    """As in a table that was written without fsync: names are there, contents are not."""
    data = min((folder / "table.lance" / "data").iterdir(), key=lambda path: path.stat().st_size)
    content = data.read_bytes()
    for kept in (0, len(content) // 2):
        data.write_bytes(content[:kept] + bytes(len(content) - kept))
        with pytest.raises(TableError, match="version 2 is whole, with 50 behaviours") as error:
            opened(folder).verify()
        assert named(error.value) == [manifests(folder / "table.lance")[3]]


def test_two_versions_that_are_not_whole_are_both_named(folder) -> None:
    opened(folder).add(*random_rows(10, first=80))
    broken = [manifests(folder / "table.lance")[version] for version in (3, 4)]
    for path in broken:
        path.write_bytes(b"")
    with pytest.raises(TableError, match="version 2 is whole, with 50 behaviours") as error:
        opened(folder)
    assert named(error.value) == broken


def test_an_older_manifest_that_is_not_whole_is_named_by_the_next_writer(folder) -> None:
    older = manifests(folder / "table.lance")[2]
    older.write_bytes(b"")
    table = opened(folder)
    assert len(table) == 80, "readers do not need it"
    with (
        pytest.raises(TableError, match="version 3 is whole, with 80 behaviours") as error,
        table.exclusive(),
    ):
        pass
    assert named(error.value) == [older]
    older.unlink()
    with table.exclusive():
        table.add(*random_rows(10, first=80))
    assert len(opened(folder)) == 90


def test_without_a_whole_version_there_is_nothing_to_go_on_from(tmp_path) -> None:
    opened(tmp_path / "table")
    manifests(tmp_path / "table" / "table.lance")[1].write_bytes(b"")
    with pytest.raises(TableError) as error:
        opened(tmp_path / "table")
    assert error.value.fix.startswith(f"delete {tmp_path / 'table'} and build the table again")


def test_lances_hint_and_transactions_are_not_needed(folder) -> None:
    """They are not fsynced."""
    for path in (folder / "table.lance" / "_transactions").iterdir():
        path.write_bytes(b"")
    (folder / "table.lance" / "_versions" / "latest_version_hint.json").write_bytes(b"")
    table = opened(folder)
    with table.exclusive():
        table.add(*random_rows(10, first=80))
    assert len(opened(folder)) == 90


def test_who_has_read_what_was_deleted_since_is_told(tmp_path, folder) -> None:
    """Its row numbers would be those of other behaviours."""
    reader = opened(folder)
    manifests(folder / "table.lance")[3].unlink()
    opened(folder).add(*random_rows(60, first=1000))
    with pytest.raises(TableError, match="version 3 does not go on from what this process has read"):
        reader.refresh()
    shutil.rmtree(folder)
    opened(folder).add(*random_rows(60, first=1000))
    with pytest.raises(TableError, match="start this process again"):
        reader.refresh()
    assert (reader.version, len(reader)) == (3, 80)
