"""Writing all pages, and finding where written ones are not what the records give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro import paths
from repro.errors import ConfigError, ReproError
from repro.records.atomic import write_file
from repro.reporting.inputs import Inputs, load_inputs
from repro.reporting.pages import PAGES, render_index

IMAGES = (".png", ".svg")
REFERENCE = "reference"


def render_all(
    results_dir: Path, runs_dir: Path | None, reports_dir: Path, only: Sequence[str] | None = None
) -> list[Path]:
    """Render pages into `reports_dir`, the index always with them.

    Args:
        results_dir: committed records.
        runs_dir: a user's own; None, or a folder that is not there, for none.
        reports_dir: where pages go; published values come from its reference/, else from the project's.
        only: names in `pages.PAGES`; None for all.

    Returns:
        The files written.

    Raises:
        ConfigError: no such page. StorageError: cannot be written.
        RecordError, DataError: a record or a published value is damaged; no page is touched then.
    """
    files = _render(load_inputs(results_dir, runs_dir, _reference(reports_dir)), only)
    for name, content in files.items():
        write_file(reports_dir / name, content)
    return [reports_dir / name for name in files]


def check(results_dir: Path, runs_dir: Path | None, reports_dir: Path) -> list[str]:
    """Where the files in `reports_dir` differ from a fresh rendering; empty if nowhere.

    Text is compared exactly. An image is compared by the numbers it plots (its sidecar JSON, see `figure2`)
    and must be the very file that was written with them. Damaged records count as differences too.
    """
    try:
        fresh = _render(load_inputs(results_dir, runs_dir, _reference(reports_dir)), None)
    except ReproError as error:
        return [str(error)]
    differences = []
    for name, content in fresh.items():
        path = reports_dir / name
        if not path.is_file():
            differences.append(f"{name}: missing")
        elif path.suffix == ".json":
            differences += _compare_sidecar(path, content)
        elif path.suffix not in IMAGES:
            differences += _compare_text(path, content)
    known = {*fresh, REFERENCE}
    found = sorted(path.name for path in reports_dir.glob("[!.]*")) if reports_dir.is_dir() else []
    return differences + [f"{name}: no page renders this" for name in found if name not in known]


def _reference(reports_dir: Path) -> Path:
    own = reports_dir / REFERENCE
    return own if own.is_dir() else paths.PROJECT_ROOT / "reports" / REFERENCE


def _render(inputs: Inputs, only: Sequence[str] | None) -> dict[str, bytes]:
    names = list(PAGES) if only is None else list(only)
    unknown = [name for name in names if name not in PAGES]
    if unknown:
        raise ConfigError("report page", repr(unknown[0]), f"one of {', '.join(PAGES)}", "name one of these")
    files: dict[str, bytes] = {}
    for name in names:
        files |= PAGES[name].render(inputs)
    return files | render_index(inputs)


def _compare_text(path: Path, fresh: bytes) -> list[str]:
    written = path.read_bytes().replace(b"\r\n", b"\n")  # a checkout may convert line ends
    if written == fresh:
        return []
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (written, fresh))
    for number, (a, b) in enumerate(zip(old, new, strict=False), start=1):
        if a != b:
            return [f"{path.name}, line {number}: is {_around(a, b)}, the records give {_around(b, a)}"]
    return [f"{path.name}: has {len(old)} lines, the records give {len(new)}"]


def _compare_sidecar(path: Path, fresh: bytes) -> list[str]:
    """Plotted numbers against fresh ones, and the images beside it against the checksums in it."""
    try:
        written: dict[str, Any] = json.loads(path.read_bytes())
        data, checksums = written["data"], dict(written["images_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        return [f"{path.name}: damaged ({error!r})"]
    expected = json.loads(fresh)
    differences = []
    if data != expected["data"]:
        differences.append(f"{path.name}: the plotted numbers are not those that the records give")
    for name in expected["images_sha256"]:
        image = path.parent / name
        if image.is_file() and hashlib.sha256(_image_bytes(image)).hexdigest() != checksums.get(name):
            differences.append(f"{name}: not the image that was written with {path.name}")
    return differences


def _image_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return content.replace(b"\r\n", b"\n") if path.suffix == ".svg" else content


def _around(text: str, other: str, width: int = 60) -> str:
    """The part of a line where it starts to differ from another."""
    start = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), len(other))
    begin = max(0, start - width // 3)
    return repr(text[begin : begin + width])
