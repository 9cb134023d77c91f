"""The order of rows must not tell the label: on real data, and shown able to fail."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from repro.data import TEST, TRAIN, apply_protocol, groceries, load_prepared, ml_1m


def order_aucs(prepared, split):
    """AUC of two predictors that see only the order of item numbers among a user's neighbouring interactions.

    `previous`: does the number ascend from the interaction before? `both`: and to the one after? (0, 1 or 2)
    """
    rows, offsets = prepared.user_rows, prepared.user_offsets
    item = prepared.interactions.item[rows]
    ascends = np.concatenate((item[1:] > item[:-1], [False]))  # from place p to p + 1
    inside = np.ones(len(rows), dtype=bool)
    inside[offsets[:-1]] = inside[offsets[1:] - 1] = False  # users' first and last interactions
    places = np.flatnonzero(inside & (prepared.split[rows] == split))
    label = prepared.interactions.label[rows[places]]
    previous, following = ascends[places - 1], ascends[places]
    return {
        "previous": roc_auc_score(label, previous),
        "both": roc_auc_score(label, previous.astype(int) + following),
    }


@pytest.fixture(scope="module")
def source(ml_1m_dir):
    return ml_1m.read(ml_1m.find_files(ml_1m_dir))


@pytest.mark.parametrize("protocol", ["rella", "dti"])
def test_movie_order_predicts_the_label_no_better_in_train_than_in_test(source, protocol):
    prepared = apply_protocol(source, protocol)
    train, test = order_aucs(prepared, TRAIN), order_aucs(prepared, TEST)
    for predictor in ("previous", "both"):
        assert abs(train[predictor] - 0.5) < 0.01
        assert abs(test[predictor] - 0.5) < 0.01
        assert abs(train[predictor] - test[predictor]) < 0.01


def test_sorting_ties_by_movie_would_fail(source):
    """Where timestamps are interpolated, rows that tie are rows that were liked more often."""
    if "interpolated" not in source.title:
        pytest.skip("this copy of ML-1M has its original timestamps")
    by_movie = np.lexsort((source.interactions.item, source.interactions.timestamp))
    resorted = apply_protocol(replace(source, interactions=source.interactions.take(by_movie)), "rella")
    train, test = order_aucs(resorted, TRAIN), order_aucs(resorted, TEST)
    assert train["both"] > 0.59
    assert abs(test["both"] - 0.5) < 0.01


def test_movielens_100k_has_no_such_leak():
    prepared = load_prepared("ml-100k")
    train, test = order_aucs(prepared, TRAIN), order_aucs(prepared, TEST)
    for predictor in ("previous", "both"):
        assert train[predictor] < test[predictor] + 0.02  # the test split's standard error is 0.006
        assert abs(train[predictor] - 0.5) < 0.02


@pytest.fixture(scope="module")
def trips(groceries_package):
    """Every item of every trip, before one of each is drawn: the source, and household, time and item key."""
    seen = {}

    def keep_all(household, time, key):
        order = np.lexsort((key, household, time))
        seen.update(household=household[order], time=time[order], key=key[order])
        return order

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groceries, "one_of_each_trip", keep_all)
        everything = groceries.read(groceries.find_files())
    changes = (np.diff(seen["household"]) != 0) | (np.diff(seen["time"]) != 0)
    return everything.interactions, np.concatenate([[0], np.cumsum(changes)])


def test_items_of_one_trip_tell_each_others_labels(trips):
    """Why one item of each trip stays: the rest of a trip tells more than the household's other trips do."""
    interactions, trip = trips
    label = interactions.label.astype(float)

    def rate_without(group, left_out):
        """Rate of yes in each row's `group` without the rows of its `left_out`, NaN where none is left."""
        yes = np.bincount(group, label)[group] - np.bincount(left_out, label)[left_out]
        number = np.bincount(group)[group] - np.bincount(left_out)[left_out]
        return np.where(number > 0, yes / np.maximum(number, 1), np.nan)

    rest_of_trip = rate_without(trip, np.arange(len(trip)))
    other_trips = rate_without(interactions.user, trip)
    known = np.isfinite(rest_of_trip) & np.isfinite(other_trips)
    assert roc_auc_score(label[known], (rest_of_trip - other_trips)[known]) > 0.53


def test_which_item_of_a_trip_stays_does_not_depend_on_its_label(trips, groceries_package):
    interactions, trip = trips
    of_a_fair_draw = np.bincount(trip, interactions.label) / np.bincount(trip)
    drawn = groceries_package.interactions.label
    assert len(drawn) == len(of_a_fair_draw)
    noise = np.sqrt((of_a_fair_draw * (1 - of_a_fair_draw)).sum()) / len(drawn)
    assert abs(drawn.mean() - of_a_fair_draw.mean()) < 3 * noise


def test_groceries_have_no_ties_and_their_order_does_not_tell_the_label(groceries_package):
    prepared = apply_protocol(groceries_package, "dti")
    rows = prepared.interactions.take(prepared.user_rows)
    assert np.all((np.diff(rows.timestamp) > 0) | (np.diff(rows.user) != 0))
    train, test = order_aucs(prepared, TRAIN), order_aucs(prepared, TEST)
    for predictor in ("previous", "both"):
        assert abs(train[predictor] - test[predictor]) < 0.02  # the test split's standard error is 0.006
        assert abs(train[predictor] - 0.5) < 0.03  # items that are new have high numbers, and are rare ones
