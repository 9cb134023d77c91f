"""The vectors of a table on disk as one memory-mapped tensor: what training reads.

The file holds the rows alone, back to back. Its manifest says how many, of which of the table's data files
and with which CRC32; only bytes with that checksum are ever mapped. (CRC32 finds all damage within 32
successive bits and misses other damage with probability 2**-32: it is against accidents, as the table's own.)
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.records.atomic import json_bytes, write_file

_log = logging.getLogger(__name__)


class VectorFile:
    """vectors.f32 and its manifest vectors.json in a table's folder.

    Only who holds the table's lock writes. Rows are appended behind those that are there, and the manifest
    after them, so that a kill leaves the rows that it names.

    Args:
        folder: of the table. width: E.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self._file, self._manifest = folder / "vectors.f32", folder / "vectors.json"
        self._row_bytes, self._width = 4 * width, width
        self._known: dict[str, Any] | None = None  # the manifest whose checksum was computed last

    def rows_of(self, files: list[str], rows: int) -> int:
        """How many rows of the table it holds; 0 where it is missing, damaged, or of another table.

        It may hold more than this version has, if another process went on. It is another table's if the table
        was built anew, or set back to an older version and continued in another way. A file without checksum
        counts as missing. The checksum is computed once for each content of the manifest.

        Args:
            files: the table's data files in the order of rows; each is new, and never changed.
            rows: of the table.
        """
        try:
            manifest = json.loads(self._manifest.read_text())
            there, known, crc32 = int(manifest["rows"]), list(manifest["files"]), int(manifest["crc32"])
            same = known[: len(files)] == files[: len(known)] and (there <= rows) == (
                len(known) <= len(files)
            )
            if not same or not 0 < there <= self._file.stat().st_size // self._row_bytes:
                return 0
            if manifest != self._known:
                content = np.memmap(self._file, np.uint8, "r", shape=(there * self._row_bytes,))
                if zlib.crc32(content.data) != crc32:
                    return 0
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return 0
        self._known = manifest
        return there

    def append(self, first: int, vectors: Iterable[np.ndarray], files: list[str]) -> None:
        """Write rows behind the `first` ones, which `rows_of` has found there.

        Args:
            first: 0 writes a new file; who has the old one mapped keeps it.
            vectors: (n, E) float32 each. files: as in `rows_of`, those of the new rows among them.

        Raises:
            OSError: the disk is full, ...
        """
        start = (self._known or {}) if first else {"rows": 0, "crc32": 0}
        rows, crc32 = int(start["rows"]), int(start["crc32"])
        assert rows == first, "rows are appended behind the last one"
        if not first and self._file.exists():
            _log.warning("%s is damaged or not of this table: its vectors are exported again", self._file)
            self._file.unlink()
        with self._file.open("r+b" if first else "wb") as file:
            file.seek(first * self._row_bytes)
            for some in vectors:
                file.write(some.data.cast("B"))
                rows, crc32 = rows + len(some), zlib.crc32(some.data, crc32)
            file.flush()
            os.fsync(file.fileno())
        manifest = {"crc32": crc32, "files": files, "rows": rows}
        write_file(self._manifest, json_bytes(manifest))
        self._known = manifest

    def mapped(self, rows: int) -> Tensor:
        """(rows, E) float32, the first rows, mapped from the file.

        Copy on write: torch wants memory that it may write to, and the file stays as it is.
        """
        return torch.from_numpy(np.memmap(self._file, np.float32, "c", shape=(rows, self._width)))
