"""The record of a run, from its configuration, task and trainer; its fields are in `records/schema.py`."""

from __future__ import annotations

from typing import Any

from baselines.method import IdMethod
from repro.experiments.run_config import RunConfig
from repro.records.environment import code_sha256, environment, git_state
from repro.records.run_id import run_id
from repro.records.schema import SCHEMA_VERSION
from repro.training.loop import Trainer
from repro.training.memory import peak_gib
from repro.training.state import Progress
from repro.training.task import Task


def record_of(
    config: RunConfig,
    resolved: dict[str, Any],
    device: str,
    status: str,
    task: Task,
    trainer: Trainer,
    progress: Progress,
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """Content of record.json.

    Args:
        config: of the run. resolved: with the content it was applied to. device: its name.
        status: one of `schema.FINISHED`.
        task, trainer: after training and testing.
        progress: where training ended; of a method that is not trained, an empty one.
        metrics: on the test targets; left out unless the status is "ok".
    """
    seconds, trained = trainer.clocks.seconds, config.method.trains
    is_id = isinstance(config.method, IdMethod)  # reads no tokens; if not trained, then fitted
    validation = [entry | {"epoch": int(entry["epoch"])} for entry in progress.history]
    best = progress.best() if progress.history else None
    scored = [seconds[clock] for clock in ("eval", "test") if clock in seconds]
    return {
        "schema": SCHEMA_VERSION,
        "run_id": run_id(resolved, device),
        "status": status,
        "config": resolved,
        "metrics": metrics if status == "ok" else {},
        "validation": validation,
        "data": {
            "sha256": resolved["data_sha256"],
            "train_targets": task.train.num_targets if trained or is_id else 0,
            "validation_targets": task.validation.num_targets,
            "test_targets": task.test.num_targets,
            "tokens_raw": progress.tokens_raw if trained and not is_id else None,
            "tokens_padded": progress.tokens_padded if trained and not is_id else None,
            **({} if task.behaviours_encoded is None else {"behaviours_encoded": task.behaviours_encoded}),
        },
        "time": {
            "train_s": seconds.get("train", 0.0) if trained else None,
            "train_to_best_s": best["train_s"] if best else None,
            "compile_s": seconds.get("compile"),
            "eval_s": sum(scored) if scored else None,
            "test_s": seconds.get("test"),
            "data_s": seconds.get("data", 0.0) if trained else None,
            "epochs": len(progress.history),
            "best_epoch": int(best["epoch"]) if best else None,
            **({} if task.behaviours_encoded is None else {"table_build_s": task.table_build_s}),
        },
        "memory": {"peak_gib": peak_gib(trainer.device)},
        "device": {"name": device, "count": trainer.accelerator.num_processes},
        "environment": environment(),
        "git": git_state(),
        "code_sha256": code_sha256(),
    }
