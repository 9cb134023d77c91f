"""Separate clocks for training, evaluation and data; each stops only after the device has finished."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def synchronise(device: torch.device) -> None:
    """Wait until everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clocks:
    """Seconds by name; no second is on two clocks.

    Example: `with clocks.run("train"): ...` adds the block's seconds to clocks["train"].
    """

    def __init__(self, device: torch.device, seconds: dict[str, float] | None = None) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict(seconds or {})

    def __getitem__(self, name: str) -> float:
        return self.seconds.get(name, 0.0)

    @contextmanager
    def run(self, name: str, inside: str | None = None) -> Iterator[None]:
        """Time a block.

        Args:
            name: of the clock.
            inside: the clock whose block this host-only work stands in; it is taken off that clock, and the
                device is not waited for.
        """
        if inside is None:
            synchronise(self.device)
        begin = time.perf_counter()
        try:
            yield
        finally:
            if inside is None:
                synchronise(self.device)
            seconds = time.perf_counter() - begin
            self.seconds[name] = self[name] + seconds
            if inside is not None:
                self.seconds[inside] = self[inside] - seconds
