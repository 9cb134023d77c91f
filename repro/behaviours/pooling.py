"""How the states of a behaviour's tokens become one vector; torch is imported when states are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

POOLINGS = ("last", "mean")


def pooled(hidden_BLE: Tensor, lengths_B: Tensor, pooling: str) -> Tensor:
    """(B, E) states of the last tokens, or means over the tokens, of B behaviours padded on the right.

    Args:
        lengths_B: int64, tokens of each behaviour, at least 1.
        pooling: one of `POOLINGS`.
    """
    import torch

    if pooling == "last":
        return hidden_BLE[torch.arange(len(hidden_BLE), device=hidden_BLE.device), lengths_B - 1]
    real = torch.arange(hidden_BLE.shape[1], device=hidden_BLE.device) < lengths_B[:, None]
    return (hidden_BLE * real[..., None]).sum(1) / lengths_B[:, None]
