import errno
import json
import logging
import os
import resource
from dataclasses import replace

import pytest

from repro.data import SyntheticSettings, cache, load_prepared, ml_1m
from repro.data.cache import CachedData, write_atomically
from repro.errors import StorageError

SETTINGS = {"source_sha256": "abc", "min_context": 5}


@pytest.fixture(scope="module")
def prepared():
    return load_prepared("synthetic", "dti", synthetic=SyntheticSettings(num_interactions=2_000))


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_round_trip(prepared):
    place = CachedData("synthetic", "dti", SETTINGS)
    assert place.load() is None
    place.save(prepared)
    found = CachedData("synthetic", "dti", SETTINGS).load()
    assert found.sha256 == prepared.sha256
    assert found.items == prepared.items
    for name in ("name", "title", "protocol", "min_context", "counts", "source_sha256"):
        assert getattr(found, name) == getattr(prepared, name)
    assert found.position.tolist() == prepared.position.tolist()


def test_two_files_with_checksum_and_settings(prepared, own_cache):
    CachedData("synthetic", "dti", SETTINGS).save(prepared)
    names = files_in(own_cache)
    assert [name.rpartition(".")[2] for name in names] == ["json", "npz"]
    manifest = json.loads((own_cache / "prepared" / names[0]).read_text())
    assert manifest["settings"]["preparation"] == cache.PREPARATION_VERSION
    assert manifest["content_sha256"] == prepared.sha256


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".npz", lambda content: content[: len(content) // 2]),
        (".npz", lambda content: b""),
        (".npz", lambda content: content[:900] + bytes([content[900] ^ 1]) + content[901:]),
        (".json", lambda content: content[:-30]),
        (".json", lambda content: b""),
        (".json", lambda content: b"[]"),
        (".json", lambda content: b"{}"),
        (".json", lambda content: b"\xff\xfe"),
        (".json", lambda content: content.replace(b'"min_context": 1', b'"min_context": 2')),
    ],
    ids=["half", "empty", "one-bit", "cut", "empty-manifest", "list", "no-keys", "no-text", "other-settings"],
)
def test_damage_is_noticed_and_rebuilt(ml_1m_small, own_cache, suffix, damage, caplog):
    first = load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)
    (path,) = own_cache.rglob(f"*{suffix}")
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING, logger="repro.data"):
        second = load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)
    assert "damaged" in caplog.text
    assert second.sha256 == first.sha256
    caplog.clear()
    load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)
    assert caplog.text == ""


def test_missing_manifest_is_rebuilt(ml_1m_small, own_cache):
    load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)
    (manifest,) = own_cache.rglob("*.json")
    manifest.unlink()
    load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)
    assert manifest.exists()


def test_sources_are_parsed_once(ml_1m_small, monkeypatch):
    first = load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)

    def refuse(*arguments):
        raise AssertionError("parsed again")

    monkeypatch.setattr(ml_1m, "read_ratings", refuse)
    assert load_prepared("ml-1m", "dti", ml_1m_small, min_context=1).sha256 == first.sha256
    for changed in ({"min_context": 2}, {"like_above": 4.0}, {"protocol": "rella"}):
        with pytest.raises(AssertionError, match="parsed again"):
            load_prepared(
                "ml-1m", **{"protocol": "dti", "data_dir": ml_1m_small, "min_context": 1, **changed}
            )
    with pytest.raises(AssertionError, match="parsed again"), monkeypatch.context() as patch:
        patch.setattr(cache, "PREPARATION_VERSION", cache.PREPARATION_VERSION + 1)
        load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)
    ratings = ml_1m_small / "ratings.dat"
    ratings.write_text(ratings.read_text().replace("1::2::3::", "1::2::4::", 1))
    with pytest.raises(AssertionError, match="parsed again"):
        load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)


def test_synthetic_data_is_not_cached(own_cache):
    load_prepared("synthetic", synthetic=SyntheticSettings(num_interactions=2_000))
    assert not own_cache.exists()


@pytest.fixture
def small_files_only():
    """The real thing: the operating system stops a write at 4,096 bytes, as a full disk does half-way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_write_that_stops_half_way_leaves_nothing(prepared, own_cache, small_files_only):
    with pytest.raises(StorageError, match="REPRO_CACHE_DIR") as caught:
        CachedData("synthetic", "dti", SETTINGS).save(prepared)
    assert "failed" in caught.value.found
    assert files_in(own_cache) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "folder" / "file.npz"
    write_atomically(path, b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == ["file.npz"]


def test_cache_folder_that_is_a_file(ml_1m_small, own_cache):
    own_cache.write_text("in the way")
    with pytest.raises(StorageError, match="REPRO_CACHE_DIR"):
        load_prepared("ml-1m", "dti", ml_1m_small, min_context=1)


def test_interruption_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file.npz", b"new")
    assert files_in(tmp_path) == []


def test_same_data_same_bytes(prepared, own_cache):
    place = CachedData("synthetic", "dti", SETTINGS)
    place.save(prepared)
    first = place.path.read_bytes()
    place.save(replace(prepared))
    assert place.path.read_bytes() == first
