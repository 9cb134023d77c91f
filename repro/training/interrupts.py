"""Ctrl-C held back while the state of a training is between two steps' states."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Run a block to its end first: a Ctrl-C during the block raises KeyboardInterrupt right after it.

    Without it a step could be interrupted between the optimiser and the counters, and a checkpoint saved then
    would train that batch a second time.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # another thread gets no signals; an ignored Ctrl-C stays ignored
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        handler(signal.SIGINT, None)
