"""Settings tried for the ID-based models: results/selection/baselines/<tier>-<dataset>-<model>.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.records.schema import Count, Environment, Git, NonNegative, Section, Share
from repro.reporting.formatting import ABSENT, count, folded, score, table
from repro.reporting.trials import read_trials


class BaselineTrial(Section):
    """One setting of one model; test targets had no part in it."""

    model: str
    n: Count
    learning_rate: NonNegative
    weight_decay: NonNegative
    dropout: Share
    validation_auc: Share | None  # of the best epoch; null: the training diverged
    validation_log_loss: NonNegative | None
    best_epoch: Count | None  # from 0
    device: str


class BaselineTrialsFile(Section):
    """One such file."""

    environment: Environment
    git: Git
    code_sha256: str
    rows: list[BaselineTrial]


def load_baseline_trials(results_dir: Path) -> dict[str, dict[str, Any]]:
    """Contents of the files by name, e.g. "gpu-ml-1m-din".

    Raises:
        RecordError: a file is damaged.
    """
    return read_trials(results_dir / "selection" / "baselines", BaselineTrialsFile)


def trials_section(trials: Mapping[str, Mapping[str, Any]]) -> str:
    """Every trial, the best of each file in bold; empty without trials."""
    if not trials:
        return ""
    lines = []
    for name, content in trials.items():
        aucs = [row["validation_auc"] for row in content["rows"] if row["validation_auc"] is not None]
        for row in content["rows"]:
            auc = score(row["validation_auc"])
            lines.append(
                (
                    name,
                    str(row["n"]),
                    str(row["learning_rate"]),
                    str(row["weight_decay"]),
                    str(row["dropout"]),
                    f"**{auc}**" if aucs and row["validation_auc"] == max(aucs) else auc,
                    score(row["validation_log_loss"]),
                    ABSENT if row["best_epoch"] is None else str(row["best_epoch"] + 1),
                    row["device"],
                )
            )
    headers = ["tier, data set, model", "n", "learning rate", "weight decay", "dropout", "validation AUC"]
    headers += ["validation log loss", "best epoch", "device"]
    return "\n\n".join(
        [
            "## Settings tried",
            f"{count(len(lines))} trials, the same settings for every model, chosen by AUC on the validation "
            "split (bold); both history lengths use what was chosen at the published one.",
            *folded("Trials", table(headers, lines)),
        ]
    )
