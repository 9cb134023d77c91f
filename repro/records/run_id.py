"""The name of a run: readable prefix + 10 hex digits of what makes it this run and no other."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from repro.errors import RecordError

NUM_HEX = 10


def canonical_json(value: object, where: str = "configuration") -> str:
    """The one JSON text of a value: keys sorted at every level, no spaces, shortest float digits.

    Tuples read as lists. 1 and 1.0 differ, as they do in JSON.

    Raises:
        RecordError: NaN, infinity, a key that is not text (JSON would merge 1 and "1"), or another type.
    """
    _check(value, where, "")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def run_id(config: Mapping[str, Any], device_name: str) -> str:
    """Run id of a resolved configuration on a device, e.g. `dti-k50-n10-seed0-1a2b3c4d5e`.

    The hex digits are sha256 over the canonical JSON of {"config": ..., "device": ...}, so they do not depend
    on the order of keys and change with any value. The prefix names method, k and n (where they apply) and
    seed.

    Raises:
        RecordError: as `canonical_json`; no method or seed.
    """
    content = canonical_json({"config": config, "device": device_name})
    for key in ("method", "seed"):
        if config.get(key) is None:
            raise RecordError(
                f"configuration, field {key}", "missing", "a value", "resolve the configuration first"
            )
    parts = [str(config["method"])]
    parts += [f"{key}{config[key]}" for key in ("k", "n") if config.get(key) is not None]
    parts += [f"seed{config['seed']}", hashlib.sha256(content.encode()).hexdigest()[:NUM_HEX]]
    return "-".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part) for part in parts)


def _check(value: object, where: str, field: str) -> None:
    """RecordError naming the first value or key inside `value` that JSON cannot hold exactly."""
    place = f"{where}, field {field}" if field else where
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                found = f"key {key!r} of type {type(key).__name__}"
                raise RecordError(place, found, "keys that are text", f"write it as {str(key)!r}")
            _check(inner, where, f"{field}.{key}" if field else key)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check(inner, where, f"{field}.{index}" if field else str(index))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(place, str(value), "a finite number", "record a diverged run with that status")
    elif value is not None and not isinstance(value, str | int):
        raise RecordError(
            place,
            f"a {type(value).__name__}",
            "text, integers, finite floats, booleans, null, lists and tables of them",
            "convert it (a NumPy number with .item(), a path with str())",
        )
