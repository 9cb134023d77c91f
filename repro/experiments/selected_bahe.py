"""Learning rates of BAHE's family by tier, as the trials of `bahe.py` on ml-100k chose them.

`nox -s select -- --bahe --publish` makes the trials and writes one file for a tier and data set; a test
requires an entry here for each searched tier and no other. Other data sets of a tier, such as ml-1m, take the
same rates, as the methods of `selected.py` do: they had no search of their own.
"""

from __future__ import annotations

UNSEARCHED = 1e-3  # for a tier that nobody has searched
SELECTED: dict[str, dict[str, float]] = {
    "gpu": {"bahe": 1e-3, "dti-bahe": 1e-3, "llm-ctr": 1e-3},
}
