"""Planted runs of BAHE and its variants for the pages about them."""

from __future__ import annotations

from typing import Any

from repro.behaviours.drift import Drift
from repro.methods.bahe.settings import BaheMethod, bahe
from repro.reporting.inputs import Inputs, load_inputs

BATCH = 64  # `training.batch_targets` of the planted runs


def full() -> BaheMethod:
    """BAHE with the context length of the planted runs."""
    return bahe(10)


def config_of(method: BaheMethod, **changes: Any) -> dict[str, Any]:
    """Changes to the planted configuration that make it one of BAHE; keyword arguments for `World.add`."""
    config = {"method": method.name, "recipe": "control", "tuning": "lora", "loss": None, **method.resolved()}
    return config | {"numerics": {"method": 3, "trainer": 2}} | changes


def drift(kind: str, steps: int | None) -> Drift:
    """Half of the items change; a refresh every so many steps."""
    return Drift(kind, 0.5, None if steps is None else steps * BATCH)


def inputs_of(world: Any) -> Inputs:
    """Committed and own records of the planted world."""
    return load_inputs(world.results, world.runs, world.reports / "reference")


def cells_of(text: str, start: str) -> list[str]:
    """Cells of the first table line that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]
