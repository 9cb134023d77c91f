"""DTI's fixes as numbers for every ([SUM], key) pair of a batch; `fix_settings.py` says what they mean."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.backbones.fix_settings import Reset
from repro.backbones.visibility import QueryBlocks


def alibi_bias(sums: QueryBlocks, slope: float) -> Tensor:
    """(B, C, L) float32: -slope * (position of the query - position of the key)."""
    assert sums.offset is not None, "blocks of [SUM]s carry offsets"
    return -slope * sums.offset


def reset_ratio(sums: QueryBlocks, reset: Reset, n: int) -> Tensor:
    """(B, C, L) float32: alpha(d), zero at d = 0."""
    assert sums.distance is not None, "blocks of [SUM]s carry distances"
    distance = sums.distance.float()
    ratio = reset.a_min + (reset.a_max - reset.a_min) * torch.sigmoid((distance - n / 2) / reset.tau)
    return torch.where(distance > 0, ratio, torch.zeros_like(ratio))
