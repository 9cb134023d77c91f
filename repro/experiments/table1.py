"""Table 1 of DTI: SW, DTI- and DTI at k = 5..50, headline rows first."""

from __future__ import annotations

from collections.abc import Callable

from repro.errors import ConfigError
from repro.experiments.run_config import RunConfig, Tier
from repro.methods.dti import dti, dti_minus, dti_tuned
from repro.methods.method import SumMethod
from repro.methods.sliding_window import sliding_window, zero_shot

KS = (5, 10, 20, 30, 40, 50)
HEADLINE = ("zero-shot", "sw", "dti-minus-50", "dti-50")


def _rows() -> dict[str, tuple[str, Callable[[int], SumMethod]]]:
    rows: dict[str, tuple[str, Callable[[int], SumMethod]]] = {
        "zero-shot": ("paper", zero_shot),
        "sw": ("paper", sliding_window),
    }
    for k in sorted(KS, reverse=True):
        rows[f"dti-minus-{k}"] = ("paper", lambda n, k=k: dti_minus(n, k))
        rows[f"dti-{k}"] = ("paper", lambda n, k=k: dti(n, k))
    for k in sorted(KS, reverse=True):
        rows[f"dti-tuned-{k}"] = ("tuned", lambda n, k=k: dti_tuned(n, k))
    return rows


ROWS = _rows()
DEFAULT = tuple(name for name in ROWS if not name.startswith("dti-tuned")) + ("dti-tuned-50",)
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
    names: list[str] = []
    for part in (selection or "all").split(","):
        wanted = GROUPS.get(part.strip(), (part.strip(),))
        for name in wanted:
            if name not in ROWS:
                known = f"groups {', '.join(GROUPS)}; rows {', '.join(ROWS)}"
                raise ConfigError("rows", repr(name), known, "pass some of these to --rows, comma-separated")
            if name not in names:
                names.append(name)
    return names


def table1_runs(tier: Tier, dataset: str, protocol: str, selection: str | None, seeds: int) -> list[RunConfig]:
    """All runs of the selected rows, row by row (every seed of a row before the next row)."""
    runs = []
    for name in row_names(selection):
        recipe, method = ROWS[name]
        made = method(tier.n)
        for seed in range(seeds if made.trains else 1):
            runs.append(RunConfig(made, recipe, tier, dataset, protocol, seed))
    return runs
