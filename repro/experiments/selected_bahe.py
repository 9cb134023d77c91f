"""What the trials of `bahe.py` chose, by tier and data set; they are in `results/selection/bahe/`."""

from __future__ import annotations

UNSEARCHED = 1e-3  # for data that nobody has searched
SELECTED: dict[tuple[str, str], dict[str, float]] = {}
