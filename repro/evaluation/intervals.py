"""Bootstrap over users and seeds: intervals for AUC and GAUC, paired differences, Holm, "no loss".

A method's scores become `Draws` once (the slow part, O(draws x targets) at most); intervals and differences
then cost next to nothing. Two methods' draws hold the same users, since users are drawn from the bootstrap
seed and the number of users alone: that is what makes differences paired. `docs/statistics.md` states it all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from repro.errors import DataError
from repro.evaluation.metrics import check_labels, check_scores, user_auc

NUM_DRAWS = 2000
BOOTSTRAP_SEED = 0
LEVEL = 0.95
NO_LOSS_MARGIN = 0.002  # stated before the runs: a loss of AUC below this counts as none
_SQUARE_PER_TARGET = 30  # up to so many users squared per target, a matrix of users is faster (measured)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, or a difference of two, with its bootstrap uncertainty."""

    mean: float  # over seeds, on all test targets (not the mean of the draws)
    low: float  # two-sided 95 % percentile interval
    high: float
    se: float  # standard deviation of the draws
    lower_bound: float  # one-sided 95 %: the 5 % quantile of the draws
    p_value: float  # two-sided, of "no difference" (or of AUC 0.5); at least 2 / (draws + 1)
    num_draws: int
    num_users: int
    num_seeds: int  # of a difference: of the method with fewer


@dataclass(frozen=True)
class Draws:
    """A metric of one method on every draw of users."""

    observed: np.ndarray  # (S,) on all targets, by seed
    drawn: np.ndarray  # (B, S) on each draw of users, by seed
    num_users: int
    bootstrap_seed: int
    fingerprint: str  # of metric, labels and users: only draws over the same targets can be paired


def draw_metric(
    label: np.ndarray,
    scores: Sequence[np.ndarray],
    group: np.ndarray,
    metric: Literal["auc", "gauc"] = "auc",
    num_draws: int = NUM_DRAWS,
    bootstrap_seed: int = BOOTSTRAP_SEED,
) -> Draws:
    """Metric of each seed on `num_draws` resamples of the users.

    A user is drawn with all of their targets, since targets of one user are not independent. A draw on which
    the metric is undefined (it holds one class only) is drawn again.

    Args:
        label, group: (N,) 0/1 and user number of each target.
        scores: one (N,) array per seed, on the same targets.

    Raises:
        DataError: as `evaluate_scores`; no seed; one user only; no user with both classes (GAUC).
    """
    label, group = check_labels(label, group)
    num_users = int(group.max()) + 1
    if num_users < 2:
        raise DataError("targets", "one user", "at least two users to draw from", "take more test targets")
    if len(scores) == 0:
        raise DataError("scores", "no seed", "one array of scores per seed", "pass at least one run")
    scores = [check_scores(score, len(label)) for score in scores]
    statistic = auc_of_draws if metric == "auc" else gauc_of_draws
    positives = np.bincount(group, weights=label, minlength=num_users)
    negatives = np.bincount(group, weights=1 - label, minlength=num_users)
    if metric == "gauc" and not (positives * negatives).any():
        raise DataError("targets", "no user has both classes", "some, for a GAUC", "take more test targets")
    # Whether a draw is usable depends on labels and users alone, so every method skips the same draws.
    needed = [positives * negatives] if metric == "gauc" else [positives, negatives]
    count = _drawn_users(np.stack(needed).tobytes(), num_users, num_draws, bootstrap_seed)
    values = np.stack([statistic(label, score, group, count) for score in scores], axis=1)
    content = metric.encode() + label.tobytes() + group.astype(np.int64).tobytes()
    return Draws(values[0], values[1:], num_users, bootstrap_seed, hashlib.sha256(content).hexdigest())


@lru_cache(maxsize=2)  # all methods on the same targets share their draws
def _drawn_users(needed: bytes, num_users: int, num_draws: int, bootstrap_seed: int) -> np.ndarray:
    """(1 + B, U) uint16 times that each user counts: once, as observed, then as drawn.

    Args:
        needed: rows of (U,) float64; a draw in which a row sums to nothing is drawn again.
    """
    rows = np.frombuffer(needed).reshape(-1, num_users)
    random = np.random.default_rng([bootstrap_seed, 0])
    count = np.ones((1 + num_draws, num_users), dtype=np.uint16)
    for row in count[1:]:
        usable = False
        while not usable:
            row[:] = np.bincount(random.integers(num_users, size=num_users), minlength=num_users)
            usable = (rows @ row).all()
    count.flags.writeable = False
    return count


def auc_of_draws(label: np.ndarray, score: np.ndarray, group: np.ndarray, count: np.ndarray) -> np.ndarray:
    """AUC over all targets for each row of how often each user counts.

    AUC = pairs won / (all positive weight x all negative weight), where a pair is won by the positive that
    scores higher, ties counted half. Weights are whole numbers, so sums below 2**52 are exact: both ways of
    counting pairs give the same AUC, and the one that takes fewer operations is taken.

    Args:
        label, score, group: (N,) 0/1, score and user number of each target.
        count: (B, U) times that each user was drawn; a draw needs both classes.

    Returns:
        (B,) AUC.
    """
    order = np.argsort(score, kind="stable")
    label, score, group = label[order], score[order], group[order]
    negative, positive = label == 0, label == 1
    ranked = Ranked(
        group[negative],
        group[positive],
        below=np.searchsorted(score[negative], score[positive], side="left"),
        up_to=np.searchsorted(score[negative], score[positive], side="right"),
    )
    num_users = count.shape[1]
    few_users = num_users**2 <= _SQUARE_PER_TARGET * len(label)
    won = (pairs_won_by_users if few_users else pairs_won_by_draw)(ranked, count)
    of_user = [np.bincount(users, minlength=num_users) for users in (ranked.positive, ranked.negative)]
    num_positives, num_negatives = (count @ each.astype(np.float64) for each in of_user)
    return won / (num_positives * num_negatives)


class Ranked(NamedTuple):
    """Targets in the order of their scores, and where each positive stands among the negatives.

    Example: negatives at 1 2 2 5, a positive at 2: below = 1, up_to = 3, one win and two ties.

    Attributes:
        negative: (Nn,) users of the negatives. positive: (Np,) users of the positives.
        below, up_to: (Np,) how many negatives score less than a positive, and less or the same.
    """

    negative: np.ndarray
    positive: np.ndarray
    below: np.ndarray
    up_to: np.ndarray


def pairs_won_by_users(ranked: Ranked, count: np.ndarray) -> np.ndarray:
    """c W c for each draw c, with W[u, v] the pairs that u's positives win against v's negatives.

    O(U x N) for W and O(B x U^2) for all draws.

    Args:
        count: (B, U) times that each user was drawn.

    Returns:
        (B,) pairs won.
    """
    num_users, weight = count.shape[1], count.astype(np.float64)
    by_user = np.argsort(ranked.positive, kind="stable")
    edges = np.searchsorted(ranked.positive[by_user], np.arange(num_users + 1))
    wins = np.zeros((num_users, num_users))  # 2 W
    for user in np.unique(ranked.positive):
        mine = by_user[edges[user] : edges[user + 1]]
        ends = np.concatenate([ranked.below[mine], ranked.up_to[mine]])
        up_to_each = np.bincount(ends, minlength=len(ranked.negative) + 1)
        beyond = up_to_each[:0:-1].cumsum()[::-1]  # (Nn,) ends beyond each negative
        wins[user] = np.bincount(ranked.negative, weights=beyond, minlength=num_users)
    return ((weight @ wins.T) * weight).sum(axis=1) / 2


def pairs_won_by_draw(ranked: Ranked, count: np.ndarray) -> np.ndarray:
    """As `pairs_won_by_users`, in O(B x N): with c the cumulated weight of the negatives, a positive wins
    (c[below] + c[up_to]) / 2 of it.
    """
    tied = bool((ranked.below != ranked.up_to).any())
    cumulated = np.zeros(len(ranked.negative) + 1)
    won = np.empty(len(count))
    for draw, times in enumerate(count):
        np.cumsum(times[ranked.negative], out=cumulated[1:])
        weight = times[ranked.positive].astype(np.float64)
        won[draw] = weight @ cumulated[ranked.below]
        if tied:
            won[draw] = (won[draw] + weight @ cumulated[ranked.up_to]) / 2
    return won


def gauc_of_draws(label: np.ndarray, score: np.ndarray, group: np.ndarray, count: np.ndarray) -> np.ndarray:
    """GAUC of each draw, in and out as `auc_of_draws`: a ratio of sums over users with both classes."""
    auc, num_targets = user_auc(label, score, group)
    both = ~np.isnan(auc)
    weight = count[:, both] * num_targets[both]
    with np.errstate(invalid="ignore"):  # a draw without such users has none
        return weight @ auc[both] / weight.sum(axis=1)


def interval(draws: Draws, null: float = 0.5) -> Interval:
    """Interval of a method's mean over seeds; the p-value is of the mean being `null`."""
    values = _over_seeds(draws, stream=1)
    num_seeds = len(draws.observed)
    return _summary(float(draws.observed.mean()), values, null, draws.num_users, num_seeds)


def paired_difference(first: Draws, second: Draws) -> Interval:
    """Interval of `first` minus `second`, means over seeds, on the same draws of users.

    Seeds of the two methods are drawn independently of each other: seed 0 of one method and seed 0 of another
    share a number, but not a course of training, and the methods may have different numbers of seeds. The
    alternative, drawing seed numbers jointly, gives narrower intervals where equal seeds go up and down
    together; where they do, the reading taken here errs to the safe side.

    Raises:
        DataError: the draws are not over the same targets, metric, bootstrap seed and number of draws.
    """
    same = first.fingerprint == second.fingerprint and first.bootstrap_seed == second.bootstrap_seed
    if not same or len(first.drawn) != len(second.drawn):
        raise DataError(
            "paired difference",
            "draws over different targets, metrics or bootstrap settings",
            "two methods tested on the identical targets",
            "compare runs of one data set, protocol and tier",
        )
    mean = float(first.observed.mean() - second.observed.mean())
    # Which of the two draws its seeds first depends on the two alone: asked the other way round, a difference
    # has the same interval with its signs turned, and the same p-value.
    one, other = ((each.observed.tolist(), each.drawn.tobytes()) for each in (first, second))
    streams = (1, 2) if one <= other else (2, 1)
    values = _over_seeds(first, streams[0]) - _over_seeds(second, streams[1])
    num_seeds = min(len(first.observed), len(second.observed))
    return _summary(mean, values, 0.0, first.num_users, num_seeds)


def _over_seeds(draws: Draws, stream: int) -> np.ndarray:
    """(B,) mean over a draw of seeds, on each draw of users.

    S seeds drawn from S have a mean whose variance is (S - 1) / S of what it should be (a third too little
    at S = 3), so its deviation from the mean over all seeds is stretched by sqrt(S / (S - 1)). With one seed
    the interval holds the users' share only.
    """
    num_draws, num_seeds = draws.drawn.shape
    over_all = draws.drawn.mean(axis=1)
    if num_seeds == 1:
        return over_all
    random = np.random.default_rng([draws.bootstrap_seed, stream])
    picked = random.integers(num_seeds, size=(num_draws, num_seeds))
    over_picked = np.take_along_axis(draws.drawn, picked, axis=1).mean(axis=1)
    return over_all + (over_picked - over_all) * np.sqrt(num_seeds / (num_seeds - 1))


def _summary(mean: float, values: np.ndarray, null: float, num_users: int, num_seeds: int) -> Interval:
    tail = (1 - LEVEL) / 2
    low, lower_bound, high = np.quantile(values, [tail, 1 - LEVEL, 1 - tail])
    # The p-value inverts the percentile interval: it falls below 0.05 where the interval leaves out `null`.
    # Counting the observed value itself (+1) keeps it from being 0.
    beyond = min(int((values <= null).sum()), int((values >= null).sum()))
    return Interval(
        mean=mean,
        low=float(low),
        high=float(high),
        se=float(values.std(ddof=1)),
        lower_bound=float(lower_bound),
        p_value=min(1.0, 2 * (beyond + 1) / (len(values) + 1)),
        num_draws=len(values),
        num_users=num_users,
        num_seeds=num_seeds,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979) of a table's p-values, in their order.

    The i-th smallest of m is multiplied by m - i + 1, never falling below a smaller one's, at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def smallest_detectable_difference(se: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """True difference that a two-sided test at `alpha` finds with probability `power`, given its SE.

    (z(1 - alpha/2) + z(power)) x se = 2.80 se by default, in the unit of `se`.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * se


def no_loss(difference: Interval, margin: float = NO_LOSS_MARGIN) -> bool:
    """Whether `difference` (new minus reference) rules out a loss of `margin`: one-sided 95 % bound above."""
    return difference.lower_bound > -margin
