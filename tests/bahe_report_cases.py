"""Planted runs of BAHE and its variants for the pages about them."""

from __future__ import annotations

import json
from typing import Any

from report_cases import NO_LLM, UNTRAINED, table

from repro.behaviours.drift import Drift
from repro.methods.bahe.settings import BaheMethod, bahe, dti_bahe, llm_ctr
from repro.reporting import render_all
from repro.reporting.inputs import Inputs, load_inputs

BATCH = 64  # `training.batch_targets` of the planted runs
TUNED = {"recipe": "tuned", "backbone_settings__lora_rank": 64}
FAST, SLOW = 20.0, 100.0  # seconds of training
LONGER = {"training.max_epochs": 10}  # the tier's are 1


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


def page(world, own=False) -> str:
    """The text of BAHE's quality page."""
    render_all(world.results, world.runs if own else None, world.reports, ["bahe"])
    return (world.reports / "bahe.md").read_text()


def add(world, method, signal=0.6, train_s=FAST, build_s=10.0, seeds=1, **changes):
    """Tuned runs of a method of BAHE's family, one for each seed."""
    record = {"time.train_s": train_s, "data.tokens_raw": 40_000}
    if build_s is not None:
        record["time.table_build_s"] = build_s
    return [
        world.add(signal, seed=seed, record=record, **config_of(method, **TUNED), **changes)
        for seed in range(seeds)
    ]


def add_family(world, seeds=1, bahe=0.6, text=0.6, rows=0.6, **changes) -> None:
    """BAHE, LLM-CTR and DTI over BAHE with these signals."""
    add(world, full(), bahe, seeds=seeds, **changes)
    add(world, llm_ctr(10), text, SLOW, None, seeds, **changes)
    add(world, dti_bahe(10, 50), rows, seeds=seeds, **changes)


def add_others(world) -> None:
    """What they are set beside, and rows of other pages."""
    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    world.add(0.3, method="din", **NO_LLM)
    world.add(0.3, method="din", **NO_LLM | {"n": 30})
    world.add(0.4, k=1)
    world.add(0.4, method="dti", k=50, recipe="tuned")
    world.add(0.4, method="dti", k=50)  # the paper's recipe stands on Table 1's page
    world.add(0.4, method="dti", k=10, recipe="tuned")


def add_trials(world, name: str, key: str, families: dict[str, list[tuple[float, float | None]]]) -> None:
    """A file of trials: by family or model, learning rates with their validation AUCs."""
    own = {"alibi_slope": None} if key == "family" else {"n": 30, "weight_decay": 0.1, "dropout": 0.1}
    own |= {} if key == "family" else {"best_epoch": 0}
    rows = [
        {key: family, "learning_rate": rate, "validation_auc": auc, "validation_log_loss": 0.6, **own}
        | {"device": "a GPU"}
        for family, trials in families.items()
        for rate, auc in trials
    ]
    content = {"environment": {"python": "3.11", "torch": None, "transformers": None}, "rows": rows}
    content |= {"git": {"sha": "a" * 40, "dirty": False}, "code_sha256": "c" * 64}
    path = world.results / "selection" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def scores(text: str) -> dict[str, dict[str, str]]:
    """The first section's scores by row."""
    return table("### x\n" + text.split("\n## ")[1].split("**Differences")[0], "x")


def costs(text: str) -> dict[str, dict[str, str]]:
    """The first section's costs by row."""
    return table("### x\n" + text.split("**Cost of training:**")[1].split("**Above")[0], "x")


def compared(world, own=False) -> list[str]:
    """Which rows the first section compares."""
    section = page(world, own).split("**Differences of AUC**")[1].split("\n\n")[1]
    return [line.split("|")[1].strip() for line in section.splitlines()[2:]]
