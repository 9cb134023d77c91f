"""Small steps of a decoder layer."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x_NHD: Tensor, cos_ND: Tensor, sin_ND: Tensor) -> Tensor:
    """Rotary embedding, half-split layout of transformers.

    In two halves that are stacked again: compiled, its backward pass then moves each number once.
    """
    first, second = x_NHD.unflatten(-1, (2, -1)).unbind(-2)
    cos, sin = cos_ND[:, None].unflatten(-1, (2, -1)), sin_ND[:, None].unflatten(-1, (2, -1))
    turned = (
        first * cos[..., 0, :] - second * sin[..., 0, :],
        second * cos[..., 1, :] + first * sin[..., 1, :],
    )
    return torch.stack(turned, dim=-2).flatten(-2)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What matrix products on x's device are computed in under autocast; None: not under autocast."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):  # autocast knows no meta device
        return None
    return torch.get_autocast_dtype(kind)


def cast_once(normed: Tensor) -> Tensor:
    """Under autocast: in its dtype now, or each of the projections that read it would cast it for itself."""
    dtype = autocast_dtype(normed)
    return normed if dtype is None else normed.to(dtype)
