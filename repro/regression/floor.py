"""The floor fitted again: it takes seconds without a training loop, so every stored score is checked."""

from __future__ import annotations

import numpy as np
import torch

from baselines.method import IdMethod
from baselines.rates import Rates
from repro.data import TEST, PreparedData
from repro.experiments.baselines import FLOOR, floor_method
from repro.records.columns import storable
from repro.records.schema import OK
from repro.records.store import Run

FLOOR_TOLERANCE = 1e-5  # of a probability: a step of the stored 17 bits is 8e-6, and another BLAS may round


def method_of(run: Run) -> IdMethod | None:
    """The fitted method that a run's record names, as the program has it; None for every other method."""
    config = run.record["config"]
    methods = (floor_method(row, config["n"] or 1) for row in FLOOR)  # n: of `rates-recent` alone
    return next((method for method in methods if method.name == config["method"]), None)


def floor_problems(run: Run, data: PreparedData) -> list[str]:
    """Where the scores of a fitted method are not those of a fit today; empty if nowhere.

    Args:
        run: an ok run of a fitted method, with the test targets of `data`.
        data: the share of the prepared data that the run had.

    Raises:
        RecordError: scores or targets are damaged.
    """
    method = method_of(run)
    assert method is not None, "chosen by `method_of`"
    if run.status != OK:
        return []
    stored = run.scores()
    logit = Rates(data, method.model).row_logit[torch.from_numpy(data.targets(TEST))]
    fitted = storable(torch.sigmoid(logit).numpy())
    if len(fitted) != len(stored):
        return [f"{run.path}: {len(stored)} scores, the source files give {len(fitted)} test targets"]
    gap = np.abs(stored - fitted)
    worst = int(gap.argmax())
    if gap[worst] <= FLOOR_TOLERANCE:
        return []
    many = int((gap > FLOOR_TOLERANCE).sum())
    return [f"{run.path}: {many} scores differ, target {worst} by {gap[worst]:.1e} from a fit of today"]
