"""SIM, search-based interest model with hard search (Pi et al., CIKM 2020, arXiv 2006.05639).

Two stages: of the user's whole earlier history keep what shares a category with the target (general search
unit, section 3.2: `search.py`), then weigh that against the target (exact search unit, section 3.3). The
recent history goes through DIN's local activation beside it (the paper has DIEN there).

Shapes: B targets, n recent interactions, m searched ones, E width of an interaction's vector, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from baselines.din import LocalActivation
from baselines.histories import Catalogue, IdBatch
from baselines.layers import MLP, IdModel, InteractionEncoder
from baselines.search import SearchSettings


@dataclass(frozen=True)
class SimSettings:
    """Attributes:
    search: how far back, and how many are kept.
    item_dim, category_dim: widths of the two embeddings; E is their sum.
    heads, head_dim: of the exact search unit.
    attention_units, hidden: layers of the local activation unit and of the final network.
    """

    search: SearchSettings = field(default_factory=SearchSettings)
    item_dim: int = 32
    category_dim: int = 16
    heads: int = 4
    head_dim: int = 16
    attention_units: tuple[int, ...] = (64, 16)
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.1
    init_std: float = 0.05


class ExactSearch(nn.Module):
    """Multi-head attention of the target over what the search found (section 3.3).

    Weights: softmax of scaled products of the projected target and the projected interactions; every head
    adds up the interactions' own vectors, and the heads stand side by side. With q the projected target,
    <q, K z> is computed as <K^T q, z>: one projection per target and head instead of one per interaction.
    """

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_dim**-0.5
        self.query = nn.Linear(width, heads * head_dim)
        self.key = nn.Linear(width, heads * head_dim, bias=False)  # a bias would not change the softmax

    def forward(self, target: Tensor, found: Tensor, mask: Tensor) -> Tensor:
        """target (B, E), found (B, m, E), mask (B, m) bool -> (B, H E); zeros where nothing was found."""
        query = self.query(target).unflatten(-1, (self.heads, -1)) * self.scale  # (B, H, D)
        key = self.key.weight.unflatten(0, (self.heads, -1))  # (H, D, E)
        score = torch.bmm(torch.einsum("bhd,hde->bhe", query, key), found.mT)  # (B, H, m)
        score = score.masked_fill(~mask[:, None], torch.finfo(score.dtype).min)
        weight = score.softmax(dim=-1) * mask[:, None]
        return torch.bmm(weight, found).flatten(1)


class SIM(IdModel):
    """Long-term interest from the searched history, short-term interest from the recent one, and the target.

    The paper gives searched behaviours a vector for how long ago they were. Timestamps are no model input
    here, so age is counted in interactions, in bands that double: 1, 2-3, 4-7, ...
    """

    def __init__(self, catalogue: Catalogue, n: int, settings: SimSettings) -> None:
        super().__init__()
        s = settings
        self.encoder = InteractionEncoder(catalogue, s.item_dim, s.category_dim, s.init_std)
        width = self.encoder.width
        self.age = nn.Embedding(s.search.limit.bit_length() + 1, width, padding_idx=0)
        nn.init.normal_(self.age.weight, std=s.init_std)
        self.age.weight.data[0] = 0
        self.exact = ExactSearch(width, s.heads, s.head_dim)
        self.recent = LocalActivation(width, s.attention_units, softmax=False)
        self.dropout = nn.Dropout(s.dropout)
        self.head = MLP((2 + s.heads) * width, s.hidden, "dice", s.dropout)

    def logit(self, batch: IdBatch) -> Tensor:
        """(B,) logits of a like."""
        searched = batch.searched
        assert searched is not None, "SIM's batches are cut with its search settings"
        items = self.encoder.items()
        target = self.encoder.target(items, batch.item)
        past = self.encoder.past(items, batch.past_item, batch.past_answer)
        found = self.encoder.past(items, searched.item, searched.answer) + self.age(age_band(searched.age))
        short = self.recent(target, past, batch.past_item > 0)
        long = self.exact(target, found, searched.item > 0)
        return self.head(self.dropout(torch.cat([target, long, short], dim=-1)))


def age_band(age: Tensor) -> Tensor:
    """Number of binary digits of an age, int64: 0 -> 0 (padding), 1 -> 1, 2-3 -> 2, 4-7 -> 3, ..."""
    return torch.frexp(age.to(torch.float32)).exponent.long()
