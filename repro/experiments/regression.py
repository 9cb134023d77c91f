"""What the regression gate retrains and which prompts it looks at. To add a run: a line in ROWS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from repro import paths
from repro.backbones.spec import BackboneSpec
from repro.errors import ConfigError
from repro.experiments.baselines import baseline_runs
from repro.experiments.run_config import RunConfig, Subset, Tier
from repro.experiments.selected_bahe import UNSEARCHED
from repro.experiments.tiers import tier_named
from repro.methods.bahe.settings import BaheMethod, bahe, dti_bahe, llm_ctr
from repro.methods.dti import dti, dti_minus, dti_tuned
from repro.methods.method import SumMethod
from repro.methods.sliding_window import sliding_window
from repro.regression.behaviours import BehaviourProbe
from repro.regression.gate import Gate
from repro.regression.prompts import PromptProbe
from repro.training.settings import TrainingSettings

DATASET, PROTOCOL = "ml-100k", "dti"
SEEDS = 5  # of a reference list
N, K = 10, 20


def regression_tier(train_targets: int, layers: int = 1) -> Tier:
    """SmolLM2's first layer, in fp32 so that processors agree; under a minute a run on 2 cores.

    One layer, since it learns in so short a run: with two, seeds ended farther apart than the slips that are
    to be seen. Text then reads no text; the untrained model's scores cover that, with two layers. A
    sliding-window target costs several times a streaming one, so SW has fewer training targets here than DTI;
    their test targets are the same. The loss is over the two answers alone: over the vocabulary, a short run
    is mostly spent on learning to say either of them. DTI has the tuned recipe, which trains in the geometry
    of the test prompts, so that its seeds differ less than the paper recipe's; the untrained model's scores
    cover the fixes.
    """
    return Tier(
        name="regression",
        datasets=(DATASET,),
        backbone=BackboneSpec(layers=layers, train_embeddings=False),
        n=N,
        subset=Subset(train_targets, validation_targets=100, test_targets=1000),
        training=TrainingSettings(learning_rate=5e-4, batch_targets=32, checkpoint_every_s=3600.0),
        loss="answers",
    )


def _language_model(method: SumMethod, recipe: str, train_targets: int, seeds: int) -> list[RunConfig]:
    tier = regression_tier(train_targets)
    return [RunConfig(method, recipe, tier, DATASET, PROTOCOL, seed) for seed in range(seeds)]


def behaviour_tier(train_targets: int, layers: int = 2) -> Tier:
    """As `regression_tier`, at the usual learning rate of BAHE's family.

    Two layers, the fewest there are: one encodes a behaviour, one reads the vectors. LLM-CTR is not trained:
    its text costs ten times BAHE's vectors, and what a minute trains hardly learns. What it reads and what
    its head is given are looked at before training, as of BAHE and of DTI over BAHE.
    """
    tier = regression_tier(train_targets, layers)
    return replace(tier, training=replace(tier.training, learning_rate=UNSEARCHED))


def _over_behaviours(method: BaheMethod, train_targets: int, seeds: int) -> list[RunConfig]:
    tier = behaviour_tier(train_targets)
    return [RunConfig(method, "tuned", tier, DATASET, PROTOCOL, seed) for seed in range(seeds)]


def _baseline(row: str, seeds: int) -> list[RunConfig]:
    """On all targets of the data set's default split."""
    return baseline_runs(tier_named("gpu"), DATASET, PROTOCOL, row, seeds)


ROWS: dict[str, Callable[[int], list[RunConfig]]] = {
    "sw": partial(_language_model, sliding_window(N), "paper", 3000),
    "dti": partial(_language_model, dti_tuned(N, K), "tuned", 6000),
    "bahe": partial(_over_behaviours, bahe(N), 2000),
    "dti-bahe": partial(_over_behaviours, dti_bahe(N, K), 6000),
    "din": partial(_baseline, "din"),
    "sasrec": partial(_baseline, "sasrec"),
}
PROMPT_METHODS = {
    "sw": sliding_window(N),
    "dti-minus": dti_minus(N, K),
    "dti": dti(N, K),
    "dti-tuned": dti_tuned(N, K),
}
BEHAVIOUR_METHODS = {"bahe": bahe(N), "dti-bahe": dti_bahe(N, K), "llm-ctr": llm_ctr(N)}


def regression_gate(selection: str | None, data_dir: Path | None) -> Gate:
    """The gate over the project's own results and reports.

    Args:
        selection: retrained rows, comma-separated; None for all, "none" for none.
        data_dir: source files of a data set that no package carries.

    Raises:
        ConfigError: an unknown row.
    """
    names = list(ROWS) if selection is None else [part.strip() for part in selection.split(",")]
    names = [] if selection == "none" else names
    for name in names:
        if name not in ROWS:
            known = f"{', '.join(ROWS)} or none"
            raise ConfigError("rows", repr(name), known, "pass some of these to --rows, comma-separated")
    probe = PromptProbe(regression_tier(train_targets=1000, layers=2), DATASET, PROTOCOL, PROMPT_METHODS)
    rows = {name: ROWS[name] for name in names}
    # Of four layers two encode a behaviour: one fewer or one more would be another number.
    behaviours = BehaviourProbe(behaviour_tier(1000, layers=4), DATASET, PROTOCOL, BEHAVIOUR_METHODS)
    return Gate(paths.results_dir(), paths.reports_dir(), rows, probe, behaviours, SEEDS, data_dir)
