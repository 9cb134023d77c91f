"""DCNv2, Deep and Cross Network V2 (Wang et al., WWW 2021, arXiv 2008.13535), on ids, categories and answers.

Shapes: B targets, n past interactions, E width of an interaction's vector, X width of the input layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.histories import DISLIKED, LIKED, Catalogue, IdBatch
from baselines.layers import MLP, IdModel, InteractionEncoder


@dataclass(frozen=True)
class Dcnv2Settings:
    """Attributes:
    item_dim, category_dim: widths of the two embeddings; E is their sum.
    cross_layers: of the cross network.
    rank: None for full matrices (section 3.2), else W = U V with this inner width (section 3.5, one expert).
    stacked: the deep network reads the cross network's output; else both read the input side by side
        (section 3.4 has both).
    hidden: layers of the deep network.
    """

    item_dim: int = 32
    category_dim: int = 16
    cross_layers: int = 3
    rank: int | None = None
    stacked: bool = False
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    init_std: float = 0.05


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l (section 3.2, equation 1): one more degree per layer."""

    def __init__(self, width: int, layers: int, rank: int | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_matrix(width, rank) for _ in range(layers))

    def forward(self, x_0: Tensor) -> Tensor:
        """(B, X) -> (B, X)."""
        x = x_0
        for layer in self.layers:
            x = torch.addcmul(x, x_0, layer(x))
        return x


def _matrix(width: int, rank: int | None) -> nn.Module:
    if rank is None:
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))


class DCNv2(IdModel):
    """Explicit crosses of target and pooled history beside (or under) a deep network.

    The paper's inputs are fields of fixed width, so the history enters as means (section 3.1 pools
    multivalent features so): of all past interactions, of the liked and of the disliked ones. The share of
    likes is in the first through the learned vectors of the answers; no rate or count is computed by hand.
    """

    def __init__(self, catalogue: Catalogue, n: int, settings: Dcnv2Settings) -> None:
        super().__init__()
        s = settings
        self.encoder = InteractionEncoder(catalogue, s.item_dim, s.category_dim, s.init_std)
        width = 4 * self.encoder.width  # X: target and three means
        self.cross = CrossNetwork(width, s.cross_layers, s.rank)
        self.dropout = nn.Dropout(s.dropout)
        self.stacked = s.stacked
        self.deep = MLP(width, s.hidden, "relu", s.dropout)
        self.cross_out = None if s.stacked else nn.Linear(width, 1, bias=False)

    def logit(self, batch: IdBatch) -> Tensor:
        """(B,) logits of a like."""
        target, past, mask = self.encoder(batch)
        means = pooled(
            past, torch.stack([mask, batch.past_answer == LIKED, batch.past_answer == DISLIKED], dim=1)
        )
        x_0 = self.dropout(torch.cat([target, means.flatten(1)], dim=1))
        crossed = self.cross(x_0)
        if self.cross_out is None:
            return self.deep(crossed)
        return self.deep(x_0) + self.cross_out(crossed).squeeze(-1)


def pooled(past: Tensor, members: Tensor) -> Tensor:
    """Means of groups of past interactions, 0 for an empty group.

    Args:
        past: (B, n, E).
        members: (B, groups, n) bool.

    Returns:
        (B, groups, E).
    """
    weight = members.to(past.dtype)
    return torch.bmm(weight / weight.sum(dim=-1, keepdim=True).clamp(min=1), past)
