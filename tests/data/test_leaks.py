"""The order of rows must not tell the label: on the real ML-1M, and shown able to fail."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from repro.data import TEST, TRAIN, apply_protocol, load_prepared, ml_1m


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
