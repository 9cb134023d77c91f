"""Data to measure leakage on: the signal's distance, the split by users, and the training-format view."""

from __future__ import annotations

import numpy as np
import pytest

from repro.data import TEST, TRAIN, VALIDATION
from repro.data.planted import Planted, heldout_as_training_split, planted_data
from repro.evaluation.metrics import evaluate_scores


def made(distance=5, seed=0):
    return planted_data(Planted(distance, num_interactions=6000, per_user=40, seed=seed))


@pytest.mark.parametrize("distance", [1, 4, 5, 6, 9])
def test_the_label_at_the_distance_tells_the_target_s_and_no_other_does(distance) -> None:
    data = made(distance)
    rows = np.flatnonzero(data.is_target)
    label, user = data.interactions.label, data.interactions.user

    def auc(back: int) -> float:
        scores = [float(label[data.history(row)[-back]]) for row in rows]
        return evaluate_scores(label[rows], np.array(scores), user[rows])["auc"]

    found = {back: auc(back) for back in range(1, distance + 1)}
    assert found.pop(distance) == pytest.approx(0.9, abs=0.02)
    assert all(abs(each - 0.5) < 0.04 for each in found.values())


def test_users_are_split_and_not_time() -> None:
    data = made()
    split_of = [np.unique(data.split[data.interactions.user == user]) for user in range(data.num_users)]
    assert all(len(each) == 1 for each in split_of)
    numbers = np.bincount(np.concatenate(split_of))
    assert numbers[TEST] == pytest.approx(0.1 * data.num_users, abs=1)
    assert numbers[VALIDATION] == pytest.approx(0.02 * data.num_users, abs=1)


def test_held_out_users_as_a_training_split_keep_targets_interactions_and_items() -> None:
    data = made()
    view = heldout_as_training_split(data)
    assert np.array_equal(view.targets(TRAIN), data.targets(TEST))
    assert view.interactions is data.interactions and view.items is data.items
    assert not np.isin(view.targets(TRAIN), data.targets(TRAIN)).any()


def test_a_seed_is_other_data_and_another_split() -> None:
    assert made(seed=0).sha256 == made(seed=0).sha256 != made(seed=1).sha256
