"""The cached folder: built once, rebuilt when damaged, absent when building failed."""

import errno
import multiprocessing
import shutil

import pytest

from repro.backbones.checked_folder import checked_folder, is_whole
from repro.errors import BackboneError, StorageError


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "a.txt").write_text("first")
        (folder / "b.bin").write_bytes(bytes(1000))


def test_it_is_built_once(tmp_path):
    build = Builder()
    for _ in range(3):
        assert checked_folder(tmp_path / "deep" / "it", build) == tmp_path / "deep" / "it"
    assert build.calls == 1


def flip_byte(folder):
    (folder / "b.bin").write_bytes(bytes(999) + b"\1")


def truncate(folder):
    (folder / "b.bin").write_bytes(bytes(10))


def drop_file(folder):
    (folder / "a.txt").unlink()


def drop_manifest(folder):
    (folder / "sha256.json").unlink()


def break_manifest(folder):
    (folder / "sha256.json").write_text('{"a.txt": ')


def empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    "damage", [flip_byte, truncate, drop_file, drop_manifest, break_manifest, empty_folder, shutil.rmtree]
)
def test_damage_is_noticed_and_mended(damage, tmp_path):
    build, folder = Builder(), tmp_path / "it"
    checked_folder(folder, build)
    damage(folder)
    assert not is_whole(folder)
    checked_folder(folder, build)
    assert build.calls == 2
    assert is_whole(folder)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (BackboneError("a", "b", "c", "d"), BackboneError),
    ],
)
def test_failed_build_leaves_nothing(error, raised, tmp_path):
    def build(folder):
        (folder / "a.txt").write_text("half")
        raise error

    with pytest.raises(raised):
        checked_folder(tmp_path / "it", build)
    assert [p.name for p in tmp_path.iterdir()] == ["it.lock"]


def test_unusable_place_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="REPRO_CACHE_DIR"):
        checked_folder(tmp_path / "file" / "it", Builder())


def test_leftovers_of_a_killed_build_are_removed(tmp_path):
    left = tmp_path / "it.tmp-abc" / "new"
    left.mkdir(parents=True)
    (left / "a.txt").write_text("half")
    checked_folder(tmp_path / "it", Builder())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["it", "it.lock"]


def build_and_count(folder):
    with (folder.parent.parent / "count").open("a") as count:
        count.write("x")
    (folder / "a.txt").write_text("first")


def test_processes_that_come_at_once_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=checked_folder, args=(tmp_path / "it", build_and_count)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "count").read_text() == "x"
