"""BAHE's quality page: which runs, with which learning rates, and what was tried to choose them.

BAHE, LLM-CTR and DTI over BAHE, beside the sliding window, DTI (tuned recipe) and DIN on the same targets.
Rows of the group `more` are about what these leave open: `llm-ctr-recent` reads every text once (of LLM-CTR's
usual sequences, two hold each interaction), `dti-bahe-1` streams nothing (what it differs from BAHE in is the
form), and those that end in `-longer` train until convergence by table 3's rule.

Every method of the family is tried with the same learning rates on the validation split (`trials`); the best
by validation AUC is written down in `selected_bahe.py`, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from repro.experiments.rows import pick_rows
from repro.experiments.run_config import RunConfig, Tier
from repro.experiments.selected_bahe import SELECTED, UNSEARCHED
from repro.experiments.selection import Trial
from repro.experiments.table1 import table1_runs
from repro.experiments.table3 import until_convergence
from repro.methods.bahe.settings import BaheMethod, bahe, dti_bahe, llm_ctr

KS = (50, 10)
SELECTION_K = 50
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
VALIDATION_TARGETS = 2000  # for a choice, where a tier validates on fewer while training
FAMILIES: dict[str, Callable[[int], BaheMethod]] = {
    "bahe": bahe,
    "dti-bahe": lambda n: dti_bahe(n, SELECTION_K),
    "llm-ctr": llm_ctr,
}
RECENT, LONGER = "llm-ctr-recent", "-longer"
OWN = ("bahe", "llm-ctr", *(f"dti-bahe-{k}" for k in KS))
MORE = (RECENT, "dti-bahe-1", f"bahe{LONGER}", f"dti-bahe-{SELECTION_K}{LONGER}")
PARTNERS = ("sw", "dti-tuned-50", "din")
GROUPS = {"all": (*OWN, *PARTNERS), "own": OWN, "more": MORE}


def bahe_runs(tier: Tier, dataset: str, protocol: str, selection: str | None, seeds: int) -> list[RunConfig]:
    """All runs of the selected rows, row by row; None is all of them but `more`.

    Raises:
        ConfigError: an unknown row.
    """
    from repro.experiments.baselines import baseline_runs  # imports torch

    runs: list[RunConfig] = []
    for row in pick_rows(selection, (*OWN, *MORE, *PARTNERS), GROUPS):
        if row == "din":
            runs += baseline_runs(tier, dataset, protocol, row, seeds)
        elif row in PARTNERS:
            runs += table1_runs(tier, dataset, protocol, row, seeds)
        else:
            method = _method(row.removesuffix(LONGER), tier.n)
            chosen = with_learning_rate(tier, learning_rate(tier, method.name))
            chosen = until_convergence(chosen) if row.endswith(LONGER) else chosen
            runs += [RunConfig(method, "tuned", chosen, dataset, protocol, seed) for seed in range(seeds)]
    return runs


def _method(row: str, n: int) -> BaheMethod:
    if row == RECENT:
        return replace(llm_ctr(n), sequences=("recent",))
    family, _, k = row.rpartition("-")
    return dti_bahe(n, int(k)) if family == "dti-bahe" else FAMILIES[row](n)


def learning_rate(tier: Tier, method: str) -> float:
    """The chosen one; one common value where nobody has searched."""
    return SELECTED.get(tier.name, {}).get(method, UNSEARCHED)


def with_learning_rate(tier: Tier, rate: float) -> Tier:
    """The tier with another learning rate."""
    return replace(tier, training=replace(tier.training, learning_rate=rate))


def trials(tier: Tier, dataset: str, protocol: str) -> Iterator[Trial]:
    """The same learning rates for each method, seed 0; DTI over BAHE at k = 50."""
    if tier.subset.validation_targets is not None:
        subset = replace(tier.subset, validation_targets=VALIDATION_TARGETS, test_targets=1)
        tier = replace(tier, subset=subset)
    for family, method in FAMILIES.items():
        for rate in LEARNING_RATES:
            config = RunConfig(method(tier.n), "tuned", with_learning_rate(tier, rate), dataset, protocol, 0)
            yield Trial(family, rate, None, config)
