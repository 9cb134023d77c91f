"""How much the targets of a streaming prompt learn from beyond their windows, where that can be known.

In a streaming prompt a target attends to its own window only, yet the states that it reads there have
attended to theirs: from the second layer on it can learn of interactions further back than n (DTI, section
4.1, "hidden-state leakage"). Planted data measures it: a label repeats the one exactly `distance`
interactions back, and everything else is a coin flip. Beyond n no window shows that label, so a score without
leakage has an expected AUC of 0.5, and what targets *in streaming prompts* have above it has leaked. At
distance n the window shows it: the control, without which 0.5 would only mean that the model has not learned
to look there. Every layer that reads across interactions can carry a label n interactions further, so U such
layers reach n U back and no further.

The scored streaming prompts are of users that nobody trained on. Their targets are also scored in the test
format, one target per prompt with nothing in front of its window. It cannot leak: beyond the window it must
give 0.5 again, whatever the training has learned from the leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repro.data import TEST, PreparedData
from repro.data.planted import heldout_as_training_split, planted_data
from repro.data.synthetic import planted_auc
from repro.evaluation.intervals import Interval, draw_metric, interval
from repro.experiments.leakage import LeakageRun
from repro.methods.bahe.settings import BaheMethod
from repro.pipeline import LoadedData, Workshop
from repro.records.environment import device_slug
from repro.records.growing import GrowingMeasurement
from repro.training.loop import Trainer
from repro.training.scoring import score_targets
from repro.training.seeds import seed_everything

Row = dict[str, Any]


def measure_leakage(workshop: Workshop, run: LeakageRun) -> Row:
    """Train on planted data and score held-out users in both formats: a `measurements.LeakageRow`."""
    config, planted = run.config, run.planted
    data = planted_data(planted)
    task = workshop.task(config, _loaded(data))
    streaming = workshop.task(config, _loaded(heldout_as_training_split(data))).train
    seed_everything(config.seed)
    title = f"{config.method.name}, signal at distance {planted.distance}"
    trainer = Trainer(task, config.training, config.seed, None, title)
    train_loss = trainer.train().history[-1]["train_loss"]
    model = trainer.accelerator.unwrap_model(trainer.model)
    found: dict[str, Interval] = {}
    for name, batches in (("streaming", streaming), ("window", task.test)):
        row, score = score_targets(model, batches, trainer.accelerator)
        found[name] = interval(draw_metric(task.label[row], [score], task.group[row]))
    trainer.accelerator.free_memory()
    method = config.method
    num_layers = workshop.backbone(config.with_backbone, config.seed).num_layers
    alone = method.num_lower(num_layers) if isinstance(method, BaheMethod) else 0
    return settings_of(run, workshop.device_name) | {
        "layers": num_layers - alone,
        "train_targets": task.train.num_targets,
        "test_targets": streaming.num_targets,
        "test_users": len(np.unique(task.group[data.targets(TEST)])),
        "train_loss": train_loss,
        "streaming_auc": found["streaming"].mean,
        "streaming_low": found["streaming"].low,
        "streaming_high": found["streaming"].high,
        "window_auc": found["window"].mean,
    }


def leakage_file(root: Path, device: str, runs: Sequence[LeakageRun]) -> GrowingMeasurement:
    """<root>/leakage/streaming-<device>.json with the rows of these runs, of any seed, that it has already.

    Rows tell settings apart by the columns of `settings_of`: a change to what else `leakage_runs` declares
    (training settings, amount of data) calls for removing the file.
    """
    declared = [settings_of(run, device) | {"seed": None} for run in runs]

    def stays(row: Row, rows: Sequence[Row]) -> bool:
        return any(_matches(row | {"seed": None}, settings) for settings in declared)

    return GrowingMeasurement(root, "leakage", f"streaming-{device_slug(device)}", stays)


def settings_of(run: LeakageRun, device: str) -> Row:
    """The columns that a run's row has before anything is measured."""
    config, resolved = run.config, run.config.resolved()
    return {
        "device": device,
        "backbone": config.tier.backbone.title,
        "method": config.method.name,
        "layer_cut": config.method.layer_cut if isinstance(config.method, BaheMethod) else None,
        "n": resolved["n"],
        "k": resolved["k"],
        "distance": run.planted.distance,
        "seed": config.seed,
        "best_auc": planted_auc(run.planted.settings, run.planted.distance),
    }


def is_measured(run: LeakageRun, device: str, rows: Sequence[Row]) -> bool:
    """Whether one of the rows is this run's."""
    settings = settings_of(run, device)
    return any(_matches(row, settings) for row in rows)


def _matches(row: Row, settings: Row) -> bool:
    return all(row[key] == value for key, value in settings.items())


def _loaded(data: PreparedData) -> LoadedData:
    return LoadedData(data, np.arange(len(data.targets(TEST))))
