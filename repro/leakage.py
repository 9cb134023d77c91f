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
from repro.records.environment import environment
from repro.records.measurements import write_measurement
from repro.training.loop import Trainer
from repro.training.scoring import score_targets
from repro.training.seeds import seed_everything


def measure_leakage(workshop: Workshop, run: LeakageRun) -> dict[str, Any]:
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
    method, resolved = config.method, config.resolved()
    num_layers = workshop.backbone(config.with_backbone, config.seed).num_layers
    alone = method.num_lower(num_layers) if isinstance(method, BaheMethod) else 0
    return {
        "device": workshop.device_name,
        "backbone": config.tier.backbone.title,
        "method": method.name,
        "layer_cut": method.layer_cut if isinstance(method, BaheMethod) else None,
        "layers": num_layers - alone,
        "n": resolved["n"],
        "k": resolved["k"],
        "distance": planted.distance,
        "seed": config.seed,
        "train_targets": task.train.num_targets,
        "test_targets": streaming.num_targets,
        "test_users": len(np.unique(task.group[data.targets(TEST)])),
        "train_loss": train_loss,
        "best_auc": planted_auc(planted.settings, planted.distance),
        "streaming_auc": found["streaming"].mean,
        "streaming_low": found["streaming"].low,
        "streaming_high": found["streaming"].high,
        "window_auc": found["window"].mean,
    }


def write_leakage(root: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write the rows, with the versions they were made with, to `root`/leakage/streaming.json."""
    return write_measurement(root, "leakage", "streaming", environment(), rows)


def _loaded(data: PreparedData) -> LoadedData:
    return LoadedData(data, np.arange(len(data.targets(TEST))))
