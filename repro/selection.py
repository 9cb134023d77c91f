"""Choice of settings on the validation split: all trials of a search are run, then written down together."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from repro.experiments import bahe, baselines, selection
from repro.experiments.run_config import Tier
from repro.pipeline import Workshop
from repro.records.atomic import json_bytes, write_file
from repro.records.environment import code_sha256, environment, git_state


def run_selection(workshop: Workshop, tier: Tier, dataset: str, protocol: str, root: Path) -> Path:
    """Run all trials of `experiments.selection`, then write them with what they were made from."""
    path = root / "selection" / f"{tier.name}-{dataset}.json"
    return _run_trials(workshop, tier, selection.trials(tier, dataset, protocol), path)


def run_bahe_selection(workshop: Workshop, tier: Tier, dataset: str, protocol: str, root: Path) -> Path:
    """The same for the trials of `experiments.bahe`."""
    path = root / "selection" / "bahe" / f"{tier.name}-{dataset}.json"
    return _run_trials(workshop, tier, bahe.trials(tier, dataset, protocol), path)


def _run_trials(workshop: Workshop, tier: Tier, trials: Iterable[selection.Trial], path: Path) -> Path:
    rows = []
    for trial in trials:
        best = workshop.validate(trial.config)
        row = {
            "family": trial.family,
            "learning_rate": trial.learning_rate,
            "alibi_slope": trial.alibi_slope,
            "validation_auc": None if best is None else best["auc"],
            "validation_log_loss": None if best is None else best["log_loss"],
            "device": workshop.device_name,
        }
        rows.append(row)
        print(row, file=sys.stderr)
    write_file(path, json_bytes(_made_with() | {"settings": asdict(tier), "rows": rows}))
    return path


def run_baseline_selection(
    workshop: Workshop, tier: Tier, dataset: str, protocol: str, models: Iterable[str], root: Path
) -> list[Path]:
    """Run all trials of `experiments.baselines` for these models; one file each, written when it is done."""
    paths = []
    for model in models:
        rows = []
        for trial in baselines.trials(tier, dataset, protocol):
            if trial.model != model:
                continue
            best = workshop.validate(trial.config)
            rows.append(
                {
                    "model": model,
                    "n": trial.config.method.n,  # type: ignore[union-attr]
                    **asdict(trial.chosen),
                    "validation_auc": None if best is None else best["auc"],
                    "validation_log_loss": None if best is None else best["log_loss"],
                    "best_epoch": None if best is None else int(best["epoch"]),
                    "device": workshop.device_name,
                }
            )
            print(rows[-1], file=sys.stderr)
        path = root / "selection" / "baselines" / f"{tier.name}-{dataset}-{model}.json"
        write_file(path, json_bytes(_made_with() | {"rows": rows}))
        paths.append(path)
    return paths


def _made_with() -> dict[str, Any]:
    return {"environment": environment(), "git": git_state(), "code_sha256": code_sha256()}
