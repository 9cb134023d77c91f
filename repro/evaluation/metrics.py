"""AUC, log loss, F1 and GAUC of one run's scores."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from repro.errors import DataError

F1_THRESHOLD = 0.5
# Scores are stored as float32, in which 1 - 2**-24 is the largest number below 1 and a softmax saturates to
# exactly 1; clipping at float32's spacing keeps one such score from adding 36 nats to the log loss.
CLIP = float(np.finfo(np.float32).eps)


def evaluate_scores(label: np.ndarray, score: np.ndarray, group: np.ndarray) -> dict[str, float | int | None]:
    """Metrics of a record: computed from float32 scores, so that the stored file gives the same numbers.

    Args:
        label: (N,) 0 or 1.
        score: (N,) probability of label 1; rounded to float32 first, as `scores.parquet` stores it.
        group: (N,) user number of each target.

    Returns:
        `auc` over all targets at once; `log_loss` in nats (scores clipped to [1.2e-7, 1 - 1.2e-7]); `f1` of
        label 1, where score >= 0.5 counts as a "yes"; `gauc`, the per-user AUC weighted by the user's number
        of targets; `gauc_users`, the users in it, and `gauc_users_left_out`, those whose targets are all of
        one class. `gauc` is None where no user has both classes.

    Raises:
        DataError: lengths differ, a label is not 0/1, a score is not a finite number in [0, 1], or only one
            class is present (AUC is then undefined).
    """
    label, group = check_labels(label, group)
    score = check_scores(score, len(label))
    if score.min() < 0 or score.max() > 1:
        raise DataError(
            "scores",
            f"values from {score.min()} to {score.max()}",
            "probabilities in [0, 1]",
            "pass the score through a softmax or sigmoid",
        )
    probability = np.clip(score.astype(np.float64), CLIP, 1 - CLIP)
    auc_of_user, num_targets = user_auc(label, score, group)
    both = ~np.isnan(auc_of_user)
    return {
        "auc": float(roc_auc_score(label, score)),
        "log_loss": float(log_loss(label, probability, labels=[0, 1])),
        "f1": float(f1_score(label, score >= F1_THRESHOLD, zero_division=0)),
        "gauc": float(np.average(auc_of_user[both], weights=num_targets[both])) if both.any() else None,
        "gauc_users": int(both.sum()),
        "gauc_users_left_out": int((~both).sum()),
    }


def user_auc(label: np.ndarray, score: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC of each user by the Mann-Whitney rank sum, in O(N log N) for all users together.

    Args:
        label, score, group: (N,) each; `group` holds every number of 0..U-1.

    Returns:
        (U,) float64 AUC, NaN for a user whose targets are all of one class, and (U,) number of targets.
    """
    # Users laid end to end on one rank axis: with users of 3 and 2 targets the ranks are 1..3 and 4..5,
    # ties averaged within a user only, since (user, score) pairs are what is ranked.
    order = np.lexsort((score, group))
    new_pair = np.ones(len(order), dtype=np.int64)
    new_pair[1:] = (np.diff(group[order]) != 0) | (np.diff(score[order]) != 0)
    rank = np.empty(len(order))
    rank[order] = rankdata(np.cumsum(new_pair))
    total = np.bincount(group)
    num_positive = np.bincount(group, weights=label, minlength=len(total))
    num_negative = total - num_positive
    ranks_before = np.cumsum(total) - total
    rank_sum = np.bincount(group, weights=rank * label, minlength=len(total)) - num_positive * ranks_before
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)
    return auc, total


def check_labels(label: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int8 and users renumbered 0..U-1 in the order of their numbers.

    Raises:
        DataError: empty, unequal lengths, a label other than 0 and 1, or one class only.
    """
    label, group = np.asarray(label), np.asarray(group)
    if label.ndim != 1 or label.shape != group.shape or len(label) == 0:
        raise DataError(
            "targets",
            f"labels {label.shape} and groups {group.shape}",
            "two equally long, non-empty columns",
            "pass the columns of one targets file",
        )
    values = np.unique(label)
    if not np.isin(values, (0, 1)).all():
        raise DataError(
            "labels", f"values {values[:5]}", "0 and 1 only", "check the label rule of the data set"
        )
    if len(values) < 2:
        raise DataError(
            "labels",
            f"every label is {values[0]}",
            "targets of both classes (AUC needs them)",
            "take more test targets",
        )
    return label.astype(np.int8), np.unique(group, return_inverse=True)[1]


def check_scores(score: np.ndarray, num_targets: int) -> np.ndarray:
    """Scores as float32, one per target.

    Raises:
        DataError: another length, or a NaN or infinity (naming the first such target).
    """
    score = np.asarray(score, dtype=np.float32)
    if score.shape != (num_targets,):
        raise DataError(
            "scores",
            f"shape {score.shape}",
            f"one score for each of {num_targets} targets",
            "score the test targets of this data set, protocol and tier",
        )
    bad = np.flatnonzero(~np.isfinite(score))
    if len(bad):
        raise DataError(
            f"scores, target {bad[0]}",
            f"{score[bad[0]]} ({len(bad)} of {num_targets} not finite)",
            "finite numbers",
            "the model diverged: lower the learning rate and train again",
        )
    return score
