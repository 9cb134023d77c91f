"""The fast DeLong against the definition over all pairs, and what is known of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from repro.errors import DataError
from repro.evaluation.delong import delong_test, delong_variance


def naive_covariance(label, scores):
    """DeLong et al. 1988, equations 3 to 6, over every (positive, negative) pair."""
    of_positives, of_negatives = [], []
    for score in scores:
        positive, negative = score[label == 1][:, None], score[label == 0][None, :]
        wins = (positive > negative) + 0.5 * (positive == negative)
        of_positives.append(wins.mean(axis=1))
        of_negatives.append(wins.mean(axis=0))
    num_positive, num_negative = len(of_positives[0]), len(of_negatives[0])
    return np.cov(of_positives) / num_positive + np.cov(of_negatives) / num_negative


@st.composite
def two_scorers(draw):
    num_targets = draw(st.integers(4, 40))
    column = lambda high: st.lists(st.integers(0, high), min_size=num_targets, max_size=num_targets)  # noqa: E731
    label = np.array(draw(column(1)))
    assume(2 <= label.sum() <= num_targets - 2)
    return label, np.array(draw(column(6)), dtype=np.float32), np.array(draw(column(6)), dtype=np.float32)


@given(two_scorers())
def test_fast_equals_naive_with_ties(scorers):
    label, first, second = scorers
    naive = naive_covariance(label, [first, second])
    auc, variance = delong_variance(label, first)
    assert auc == pytest.approx(roc_auc_score(label, first), abs=1e-12)
    assert variance == pytest.approx(naive[0, 0], abs=1e-12)
    test = delong_test(label, first, second)
    assert test.se**2 == pytest.approx(naive[0, 0] + naive[1, 1] - 2 * naive[0, 1], abs=1e-12)


@given(two_scorers())
def test_swapping_the_scorers_turns_the_sign_only(scorers):
    label, first, second = scorers
    forth, back = delong_test(label, first, second), delong_test(label, second, first)
    assert forth.difference == -back.difference
    assert forth.se == pytest.approx(back.se, abs=1e-9)
    assert forth.p_value == pytest.approx(back.p_value, abs=1e-6)
    assert delong_test(label, first, 2 * first + 1).p_value == 1  # the same ranking


def test_type_one_error_is_as_stated_for_independent_targets():
    random = np.random.default_rng(2)
    repeats, small = 400, 0
    for _ in range(repeats):
        label = random.integers(2, size=300)
        base = label + random.normal(size=300)
        first, second = (base + random.normal(size=300) for _ in range(2))
        small += delong_test(label, first, second).p_value < 0.05
    assert 0.025 <= small / repeats <= 0.08


def test_variance_matches_the_spread_over_fresh_samples():
    random = np.random.default_rng(4)
    found = []
    for _ in range(400):
        label = np.repeat([0, 1], 100)
        found.append(delong_variance(label, label + random.normal(size=200)))
    auc, variance = np.array(found).T
    assert variance.mean() == pytest.approx(auc.var(), rel=0.2)


def test_hundred_thousand_targets_need_no_pairs():
    random = np.random.default_rng(0)
    label = random.integers(2, size=100_000)
    test = delong_test(label, random.random(100_000), label * 0.1 + random.random(100_000))
    assert test.p_value < 1e-6


def test_one_target_of_a_class_has_no_variance():
    with pytest.raises(DataError, match="at least two of each"):
        delong_variance(np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3]))
    with pytest.raises(DataError, match="not finite"):
        delong_variance(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, np.nan, 0.3]))
