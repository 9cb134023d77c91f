"""Behaviour texts that change over time, and a table that follows them only now and then.

BAHE's paper takes behaviours to "rarely undergo changes" and leaves open what an ageing table costs. No data
set here carries dated texts, so the change is planted, on real interactions:

* time is the data set's own: its N interactions in order of time, the first is row 0;
* a seeded share of the items changes its text `changes` times each, at rows drawn uniformly from 1..N-1;
* `revised`: a new version says "revision 2: " in front of the same text, so it loses nothing; an old vector
  differs from a new one and is as informative;
* `revealed`: texts arrive late. Before the first change an item is called "untitled", with every change more
  of its words are known, with the last one all of them; an old vector knows less than a new one;
* the table is built at row 0 and refreshed every `refresh_every` rows. A refresh encodes the texts that the
  table does not hold yet: versions that came and went between two refreshes are never encoded;
* a target at row t reads its history and its candidate as the table has them at row t, that is, in the
  versions of the last refresh, as a server would. Training targets are read in the same way as test targets.

Shapes: I items, C changes per item, N interactions; versions 0..C of item i are items i * (C + 1) + 0..C of
`DriftingItems.items`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from repro.behaviours.texts import Behaviours
from repro.data.interactions import Items
from repro.errors import ConfigError

KINDS = ("revised", "revealed")
UNKNOWN_TEXT = "untitled"


@dataclass(frozen=True)
class Drift:
    """How texts change and how often the table follows.

    Attributes:
        kind: `revised` (a change keeps the information) or `revealed` (it adds some).
        share: of the items that change, above 0 and up to 1.
        refresh_every: interactions of the data set between two refreshes; None: built once, never refreshed.
        changes: C, per changing item.
        seed: of which items change and when; a part of the data, the same for every seed of a run.
    """

    kind: str
    share: float
    refresh_every: int | None
    changes: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        def refuse(setting: str, expected: str) -> None:
            raise ConfigError(
                f"drift, {setting}", repr(getattr(self, setting)), expected, "choose such a value"
            )

        if self.kind not in KINDS:
            refuse("kind", f"one of {', '.join(KINDS)}")
        if not 0 < self.share <= 1:
            refuse("share", "a share of the items, above 0 and up to 1")
        if self.refresh_every is not None and self.refresh_every < 1:
            refuse("refresh_every", "1 interaction or more, or None for never")
        if self.changes < 1:
            refuse("changes", "1 or more")


class DriftingItems:
    """The items of a data set in all their versions, and which of them a table serves when.

    Args:
        items: as the data set has them; these texts are the last versions of `revealed`, the first ones of
            `revised`.
        num_rows: N.
        drift: settings.

    Attributes:
        items: I * (C + 1) versions of items; those of an item that never changes are all the same.
        refreshes: how often the table is brought up to date, its first build included.
    """

    def __init__(self, items: Items, num_rows: int, drift: Drift) -> None:
        rng = np.random.default_rng(drift.seed)
        self.drift, self.num_rows = drift, num_rows
        changing = rng.permutation(len(items))[: math.ceil(drift.share * len(items))]
        self.changed_at = np.full((len(items), drift.changes), num_rows, dtype=np.int64)  # num_rows: never
        drawn = rng.integers(1, num_rows, size=(len(changing), drift.changes))
        self.changed_at[changing] = np.sort(drawn, axis=1)
        self.items = _versions(items, np.isin(np.arange(len(items)), changing), drift)
        self._every = drift.refresh_every or num_rows
        self.refreshes = 1 + (num_rows - 1) // self._every

    def served(self, item: np.ndarray, row: np.ndarray | int) -> np.ndarray:
        """Numbers in `items` of the versions that the table serves.

        Args:
            item: any shape, int; items of the data set.
            row: rows of the targets that read them, broadcast against `item`.
        """
        refreshed = np.asarray(row) // self._every * self._every
        version = (self.changed_at[item] <= refreshed[..., None]).sum(-1)
        return item * (self.drift.changes + 1) + version

    def encoded(self, behaviours: Behaviours) -> int:
        """How many behaviours all refreshes encode together, the first build included.

        Args:
            behaviours: of `items`. A text counts once: a table is keyed by text.
        """
        start = np.pad(self.changed_at, ((0, 0), (1, 0)))  # (I, C + 1), row at which a version begins
        end = np.pad(self.changed_at, ((0, 0), (0, 1)), constant_values=self.num_rows)
        first_refresh = -(-start // self._every) * self._every  # the first one that can see the version
        seen = np.flatnonzero(first_refresh < end)
        return len(np.unique(np.concatenate([behaviours.answered[seen].ravel(), behaviours.alone[seen]])))


def _versions(items: Items, changes: np.ndarray, drift: Drift) -> Items:
    """Every item C + 1 times, oldest version first. changes: (I,) bool."""
    texts = [
        _text(text, version, drift) if changing else text
        for text, changing in zip(items.text, changes.tolist(), strict=True)
        for version in range(drift.changes + 1)
    ]
    expanded = items.take(np.repeat(np.arange(len(items)), drift.changes + 1))
    return Items(expanded.key, tuple(texts), expanded.categories)


def _text(text: str, version: int, drift: Drift) -> str:
    if drift.kind == "revised":
        return f"revision {version}: {text}" if version else text
    words = text.split(" ")
    known = math.ceil(len(words) * version / drift.changes)
    return " ".join(words[:known]) or UNKNOWN_TEXT
