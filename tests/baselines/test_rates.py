"""The floor: its features against a loop, what it may know, and the constant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prompt_cases import datasets, make_data

from baselines.histories import Histories
from baselines.rates import FEATURES, Rates, RatesSettings, rate_features
from repro.data.interactions import TEST, TRAIN, Interactions, PreparedData

DATA = make_data([60, 50, 40, 30], seed=6)


def naive_features(data: PreparedData, row: int, settings: RatesSettings) -> list[float]:
    rows = data.interactions
    train = [each for each in data.targets(TRAIN) if each != row and rows.item[each] == rows.item[row]]
    earlier = data.history(row)
    counted = {"user_recent": earlier[-settings.recent :], "user_all": earlier, "item": train}
    mean = rows.label[data.targets(TRAIN)].mean()
    features = []
    for name in settings.features:
        liked = sum(rows.label[each] for each in counted[name])
        rate = (liked + settings.smoothing * mean) / (len(counted[name]) + settings.smoothing)
        features.append(np.log(rate / (1 - rate)))
    return features


@given(
    data=datasets(),
    settings=st.builds(
        RatesSettings,
        features=st.sampled_from([FEATURES, ("item",), ("user_all", "user_recent")]),
        recent=st.integers(1, 6),
        smoothing=st.sampled_from([0.5, 5.0]),
    ),
)
def test_features_are_those_of_a_loop(data, settings) -> None:
    labels = data.interactions.label[data.targets(TRAIN)]
    if len(set(labels.tolist())) < 2:
        return  # no log-odds without both answers
    expected = [naive_features(data, row, settings) for row in range(len(data.interactions))]
    np.testing.assert_allclose(rate_features(data, settings), expected, rtol=0, atol=1e-12)


def with_labels(data: PreparedData, label: np.ndarray) -> PreparedData:
    rows = data.interactions
    return replace(data, interactions=Interactions(rows.user, rows.item, label, rows.timestamp))


def scores(data: PreparedData, rows: np.ndarray, settings: RatesSettings | None = None) -> np.ndarray:
    model = Rates(data, settings or RatesSettings())
    return model(Histories(data).batch(rows, 0, "cpu")).score.numpy()


def test_a_test_target_knows_neither_its_own_answer_nor_a_later_one() -> None:
    data = replace(DATA, split=np.sort(DATA.split))  # by time, as every protocol splits
    for row in data.targets(TEST)[:, None]:
        label = data.interactions.label.copy()
        label[row[0] :] ^= 1
        np.testing.assert_array_equal(scores(data, row), scores(with_labels(data, label), row))


def test_a_training_target_does_not_count_its_own_answer() -> None:
    settings = RatesSettings(features=("item",), smoothing=1.0)
    row = DATA.targets(TRAIN)[3]
    label = DATA.interactions.label.copy()
    label[row] ^= 1
    before, after = (rate_features(data, settings)[row, 0] for data in (DATA, with_labels(DATA, label)))
    assert abs(before - after) < 0.1  # by the mean that it is smoothed with, and by nothing else
    others = [each for each in DATA.targets(TRAIN) if each != row]
    same_item = [each for each in others if DATA.interactions.item[each] == DATA.interactions.item[row]]
    assert same_item


def test_without_features_every_score_is_the_training_targets_mean() -> None:
    mean = DATA.interactions.label[DATA.targets(TRAIN)].mean()
    found = scores(DATA, DATA.targets(TEST), RatesSettings(features=()))
    np.testing.assert_allclose(found, mean, rtol=1e-6)


@pytest.mark.parametrize("feature", FEATURES)
def test_one_rate_alone_keeps_its_order(feature) -> None:
    """Logistic regression on one rate is a monotone function of it."""
    settings = RatesSettings(features=(feature,))
    rows = np.arange(len(DATA.interactions))
    order = np.argsort(rate_features(DATA, settings)[:, 0], kind="stable")
    steps = np.diff(scores(DATA, rows, settings)[order])
    assert (steps >= 0).all() or (steps <= 0).all()


def test_it_has_nothing_to_train() -> None:
    model = Rates(DATA, RatesSettings())
    assert not list(model.parameters())
    batch = Histories(DATA).batch(DATA.targets(TRAIN), 0, "cpu")
    fitted = float(model(batch).loss_sum)
    for shift in (-0.1, 0.1):
        shifted = Rates(DATA, RatesSettings())
        shifted.row_logit += shift
        assert float(shifted(batch).loss_sum) > fitted  # the intercept is at its optimum
    assert torch.equal(model.logit(batch), model.row_logit[torch.from_numpy(batch.target_row)])
