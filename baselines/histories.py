"""Batches for ID-based models, cut from flat arrays: a history is a slice, never stored per target.

Shapes: B targets, n past interactions, C categories of an item at most, I items. Item 0, category 0 and
answer 0 are padding; a history is right-aligned, so its last column is the newest interaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.search import Searched, SearchSettings, category_words, search
from repro.data.interactions import PreparedData
from repro.prompts.batching import TargetBatches

PADDING, DISLIKED, LIKED = 0, 1, 2


@dataclass(frozen=True)
class Catalogue:
    """What an ID-based model knows of the items.

    Attributes:
        categories: (I + 1, C) int64, categories of item i - 1 in row i, numbered from 1; 0 pads.
        num_categories: without padding.
    """

    categories: Tensor
    num_categories: int

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.categories) - 1

    @classmethod
    def of(cls, data: PreparedData) -> Catalogue:
        """Number the categories by name; an item without any has padding alone."""
        names = sorted({name for each in data.items.categories for name in each})
        number = {name: index + 1 for index, name in enumerate(names)}
        width = max((len(each) for each in data.items.categories), default=0) or 1
        table = torch.zeros(len(data.items) + 1, width, dtype=torch.int64)
        for row, each in enumerate(data.items.categories, start=1):
            table[row, : len(each)] = torch.tensor([number[name] for name in each], dtype=torch.int64)
        return cls(table, len(names))


@dataclass(frozen=True)
class IdBatch:
    """One batch on the device.

    Attributes:
        item: (B,) int64, the targets' items from 1.
        past_item: (B, n) int64; past_answer: (B, n) int64, `LIKED` or `DISLIKED`; both 0 where padded.
        label: (B,) float32.
        target_row: (B,) rows of PreparedData, on the host.
        searched: what SIM's search found; None for every other model.
    """

    item: Tensor
    past_item: Tensor
    past_answer: Tensor
    label: Tensor
    target_row: np.ndarray
    searched: Searched | None = None

    @property
    def num_targets(self) -> int:
        """B."""
        return len(self.target_row)

    num_tokens = num_padded_tokens = 0  # no language model, no tokens


class Histories:
    """The interactions of a data set in user order; any target's history is cut from them.

    Memory: 21 bytes per interaction, whatever the history's length.

    Args:
        data: the data set.
        search: what to search beyond the newest interactions; None: nothing.
    """

    def __init__(self, data: PreparedData, search: SearchSettings | None = None) -> None:
        interactions, by_user = data.interactions, data.user_rows
        start = data.user_offsets[interactions.user]
        self._columns = {
            "item": torch.from_numpy(interactions.item[by_user] + 1),
            "answer": torch.from_numpy(interactions.label[by_user] + DISLIKED),
            "start": torch.from_numpy(start),
            "end": torch.from_numpy(start + data.position),  # where the row itself stands
        }
        self._search = search
        if search is not None:
            catalogue = Catalogue.of(data)
            self._columns["words"] = category_words(catalogue.categories, catalogue.num_categories)
        self._on_device: dict[str, dict[str, Tensor]] = {"cpu": self._columns}

    def columns(self, device: torch.device | str) -> dict[str, Tensor]:
        """item (N,) int32 and answer (N,) int8 in user order; start and end (N,) int64 by row.

        With a search also words (I + 1, W) int64 by item, see `category_words`.
        """
        name = str(device)
        if name not in self._on_device:
            self._on_device[name] = {key: column.to(device) for key, column in self._columns.items()}
        return self._on_device[name]

    def batch(self, rows: np.ndarray, n: int, device: torch.device | str) -> IdBatch:
        """Targets and their n newest earlier interactions.

        A user's interactions 10 11 12 13 in user order, n = 3: the target at 12 has the history 0 10 11.
        """
        columns = self.columns(device)
        chosen = torch.from_numpy(rows).to(device)
        start, end = columns["start"][chosen], columns["end"][chosen]
        place = end[:, None] + torch.arange(-n, 0, device=end.device)  # (B, n)
        there = place >= start[:, None]
        place = place.clamp_(min=0)
        searched = None if self._search is None else search(columns, start, end, self._search)
        return IdBatch(
            item=columns["item"][end].long(),
            past_item=columns["item"][place].long() * there,
            past_answer=columns["answer"][place].long() * there,
            label=columns["answer"][end].float() - DISLIKED,
            target_row=rows,
            searched=searched,
        )


class IdBatches(TargetBatches):
    """All batches of one split, as the training loop wants them.

    Args:
        histories: shared by the splits.
        targets: (T,) rows of the split's targets.
        n: length of the histories.
        batch_targets: targets per batch.
    """

    def __init__(self, histories: Histories, targets: np.ndarray, n: int, batch_targets: int) -> None:
        super().__init__(targets, batch_targets)
        self.histories, self.n = histories, n

    def split(self, key: np.ndarray) -> list[np.ndarray]:
        """A batch always fits."""
        return [key]

    def load(self, key: np.ndarray, device: torch.device | str) -> Any:
        """Cut the histories of one batch."""
        return self.histories.batch(key, self.n, device)
