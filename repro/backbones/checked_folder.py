"""A cached folder that is whole or absent: built aside, renamed into place, checked at every use."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from repro.errors import StorageError

_MANIFEST = "sha256.json"
_log = logging.getLogger(__name__)


def file_sha256(path: Path) -> str:
    """sha256 of a file's content, in hex (about 1.5 GB/s)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(folder: Path) -> bool:
    """Whether every file in the folder's manifest is there with the content it was written with."""
    try:
        expected = json.loads((folder / _MANIFEST).read_text())
        return all(file_sha256(folder / name) == digest for name, digest in expected.items())
    except (OSError, ValueError, AttributeError):
        return False


def checked_folder(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, calling `build` first unless a whole copy is there.

    Safe against a kill (the folder appears by rename, complete with its manifest of sha256 sums) and against
    several processes (a lock file beside it; readers of a whole folder do not wait).

    Args:
        folder: where the result lives; its parents are made.
        build: writes the content into the empty folder that it is given.

    Raises:
        StorageError: the folder cannot be written (disk full, no permission); nothing half-written is left.
    """
    if is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not is_whole(folder):
                _rebuild(folder, build)
    except OSError as error:
        raise StorageError(
            folder,
            f"cannot be written: {error}",
            "a writable folder with enough free space (600 MB for converted SmolLM2 weights)",
            "free some space, or set REPRO_CACHE_DIR to a folder elsewhere",
        ) from error
    return folder


def _rebuild(folder: Path, build: Callable[[Path], None]) -> None:
    if folder.exists():
        _log.warning("%s is damaged or incomplete: building it again", folder)
        shutil.rmtree(folder)
    for left in folder.parent.glob(folder.name + ".tmp-*"):  # by a killed process: the lock is ours now
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.name + ".tmp-") as work:
        new = Path(work) / "new"
        new.mkdir()
        build(new)
        manifest = {p.name: file_sha256(p) for p in sorted(new.iterdir())}
        (new / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        new.rename(folder)
