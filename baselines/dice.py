"""Dice, DIN's data-adaptive activation (Zhou et al., KDD 2018, arXiv 1706.06978, section 5.3).

Shapes: R rows, U units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Dice(nn.Module):
    """p(s) s + (1 - p(s)) alpha s (equation 9), alpha learned, 0 at first.

    p(s) = sigmoid((s - mean) / sqrt(var + eps)), with the batch's mean and variance in training and their
    moving averages in evaluation. Positions that `mask` leaves out enter neither, so padding changes nothing;
    a batch of one has variance 0 and p = 1/2.
    """

    def __init__(self, width: int, eps: float = 1e-9, momentum: float = 0.01) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.eps, self.momentum = eps, momentum
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (..., U); mask (...) bool, True where real."""
        if not self.training:
            gate = torch.sigmoid((x - self.running_mean) * torch.rsqrt(self.running_var + self.eps))
            return x * (gate + self.alpha * (1 - gate))
        flat = x.flatten(0, -2)
        weight = x.new_ones(len(flat)) if mask is None else mask.flatten().to(x.dtype)
        count = weight.sum().clamp(min=1)
        share = weight / count
        with torch.no_grad():
            mean = share @ flat
            # In one pass: centring first would cost as much as the layer before it.
            var = (share @ flat.square() - mean.square()).clamp_(min=0)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1).clamp(min=1), self.momentum)
        return DiceInTraining.apply(flat, self.alpha, share, mean, torch.rsqrt(var + self.eps)).view_as(x)


class DiceInTraining(torch.autograd.Function):
    """Dice with the batch's own statistics, and its gradient in closed form.

    Written out because autograd would keep and pass over a dozen (R, U) tensors, which costs more than the
    matrix product before it (on a CPU a DIN step takes two thirds of the time). With
    z = (x - mean) r, r = 1 / sqrt(var + eps), g = sigmoid(z) and the incoming gradient y:
    dz = y x (1 - alpha) g (1 - g), and a real row also moves mean and variance, as in batch normalisation:
    dx = y (alpha + (1 - alpha) g) + r (dz - share (sum dz + z sum(dz z))).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, share: Tensor, mean: Tensor, rate: Tensor) -> Tensor:
        """(R, U) output of x (R, U), alpha (U,), share (R,) of the rows in the statistics, mean, r (U,)."""
        gate = torch.addcmul(-mean * rate, x, rate).sigmoid_()
        ctx.save_for_backward(x, alpha, share, mean, rate)
        return torch.addcmul(alpha, gate, 1 - alpha, out=gate).mul_(x)

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x, through mean and r too, and of alpha; y (R, U)."""
        x, alpha, share, mean, rate = ctx.saved_tensors
        z = torch.addcmul(-mean * rate, x, rate)
        gate, yx = torch.sigmoid(z), y * x
        d_alpha = yx.sum(dim=0)
        yx *= gate
        d_alpha -= yx.sum(dim=0)
        dz = torch.addcmul(yx, yx, gate, value=-1, out=yx).mul_(1 - alpha)
        d_x = torch.addcmul(alpha, gate, 1 - alpha, out=gate).mul_(y).addcmul_(dz, rate)
        sum_dz, sum_dz_z = dz.sum(dim=0), dz.mul_(z).sum(dim=0)
        through_statistics = torch.addcmul(sum_dz, z, sum_dz_z, out=z).mul_(rate)
        return d_x.addcmul_(through_statistics, share[:, None], value=-1), d_alpha, None, None, None
