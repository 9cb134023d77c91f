"""The behaviour table on disk, as a Lance data set (package `pylance`, imported in this module alone).

A folder holds::

    table.lance/  one row per behaviour: text, vector, crc32 of both; fingerprint in the schema
    vectors.f32   the vectors alone, row by row, memory-mapped by readers; grows when they are asked for
    vectors.json  how many rows are in it, of which data files of Lance's, and their crc32
    lock          held by whoever writes
    fillings.json what each filling cost, if written by `methods/bahe/filled_table.py`

Lance writes the data of an update first and then one small manifest, which is renamed into place: a process
that is killed anywhere before leaves the table at its last version, with at most some files that nothing
refers to (the next writer removes them). Versions are Lance's; rows are only ever appended, so a row number
stays what it is.

Lance itself leaves it to the operating system when files reach the disk. Here data are fsynced before the
manifest is made, and the manifest before an update counts as done: a power cut costs nothing that was
reported. One in the instant between a manifest's name and its content leaves a damaged newest version; the
error then names the file to delete to go on from the version before. That is not done unasked: vectors of
another encoder cannot be encoded again, and the file may come back from a copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from torch import Tensor

from repro.behaviours.checks import check_new_rows, check_opened
from repro.behaviours.lance_files import (
    Damage,
    check_kinds,
    checked_vectors,
    checksum,
    manifests,
    reading,
    survey,
    sync,
    writing,
)
from repro.behaviours.table import other_fingerprint, other_width
from repro.behaviours.vector_file import VectorFile
from repro.errors import StorageError, TableError

_FINGERPRINT = b"fingerprint"  # in the schema
INSTALL = "python -m pip install pylance"


def _lance() -> Any:
    try:
        import lance
    except ImportError:
        found = "a behaviour table on disk, but pylance is not installed"
        fix = f"{INSTALL}, or leave the folder out: the table then lives in memory"
        raise TableError("behaviour table", found, "the package pylance", fix) from None
    return lance


class LanceTable:
    """A `BehaviourTable` in a folder, created empty where there is none.

    It stays at the version it was opened at until `refresh`, `exclusive` or an addition of its own. Several
    processes may read; a lock lets one write at a time.

    Args:
        folder: of the table.
        fingerprint: of the encoder; another one's table is refused.
        width: E, from 1.

    Raises:
        ConfigError: a width below 1, or an empty fingerprint.
        TableError: another fingerprint or width, damaged, or `pylance` is missing.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: str, width: int) -> None:
        check_opened(fingerprint, width)
        self.folder, self.fingerprint, self.width = Path(folder), fingerprint, width
        self._lance = _lance()
        self._data_set = self.folder / "table.lance"
        self._uri = str(self._data_set)
        self._file = VectorFile(self.folder, width)
        self._row: dict[str, int] = {}
        self._files: list[str] = []  # of Lance's, names in the order of rows; each is new, and never changed
        vector = pa.list_(pa.float32(), width)
        fields = [("text", pa.string()), ("vector", vector), ("crc32", pa.uint32())]
        self._schema = pa.schema(
            [pa.field(name, kind, nullable=False) for name, kind in fields],
            metadata={_FINGERPRINT: fingerprint.encode()},
        )
        check_kinds(self.folder)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock")
        if not self._exists():
            self._create()
        self.refresh()

    def _exists(self) -> bool:
        """Whether a version or data of one is there; a kill during creation leaves neither."""
        return any(self._data_set.glob("_versions/*.manifest")) or any(self._data_set.glob("data/*"))

    def _create(self) -> None:
        with writing(self.folder), self._lock:
            if not self._exists():  # another process may have been faster
                empty = self._schema.empty_table()
                self._lance.write_dataset(empty, self._uri, schema=self._schema, mode="create")
                self._sync_newest()
                sync(self._data_set, self.folder, self.folder.parent)

    def _sync_newest(self) -> None:
        """Have the newest version on the disk itself."""
        *_, newest = manifests(self._data_set).values()
        sync(newest, newest.parent)

    @property
    def version(self) -> int:
        """As in `BehaviourTable`: Lance's version."""
        return int(self._dataset.version)

    def __len__(self) -> int:
        return len(self._row)

    def refresh(self) -> None:
        """Go to the newest version.

        Raises:
            TableError: damaged, of another fingerprint or width, or set back to an older version meanwhile.
        """
        with self._reading():
            dataset = self._lance.dataset(self._uri)
            schema, fragments = dataset.schema, dataset.get_fragments()
            files = [file.path for fragment in fragments for file in fragment.data_files()]
        found = (schema.metadata or {}).get(_FINGERPRINT, b"").decode()
        if found != self.fingerprint:
            raise other_fingerprint(self.folder, found, self.fingerprint)
        kinds = [field.type for field in schema if field.name == "vector"]
        if kinds and isinstance(kinds[0], pa.FixedSizeListType) and kinds[0].list_size != self.width:
            raise other_width(self.folder, kinds[0].list_size, self.width)
        if not schema.equals(self._schema):
            raise self._damaged(f"columns {schema.names} of other types")
        if files[: len(self._files)] != self._files:
            found = f"version {dataset.version} does not go on from what this process has read"
            fix = "start this process again: the table was set back or built anew meanwhile"
            raise TableError(self.folder, found, "a table that only grows", fix)
        self._dataset, self._files = dataset, files
        with self._reading():
            known, rows = len(self._row), dataset.count_rows()
            column = dataset.to_table(columns=["text"], offset=known, scan_in_order=True)["text"]
            column.validate(full=True)  # damaged offsets would crash the conversion
            self._row.update(zip(column.to_pylist(), range(known, rows), strict=True))
        if len(self._row) != rows:
            raise self._damaged(f"{rows} rows for {len(self._row)} distinct texts")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold off other writers; on entering, go to the newest version and remove what a kill left."""
        with self._lock:
            self.refresh()
            self._clean_up()
            yield

    def _clean_up(self) -> None:
        try:
            with writing(self.folder):
                self._dataset.cleanup_old_versions(
                    older_than=timedelta(days=36500),  # keeps every version, unreferenced files go
                    delete_unverified=True,
                )
        except StorageError as error:
            if survey(self._lance, self._data_set).broken:  # Lance has read all manifests
                raise self._damaged(error.found) from error
            raise

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """As in `BehaviourTable`."""
        return np.array([self._row.get(text, -1) for text in texts], dtype=np.int64)

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> int:
        """As in `BehaviourTable`.

        Raises:
            StorageError: disk full, no permission; the table is then as it was.
        """
        with self._lock:
            self.refresh()
            self.commit(self.write(texts, vectors))
        return self.version

    def write(self, texts: Sequence[str], vectors: np.ndarray) -> list[str]:
        """Write rows to disk without making them part of the table: what `commit` takes, in any process.

        Raises:
            As `add`.
        """
        vectors = check_new_rows(self, texts, vectors)
        if not len(texts):
            return []
        sums = [checksum(text, vector) for text, vector in zip(texts, vectors, strict=True)]
        columns = [
            pa.array(texts, pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.width),
            pa.array(sums, pa.uint32()),
        ]
        rows = pa.table(columns, schema=self._schema)
        with writing(self.folder):
            written = self._lance.fragment.write_fragments(rows, self._uri, schema=self._schema)
            data = self._data_set / "data"
            sync(*(data / file.path for fragment in written for file in fragment.files))
            sync(data, self._data_set)
        return [json.dumps(fragment.to_json()) for fragment in written]

    def commit(self, written: Sequence[str]) -> None:
        """Make written rows part of the table, all of them at once, as one new version.

        Raises:
            As `add`.
        """
        if not written:
            return
        fragments = [self._lance.FragmentMetadata.from_json(each) for each in written]
        append = self._lance.LanceOperation.Append(fragments)
        with writing(self.folder):
            self._lance.LanceDataset.commit(self._uri, append, read_version=self.version)
            self._sync_newest()
        self.refresh()

    def vectors(self) -> Tensor:
        """As in `BehaviourTable`. Rows that no process has asked for yet are checked and written to the file.

        The file is checked once for each opening of the table, and written again where it is damaged.

        Raises:
            TableError: a vector of the table is damaged. StorageError: the file cannot be written.
        """
        rows = len(self)
        if not rows:
            return torch.empty(0, self.width)
        if self._exported() < rows:
            with writing(self.folder), self._lock:
                if (there := self._exported()) < rows:  # another process may have been faster
                    self._file.append(there, self._checked(there), self._files)
        return self._file.mapped(rows)

    def verify(self) -> None:
        """Read every vector of the table, and of the file that readers map, against its checksum.

        Raises:
            TableError: one is damaged. StorageError: as `vectors`.
        """
        for _ in self._checked(0):
            pass
        self.vectors()

    def _exported(self) -> int:
        """How many rows the mapped file holds; it may be more than this version has."""
        return self._file.rows_of(self._files, len(self))

    def _checked(self, first: int) -> Iterator[np.ndarray]:
        """The vectors from row `first` on, some rows at a time, each held against its checksum."""
        with self._reading():
            yield from checked_vectors(self._dataset, first)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What Lance says of unreadable files, as a `TableError`."""
        try:
            with reading():
                yield
        except Damage as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, found: str) -> TableError:
        """The error for damage; it says which version is whole and how to go on from there."""
        fix = f"delete {self.folder} and build the table again, or restore it from a copy"
        left = survey(self._lance, self._data_set)
        if left.rows and left.broken:
            broken = " and ".join(map(str, left.broken))
            fix = (
                f"stop what uses the table, delete {broken} and run the same command again: version "
                f"{left.version} is whole, with {left.rows} behaviours, and what it lacks is encoded again; "
                "or restore the folder from a copy"
            )
        return TableError(self.folder, f"damaged: {found}", "a whole behaviour table", fix)
