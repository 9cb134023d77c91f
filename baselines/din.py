"""DIN, Deep Interest Network (Zhou et al., KDD 2018, arXiv 1706.06978), on ids, categories and answers.

Shapes: B targets, n past interactions, E width of an interaction's vector, U units.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.dice import Dice
from baselines.histories import Catalogue, IdBatch
from baselines.layers import MLP, IdModel, InteractionEncoder


@dataclass(frozen=True)
class DinSettings:
    """Attributes:
    item_dim, category_dim: widths of the two embeddings; E is their sum.
    attention_units, hidden: layers of the local activation unit and of the final network.
    softmax: normalise the attention weights. Off in the paper (section 4.3: their sum is to say how strong
        an interest is), on in the authors' code.
    """

    item_dim: int = 32
    category_dim: int = 16
    attention_units: tuple[int, ...] = (64, 16)
    hidden: tuple[int, ...] = (128, 64)
    softmax: bool = False
    dropout: float = 0.1
    init_std: float = 0.05


class LocalActivation(nn.Module):
    """Local activation unit (section 4.3): a small network on [target, past, target - past, target * past].

    The paper's figure feeds the outer product; the authors' code, and this one, the element-wise product and
    the difference. The first layer is applied to the four parts without writing them side by side:
    W [t, p, t - p, t * p] = (W1 + W3) t + (W2 - W3) p + W4 (t * p), the first term once per target.
    """

    def __init__(self, width: int, units: tuple[int, ...], softmax: bool) -> None:
        super().__init__()
        self.softmax = softmax
        self.first = nn.Linear(4 * width, units[0])
        self.rest = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(units))
        self.activations = nn.ModuleList(Dice(each) for each in units)
        self.out = nn.Linear(units[-1], 1)

    def weights(self, target: Tensor, past: Tensor, mask: Tensor) -> Tensor:
        """(B, n) attention weights, 0 where `mask` is False; a history without any real one has all 0."""
        w_target, w_past, w_difference, w_product = self.first.weight.chunk(4, dim=1)  # each (U, E)
        x = past @ (w_past - w_difference).T + (past * target[:, None]) @ w_product.T
        x = x + (target @ (w_target + w_difference).T + self.first.bias)[:, None]
        x = self.activations[0](x, mask)
        for linear, activation in zip(self.rest, self.activations[1:], strict=True):
            x = activation(linear(x), mask)
        weight = self.out(x).squeeze(-1)
        if self.softmax:
            weight = weight.masked_fill(~mask, torch.finfo(weight.dtype).min).softmax(dim=-1)
        return weight * mask

    def forward(self, target: Tensor, past: Tensor, mask: Tensor) -> Tensor:
        """target (B, E), past (B, n, E), mask (B, n) bool -> (B, E) weighted sum of the past."""
        return torch.bmm(self.weights(target, past, mask)[:, None], past).squeeze(1)


class DIN(IdModel):
    """Past interactions, weighted by how much they have to do with the target, beside the target."""

    def __init__(self, catalogue: Catalogue, n: int, settings: DinSettings) -> None:
        super().__init__()
        s = settings
        self.encoder = InteractionEncoder(catalogue, s.item_dim, s.category_dim, s.init_std)
        self.attention = LocalActivation(self.encoder.width, s.attention_units, s.softmax)
        self.dropout = nn.Dropout(s.dropout)
        self.head = MLP(2 * self.encoder.width, s.hidden, "dice", s.dropout)

    def logit(self, batch: IdBatch) -> Tensor:
        """(B,) logits of a like."""
        target, past, mask = self.encoder(batch)
        interest = self.attention(target, past, mask)
        return self.head(self.dropout(torch.cat([target, interest], dim=-1)))
