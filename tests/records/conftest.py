"""A complete record, a store and targets to change at will."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from repro.records.run_id import run_id
from repro.records.store import RunStore

NUM_TARGETS = 50
CONFIG = {
    "method": "dti",
    "recipe": "paper",
    "k": 50,
    "n": 10,
    "sum_layout": "inline-visible",
    "window": "interactions",
    "instruction": "visible",
    "backbone": "smollm2-135m",
    "tuning": "full",
    "dataset": "ml-100k",
    "protocol": "dti",
    "tier": "test",
    "seed": 0,
    "fixes": {"reset": {"layers": "last"}, "alibi_slope": 0.5},
    "numerics": {"method": 1, "trainer": 1},
    "learning_rate": 2e-4,
}
RECORD = {
    "schema": 1,
    "run_id": run_id(CONFIG, "some CPU, 2 cores"),
    "status": "ok",
    "config": CONFIG,
    "metrics": {
        "auc": 0.7,
        "log_loss": 0.6,
        "f1": 0.65,
        "gauc": 0.61,
        "gauc_users": 8,
        "gauc_users_left_out": 2,
    },
    "validation": [{"epoch": 0, "auc": 0.71, "log_loss": 0.59, "train_loss": 0.64, "train_s": 9.5}],
    "data": {
        "sha256": "a" * 64,
        "train_targets": 400,
        "validation_targets": 50,
        "test_targets": NUM_TARGETS,
        "tokens_raw": 9000,
        "tokens_padded": 9900,
    },
    "time": {
        "train_s": 9.5,
        "train_to_best_s": 9.5,
        "compile_s": 0.0,
        "eval_s": 2,
        "data_s": 0.5,
        "epochs": 1,
        "best_epoch": 0,
    },
    "memory": {"peak_gib": None},
    "device": {"name": "some CPU, 2 cores", "count": 1},
    "environment": {"python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "5.23.0", "peft": None},
    "git": {"sha": None, "dirty": None},
    "code_sha256": "b" * 64,
}


@pytest.fixture
def record():
    return copy.deepcopy(RECORD)


@pytest.fixture
def interrupted(record):
    return record | {"status": "interrupted", "metrics": {}}


@pytest.fixture
def targets():
    """User and label columns."""
    random = np.random.default_rng(0)
    return random.integers(100, 110, size=NUM_TARGETS), random.integers(2, size=NUM_TARGETS)


@pytest.fixture
def scores():
    return np.random.default_rng(1).random(NUM_TARGETS).astype(np.float32)


@pytest.fixture
def store(tmp_path, targets):
    """A user's store that knows the targets of the record's test set."""
    store = RunStore(tmp_path / "runs", tmp_path / "runs" / "targets")
    store.save_targets("ml-100k", "dti", "test", *targets)
    return store
