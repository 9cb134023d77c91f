"""Writes that are whole or absent, also when the disk fills up or the process is killed.

Everything goes to a temporary name in the same folder, is fsynced, and is renamed into place; then the
folder is fsynced, so that the rename itself survives a power cut.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from repro.errors import StorageError

LEFTOVER_AGE_S = 3600  # a temporary name older than this belongs to a process that was killed


def json_bytes(value: object) -> bytes:
    """JSON for people and diffs: indent 1, sorted keys, newline at the end; ValueError on NaN or infinity."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def write_file(path: Path, content: bytes) -> None:
    """Write or replace one file, atomically.

    Raises:
        StorageError: disk full, no permission, ...; the old file, or none, is then in place.
    """
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = _temporary_name(path)
        try:
            _write_synced(temporary, content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder of files, atomically: its name appears with all of them or not at all.

    Raises:
        StorageError: disk full, no permission, the folder exists and is not empty, ...; `path` is then as
            it was.
    """
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = _temporary_name(path)
        try:
            temporary.mkdir()
            for name, content in files.items():
                _write_synced(temporary / name, content)
            _sync_folder(temporary)
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_folder(path.parent)


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            path,
            error.strerror or str(error),
            "a folder that can be written, with enough free space",
            "free space, fix permissions or point REPRO_RUNS_DIR and REPRO_REPORTS_DIR elsewhere, then run "
            "the same command again: nothing half-written is left",
        ) from error


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        if time.time() - leftover.stat().st_mtime > LEFTOVER_AGE_S:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _write_synced(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and a rename is durable by itself
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
