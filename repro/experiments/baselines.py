"""The ID-based baselines and the floor: which runs, with which settings, and what was tried to choose them.

Every model is tried with the same eight settings on the validation split (`trials`); the best by validation
AUC is written down in `selected_baselines.py`, and a test compares the two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from baselines import PUBLISHED_HISTORY
from baselines.dcnv2 import Dcnv2Settings
from baselines.din import DinSettings
from baselines.gru4rec import Gru4RecSettings
from baselines.method import IdMethod
from baselines.rates import RatesSettings
from baselines.sasrec import SasRecSettings
from baselines.sim import SimSettings
from repro.errors import ConfigError
from repro.experiments.rows import pick_rows
from repro.experiments.run_config import RunConfig, Tier
from repro.experiments.selected_baselines import SELECTED, Chosen
from repro.experiments.selection import VALIDATION_TARGETS
from repro.training.settings import TrainingSettings

BASELINE_SEEDS = 5
MODELS: dict[str, Callable[[], Any]] = {
    "din": DinSettings,
    "sasrec": SasRecSettings,
    "dcnv2": Dcnv2Settings,
    "sim": SimSettings,
    "gru4rec": Gru4RecSettings,
}
FLOOR = ("rates", "rates-recent", "constant", "user-rate", "item-rate")
LEARNING_RATES, WEIGHT_DECAYS, DROPOUTS = (1e-3, 3e-3), (0.03, 0.3), (0.1, 0.3)


def floor_method(row: str, n: int) -> IdMethod:
    """A fitted method; `rates-recent` sees no more of a user than an LLM does, and is named after its n."""
    recent = RatesSettings(recent=n)
    methods = {
        "rates": IdMethod("rates", None, RatesSettings(), None),
        "rates-recent": IdMethod(f"rates-{n}", n, replace(recent, features=("user_recent", "item")), None),
        "constant": IdMethod("constant", None, RatesSettings(features=()), None),
        "user-rate": IdMethod("user-rate", None, RatesSettings(features=("user_all",)), None),
        "item-rate": IdMethod("item-rate", None, RatesSettings(features=("item",)), None),
    }
    return methods[row]


def training_settings(tier: Tier, dataset: str) -> TrainingSettings:
    """Batches that give some hundred steps an epoch (some ten at the small tiers); six epochs of cosine."""
    batch = {"ml-1m": 2048}.get(dataset, 512)
    if tier.subset.train_targets is not None:
        batch = tier.training.batch_targets
    return TrainingSettings(
        max_epochs=6, batch_targets=batch, eval_batch_targets=4096, beta2=0.999, clip_norm=10.0
    )


def deep_method(name: str, n: int, tier: Tier, dataset: str, chosen: Chosen) -> IdMethod:
    """A trained model with history n and the chosen settings."""
    training = replace(
        training_settings(tier, dataset),
        learning_rate=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
    )
    return IdMethod(name, n, replace(MODELS[name](), dropout=chosen.dropout), training)


def model_names(selection: str) -> list[str]:
    """Trained models of a comma-separated selection; `all` is every one.

    Raises:
        ConfigError: an unknown model.
    """
    names = list(MODELS) if selection == "all" else [part.strip() for part in selection.split(",")]
    for name in names:
        if name not in MODELS:
            known = f"all or some of {', '.join(MODELS)}"
            raise ConfigError("models", repr(name), known, "pass some of these to --models")
    return names


def row_names(selection: str | None) -> list[str]:
    """Rows of a comma-separated selection; `din` has the LLM's history length, `din-30` the published one.

    Raises:
        ConfigError: an unknown row.
    """
    published = tuple(f"{name}-{PUBLISHED_HISTORY}" for name in MODELS)
    rows = (*FLOOR, *MODELS, *published)
    groups = {"floor": FLOOR, "deep": (*MODELS, *published), "all": rows}
    return pick_rows(selection, rows, groups)


def baseline_runs(
    tier: Tier, dataset: str, protocol: str, selection: str | None, seeds: int
) -> list[RunConfig]:
    """All runs of the selected rows, row by row; what is fitted in closed form has one seed."""
    chosen = SELECTED.get((tier.name, dataset), {})
    runs = []
    for row in row_names(selection):
        if row in FLOOR:
            method = floor_method(row, tier.n)
        else:
            name, _, length = row.partition("-")
            n = int(length) if length else tier.n
            method = deep_method(name, n, tier, dataset, chosen.get(name, Chosen()))
        for seed in range(seeds if method.trains else 1):
            runs.append(RunConfig(method, "tuned", tier, dataset, protocol, seed))
    return runs


@dataclass(frozen=True)
class Trial:
    """One setting of one model."""

    model: str
    chosen: Chosen
    config: RunConfig


def trials(tier: Tier, dataset: str, protocol: str) -> Iterator[Trial]:
    """The same eight settings for every model, seed 0, at the published history length.

    A tier that validates on a few targets while training takes more for a choice, as the LLM methods' does.
    """
    if tier.subset.validation_targets is not None:
        subset = replace(tier.subset, validation_targets=VALIDATION_TARGETS, test_targets=1)
        tier = replace(tier, subset=subset)
    for name in MODELS:
        for values in itertools.product(LEARNING_RATES, WEIGHT_DECAYS, DROPOUTS):
            chosen = Chosen(*values)
            method = deep_method(name, PUBLISHED_HISTORY, tier, dataset, chosen)
            yield Trial(name, chosen, RunConfig(method, "tuned", tier, dataset, protocol, 0))
