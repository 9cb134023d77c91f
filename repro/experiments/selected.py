"""What `selection.py` chose, by tier and method family; trials are in `results/selection/`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Selected:
    """Learning rate of a family, and ALiBi slope where it has one."""

    learning_rate: float
    alibi_slope: float = 0.01


_CPU = {
    "sw": Selected(3e-4),
    "dti-minus": Selected(3e-4),
    "dti": Selected(4e-4, 0.01),
    "dti-tuned": Selected(4e-4),
}
# Searched on ml-100k; ml-1m has ten times as many targets, and no search of its own.
# The slope of `dti` is the larger of the two tried: steeper ones might be better still.
_GPU = {
    "sw": Selected(4e-4),
    "dti-minus": Selected(1e-4),
    "dti": Selected(2e-4, 0.1),
    "dti-tuned": Selected(3e-4),
}
# Not searched, so no trials are in `results/selection/`: one common value for all families.
_PAPER = {
    "sw": Selected(2e-4),
    "dti-minus": Selected(2e-4),
    "dti": Selected(2e-4, 0.01),
    "dti-tuned": Selected(2e-4),
}
SELECTED = {"cpu": _CPU, "gpu": _GPU, "paper": _PAPER, "test": _CPU}
