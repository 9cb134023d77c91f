"""The files of a table in a folder: written so that they survive a power cut, and what of them is whole."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import StorageError, TableError

_READ_ROWS = 8192  # vectors in memory while they are checked
_NEWEST_FIRST = 2**64 - 1  # minus the version is the name that Lance gives a manifest; older ones count up


_KINDS = {
    ".": "a folder",
    "table.lance": "a folder",
    "lock": "a file",
    "vectors.f32": "a file",
    "vectors.json": "a file",
}


class Damage(Exception):
    """What is wrong with a data set, in words: `LanceTable` makes it a `TableError`."""


@dataclass(frozen=True)
class Survey:
    """What of a damaged data set is whole.

    Attributes:
        version, rows: the newest version whose every row has its checksum; 0, 0 if there is none.
        broken: manifests of the versions that are not whole.
    """

    version: int
    rows: int
    broken: list[Path]


def check_kinds(folder: Path) -> None:
    """Refuse a table's folder in which a folder stands at the place of a file, or the reverse.

    Raises:
        TableError: which one.
    """
    for name, expected in _KINDS.items():
        path = folder / name
        found = "a folder" if path.is_dir() else "a file"
        if path.exists() and found != expected:
            fix = "move it away if it is not yours to delete, or choose another folder for the table"
            raise TableError(path, found, f"{expected} of a behaviour table, or nothing", fix)


def sync(*paths: Path) -> None:
    """Have files, and names in folders, on the disk itself before this returns.

    Raises:
        OSError: the disk is full, broken, ...
    """
    for path in paths:
        if path.is_dir() and os.name != "posix":  # elsewhere folders cannot be opened, names are durable
            continue
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def manifests(data_set: Path) -> dict[int, Path]:
    """The manifest of every version by its number, oldest first."""
    found = ((int(path.stem), path) for path in data_set.glob("_versions/*.manifest") if path.stem.isdigit())
    return dict(sorted((n if n <= _NEWEST_FIRST // 2 else _NEWEST_FIRST - n, path) for n, path in found))


def checksum(text: str, vector: np.ndarray) -> int:
    """CRC32 of a row. vector: (E,) float32."""
    return zlib.crc32(vector.data, zlib.crc32(text.encode()))


@contextmanager
def reading() -> Iterator[None]:
    """What Lance says of files that it cannot read, as `Damage`."""
    try:
        yield
    except BaseException as error:
        known = isinstance(error, (OSError, ValueError, RuntimeError, KeyError))
        if not known and type(error).__name__ != "PanicException":  # of Rust, no subclass of Exception
            raise
        said = re.sub(r",? ?\S+\.rs:\d+:\d+", "", str(error).splitlines()[0])  # where Lance itself was built
        raise Damage(f"{type(error).__name__}: {said}") from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the operating system or Lance says of a failed write, as a `StorageError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        fix = "free space or fix permissions, then run the same command again: the table is as it was"
        found = getattr(error, "strerror", None) or str(error).splitlines()[0]
        expected = "a folder that can be written, with enough free space"
        raise StorageError(folder, found, expected, fix) from error


def checked_vectors(dataset: Any, first: int) -> Iterator[np.ndarray]:
    """(n, E) float32 vectors from row `first` on, some rows at a time, each held against its checksum.

    Raises:
        Damage: one is not what was written, or cannot be read.
    """
    with reading():
        width = dataset.schema.field("vector").type.list_size
        batches = dataset.to_batches(
            ["text", "vector", "crc32"], batch_size=_READ_ROWS, offset=first, scan_in_order=True
        )
        for batch in batches:
            batch.validate(full=True)  # damaged offsets would crash the conversion
            text, vector, crc32 = batch.columns
            vectors = vector.flatten().to_numpy().reshape(-1, width)
            for own, row, expected in zip(text.to_pylist(), vectors, crc32.to_pylist(), strict=True):
                if checksum(own, row) != expected:
                    raise Damage(f"the vector of {own!r} is not what was written")
            yield vectors


def survey(lance: Any, data_set: Path) -> Survey:
    """Read all versions, each row once, for the newest that is whole: seconds per GiB, for an error's advice.

    Args:
        lance: the module. data_set: its folder.
    """
    whole, rows, broken = 0, 0, []
    for version, manifest in manifests(data_set).items():
        try:
            with reading():
                dataset = lance.dataset(str(data_set), version=version)
            added = sum(len(vectors) for vectors in checked_vectors(dataset, rows))
        except Damage:
            broken.append(manifest)
        else:
            whole, rows = version, rows + added
    return Survey(whole, rows, broken)
