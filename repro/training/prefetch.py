"""Batches built ahead of the device, by a thread of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from repro.training.task import Batch, Batches

AHEAD = 2  # batches that wait while the device works on one


def loaded(
    batches: Batches, keys: Sequence[Any], device: torch.device, ahead: int | None = None
) -> Generator[Batch, None, None]:
    """The batches of `keys`, in order, each as `batches.load` gives it.

    On CUDA a thread builds the next ones meanwhile (NumPy lets go of the interpreter lock, and copies go
    through pinned memory on the stream that will read them). On a CPU there is nothing to hide behind, and
    each is built when it is asked for. What the thread raises is raised here. Close the iterator when done.

    Args:
        ahead: batches to hold ready; None: `AHEAD` on CUDA, else none.
    """
    ahead = ahead if ahead is not None else AHEAD if device.type == "cuda" else 0
    if not ahead:
        for key in keys:
            yield batches.load(key, device)
        return
    waiting: deque[Future[Batch]] = deque()
    # A thread starts on the first device, and would take memory there; "cuda" means this thread's.
    current = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index
    with ThreadPoolExecutor(1, "batches", _use, (device.type, current)) as pool:
        try:
            for key in keys:
                waiting.append(pool.submit(batches.load, key, device))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _use(kind: str, index: int | None) -> None:
    if kind == "cuda":
        torch.cuda.set_device(index)
