"""Learning rates of BAHE's family, by tier and data set, as the trials of `bahe.py` chose them.

`nox -s select -- --bahe --publish` makes the trials and writes one file for each tier and data set; a test
requires an entry here for each of these files and no other.
"""

from __future__ import annotations

UNSEARCHED = 1e-3  # for data that nobody has searched
SELECTED: dict[tuple[str, str], dict[str, float]] = {}
