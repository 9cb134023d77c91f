"""SIM's hard search: of a user's whole earlier history, what shares a category with the target.

Shapes: B targets, L newest earlier interactions that are searched, m of them that are kept, I items, W words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BITS_PER_WORD = 62  # of an int64: the sign bit stays out of it


@dataclass(frozen=True)
class SearchSettings:
    """Attributes:
    limit: the newest `limit` earlier interactions are searched (L, or fewer where no history is longer).
    keep: at most so many are kept (m), the newest ones.
    """

    limit: int = 500
    keep: int = 50


@dataclass(frozen=True)
class Searched:
    """What the search found for every target, right-aligned, the newest last.

    Attributes:
        item, answer: (B, m) int64, as in `IdBatch`; 0 where padded.
        age: (B, m) int64, how many interactions before the target it was, from 1; 0 where padded.
    """

    item: Tensor
    answer: Tensor
    age: Tensor


def category_words(categories: Tensor, num_categories: int) -> Tensor:
    """The category sets of all items as bits, (I + 1, W) int64; padding and items without any have none.

    Args:
        categories: (I + 1, C) int64, numbered from 1, 0 pads.
        num_categories: without padding.
    """
    words = torch.zeros(len(categories), max(-(-num_categories // BITS_PER_WORD), 1), dtype=torch.int64)
    for column in categories.T:
        row = torch.nonzero(column).squeeze(1)
        number = column[row] - 1
        # An item names a category once, so a bit is added once.
        words[row, number // BITS_PER_WORD] += 1 << number % BITS_PER_WORD
    return words


def search(columns: dict[str, Tensor], start: Tensor, end: Tensor, settings: SearchSettings) -> Searched:
    """Hard search (SIM, section 3.2): keep the newest interactions with a category of the target.

    Memory: a few (B, L) tensors while it runs; nothing is kept between batches and the host never waits.

    Args:
        columns: item (N,) and answer (N,) in user order, words (I + 1, W) of `category_words`.
        start, end: (B,) int64, place of the first interaction of each target's user, and of the target.
    """
    age = torch.arange(settings.limit, 0, -1, device=end.device)  # (L,) oldest first
    place = end[:, None] - age  # (B, L)
    there = place >= start[:, None]
    item = columns["item"][place.clamp_(min=0)]
    words = columns["words"]
    target = words[columns["item"][end]]  # (B, W)
    match = torch.zeros_like(there)
    for word in range(words.shape[1]):
        match |= (words[:, word][item] & target[:, word, None]) != 0
    match &= there
    # rank from the newest: 1 1 0 1 -> 3 2 1 1 for the matches 1, 2 and 4; the last `keep` go to columns
    # keep - rank, all else to a column in front that is cut off.
    rank = match.sum(dim=1, keepdim=True) - match.cumsum(dim=1) + 1
    column = torch.where(match & (rank <= settings.keep), settings.keep + 1 - rank, 0)
    found = age.new_zeros(len(end), settings.keep + 1)
    found.scatter_(1, column, age.expand_as(column))
    age = found[:, 1:]
    kept = age > 0
    place = (end[:, None] - age) * kept
    return Searched(columns["item"][place].long() * kept, columns["answer"][place].long() * kept, age)
