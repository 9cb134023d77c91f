"""Parts that several ID-based models share.

Shapes: B targets, n past interactions, E width of an interaction's vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dice import Dice
from baselines.histories import LIKED, Catalogue, IdBatch
from repro.training.task import ModelOutput


class IdModel(nn.Module):
    """A model that gives one logit per target: sigmoid for the score, binary cross-entropy for the loss."""

    def logit(self, batch: IdBatch) -> Tensor:
        """(B,) logits of a like."""
        raise NotImplementedError

    def forward(self, batch: IdBatch) -> ModelOutput:
        """Loss summed over the batch and the (B,) scores."""
        logit = self.logit(batch).float()
        loss = F.binary_cross_entropy_with_logits(logit, batch.label, reduction="sum")
        return ModelOutput(loss, torch.sigmoid(logit.detach()))


class InteractionEncoder(nn.Module):
    """Vectors of items (id next to the mean of its categories) and of past interactions (plus the answer).

    Every item's vector is made once per batch and then looked up: a catalogue is smaller than a batch of
    histories.
    """

    def __init__(self, catalogue: Catalogue, item_dim: int, category_dim: int, init_std: float) -> None:
        super().__init__()
        self.width = item_dim + category_dim  # E
        self.item = nn.Embedding(catalogue.num_items + 1, item_dim, padding_idx=0)
        self.category = nn.Embedding(catalogue.num_categories + 1, category_dim, padding_idx=0)
        self.answer = nn.Embedding(LIKED + 1, self.width, padding_idx=0)
        for table in (self.item, self.category, self.answer):
            nn.init.normal_(table.weight, std=init_std)
            table.weight.data[0] = 0
        self.categories: Tensor
        self.num_categories: Tensor
        self.register_buffer("categories", catalogue.categories, persistent=False)
        count = (catalogue.categories > 0).sum(dim=1, keepdim=True).clamp(min=1)
        self.register_buffer("num_categories", count, persistent=False)

    def items(self) -> Tensor:
        """(I + 1, E) vectors of all items, zeros for padding."""
        category = self.category(self.categories).sum(dim=1) / self.num_categories
        return torch.cat([self.item.weight, category], dim=1)

    def target(self, items: Tensor, item: Tensor) -> Tensor:
        """(B, E) vectors of items (B,)."""
        return F.embedding(item, items)

    def past(self, items: Tensor, item: Tensor, answer: Tensor) -> Tensor:
        """(B, n, E) vectors of past interactions from items and answers, both (B, n); zeros where padded."""
        return F.embedding(item, items) + self.answer(answer)

    def forward(self, batch: IdBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(B, E) targets, (B, n, E) past interactions (zeros where padded), (B, n) bool which are real."""
        items = self.items()
        past = self.past(items, batch.past_item, batch.past_answer)
        return self.target(items, batch.item), past, batch.past_item > 0


class MLP(nn.Module):
    """Linear layers with an activation and dropout after each but the last, which gives one number."""

    def __init__(self, width: int, hidden: Sequence[int], activation: str, dropout: float) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise([width, *hidden, 1]))
        self.activations = nn.ModuleList(Dice(each) if activation == "dice" else nn.ReLU() for each in hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B,)."""
        for linear, activation in zip(self.linears[:-1], self.activations, strict=True):
            x = self.dropout(activation(linear(x)))
        return self.linears[-1](x).squeeze(-1)


class StateHead(nn.Module):
    """From the state of a sequence model and a target to a logit: a small network on [s, t, s * t].

    Sequence models score an item by the product <s, t>. The network sees its E terms beside the two vectors,
    so it can form that score, weigh its terms, and add what a state says of likes in general.
    """

    def __init__(self, width: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.network = MLP(3 * width, hidden, "relu", dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, target: Tensor) -> Tensor:
        """state (B, E), target (B, E) -> (B,)."""
        return self.network(self.dropout(torch.cat([state, target, state * target], dim=-1)))
