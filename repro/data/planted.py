"""Synthetic data to measure leakage on: the signal lies at a chosen distance; users are split, not time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro.data.interactions import TEST, TRAIN, VALIDATION, PreparedData
from repro.data.registry import load_prepared
from repro.data.synthetic import SyntheticSettings

TEST_SHARE, VALIDATION_SHARE = 0.1, 0.02  # of the users


@dataclass(frozen=True)
class Planted:
    """A label repeats the one exactly `distance` interactions back; everything else is a coin flip.

    Attributes:
        distance: in interactions, 1 or more.
        num_interactions: of all users together.
        per_user: mean number of interactions.
        seed: of the data and of the split of its users.
    """

    distance: int
    num_interactions: int
    per_user: int = 60
    seed: int = 0

    @property
    def settings(self) -> SyntheticSettings:
        """Of the generator, which plants `beyond` at window + 5 and `inside` at half a window."""
        far = self.distance > 5
        return SyntheticSettings(
            num_interactions=self.num_interactions,
            interactions_per_user=self.per_user,
            num_items=20 * self.distance,
            signal="beyond" if far else "inside",
            window=self.distance - 5 if far else 2 * self.distance,
            seed=self.seed,
        )


def planted_data(planted: Planted) -> PreparedData:
    """The data, its users split 88:2:10; every target has the label that it repeats behind it."""
    data = load_prepared("synthetic", synthetic=planted.settings, min_context=planted.distance)
    rank = np.random.default_rng(planted.seed).permutation(data.num_users) / data.num_users
    of_user = np.full(data.num_users, TRAIN, dtype=np.int8)
    of_user[rank < TEST_SHARE + VALIDATION_SHARE] = VALIDATION
    of_user[rank < TEST_SHARE] = TEST
    return _with_split(data, of_user[data.interactions.user])


def heldout_as_training_split(data: PreparedData) -> PreparedData:
    """The same interactions and items, with the test split's targets as a training split.

    A method cuts streaming prompts of a training split only; this way those of the test users can be scored.
    """
    return _with_split(data, np.where(data.split == TEST, TRAIN, TEST).astype(np.int8))


def _with_split(data: PreparedData, split: np.ndarray) -> PreparedData:
    return PreparedData.build(
        name=data.name,
        protocol=data.protocol,
        min_context=data.min_context,
        interactions=data.interactions,
        items=data.items,
        split=split,
        is_target=data.is_target,
        source_sha256=data.source_sha256,
        counts=data.counts,
        title=data.title,
    )
