"""Table 3 of DTI: training time until convergence of SW and of DTI at k = 10, 30, 50."""

from __future__ import annotations

from dataclasses import replace

from repro.experiments.run_config import RunConfig, Tier
from repro.experiments.table1 import table1_runs

MAX_EPOCHS, PATIENCE = 10, 2
# The seeds of the table's claim, SW against k = 50, come from the tier; the rows between are one run each.
SEEDED = ("sw", "dti-50", "dti-tuned-50")
ONCE = ("dti-30", "dti-10")


def table3_runs(
    tier: Tier, dataset: str, protocol: str, selection: str | None, seeds: int
) -> list[RunConfig]:
    """Runs that end by the page's rule: two epochs without a better validation AUC, ten at most.

    The paper trains 10 epochs with early stopping at a patience of 2 and gives hours until convergence.
    Reading taken: the time to the end of the best epoch, validation apart; the time until the rule stops
    stands beside it. The runs are `control` runs: tables of one-epoch runs do not show them.

    Args:
        selection: rows as in `table1`; None: SW and k = 50 in both recipes, then k = 30 and 10.
        seeds: of SW and k = 50; other rows have one, unless they are named in the selection.
    """
    longer = until_convergence(tier)
    if selection is not None:
        runs = table1_runs(longer, dataset, protocol, selection, seeds)
    else:
        runs = table1_runs(longer, dataset, protocol, ",".join(SEEDED), seeds)
        runs += table1_runs(longer, dataset, protocol, ",".join(ONCE), 1)
    return [replace(run, recipe="control") for run in runs]


def until_convergence(tier: Tier) -> Tier:
    """The tier with training that ends by the page's rule."""
    return replace(tier, training=replace(tier.training, max_epochs=MAX_EPOCHS, patience=PATIENCE))
