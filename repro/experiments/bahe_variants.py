"""BAHE with something changed, by row: what runs and pages both need. Imports nothing that trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from repro.behaviours.drift import KINDS
from repro.methods.bahe.settings import BaheMethod


@dataclass(frozen=True)
class Ablation:
    """BAHE with one thing changed.

    Attributes:
        title: as the page names it.
        change: from the full method.
    """

    title: str
    change: Callable[[BaheMethod], BaheMethod]


FULL = "full"
ABLATIONS: dict[str, Ablation] = {
    FULL: Ablation("BAHE", lambda full: full),
    "no-cache": Ablation(
        "without caching: lower layers run in every step", lambda full: replace(full, cached=False)
    ),
    "one-sequence": Ablation(
        "without feature parallel: one long sequence", lambda full: replace(full, feature_parallel=False)
    ),
    "trained-lower": Ablation(
        "lower layers trained, hence not cached", lambda full: replace(full, lower="trained", cached=False)
    ),
    "mean-pooling": Ablation(
        "a behaviour is the mean of its tokens", lambda full: replace(full, pooling="mean")
    ),
}

SIXTHS = (1, 2, 3, 4, 5)
REFRESH_STEPS: tuple[int | None, ...] = (1, 10, 50, None)  # None: never after the first build
NO_DRIFT = "no-drift"


def cut_name(sixths: int) -> str:
    """Row of a layer cut, `cut-1-6` to `cut-5-6`."""
    return f"cut-{sixths}-6"


def stale_name(kind: str, steps: int | None) -> str:
    """Row of a table that is refreshed every so many steps, e.g. `revised-10`, `revealed-never`."""
    return f"{kind}-{steps or 'never'}"


CUTS = {cut_name(sixths): float(Fraction(sixths, 6)) for sixths in SIXTHS}
STALE = {stale_name(kind, steps): (kind, steps) for kind in KINDS for steps in REFRESH_STEPS}
