"""Losses that stay on the device until somebody looks: each look waits for all that is queued there."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class DivergedError(Exception):
    """A loss, gradient or score is not finite.

    Of the first two raised before the optimiser steps; on CUDA within a stretch of steps, before anything of
    it is saved or scored.
    """


class Losses:
    """Loss, tokens and gradient norm of the steps since the last look."""

    def __init__(self) -> None:
        self.last = math.nan  # loss of the last step looked at, for progress lines
        self._unread: list[tuple[int, Tensor]] = []

    def add(self, step: int, sums: Tensor, norm: Tensor) -> None:
        """Keep a step's sums for later.

        Args:
            sums: (3,) float64 loss, tokens and padded tokens. norm: () of the gradient.
        """
        self._unread.append((step, torch.cat([sums, norm.detach().double()[None]])))

    def read(self) -> tuple[list[float], int, int]:
        """Losses in order of their steps; tokens and padded tokens of all of them.

        Raises:
            DivergedError: a loss or gradient is not finite.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return [], 0, 0
        numbers = torch.stack([sums for _, sums in unread]).tolist()
        for (step, _), (loss, _, _, norm) in zip(unread, numbers, strict=True):
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise DivergedError(f"loss {loss}, gradient norm {norm} at step {step}")
        self.last = numbers[-1][0]
        losses, tokens, padded, _ = zip(*numbers, strict=True)
        return list(losses), int(sum(tokens)), int(sum(padded))
