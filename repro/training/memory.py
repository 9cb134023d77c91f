"""Peak memory of a run, for its record."""

from __future__ import annotations

import sys

import torch


def peak_gib(device: torch.device) -> float:
    """Peak memory: of the CUDA device since the run began, else of this process since it started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
