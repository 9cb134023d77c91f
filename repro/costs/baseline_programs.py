"""One program of the DIN speed comparison, alone in its process: prepare the data, then train one epoch.

`baseline_benchmark.py` starts this file once per repetition, so that peak memory is the program's own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from baselines.din import DinSettings
from baselines.method import IdMethod
from baselines.registry import id_task
from repro.data import PreparedData, load_prepared, take_subset
from repro.training.loop import Trainer
from repro.training.memory import peak_gib
from repro.training.settings import TrainingSettings

CPU = torch.device("cpu")
WARM_UP_STEPS = 4
VALIDATION_TARGETS = 1000  # our loop scores them after the epoch, on a clock of its own


@dataclass(frozen=True)
class Setup:
    """What all programs have in common.

    Attributes:
        dataset, protocol, data_dir: the data.
        targets: training targets of the epoch, whole users in a fixed shuffled order; None: all.
        threads: of torch.
        n: past interactions per target. batch_targets: targets per optimiser step.
        answer_dim: width of the answer's embedding where it stands beside item and category. We add it to
            them instead; the peers' category is narrower by as much, so that the attention is equally wide.
    """

    dataset: str
    protocol: str
    data_dir: str | None
    targets: int | None
    threads: int
    n: int = 30
    batch_targets: int = 2048
    answer_dim: int = 8
    learning_rate: float = 1e-3

    @property
    def model(self) -> DinSettings:
        """Sizes of the networks."""
        return DinSettings()


# Prepares the data in a scratch folder and returns what trains one epoch and says how many seconds it took.
Program = Callable[[PreparedData, Setup, Path], Callable[[], float]]


def ours(data: PreparedData, setup: Setup, folder: Path) -> Callable[[], float]:
    """Our DIN through the training loop of every method; validation is taken off."""
    settings = TrainingSettings(
        learning_rate=setup.learning_rate, batch_targets=setup.batch_targets, eval_batch_targets=4096
    )
    task = id_task(IdMethod("din", setup.n, setup.model, settings), data, seed=0, device="cpu")
    trainer = Trainer(task, settings, seed=0, checkpoints=None, title="ours")

    def train() -> float:
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start - trainer.clocks["eval"]

    return train


def programs() -> dict[str, Program]:
    """Every program by name; importing the peers is left to the process that runs one."""
    from repro.costs import baseline_peers as peers

    return {
        "ours": ours,
        "fuxictr": peers.fuxictr,
        "fuxictr-batches-ready": peers.fuxictr_batches_ready,
        "deepctr-torch": peers.deepctr_torch,
    }


def measure(program: Program, setup: Setup) -> dict[str, Any]:
    """Warm up on a few batches, then prepare and train; seconds, targets and resident memory."""
    torch.set_num_threads(setup.threads)
    data = load_prepared(setup.dataset, setup.protocol, setup.data_dir)
    few = take_subset(data, WARM_UP_STEPS * setup.batch_targets, VALIDATION_TARGETS)
    chosen = take_subset(data, setup.targets, VALIDATION_TARGETS)
    loaded_gib = peak_gib(CPU)
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, name) for name in ("few", "chosen")]
        for folder in folders:
            folder.mkdir()
        program(few, setup, folders[0])()
        start = time.perf_counter()
        train = program(chosen, setup, folders[1])
        prepare_s = time.perf_counter() - start
        train_s = train()
    targets = len(chosen.targets(0))
    return {
        "targets": targets,
        "prepare_s": prepare_s,
        "train_s": train_s,
        "targets_per_s": targets / train_s,
        "loaded_gib": loaded_gib,
        "peak_gib": peak_gib(CPU),
    }


def command(name: str, setup: Setup, result: Path) -> list[str]:
    """Command line that measures a program and writes the result as JSON."""
    return [sys.executable, "-m", __spec__.name, name, json.dumps(asdict(setup)), str(result)]


if __name__ == "__main__":
    _, program_name, setup_json, result_path = sys.argv
    measured = measure(programs()[program_name], Setup(**json.loads(setup_json)))
    Path(result_path).write_text(json.dumps(measured))
