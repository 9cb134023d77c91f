"""Table 1 of DTI: SW, DTI- and DTI at k = 5..50, headline rows first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from repro.backbones.fix_settings import Fixes
from repro.experiments.rows import pick_rows
from repro.experiments.run_config import RunConfig, Tier
from repro.experiments.selected import SELECTED, Selected
from repro.methods.dti import PAPER_FIXES, dti, dti_minus, dti_tuned
from repro.methods.method import SumMethod
from repro.methods.sliding_window import sliding_window, zero_shot

KS = (5, 10, 20, 30, 40, 50)
HEADLINE = ("zero-shot", "sw", "dti-minus-50", "dti-50")


@dataclass(frozen=True)
class Row:
    """A row of the table: how its method is made from context length n and its family's settings."""

    family: str
    recipe: str
    method: Callable[[int, Selected], SumMethod]


def _rows() -> dict[str, Row]:
    rows = {
        "zero-shot": Row("sw", "paper", lambda n, chosen: zero_shot(n)),
        "sw": Row("sw", "paper", lambda n, chosen: sliding_window(n)),
    }
    for k in sorted(KS, reverse=True):
        rows[f"dti-minus-{k}"] = Row("dti-minus", "paper", _at(k, lambda n, k, chosen: dti_minus(n, k)))
        rows[f"dti-{k}"] = Row("dti", "paper", _at(k, lambda n, k, chosen: dti(n, k, _fixes(chosen))))
    for k in sorted(KS, reverse=True):
        rows[f"dti-tuned-{k}"] = Row("dti-tuned", "tuned", _at(k, lambda n, k, chosen: dti_tuned(n, k)))
    return rows


def _at(k: int, make: Callable[[int, int, Selected], SumMethod]) -> Callable[[int, Selected], SumMethod]:
    return lambda n, chosen: make(n, k, chosen)


def _fixes(chosen: Selected) -> Fixes:
    return replace(PAPER_FIXES, alibi_slope=chosen.alibi_slope)


ROWS = _rows()
DEFAULT = (*(name for name in ROWS if not name.startswith("dti-tuned")), "dti-tuned-50")
GROUPS = {
    "headline": HEADLINE,
    "all": DEFAULT,
    "tuned": tuple(name for name in ROWS if name.startswith("dti-tuned")),
}


def row_names(selection: str | None) -> list[str]:
    """Row names of a comma-separated selection of rows and groups; None is all 13 rows of the table.

    Raises:
        ConfigError: an unknown row.
    """
    return pick_rows(selection, ROWS, GROUPS)


def table1_runs(
    tier: Tier, dataset: str, protocol: str, selection: str | None, seeds: int
) -> list[RunConfig]:
    """All runs of the selected rows, row by row (every seed of a row before the next row)."""
    runs = []
    for name in row_names(selection):
        row = ROWS[name]
        default = Selected(tier.training.learning_rate)  # a tier of one's own has no search behind it
        chosen = SELECTED.get(tier.name, {}).get(row.family, default)
        method = row.method(tier.n, chosen)
        trained = replace(tier, training=replace(tier.training, learning_rate=chosen.learning_rate))
        for seed in range(seeds if method.trains else 1):
            runs.append(RunConfig(method, row.recipe, trained, dataset, protocol, seed))
    return runs
