"""Choice of learning rate and ALiBi slope on the validation split: eight trials for every method.

Nothing here reads a test target. All trials go into `results/selection/<tier>-<dataset>.json`; the choice
(best validation AUC) is written down in `selected.py`, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from repro.experiments.run_config import RunConfig, Tier
from repro.methods.dti import PAPER_FIXES, dti, dti_minus, dti_tuned
from repro.methods.method import SumMethod
from repro.methods.sliding_window import sliding_window

LEARNING_RATES = (5e-5, 1e-4, 2e-4, 3e-4, 4e-4, 6e-4, 8e-4, 1.6e-3)
DTI_LEARNING_RATES = (1e-4, 2e-4, 4e-4, 8e-4)
SLOPES = (0.01, 0.1)
SELECTION_K = 50
VALIDATION_TARGETS = 4000  # more than the tiers validate on while training: a choice needs a small error


@dataclass(frozen=True)
class Trial:
    """One setting of one method family, e.g. `sw`; the slope is None where the family has none."""

    family: str
    learning_rate: float
    alibi_slope: float | None
    config: RunConfig


def trials(tier: Tier, dataset: str, protocol: str) -> Iterator[Trial]:
    """Eight trials for each family, seed 0, at k = 50 for the DTI families."""
    subset = replace(tier.subset, validation_targets=VALIDATION_TARGETS, test_targets=1)
    tier = replace(tier, subset=subset)

    def trial(family: str, recipe: str, method: SumMethod, rate: float, slope: float | None = None) -> Trial:
        chosen = replace(tier, training=replace(tier.training, learning_rate=rate))
        return Trial(family, rate, slope, RunConfig(method, recipe, chosen, dataset, protocol, seed=0))

    for rate in LEARNING_RATES:
        yield trial("sw", "paper", sliding_window(tier.n), rate)
        yield trial("dti-minus", "paper", dti_minus(tier.n, SELECTION_K), rate)
        yield trial("dti-tuned", "tuned", dti_tuned(tier.n, SELECTION_K), rate)
    for rate in DTI_LEARNING_RATES:
        for slope in SLOPES:
            method = dti(tier.n, SELECTION_K, replace(PAPER_FIXES, alibi_slope=slope))
            yield trial("dti", "paper", method, rate, slope)
