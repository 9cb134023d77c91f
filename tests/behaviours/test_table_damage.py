"""A damaged table, or a full disk: a clear error or the right vectors, never others."""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from behaviour_cases import WIDTH, random_rows
from typer.testing import CliRunner

from repro.behaviours.lance_table import LanceTable
from repro.cli import app
from repro.errors import StorageError, TableError

pytest.importorskip("lance")
FINGERPRINT = "f" * 64


@pytest.fixture
def folder(tmp_path) -> Path:
    """A table of two versions, 80 rows, without exported vectors."""
    table = LanceTable(tmp_path / "table", FINGERPRINT, WIDTH)
    table.add(*random_rows(50))
    table.add(*random_rows(30, first=50))
    return tmp_path / "table"


def everything() -> tuple[list[str], np.ndarray]:
    (texts, vectors), (more, others) = random_rows(50), random_rows(30, first=50)
    return texts + more, np.concatenate([vectors, others])


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(content)))
    return content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :]


def blank(content: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(content)))
    return content[:place] + bytes(len(content[place : place + 64])) + content[place + 64 :]


def cut_short(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


@pytest.mark.parametrize("damage", [flip, blank, cut_short])
@pytest.mark.parametrize("kind", ["data/*.lance", "_versions/*.manifest"])
def test_damage_is_an_error_or_harmless(tmp_path, folder, damage, kind) -> None:
    texts, vectors = everything()
    newest = sorted(folder.glob(f"table.lance/{kind}"))[0]  # Lance counts manifests down
    rng, errors = np.random.default_rng(0), 0
    for _ in range(12):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "copy")
        damaged = tmp_path / "copy" / newest.relative_to(folder)
        damaged.write_bytes(damage(damaged.read_bytes(), rng))
        try:
            table = LanceTable(tmp_path / "copy", FINGERPRINT, WIDTH)
            found = table.vectors().numpy()
        except TableError as error:
            assert str(tmp_path / "copy") in str(error)
            assert ".rs:" not in str(error), "where the library was built"
            errors += 1
            continue
        assert np.array_equal(found, vectors)
        assert np.array_equal(table.rows(texts), np.arange(80))
    assert errors >= 6


def test_a_file_that_is_gone_is_named(folder) -> None:
    for path in folder.glob("table.lance/data/*"):
        path.unlink()
    with pytest.raises(TableError, match=r"damaged: .*Not found") as error:
        LanceTable(folder, FINGERPRINT, WIDTH)
    assert error.value.fix.startswith(f"delete {folder} and build the table again")


def test_versions_without_data_and_data_without_versions_are_damage(folder) -> None:
    for path in folder.rglob("*.manifest"):
        path.unlink()
    with pytest.raises(TableError, match="damaged"):
        LanceTable(folder, FINGERPRINT, WIDTH)


@pytest.mark.parametrize("name", ["vectors.f32", "vectors.json"])
@pytest.mark.parametrize("left", [0, 10, -20])
def test_exported_vectors_that_are_not_whole_are_exported_again(folder, name, left) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    exported = folder / name
    exported.write_bytes(exported.read_bytes()[:left])
    assert np.array_equal(LanceTable(folder, FINGERPRINT, WIDTH).vectors().numpy(), everything()[1])


def garbage(exported: Path) -> None:
    count = exported.stat().st_size // 4
    np.random.default_rng(7).standard_normal(count, dtype=np.float32).tofile(exported)


def one_bit(exported: Path) -> None:
    exported.write_bytes(flip(exported.read_bytes(), np.random.default_rng(7)))


@pytest.mark.parametrize("damage", [garbage, one_bit])
def test_damaged_exported_vectors_are_exported_again(folder, damage, caplog) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    exported = folder / "vectors.f32"
    size = exported.stat().st_size
    damage(exported)
    assert exported.stat().st_size == size and exported.read_bytes() != everything()[1].tobytes()
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    assert np.array_equal(table.vectors().numpy(), everything()[1])
    assert exported.read_bytes() == everything()[1].tobytes() and f"{exported} is damaged" in caplog.text
    table.add(*random_rows(20, first=80))
    table.vectors()
    caplog.clear()
    again = LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    assert np.array_equal(again[80:].numpy(), random_rows(20, first=80)[1])
    assert caplog.text == "", "the checksum goes on over added rows"


def test_damaged_exported_vectors_are_not_added_to(folder) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    garbage(folder / "vectors.f32")
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    table.add(*random_rows(20, first=80))
    assert np.array_equal(table.vectors()[:80].numpy(), everything()[1])


def test_the_checksum_is_computed_once_per_opening(folder, monkeypatch) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    table, checked, crc32 = LanceTable(folder, FINGERPRINT, WIDTH), [], zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda data, *start: checked.append(len(data)) or crc32(data, *start))
    for _ in range(3):
        table.vectors()
    assert checked == [80 * WIDTH * 4]


def test_an_export_without_checksum_is_made_again(folder) -> None:
    """As an earlier version wrote it."""
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    manifest = json.loads((folder / "vectors.json").read_text())
    expected = manifest.pop("crc32")
    (folder / "vectors.json").write_text(json.dumps(manifest))
    garbage(folder / "vectors.f32")
    assert np.array_equal(LanceTable(folder, FINGERPRINT, WIDTH).vectors().numpy(), everything()[1])
    assert json.loads((folder / "vectors.json").read_text())["crc32"] == expected


@pytest.mark.parametrize("values", [{"rows": -5}, {"rows": 1e999}, {"files": None}, {"crc32": "none"}])
def test_an_impossible_manifest_counts_as_none(folder, values) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    path = folder / "vectors.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    assert np.array_equal(LanceTable(folder, FINGERPRINT, WIDTH).vectors().numpy(), everything()[1])


def flip_vectors(folder: Path) -> None:
    """64 successive bytes in the middle of the largest of Lance's data files, where its vectors are."""
    data = max(folder.glob("table.lance/data/*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 64)
    content[middle] = bytes(each ^ 255 for each in content[middle])
    data.write_bytes(content)


def test_damage_in_the_table_is_found_behind_a_whole_export(folder) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    LanceTable(folder, FINGERPRINT, WIDTH).verify()
    flip_vectors(folder)
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    assert np.array_equal(table.vectors().numpy(), everything()[1]), "the export is a whole copy"
    with pytest.raises(TableError, match="is not what was written") as error:
        table.verify()
    assert error.value.fix.startswith(f"delete {folder} and build the table again")


def test_damage_in_the_table_and_in_its_export_is_an_error(folder) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    flip_vectors(folder)
    garbage(folder / "vectors.f32")
    for _ in range(2):
        with pytest.raises(TableError, match="is not what was written"):
            LanceTable(folder, FINGERPRINT, WIDTH).vectors()


def test_build_table_reports_no_success_on_a_damaged_table(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    arguments = ["build-table", "--tier", "test", "--dataset", "synthetic"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (built,) = (tmp_path / "cache" / "behaviours").iterdir()
    assert (built / "vectors.f32").is_file(), "read back"
    flip_vectors(built)
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, TableError) and "behaviours of synthetic" not in refused.output


def test_vectors_of_a_table_that_was_there_before_are_not_taken(folder) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    shutil.rmtree(folder / "table.lance")
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    table.add(*random_rows(80, first=1000))
    assert np.array_equal(table.vectors().numpy(), random_rows(80, first=1000)[1])


def test_vectors_of_a_newer_version_that_was_lost_are_not_taken(folder) -> None:
    LanceTable(folder, FINGERPRINT, WIDTH).vectors()
    newest = sorted(folder.glob("table.lance/_versions/*.manifest"))[0]  # Lance counts manifests down
    newest.unlink()
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    assert len(table) == 50
    assert np.array_equal(table.vectors().numpy(), everything()[1][:50])
    table.add(*random_rows(30, first=1000))
    assert np.array_equal(table.vectors()[50:].numpy(), random_rows(30, first=1000)[1])


def test_a_reader_of_an_older_version_shares_the_file(folder) -> None:
    reader, writer = (LanceTable(folder, FINGERPRINT, WIDTH) for _ in range(2))
    writer.add(*random_rows(20, first=80))
    writer.vectors()
    marker = (folder / "vectors.json").read_bytes()
    assert np.array_equal(reader.vectors().numpy(), everything()[1])
    assert (folder / "vectors.json").read_bytes() == marker, "nothing was written again"


def test_readers_share_one_mapped_file_that_grows(folder) -> None:
    table = LanceTable(folder, FINGERPRINT, WIDTH)
    before = table.vectors()
    table.add(*random_rows(20, first=80))
    after = table.vectors()
    assert np.array_equal(before.numpy(), everything()[1])
    assert np.array_equal(after[80:].numpy(), random_rows(20, first=80)[1])
    assert (folder / "vectors.f32").stat().st_size == 100 * WIDTH * 4
    np.memmap(folder / "vectors.f32", np.float32, "r+")[0] = 42.0
    assert before[0, 0] == after[0, 0] == 42.0, "mapped from the file, not read"
    after[0, 0] = 43.0
    assert np.memmap(folder / "vectors.f32", np.float32, "r")[0] == 42.0, "a reader's writing stays its own"


@pytest.mark.skipif(sys.platform != "linux", reason="file sizes are limited as Linux does it")
def test_a_full_disk_leaves_the_table_as_it_was(folder) -> None:
    import resource

    table = LanceTable(folder, FINGERPRINT, WIDTH)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="the table is as it was"):
            table.add(*random_rows(5000, first=80))
        for first in (80, 380):
            table.add(*random_rows(300, first=first))
        with pytest.raises(StorageError, match="the table is as it was"):
            table.vectors()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    again = LanceTable(folder, FINGERPRINT, WIDTH)
    assert np.array_equal(again.vectors()[:80].numpy(), everything()[1])
    assert np.array_equal(again.vectors()[380:].numpy(), random_rows(300, first=380)[1])
