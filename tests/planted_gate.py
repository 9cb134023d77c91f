"""A gate small enough for tests: runs of a second that learn a planted preference, AUC about 0.82.

Users like items of kind "b" and dislike "a", but for chance: one answer in ten in the training split, one in
four later. So a test on the training split looks too good; learning from wrong labels ends near 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from repro.backbones.spec import BackboneSpec
from repro.experiments.run_config import RunConfig, Subset, Tier
from repro.experiments.tiers import tier_named
from repro.methods.bahe.settings import BaheMethod, bahe, dti_bahe, llm_ctr
from repro.methods.dti import dti_minus, dti_tuned
from repro.methods.sliding_window import sliding_window
from repro.pipeline import Workshop
from repro.regression.behaviours import BehaviourProbe
from repro.regression.gate import Gate
from repro.regression.prompts import PromptProbe
from repro.training.settings import TrainingSettings

SEEDS = 5
TIER = Tier(
    name="planted",
    datasets=("table",),
    backbone=BackboneSpec("random:tiny-llama", layers=2),
    n=3,
    subset=Subset(train_targets=800, validation_targets=50),
    training=TrainingSettings(learning_rate=1e-3, batch_targets=8, checkpoint_every_s=3600.0),
    loss="answers",
)


def planted_runs(seeds: int) -> list[RunConfig]:
    return [RunConfig(dti_tuned(3, 10), "tuned", TIER, "table", "dti", seed) for seed in range(seeds)]


def planted_over_behaviours(method: BaheMethod, seeds: int) -> list[RunConfig]:
    """Three layers, of which two encode a behaviour."""
    tier = replace(TIER, backbone=replace(TIER.backbone, layers=3))
    return [RunConfig(method, "tuned", tier, "table", "dti", seed) for seed in range(seeds)]


ROWS = {
    "planted": planted_runs,
    "planted-bahe": partial(planted_over_behaviours, bahe(3)),
    "planted-dti-bahe": partial(planted_over_behaviours, dti_bahe(3, 10)),
}


def write_table(path: Path, num_users: int = 60, steps: int = 30) -> None:
    rng = np.random.default_rng(0)
    lines = ["user,item,text,label,timestamp"]
    for step in range(steps):
        chance = 0.1 if step < 0.8 * steps else 0.25
        for user in range(num_users):
            kind = int(rng.integers(2))
            label = kind ^ int(rng.random() < chance)
            lines.append(f"{user},{5 * kind + rng.integers(5)},{'ab'[kind]},{label},{100 * step + user}")
    path.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class World:
    """A gate with its references, committed records and pages in a folder of their own."""

    gate: Gate
    workshop: Workshop

    def findings(self, **changes):
        """Findings of the gate by metric."""
        return {each.metric: each for each in replace(self.gate, **changes).check(self.workshop)}


def gate_in(folder: Path) -> Gate:
    small = replace(
        tier_named("test"), subset=Subset(train_targets=48, validation_targets=24, test_targets=24)
    )
    probe = PromptProbe(
        small, "synthetic", "rella", {"sw": sliding_window(small.n), "dti-minus": dti_minus(small.n, 5)}
    )
    methods = {"bahe": bahe(small.n), "dti-bahe": dti_bahe(small.n, 5), "llm-ctr": llm_ctr(small.n)}
    behaviours = BehaviourProbe(small, "synthetic", "rella", methods)
    return Gate(folder / "results", folder / "reports", ROWS, probe, behaviours, SEEDS)
