"""Bootstrap against naive resampling, known truths and known adjustments."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from repro.errors import DataError
from repro.evaluation import intervals
from repro.evaluation.intervals import (
    Draws,
    Interval,
    auc_of_draws,
    draw_metric,
    gauc_of_draws,
    holm,
    interval,
    no_loss,
    paired_difference,
    smallest_detectable_difference,
)
from repro.evaluation.metrics import evaluate_scores


def simulate(num_users=80, per_user=20, seed_spread=0.0, num_seeds=1, random=None, shift=0.0):
    """Targets of a population with known AUC.

    score = separation x label + user effect + noise, all normal, the user effect as large as the noise, so
    that targets of one user are far from independent. A pair of different users has score difference
    separation + N(0, 2 x 1 + 2 x 1): AUC = Phi(separation / 2).
    """
    random = np.random.default_rng(0) if random is None else random
    group = np.repeat(np.arange(num_users), per_user)
    # Users who like much and users who like little: label and user effect stay independent in the population.
    like_rate = np.repeat(random.uniform(0.02, 0.98, num_users), per_user)
    label = (random.random(len(group)) < like_rate).astype(np.int8)
    base = np.repeat(random.normal(size=num_users), per_user) + random.normal(size=len(group))
    separations = 1 + shift + seed_spread * random.normal(size=num_seeds)
    return label, [base + separation * label for separation in separations], group


TRUE_AUC = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))


@st.composite
def weighted_targets(draw):
    num_targets = draw(st.integers(2, 40))
    column = lambda low, high: st.lists(st.integers(low, high), min_size=num_targets, max_size=num_targets)  # noqa: E731
    label, score = np.array(draw(column(0, 1))), np.array(draw(column(0, 6)), dtype=np.float32)
    _, group = np.unique(draw(column(0, 4)), return_inverse=True)
    count = np.array(draw(st.lists(st.integers(0, 3), min_size=5, max_size=5)))[: group.max() + 1]
    return label, score, group, count


@given(weighted_targets())
def test_weighted_auc_equals_scikit_learn_on_repeated_rows(targets):
    label, score, group, count = targets
    rows = np.repeat(np.arange(len(label)), count[group])
    assume(0 < label[rows].sum() < len(rows))
    expected = roc_auc_score(label[rows], score[rows])
    found = auc_of_draws(label, score, group, count[None].astype(float))[0]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 9])  # with ties and without
def test_both_ways_of_counting_pairs_give_the_same_bits(monkeypatch, decimals):
    label, (score,), group = simulate()
    drawn = []
    for few_users in (0, np.inf):
        monkeypatch.setattr(intervals, "_SQUARE_PER_TARGET", few_users)
        drawn.append(draw_metric(label, [score.round(decimals)], group, num_draws=50).drawn)
    assert (drawn[0] == drawn[1]).all()


@given(weighted_targets())
def test_weighted_gauc_equals_gauc_of_users_copied_as_new_users(targets):
    label, score, group, count = targets
    copies = [(np.flatnonzero(group == u)) for u in range(len(count)) for _ in range(count[u])]
    assume(copies)
    rows = np.concatenate(copies)
    new_group = np.repeat(np.arange(len(copies)), [len(copy) for copy in copies])
    assume(0 < label[rows].sum() < len(rows))
    expected = evaluate_scores(label[rows], score[rows] / 6, new_group)["gauc"]
    found = gauc_of_draws(label, score, group, count[None].astype(float))[0]
    assert np.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ["auc", "gauc"])
def test_mean_is_the_mean_of_the_seeds_metrics(metric):
    label, scores, group = simulate(num_seeds=3, seed_spread=0.3)
    probability = [1 / (1 + np.exp(-score)) for score in scores]
    draws = draw_metric(label, probability, group, metric, num_draws=50)
    expected = np.mean([evaluate_scores(label, score, group)[metric] for score in probability])
    found = interval(draws)
    assert found.mean == pytest.approx(expected, abs=1e-12)
    assert found.low < found.lower_bound < found.mean < found.high
    assert (found.num_draws, found.num_users, found.num_seeds) == (50, 80, 3)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Users as the unit: 95 % intervals cover about 95 %; drawing targets one by one covers far less."""
    random = np.random.default_rng(7)
    covered = bounded = covered_by_rows = 0
    repeats = 150
    for _ in range(repeats):
        label, scores, group = simulate(random=random)
        found = interval(draw_metric(label, scores, group, num_draws=400))
        covered += found.low <= TRUE_AUC <= found.high
        bounded += found.lower_bound <= TRUE_AUC
        by_rows = interval(draw_metric(label, scores, np.arange(len(label)), num_draws=200))
        covered_by_rows += by_rows.low <= TRUE_AUC <= by_rows.high
    assert 0.90 <= covered / repeats <= 0.99
    assert 0.90 <= bounded / repeats <= 0.99
    assert covered_by_rows / repeats < covered / repeats - 0.1


def test_standard_error_holds_the_spread_of_seeds():
    """Few seeds: the SE matches the true spread of the mean on average, not (S - 1) / S of its variance."""
    random = np.random.default_rng(3)
    means, variances = [], []
    for _ in range(150):
        label, scores, group = simulate(
            num_users=60, per_user=10, seed_spread=0.8, num_seeds=3, random=random
        )
        found = interval(draw_metric(label, scores, group, num_draws=200))
        means.append(found.mean)
        variances.append(found.se**2)
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.25)


@pytest.mark.parametrize("num_seeds", [2, 3, 10])
def test_seeds_alone_give_the_textbook_standard_error(num_seeds):
    observed = np.random.default_rng(num_seeds).normal(size=num_seeds)
    draws = Draws(observed, np.tile(observed, (20_000, 1)), num_users=10, bootstrap_seed=0, fingerprint="")
    assert interval(draws).se == pytest.approx(observed.std(ddof=1) / np.sqrt(num_seeds), rel=0.03)


def test_three_seeds_alone_cover_about_four_times_in_five():
    """What docs/statistics.md warns of: no resampling of three values shows how far a fourth may lie."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        observed = 0.7 + 0.01 * random.normal(size=3)
        draws = Draws(observed, np.tile(observed, (400, 1)), num_users=10, bootstrap_seed=0, fingerprint="")
        found = interval(draws)
        covered += found.low <= 0.7 <= found.high
    assert 0.74 <= covered / 400 <= 0.88


def test_pairing_finds_a_difference_that_unpaired_intervals_hide():
    random = np.random.default_rng(5)
    label, (score,), group = simulate(random=random)
    better = score + 0.05 * label
    draws, draws_better = draw_metric(label, [score], group), draw_metric(label, [better], group)
    difference = paired_difference(draws_better, draws)
    assert difference.low > 0
    assert difference.p_value < 0.05
    assert interval(draws_better).low < interval(draws).high
    assert difference.se < 0.2 * interval(draws).se
    assert difference.mean == pytest.approx(interval(draws_better).mean - interval(draws).mean)


def test_a_difference_is_the_same_from_either_side():
    """Two pages may ask for it in different orders."""
    label, scores, group = simulate(num_seeds=6, seed_spread=0.3)
    first, second = draw_metric(label, scores[:3], group), draw_metric(label, scores[3:], group)
    level = Draws(first.observed, second.drawn, first.num_users, 0, first.fingerprint)  # but for the draws
    for one, other in ((first, second), (first, level)):
        there, back = paired_difference(one, other), paired_difference(other, one)
        assert there.se > 0 and (there.se, there.p_value) == (back.se, back.p_value)
        assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


def test_p_values_under_no_difference_are_small_as_often_as_they_may_be():
    random = np.random.default_rng(11)
    repeats, small = 150, 0
    for _ in range(repeats):
        label, (score,), group = simulate(num_users=50, per_user=10, random=random)
        noisy = [[score + 0.5 * random.normal(size=len(score))] for _ in range(2)]
        first, second = (draw_metric(label, scores, group, num_draws=300) for scores in noisy)
        small += paired_difference(first, second).p_value < 0.1
    assert 0.04 <= small / repeats <= 0.18


def test_p_value_agrees_with_the_interval_and_is_never_zero():
    label, (score,), group = simulate()
    draws = draw_metric(label, [score], group)
    same = paired_difference(draws, draws)
    assert (same.mean, same.se, same.p_value) == (0, 0, 1)
    assert interval(draws).p_value == pytest.approx(2 / 2001)  # far above chance
    inside = interval(draws, null=float(np.quantile(draws.drawn, 0.03)))
    outside = interval(draws, null=float(np.quantile(draws.drawn, 0.02)))
    assert inside.p_value > 0.05 > outside.p_value


def test_a_method_draws_the_same_users_alone_or_in_company():
    label, scores, group = simulate(num_seeds=2, seed_spread=1.0)
    together = draw_metric(label, scores, group, num_draws=20)
    alone = draw_metric(label, scores[1:], group, num_draws=20)
    assert np.array_equal(together.drawn[:, 1:], alone.drawn)
    assert np.array_equal(draw_metric(label, scores, group, num_draws=20).drawn, together.drawn)
    other = draw_metric(label, scores, group, num_draws=20, bootstrap_seed=1)
    assert not np.array_equal(other.drawn, together.drawn)


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(0, 10))
def test_draws_with_one_class_are_drawn_again(num_likers, seed):
    """One user holds all positives: without redrawing, a third of the draws would have none."""
    label = np.array([1] * num_likers + [0] * 5)
    group = np.array([0] * num_likers + [1, 2, 3, 4, 5])
    draws = draw_metric(label, [np.linspace(1, 0, len(label))], group, num_draws=30, bootstrap_seed=seed)
    assert np.array_equal(draws.drawn, np.ones((30, 1)))


def test_unlike_targets_cannot_be_paired():
    label, (score,), group = simulate()
    draws = draw_metric(label, [score], group, num_draws=10)
    others = [
        draw_metric(1 - label, [score], group, num_draws=10),
        draw_metric(label, [score], group // 2, num_draws=10),
        draw_metric(label, [score], group, num_draws=11),
        draw_metric(label, [score], group, num_draws=10, bootstrap_seed=1),
        draw_metric(label, [score], group, "gauc", num_draws=10),
    ]
    for other in others:
        with pytest.raises(DataError, match="different targets"):
            paired_difference(draws, other)


@pytest.mark.parametrize(
    ("change", "metric", "message"),
    [
        ({"scores": []}, "auc", "no seed"),
        ({"scores": [[0.1, 0.2, np.nan, 0.4]]}, "auc", "target 2"),
        ({"group": [3, 3, 3, 3]}, "auc", "one user"),
        ({"label": [1, 1, 1, 1]}, "auc", "every label is 1"),
        ({"group": [0, 1, 2, 3]}, "gauc", "no user has both classes"),
    ],
)
def test_bad_input_gives_no_interval(change, metric, message):
    inputs = {"label": [0, 1, 1, 0], "scores": [[0.1, 0.2, 0.3, 0.4]], "group": [0, 0, 1, 1]} | change
    with pytest.raises(DataError, match=message):
        draw_metric(
            np.array(inputs["label"]), [np.array(s) for s in inputs["scores"]], inputs["group"], metric
        )


def test_two_thousand_draws_of_ten_thousand_targets_and_three_seeds_are_fast():
    random = np.random.default_rng(0)
    label, group = random.integers(2, size=10_000), random.integers(166, size=10_000)
    scores = [random.random(10_000).astype(np.float32) for _ in range(3)]
    begin = time.process_time()
    draw_metric(label, scores, group)
    assert time.process_time() - begin < 3


def test_holm_on_a_known_example():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(p_values):
    adjusted = np.array(holm(p_values))
    raw = np.array(p_values)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * len(raw))).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()


def test_smallest_detectable_difference_is_found_with_the_stated_power():
    assert smallest_detectable_difference(0.0015) == pytest.approx(0.0042, abs=5e-5)
    estimate = np.random.default_rng(0).normal(smallest_detectable_difference(1.0), 1.0, 100_000)
    assert (abs(estimate) > 1.959964).mean() == pytest.approx(0.8, abs=0.005)


def test_no_loss_needs_the_bound_above_the_margin():
    def difference(lower_bound):
        return Interval(0.0, lower_bound, 0.01, 0.001, lower_bound, 1.0, 2000, 10, 3)

    assert no_loss(difference(-0.0019))
    assert not no_loss(difference(-0.0021))
    assert no_loss(difference(-0.0021), margin=0.003)
