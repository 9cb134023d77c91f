"""The tolerance: its formula, its false alarms, its visible slip, and the verdicts on either side."""

from __future__ import annotations

import math

import numpy as np
import pytest

from repro.regression import tolerance
from repro.regression.findings import Finding, Verdict, render
from repro.regression.tolerance import CONFIDENCE, POWER, half_width, judge, visible_slip

VALUES = np.array([0.70, 0.71, 0.72, 0.71, 0.71])
REFERENCE = dict(enumerate(VALUES))


def test_half_width_of_five_runs_by_hand() -> None:
    """4.604 is the 99.5 % point of Student's t with four degrees of freedom, from a printed table."""
    deviation = math.sqrt(2 * 0.01**2 / 4)
    assert half_width(VALUES) == pytest.approx(4.604 * deviation * math.sqrt(1.2), rel=1e-3)


def test_an_unchanged_program_is_outside_once_in_a_hundred() -> None:
    draws = np.random.default_rng(0).normal(0.7, 0.01, (4000, 6))
    outside = np.mean([abs(row[5] - row[:5].mean()) > half_width(row[:5]) for row in draws])
    assert outside == pytest.approx(1 - CONFIDENCE, abs=0.005)


def test_a_shift_by_the_visible_slip_is_seen_nine_times_in_ten() -> None:
    draws = np.random.default_rng(1).normal(0.0, 1.0, (4000, 9))
    slip = np.mean([visible_slip(row[:8]) for row in draws])
    seen = np.mean([row[8] + slip > row[:8].mean() + half_width(row[:8]) for row in draws])
    assert seen == pytest.approx(POWER, abs=0.06)


@pytest.mark.parametrize(
    ("metric", "new", "verdict"),
    [
        ("auc", 0.70, Verdict.MATCH),
        ("auc", 0.70 + 5e-7, Verdict.MATCH),
        ("auc", 0.7001, Verdict.WITHIN_NOISE),
        ("auc", 0.71 - 0.0355, Verdict.WITHIN_NOISE),
        ("auc", 0.71 - 0.0360, Verdict.WORSE),
        ("auc", 0.71 + 0.0360, Verdict.TOO_GOOD),
        ("log_loss", 0.71 - 0.0360, Verdict.TOO_GOOD),
        ("log_loss", 0.71 + 0.0360, Verdict.WORSE),
    ],
)
def test_verdicts(metric, new, verdict) -> None:
    found = judge("row", metric, REFERENCE, 0, new)
    assert found.verdict is verdict
    assert found.passes == (verdict in (Verdict.MATCH, Verdict.WITHIN_NOISE))
    assert (found.mean, found.spread) == ("0.7100", "[0.7000, 0.7200]")


def test_a_list_without_spread_allows_nothing_but_rounding() -> None:
    flat = dict.fromkeys(range(5), 0.7)
    assert judge("row", "auc", flat, 0, 0.7 + 9e-7).verdict is Verdict.MATCH
    assert judge("row", "auc", flat, 0, 0.7 + 2e-6).verdict is Verdict.TOO_GOOD


def test_a_value_of_another_seed_is_no_match() -> None:
    assert judge("row", "auc", REFERENCE, 1, 0.70).verdict is Verdict.WITHIN_NOISE


def test_the_table_says_how_it_ended() -> None:
    good, bad = judge("a", "auc", REFERENCE, 0, 0.70), Finding("b", Verdict.NOT_RUN, note="why")
    assert render([good]).endswith("regression: ok")
    text = render([good, bad])
    assert text.endswith("regression: 1 of 2 FAILED") and "b: not run: why" in text
    for column in tolerance.bounds(0.70, 0.72), "0.7100", "match":
        assert column in text.splitlines()[2]
