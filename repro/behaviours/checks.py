"""What a behaviour table refuses, in memory and on disk alike.

Rows are checked as whole arrays and joined texts, not one by one: a table grows by thousands at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from repro.errors import ConfigError, DataError

if TYPE_CHECKING:
    from repro.behaviours.table import BehaviourTable

_ROWS = "rows for the behaviour table"


def is_whole(number: object) -> bool:
    """Whether it is an int: `True` and 2.0 are none, though they compare like one."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def check_opened(fingerprint: str, width: int) -> None:
    """Refuse what no table can be opened with.

    Raises:
        ConfigError: a fingerprint that is no text or an empty one; a width below 1.
    """
    if not is_whole(width) or width < 1:
        fix = "give the numbers that the encoder's vectors have: `encoder.width`"
        raise ConfigError("width of the behaviour table", repr(width), "a whole number from 1", fix)
    if not isinstance(fingerprint, str) or not fingerprint or not _encodable(fingerprint):
        fix = "give `encoder.fingerprint`, or a name of your own for another encoder"
        raise ConfigError("fingerprint of the behaviour table", repr(fingerprint), "a text, not empty", fix)


def check_new_rows(table: BehaviourTable, texts: Sequence[str], vectors: Any) -> np.ndarray:
    """The vectors as float32, after everything that `BehaviourTable.add` promises to refuse was refused."""
    again = "add each behaviour once, with a text"
    _check_texts(texts)
    vectors, expected = _real(vectors), (len(texts), table.width)
    if vectors.shape != expected:
        raise DataError(_ROWS, f"vectors of shape {vectors.shape}", f"{expected}", "encode one per text")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        bad = texts[int(np.argmin(np.isfinite(vectors).all(1)))]
        raise DataError(_ROWS, f"a vector of {bad!r} is not finite", "numbers", "check the encoder")
    if len(set(texts)) < len(texts):
        raise DataError(_ROWS, f"{len(texts) - len(set(texts))} texts come twice", "distinct texts", again)
    there = np.flatnonzero(table.rows(texts) >= 0)
    if len(there):
        found = f"{len(there)} are in the table already, {texts[int(there[0])]!r} first"
        raise DataError(_ROWS, found, "new behaviours", "look rows up first, or use fill")
    return vectors


def _check_texts(texts: Any) -> None:
    """Texts are a sequence of str, none empty, that UTF-8 can write."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence | np.ndarray):
        fix = "put one text alone into a list, or make one of what you have: list(texts)"
        raise DataError(_ROWS, f"texts as {type(texts).__name__}", "a list or tuple of texts", fix)
    kinds = {kind for kind in set(map(type, texts)) if not issubclass(kind, str)}
    if kinds:
        bad = next(text for text in texts if type(text) in kinds)
        fix = "give each behaviour a text: str(key), or key.decode() for bytes"
        raise DataError(_ROWS, f"a key of type {type(bad).__name__}, {bad!r}", "texts (str)", fix)
    if not all(map(str.strip, texts)):
        fix = "add each behaviour once, with a text"
        raise DataError(_ROWS, "an empty text", "a text per behaviour", fix)
    if not _encodable("".join(texts)):
        bad = next(text for text in texts if not _encodable(text))
        fix = "repair the text where it is read: a half of a surrogate pair is left in it"
        raise DataError(_ROWS, f"{bad!r}, which UTF-8 cannot write", "texts of whole characters", fix)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _real(vectors: Any) -> np.ndarray:
    """Vectors as an array of real numbers; those of a tensor as float32, which holds bfloat16 exactly."""
    fix = "np.stack makes an array of a list; of complex numbers give real and imaginary part side by side"
    expected = "an array or tensor of real numbers"
    if isinstance(vectors, torch.Tensor):
        if vectors.requires_grad:  # a table is of frozen vectors: these would be outdated after a step
            found = "a tensor that requires a gradient"
            raise DataError(_ROWS, found, "vectors that no longer change", "take vectors.detach()")
        vectors = (vectors.float() if vectors.is_floating_point() else vectors).cpu().numpy()
    if not isinstance(vectors, np.ndarray):
        raise DataError(_ROWS, f"vectors as {type(vectors).__name__}", expected, fix)
    if vectors.dtype.kind not in "iuf":
        raise DataError(_ROWS, f"vectors of {vectors.dtype}", expected, fix)
    return vectors


def check_numbers(numbers: Any, count: int) -> np.ndarray:
    """Numbers of behaviours as an int64 array.

    Args:
        count: behaviours that there are.

    Raises:
        DataError: not in one dimension, not whole numbers, below 0 or not below `count`.
    """
    where, fix = "numbers of behaviours", "look them up in `Behaviours.answered` and `Behaviours.alone`"
    try:
        found = np.asarray(numbers)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of lists, tensors on a GPU, ...
        raise DataError(where, str(error).splitlines()[0], "an int array of one dimension", fix) from error
    if found.ndim != 1 or (found.dtype.kind not in "iu" and found.size):
        what = f"{found.dtype} of shape {found.shape}"
        raise DataError(where, what, "an int array of one dimension", f"{fix}; np.flatnonzero for a mask")
    outside = np.flatnonzero((found < 0) | (found >= count))
    if len(outside):
        what = f"{len(outside)} of {len(found)} are outside, {found[outside[0]]} first"
        raise DataError(where, what, f"0 to {count - 1}", fix)
    return found.astype(np.int64)
