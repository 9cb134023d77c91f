"""Metrics against scikit-learn and against the definition, ties and one-class users included."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from repro.errors import DataError
from repro.evaluation.metrics import evaluate_scores, user_auc


def random_targets(num_targets=500, num_users=20, seed=0):
    random = np.random.default_rng(seed)
    label = random.integers(2, size=num_targets)
    group = random.integers(num_users, size=num_targets)
    score = np.round(random.random(num_targets) * 0.8 + 0.2 * label, 2).astype(np.float32)
    return label, score, group


@st.composite
def tied_targets(draw):
    """Few users, few distinct scores: ties within and between users, one-class users."""
    num_targets = draw(st.integers(2, 40))
    column = lambda low, high: st.lists(st.integers(low, high), min_size=num_targets, max_size=num_targets)  # noqa: E731
    label = np.array(draw(column(0, 1)))
    assume(0 < label.sum() < num_targets)
    score = np.array(draw(column(0, 4)), dtype=np.float32) / 4
    return label, score, np.array(draw(column(0, 5)))


def test_metrics_equal_scikit_learn():
    label, score, group = random_targets()
    metrics = evaluate_scores(label, score, group)
    assert metrics["auc"] == roc_auc_score(label, score)
    assert metrics["f1"] == f1_score(label, score >= 0.5)
    assert metrics["log_loss"] == pytest.approx(log_loss(label, score.astype(np.float64)), abs=1e-6)


@given(tied_targets())
def test_gauc_is_the_weighted_mean_of_per_user_auc(targets):
    label, score, group = targets
    total = weight = users = 0
    for user in np.unique(group):
        rows = group == user
        if 0 < label[rows].sum() < rows.sum():
            total += roc_auc_score(label[rows], score[rows]) * rows.sum()
            weight += rows.sum()
            users += 1
    metrics = evaluate_scores(label, score, group)
    assert metrics["gauc_users"] == users
    assert metrics["gauc_users_left_out"] == len(np.unique(group)) - users
    if users:
        assert metrics["gauc"] == pytest.approx(total / weight, abs=1e-12)
    else:
        assert metrics["gauc"] is None


def test_user_numbers_need_not_be_dense():
    label, score, group = random_targets()
    assert evaluate_scores(label, score, group * 1000 + 7) == evaluate_scores(label, score, group)


def test_user_auc_of_a_worked_example():
    # User 0: positives .9 .2, negatives .5 -> one of two pairs won. User 1 only has positives.
    label, score, group = np.array([1, 0, 1, 1]), np.array([0.9, 0.5, 0.2, 0.1]), np.array([0, 0, 0, 1])
    auc, num_targets = user_auc(label, score, group)
    assert auc[0] == 0.5
    assert np.isnan(auc[1])
    assert num_targets.tolist() == [3, 1]


def test_saturated_scores_cost_a_bounded_log_loss():
    label, score = np.array([0, 1, 1, 0]), np.array([1.0, 0.0, 1.0, 0.0])
    metrics = evaluate_scores(label, score, np.zeros(4))
    assert metrics["log_loss"] == pytest.approx(-np.log(2.0**-23) / 2, rel=1e-6)


def test_metrics_are_those_of_the_float32_scores_that_are_stored():
    label, _, group = random_targets()
    score = np.random.default_rng(1).random(len(label))
    assert evaluate_scores(label, score, group) == evaluate_scores(label, score.astype(np.float32), group)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": [0.1, np.nan, 0.3, 0.4]}, "target 1"),
        ({"score": [0.1, np.inf, 0.3, 0.4]}, "target 1"),
        ({"score": [0.1, 1.5, 0.3, 0.4]}, "probabilities"),
        ({"score": [0.1, 0.2, 0.3]}, "one score for each of 4"),
        ({"label": [1, 1, 1, 1]}, "every label is 1"),
        ({"label": [0, 0, 0, 0]}, "every label is 0"),
        ({"label": [0, 1, 2, 1]}, "0 and 1 only"),
        ({"label": [], "score": [], "group": []}, "non-empty"),
        ({"group": [0, 1]}, "equally long"),
    ],
)
def test_bad_input_is_an_error_and_never_a_number(change, message):
    columns = {"label": [0, 1, 1, 0], "score": [0.1, 0.2, 0.3, 0.4], "group": [0, 0, 1, 1]} | change
    with pytest.raises(DataError, match=message):
        evaluate_scores(**{name: np.array(column) for name, column in columns.items()})


def test_importing_evaluation_and_records_leaves_torch_alone():
    modules = "repro.evaluation.metrics, repro.evaluation.intervals, repro.evaluation.delong"
    modules += ", repro.records.store, repro.records.publish, repro.records.measurements"
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
