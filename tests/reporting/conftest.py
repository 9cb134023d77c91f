"""A small world to report on: hand-made runs, saved through the real store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repro.evaluation.metrics import evaluate_scores
from repro.paths import PROJECT_ROOT
from repro.records.run_id import run_id
from repro.records.store import Run, RunStore
from repro.reporting import cells

NUM_USERS, PER_USER = 30, 10
USER = np.repeat(np.arange(NUM_USERS), PER_USER)
LABEL = ((np.arange(len(USER)) * 7919 % 1009) % 2).astype(np.int8)
CURRENT = {"method": 3, "trainer": 2}  # numerics, of every method that has them
ENVIRONMENT = {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"}

CONFIG: dict[str, Any] = {
    "method": "sw",
    "recipe": "paper",
    "k": 1,
    "n": 10,
    "sum_layout": "deferred",
    "window": "interactions",
    "instruction": "visible",
    "loss": "vocabulary",
    "fixes": {"reset": None, "position": "rope", "alibi_slope": 0.0},
    "backbone": "smollm2-135m",
    "backbone_settings": {"layers": 6, "tuning": "full", "title": "SmolLM2-135M, first 6 of 30 layers"},
    "tuning": "full",
    "dataset": "ml-100k",
    "protocol": "dti",
    "tier": "cpu",
    "seed": 0,
    "batch_sizes": {"max_tokens": 4096},
    "compiled": False,
    "subset": {"train_targets": 4000, "validation_targets": 500, "test_targets": 300},
    "training": {"learning_rate": 4e-4, "max_epochs": 1, "batch_targets": 64, "precision": "bf16"},
}

RECORD: dict[str, Any] = {
    "schema": 1,
    "status": "ok",
    "metrics": {},
    "validation": [{"epoch": 0, "auc": 0.71, "log_loss": 0.61}],
    "data": {
        "sha256": "d" * 64,
        "train_targets": 4000,
        "validation_targets": 500,
        "test_targets": len(USER),
        "tokens_raw": 1000,
        "tokens_padded": 1100,
    },
    "time": {
        "train_s": 100.0,
        "train_to_best_s": 100.0,
        "compile_s": None,
        "eval_s": 5.0,
        "data_s": 2.0,
        "epochs": 1,
        "best_epoch": 0,
    },
    "memory": {"peak_gib": 1.5},
    "device": {"name": "Test CPU, 2 cores", "count": 1},
    "environment": ENVIRONMENT,
    "git": {"sha": "a" * 40, "dirty": False},
    "code_sha256": "c" * 64,
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, given by dotted names where they lie deeper."""
    result = deepcopy(base)
    for name, value in changes.items():
        *parents, last = name.split(".")
        table = result
        for parent in parents:
            table = table[parent]
        table[last] = value
    return result


def scores(seed: int, signal: float) -> np.ndarray:
    """Probabilities that know more of the label as `signal` grows; the same noise for the same seed.

    Whole-number arithmetic, so that golden pages do not depend on a random generator or a maths library.
    """
    mixed = (np.arange(len(LABEL), dtype=np.int64) + 1) * (40_503 + 2 * seed) ** 2 % 65_521
    noise = mixed * (mixed + 17) % 8_191 / 8_191 - 0.5
    return (0.5 + 0.4 * noise + 0.2 * signal * (LABEL - 0.5)).astype(np.float32)


@dataclass
class World:
    """Folders of a clone, and how to put runs into them."""

    results: Path
    runs: Path
    reports: Path

    def add(
        self, signal: float = 0.6, *, own: bool = False, record: dict[str, Any] | None = None, **config: Any
    ) -> Run:
        """Save a run; keyword arguments change its configuration (`training__max_epochs=2` goes deeper)."""
        changes = {name.replace("__", "."): value for name, value in config.items()}
        content = merged(RECORD, record or {})
        content["config"] = merged(CONFIG, changes)
        content["config"].setdefault("numerics", CURRENT)
        content["run_id"] = run_id(content["config"], content["device"]["name"])
        score = None
        if content["status"] == "ok":
            score = scores(content["config"]["seed"], signal)
            content["metrics"] = evaluate_scores(LABEL, score, USER)
        store = RunStore(self.runs, self.runs / "targets") if own else self.committed
        place = (content["config"][name] for name in ("dataset", "protocol", "tier"))
        store.save_targets(*place, USER, LABEL)
        return store.save(content, score)

    @property
    def committed(self) -> RunStore:
        return RunStore(self.results / "runs", self.results / "targets")

    def add_statistics(self, own: bool = False, **changes: Any) -> Path:
        """Write a statistics file of ML-1M, changed as said."""
        row = STATISTICS | changes
        folder = (self.runs if own else self.results) / "statistics"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{row['dataset']}-{row['protocol']}.json"
        path.write_text(json.dumps({"environment": ENVIRONMENT, "rows": [row]}))
        return path


STATISTICS: dict[str, Any] = {
    "dataset": "ml-1m",
    "title": "MovieLens-1M",
    "protocol": "dti",
    "users": 6040,
    "items": 3706,
    "samples": 1_000_209,
    "sparsity": 1 - 1_000_209 / (6040 * 3706),
    "items_pruned": 3416,
    "train_targets": 799_000,
    "validation_targets": 99_000,
    "test_targets": 98_000,
    "sha256": "e" * 64,
}


def make_world(root: Path) -> World:
    """Empty results and runs below `root`, and reports with the real published values."""
    shutil.copytree(
        PROJECT_ROOT / "reports" / "reference", root / "reports" / "reference", dirs_exist_ok=True
    )
    return World(root / "results", root / "runs", root / "reports")


@pytest.fixture(scope="session", autouse=True)
def numerics() -> Iterator[None]:
    """Numerics of these tests, so that raising the real ones changes no golden page."""
    with pytest.MonkeyPatch.context() as patch:
        methods = ("zero-shot", "sw", "dti-minus", "dti")
        patch.setattr(cells, "method_numerics", dict.fromkeys(methods, CURRENT["method"]).__getitem__)
        patch.setattr(cells, "TRAINER_NUMERICS", CURRENT["trainer"])
        yield


@pytest.fixture(scope="session")
def new_world() -> Callable[[Path], World]:
    return make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)
