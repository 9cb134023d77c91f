"""Choice of settings on the validation split: all trials of a search are run, then written down together.

The result of a trial is kept in `runs/trials/` at once. So a search that was stopped goes on where it was,
and several processes can each make a share of it: the one that finds all trials made writes them down.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from repro import paths
from repro.errors import ConfigError
from repro.experiments import bahe, baselines, selection
from repro.experiments.rows import share_of
from repro.experiments.run_config import RunConfig, Tier
from repro.pipeline import Workshop
from repro.records.atomic import json_bytes, write_file
from repro.records.environment import code_sha256, environment, git_state
from repro.records.schema import parse_json

Row = dict[str, Any]


def run_selection(
    workshop: Workshop, tier: Tier, dataset: str, protocol: str, root: Path, share: str | None = None
) -> list[Path]:
    """Run the trials of `experiments.selection`, or a share of them, and write all down.

    Returns:
        The file that was written; none while trials of other shares are missing.
    """
    path = root / "selection" / f"{tier.name}-{dataset}.json"
    return _of_families(workshop, tier, selection.trials(tier, dataset, protocol), path, share)


def run_bahe_selection(
    workshop: Workshop, tier: Tier, dataset: str, protocol: str, root: Path, share: str | None = None
) -> list[Path]:
    """The same for the trials of `experiments.bahe`."""
    path = root / "selection" / "bahe" / f"{tier.name}-{dataset}.json"
    return _of_families(workshop, tier, bahe.trials(tier, dataset, protocol), path, share)


def run_baseline_selection(
    workshop: Workshop,
    tier: Tier,
    dataset: str,
    protocol: str,
    models: Iterable[str],
    root: Path,
    share: str | None = None,
) -> list[Path]:
    """The same for the trials of `experiments.baselines` with these models; one file each."""
    paths = []
    for model in models:
        found = [trial for trial in baselines.trials(tier, dataset, protocol) if trial.model == model]
        settings = [
            {"model": model, "n": trial.config.method.n, **asdict(trial.chosen)}  # type: ignore[union-attr]
            for trial in found
        ]
        path = root / "selection" / "baselines" / f"{tier.name}-{dataset}-{model}.json"
        paths += _search(workshop, [trial.config for trial in found], settings, share, path, {})
    return paths


def _of_families(
    workshop: Workshop, tier: Tier, trials: Iterable[selection.Trial], path: Path, share: str | None
) -> list[Path]:
    found = list(trials)
    settings = [
        {"family": trial.family, "learning_rate": trial.learning_rate, "alibi_slope": trial.alibi_slope}
        for trial in found
    ]
    made_from = {"settings": asdict(tier)}
    return _search(workshop, [trial.config for trial in found], settings, share, path, made_from)


def _search(
    workshop: Workshop,
    configs: list[RunConfig],
    settings: list[Row],
    share: str | None,
    path: Path,
    made_from: dict[str, Any],
) -> list[Path]:
    """Make this process's share of the trials; write all of them once all are there."""
    kept = [_file(workshop, config) for config in configs]
    for number in share_of(range(len(configs)), share):
        _make(workshop, configs[number], kept[number])
        print(settings[number] | _result(kept[number]), file=sys.stderr)
    missing = sum(not file.is_file() for file in kept)
    if missing:
        message = f"{missing} of {len(configs)} trials on {workshop.device_name} are still missing"
        print(message, file=sys.stderr)
        return []
    device = {"device": workshop.device_name}
    rows = [setting | _result(file) | device for setting, file in zip(settings, kept, strict=True)]
    made_with = {"environment": environment(), "git": git_state(), "code_sha256": code_sha256()}
    write_file(path, json_bytes(made_with | made_from | {"rows": rows}))
    return [path]


@cache
def _made_by() -> str:
    """Checksum over all sources and the versions of what they import: trials of others are not taken up."""
    digest = hashlib.sha256(json_bytes(environment()))
    for package in ("repro", "baselines"):
        digest.update(code_sha256(paths.PROJECT_ROOT / package, folders=(".",)).encode())
    return digest.hexdigest()


def _file(workshop: Workshop, config: RunConfig) -> Path:
    """Where a trial's result is kept."""
    return workshop.store.runs / "trials" / _made_by()[:10] / f"{workshop.name(config)}.json"


def _make(workshop: Workshop, config: RunConfig, file: Path) -> None:
    """Make a trial that is not there. One that diverged has no metrics.

    Raises:
        ConfigError: it ran out of memory: that says nothing of its settings.
    """
    if file.is_file():
        return
    try:
        best = workshop.validate(config) or {}
    except torch.OutOfMemoryError:
        fix = "give every process a device of its own; the same command goes on from here"
        raise ConfigError(f"trial {file.stem}", "out of memory", "a device with room for it", fix) from None
    epoch = int(best["epoch"]) if "epoch" in best else None
    auc, log_loss = best.get("auc"), best.get("log_loss")
    result = {"validation_auc": auc, "validation_log_loss": log_loss, "best_epoch": epoch}
    write_file(file, json_bytes(result))


def _result(file: Path) -> Row:
    return dict(parse_json(file.read_bytes(), file))
