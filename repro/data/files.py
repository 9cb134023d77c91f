"""Reading source files: checksums, plain or gzip lines, and errors that name the file and the line."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from repro.errors import DataError


def require_file(path: Path, fix: str) -> Path:
    """`path` itself when it is a file, else DataError with `fix`."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "the file is missing"
        raise DataError(path, found, "a readable file", fix)
    return path


def read_bytes(path: Path) -> bytes:
    """The whole file; DataError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            path, f"cannot be read ({error.strerror})", "a readable file", f"check {path}"
        ) from error


def checksum(files: Sequence[Path]) -> str:
    """sha256 (hex) over the names and contents of source files, whatever folder they lie in."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (hex) of one file's bytes; DataError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            path, f"cannot be read ({error.strerror})", "a readable file", f"check {path}"
        ) from error


def numbered_lines(path: Path, fix: str) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line without its end) of a plain or gzip file, told apart by their first bytes.

    Blank lines are skipped. Raises DataError for a file that cannot be read or a gzip that is broken or cut.
    """
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield number, line.rstrip(b"\r\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}, after line {number}", f"broken gzip ({error})", "a complete gzip file", fix
        ) from error
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "a readable file", fix) from error


def decode(raw: bytes, where: object, encoding: str, fix: str) -> str:
    """Text of a line or file; DataError naming the offending byte when the encoding is another one."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        place = f"{where}, line {line}" if b"\n" in raw else where
        found = f"byte 0x{raw[error.start]:02x} is not {encoding}"
        raise DataError(place, found, f"text in {encoding}", fix) from error


def one_line(text: str) -> str:
    """Text with every run of white space (line breaks too) as a single blank, none at the ends."""
    return " ".join(text.split())


def shown(value: object, limit: int = 60) -> str:
    """How an error message shows a value: its repr, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def text_lines(path: Path, encoding: str, fix: str) -> list[str]:
    """Lines of a text file without their ends (line n is element n-1).

    Raises DataError for another encoding, an empty file, or a last line without a line break (file cut off).
    """
    raw = read_bytes(path)
    if not raw:
        raise DataError(path, "the file is empty", f"text in {encoding}", fix)
    lines = decode(raw, path, encoding, fix).split("\n")
    if lines.pop():
        found = "the last line has no line break: the file is cut off"
        raise DataError(f"{path}, line {len(lines) + 1}", found, "complete lines", fix)
    return [line.removesuffix("\r") for line in lines]
