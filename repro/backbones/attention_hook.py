"""The one place where a FLOP counter takes hold of attention; without one, the call goes straight through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

_replacement: Callable[..., Tensor] | None = None


def attend(queries: str, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """`function(*arguments)`, or what stands in for it inside `replaced`.

    Args:
        queries: `text` or `sums`: whose attention it is.
        function: `text_attention` or `sum_attention`, or another kernel with their arguments.
    """
    if _replacement is None:
        return function(*arguments)
    return _replacement(queries, *arguments)


@contextmanager
def replaced(replacement: Callable[..., Tensor]) -> Iterator[None]:
    """Inside, `replacement(queries, *arguments)` is called in place of every attention function."""
    global _replacement
    assert _replacement is None, "one counter at a time"
    _replacement = replacement
    try:
        yield
    finally:
        _replacement = None
