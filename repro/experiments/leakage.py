"""Runs that measure what streaming prompts let through from beyond their windows (`repro/leakage.py`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from repro.backbones.spec import BackboneSpec
from repro.data.planted import Planted
from repro.data.registry import SYNTHETIC_PROTOCOL
from repro.experiments.run_config import RunConfig, Subset, Tier
from repro.methods.bahe.settings import BaheMethod, dti_bahe
from repro.methods.dti import dti_tuned
from repro.methods.method import SumMethod
from repro.training.settings import TrainingSettings

N, K = 4, 20
LAYER_CUTS = (0.25, 0.5, 0.75)
# n: the control. One, two and three windows and a step back: nobody sees these without as many layers more.
DISTANCES = (N, N + 1, 2 * N + 1, 3 * N + 1)


@dataclass(frozen=True)
class LeakageRun:
    """A streaming method (k > 1) on planted data: how it is trained, and where the signal lies."""

    config: RunConfig
    planted: Planted


def leakage_runs(seeds: int, num_interactions: int = 100_000) -> list[LeakageRun]:
    """DTI, and DTI over BAHE at several layer cuts, at every distance.

    A small model of four layers with random weights, trained from scratch, the same at every tier: what a
    window lets through depends on layers and masks, not on what a language model knows. DTI is in the tuned
    recipe, whose geometry DTI over BAHE has.

    Args:
        seeds: of weights, order of rows and data.
    """
    training = TrainingSettings(  # one epoch: validation, in the test format, must not choose among several
        learning_rate=2e-3, max_epochs=1, batch_targets=256, eval_batch_targets=256, weight_decay=0.0
    )
    tier = Tier(
        name="leakage",
        datasets=("synthetic",),
        backbone=BackboneSpec(name="random:tiny-llama"),
        n=N,
        subset=Subset(),
        training=training,
        loss="answers",
    )
    methods: list[SumMethod | BaheMethod] = [dti_tuned(N, K)]
    methods += [replace(dti_bahe(N, K), layer_cut=cut) for cut in LAYER_CUTS]
    return [
        LeakageRun(
            RunConfig(method, "control", tier, "synthetic", SYNTHETIC_PROTOCOL, seed),
            Planted(distance, num_interactions, seed=seed),
        )
        for method in methods
        for distance in DISTANCES
        for seed in range(seeds)
    ]
