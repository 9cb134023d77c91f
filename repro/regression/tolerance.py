"""Whether a retrained number is one more draw from a list of reference runs.

The list holds one value per seed. A new run of the same program is one more draw from the same distribution,
so it lies in the prediction interval

    mean +- t(m - 1; (1 + CONFIDENCE) / 2) * s * sqrt(1 + 1 / m)

with m runs and s their standard deviation (m - 1 in the denominator), seeds taken as normally distributed.
Example: 0.70 0.71 0.72 0.71 0.71 has mean 0.71 and s 0.0071; t(4; 0.995) = 4.60, so the interval is
0.71 +- 0.036. It is wide because five runs say little of s; more runs narrow it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import t as student

from repro.regression.findings import Finding, Verdict
from repro.reporting.formatting import bounds, score

CONFIDENCE = 0.99  # of the interval: an unchanged number falls outside once in a hundred
POWER = 0.9  # of the visible slip
ROUNDING = 1e-6  # two values closer than this are one value
HIGHER_IS_BETTER = {"auc": True, "log_loss": False}


def half_width(values: np.ndarray) -> float:
    """Of the prediction interval around the mean of (m,) values; m is at least 2."""
    return float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * _standard_error(values)


def visible_slip(values: np.ndarray) -> float:
    """The shift of the true mean that leaves the interval with probability `POWER`.

    half width + t(m - 1; POWER) * s * sqrt(1 + 1 / m): the shift brings the new run's own distribution as far
    past the bound as its lower 10 % reach.
    """
    return half_width(values) + float(student.ppf(POWER, len(values) - 1)) * _standard_error(values)


def judge(label: str, metric: str, reference: Mapping[int, float], seed: int, new: float) -> Finding:
    """Compare a new value with the list of its reference.

    Args:
        label: what the table calls it.
        metric: `auc` or `log_loss`, which decides which way is better.
        reference: seed -> value.
        seed: of the new run.
        new: its value.
    """
    values = np.array(list(reference.values()))
    mean, half = float(values.mean()), half_width(values)
    note = ""
    if abs(new - reference.get(seed, math.inf)) <= ROUNDING:
        verdict = Verdict.MATCH
    elif abs(new - mean) <= half:
        verdict = Verdict.WITHIN_NOISE
    else:
        better = (new > mean) == HIGHER_IS_BETTER[metric]
        verdict = Verdict.TOO_GOOD if better else Verdict.WORSE
        note = f"{new:.6f} is outside {bounds(mean - half, mean + half)}, what {len(values)} seeds allow"
    spread = bounds(float(values.min()), float(values.max()))
    slip = f"{visible_slip(values):.4f}"
    return Finding(label, verdict, score(mean), spread, score(new), slip, note)


def _standard_error(values: np.ndarray) -> float:
    """Of the difference between one more draw and the mean of these."""
    return float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(values))
