"""Tiers: complete, by name, in the sizes that the design gives them."""

from __future__ import annotations

import dataclasses

import pytest

from repro.data import DATASET_NAMES
from repro.errors import ConfigError
from repro.experiments.table1 import KS
from repro.experiments.tiers import TIERS, tier_named


@pytest.mark.parametrize("name", TIERS)
def test_a_tier_is_named_frozen_and_meant_for_known_data_sets(name) -> None:
    tier = tier_named(name)
    assert tier.name == name
    assert tier.datasets
    assert set(tier.datasets) <= set(DATASET_NAMES)
    assert tier == tier_named(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        tier.n = 1
    assert tier.training.patience == 2
    assert tier.seeds >= 1


def test_unknown_tier() -> None:
    with pytest.raises(ConfigError, match="cpu, gpu, paper, test"):
        tier_named("huge")


@pytest.mark.parametrize(("cuda", "name"), [(True, "gpu"), (False, "cpu")])
def test_the_default_follows_the_machine(cuda, name, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    assert tier_named(None).name == name


@pytest.mark.parametrize("name", ["cpu", "gpu", "paper"])
def test_a_batch_holds_the_longest_row(name) -> None:
    """A row of k targets in a smaller batch would stand alone, and DTI would take fewer steps than SW."""
    assert tier_named(name).training.batch_targets >= max(KS)


def test_what_the_design_says_of_them() -> None:
    cpu, gpu, paper = (tier_named(name) for name in ("cpu", "gpu", "paper"))
    assert cpu.datasets[0] == gpu.datasets[0] == "ml-100k"
    assert cpu.backbone.layers is not None and cpu.backbone.layers <= 6
    assert gpu.backbone.layers is None and gpu.n == 20 and gpu.seeds >= 3
    assert paper.backbone.tuning == "lora" and "Llama-3.1-8B" in paper.backbone.name
    assert paper.training.max_epochs == 10 and paper.n == 20
