"""DeLong's variance of an AUC and the paired test, in O(N log N) by midranks.

DeLong et al. 1988; the fast form is Sun and Xu 2014 ("Fast Implementation of DeLong's Algorithm"). It takes
targets as independent, so on test sets where few users hold many targets its standard errors can be too
small: it stands beside the user bootstrap of `intervals`, never instead of it, and is for one seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from repro.errors import DataError
from repro.evaluation.metrics import check_labels, check_scores


@dataclass(frozen=True)
class DelongTest:
    """Two scorers on the same targets."""

    auc_first: float
    auc_second: float
    difference: float  # first - second
    se: float  # of the difference
    p_value: float  # two-sided, normal approximation; 1 where the scores rank all pairs alike


def delong_variance(label: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """AUC and the variance of its estimate.

    Args:
        label, score: (N,) each.

    Raises:
        DataError: as `evaluate_scores`; fewer than two targets of a class.
    """
    auc, covariance = _delong(label, [score])
    return float(auc[0]), float(covariance[0, 0])


def delong_test(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> DelongTest:
    """Test of equal AUC of two scorers on the same (N,) targets.

    Raises:
        DataError: as `evaluate_scores`; fewer than two targets of a class.
    """
    auc, covariance = _delong(label, [first, second])
    difference = float(auc[0] - auc[1])
    # Two rankings that agree leave rounding noise of either sign instead of a variance of zero.
    se = math.sqrt(max(0.0, float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    if se > 1e-12:
        p_value = math.erfc(abs(difference) / se / math.sqrt(2))
    else:
        p_value = 1.0 if abs(difference) < 1e-12 else 0.0
    return DelongTest(float(auc[0]), float(auc[1]), difference, se, p_value)


def _delong(label: np.ndarray, scores: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(R,) AUCs and their (R, R) covariance.

    A positive's placement is the share of negatives below it (ties half): its midrank among all minus its
    midrank among positives, over the number of negatives; likewise for negatives. AUC is the mean placement;
    its variance adds the two classes' placement variances, each over the class's size.
    """
    label, _ = check_labels(label, np.zeros(len(label), dtype=np.int64))
    positive = label == 1
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if min(num_positive, num_negative) < 2:
        raise DataError(
            "labels",
            f"{num_positive} positive and {num_negative} negative targets",
            "at least two of each (a variance needs them)",
            "take more test targets",
        )
    of_positives = np.empty((len(scores), num_positive))
    of_negatives = np.empty((len(scores), num_negative))
    for r, score in enumerate(scores):
        score = check_scores(score, len(label))
        rank = rankdata(score)
        of_positives[r] = (rank[positive] - rankdata(score[positive])) / num_negative
        of_negatives[r] = 1 - (rank[~positive] - rankdata(score[~positive])) / num_positive
    covariance = _covariance(of_positives) / num_positive + _covariance(of_negatives) / num_negative
    return of_positives.mean(axis=1), covariance


def _covariance(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred @ centred.T / (rows.shape[1] - 1)
