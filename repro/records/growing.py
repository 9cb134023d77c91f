"""Measurement files that are written while their rows are measured; a cut-off run loses none, old or new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from repro.records.environment import environment
from repro.records.measurements import Kind, read_measurement, write_measurement

UNFINISHED = "unfinished"
Row = dict[str, Any]


class GrowingMeasurement:
    """`root`/`kind`/`name`.json, written anew with every row.

    Earlier rows of the same environment that `stays` accepts are among its rows from the start. Where the
    file has others too, it stands until `finish`, and rows go to `root`/unfinished/`kind`/`name`.json, which
    no page reads; a later run goes on from there.

    Args:
        stays: whether an earlier file's row has the settings of what is measured now, given all its rows.
        versions: what else belongs to the environment, such as libraries that are not in every one.

    Raises:
        RecordError: an earlier file is damaged.
    """

    def __init__(
        self,
        root: Path,
        kind: Kind,
        name: str,
        stays: Callable[[Row, Sequence[Row]], bool],
        versions: dict[str, str | None] | None = None,
    ) -> None:
        self._root, self._kind, self._name, self._stays = Path(root), kind, name, stays
        self._environment = environment() | (versions or {})
        self.path = self._root / kind / f"{name}.json"
        self._unfinished = self._root / UNFINISHED / kind / f"{name}.json"
        self.rows, all_stay = self._earlier(self.path)
        self._aside = not all_stay
        if self._aside:  # rows of an unfinished file began with those that stay
            self.rows = self._earlier(self._unfinished)[0] or self.rows

    def put(self, rows: Sequence[Row], replaced: Callable[[Row], bool] = lambda row: False) -> None:
        """Add rows in place of those that are `replaced`, and write."""
        self.rows = [row for row in self.rows if not replaced(row)] + list(rows)
        self._write(self._root / UNFINISHED if self._aside else self._root)

    def finish(self) -> Path:
        """Everything is measured: the file has these rows and no others. Where it is."""
        if self._aside and self.rows:
            self._write(self._root)
            self._unfinished.unlink(missing_ok=True)
            self._aside = False
        return self.path

    def _write(self, root: Path) -> None:
        write_measurement(root, self._kind, self._name, self._environment, self.rows)

    def _earlier(self, path: Path) -> tuple[list[Row], bool]:
        """Rows of a file that stay, and whether all do."""
        if not path.is_file():
            return [], True
        found = read_measurement(path)
        if found.environment != self._environment:
            return [], False
        rows = [row for row in found.rows if self._stays(row, found.rows)]
        return rows, len(rows) == len(found.rows)
