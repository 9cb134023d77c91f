"""Prepared data on disk: one `.npz` and a manifest beside it, written atomically, verified when read.

A file's name holds a hash of what the content depends on: source checksum, settings and PREPARATION_VERSION.
Nothing in the folder is precious: a damaged or foreign file is noticed, reported and built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import secrets
import zipfile
from pathlib import Path

import numpy as np

from repro import paths
from repro.data.interactions import Interactions, Items, PreparedData
from repro.errors import StorageError

PREPARATION_VERSION = 3  # raised when the same source and settings give other prepared data
LOGGER = logging.getLogger("repro.data")
COLUMNS = ("user", "item", "label", "timestamp", "sequence")


class CachedData:
    """The place of one prepared data set, known by the settings it depends on.

    Args:
        name, protocol: they begin the file names.
        settings: everything else that decides the content, as JSON values (source checksum, min_context).
    """

    def __init__(self, name: str, protocol: str, settings: dict[str, object]) -> None:
        version = PREPARATION_VERSION
        self.settings = {**settings, "name": name, "protocol": protocol, "preparation": version}
        key = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]
        self.path = paths.cache_dir() / "prepared" / f"{name}-{protocol}-{key}.npz"
        self.manifest_path = self.path.with_suffix(".json")

    def load(self) -> PreparedData | None:
        """The stored data, or None when there is none or it is damaged (logged as a warning)."""
        if not self.path.exists() or not self.manifest_path.exists():
            return None  # with several processes one may just be between its two writes
        try:
            manifest = json.loads(self.manifest_path.read_bytes())
            blob = self.path.read_bytes()
            if manifest["settings"] != self.settings:
                raise ValueError("the manifest names other settings")
            if hashlib.sha256(blob).hexdigest() != manifest["file_sha256"]:
                raise ValueError("the checksum of the file differs from the manifest's")
            return _unpack(blob)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            LOGGER.warning("cached data %s is damaged and is built again: %s", self.path, error)
            return None

    def save(self, prepared: PreparedData) -> None:
        """Stores the data. Raises StorageError and leaves nothing half-written when that fails."""
        blob = _pack(prepared)
        manifest = {
            "settings": self.settings,
            "file_sha256": hashlib.sha256(blob).hexdigest(),
            "content_sha256": prepared.sha256,
            "counts": prepared.counts,
        }
        write_atomically(self.path, blob)
        write_atomically(self.manifest_path, json.dumps(manifest, indent=1).encode() + b"\n")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes under a temporary name, syncs, renames. Raises StorageError; the temporary file is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        found = f"writing {len(content):,} bytes failed ({error.strerror})"
        fix = "free some disk space, or set REPRO_CACHE_DIR to a folder on another disk"
        raise StorageError(path, found, "a folder that can be written to, with room left", fix) from error
    finally:
        with contextlib.suppress(OSError):  # gone already after the rename
            temporary.unlink()


def _pack(prepared: PreparedData) -> bytes:
    """What cannot be derived, as one uncompressed .npz (19 bytes an interaction); equal data, equal bytes."""
    facts = {
        "name": prepared.name,
        "protocol": prepared.protocol,
        "min_context": prepared.min_context,
        "source_sha256": prepared.source_sha256,
        "counts": prepared.counts,
        "title": prepared.title,
        "sequences": prepared.sequences,
    }
    columns = [name for name in COLUMNS if getattr(prepared.interactions, name) is not None]
    items = [prepared.items.key, prepared.items.text, prepared.items.categories]
    stream = io.BytesIO()
    np.savez(
        stream,
        facts=_json_bytes(facts),
        items=_json_bytes(items),
        split=prepared.split,
        is_target=prepared.is_target,
        **{name: getattr(prepared.interactions, name) for name in columns},
    )
    return stream.getvalue()


def _unpack(blob: bytes) -> PreparedData:
    with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
        keys, texts, categories = json.loads(stored["items"].tobytes())
        facts = json.loads(stored["facts"].tobytes())
        return PreparedData.build(
            **facts | {"sequences": tuple(facts["sequences"])},
            interactions=Interactions(**{name: stored[name] for name in COLUMNS if name in stored}),
            items=Items(tuple(keys), tuple(texts), tuple(tuple(levels) for levels in categories)),
            split=stored["split"],
            is_target=stored["is_target"],
        )


def _json_bytes(value: object) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
