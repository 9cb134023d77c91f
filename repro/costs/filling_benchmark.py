"""How fast one process and several fill a behaviour table: `build-table` itself, under `accelerate launch`.

Each process has one thread, so that two of them compute on twice the cores of one. The time is what the
table's folder says of its filling: encoding and writing, first calls included. Starting, loading the model
and preparing the texts, which every process does for itself, are not in it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from repro import paths
from repro.behaviours.table_benchmark import row_of
from repro.behaviours.texts import behaviours_of
from repro.costs.programs import run_program
from repro.data import default_protocol
from repro.experiments.run_config import Tier
from repro.methods.bahe.filled_table import fillings_of
from repro.methods.bahe.settings import bahe
from repro.pipeline import Workshop
from repro.prompts.templates import template_for
from repro.records.environment import num_cores

PROCESSES = (1, 2)
LIMIT_S = 3600.0  # of one filling


def filling_rows(tier: Tier, repeats: int) -> Iterator[dict[str, Any]]:
    """Rows of a `behaviour_table` file: a tier's behaviours, encoded into a new table on disk.

    As many processes are measured as there are GPUs, or without one cores.

    Args:
        tier: whose backbone and first data set. repeats: of every number of processes.

    Raises:
        ProgramFailedError: a filling failed.
    """
    workshop, dataset = Workshop(), tier.datasets[0]
    items = workshop.load(tier, dataset, default_protocol(dataset)).data.items
    backbone = workshop.backbone(tier)
    answers = (backbone.yes_id, backbone.no_id)
    behaviours = behaviours_of(items, backbone.tokenizer, template_for(dataset), answers)
    units = torch.cuda.device_count() if workshop.device.type == "cuda" else num_cores()
    common = {
        "device": workshop.device_name,
        "threads": 1,
        "behaviours": len(behaviours),
        "width": backbone.hidden_size,
        "storage": "lance",
        "backbone": backbone.spec.title,
        "num_layers": bahe(tier.n).num_lower(backbone.num_layers),
        "precision": tier.training.precision,
        "tokens": len(behaviours.tokens),
    }
    for repeat in range(repeats):
        for processes in (each for each in PROCESSES if each <= units):
            with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as scratch:
                filling = fill_by_command(Path(scratch), processes, tier.name, dataset)
            assert filling["behaviours"] == len(behaviours), "the table was empty, and is full"
            seconds = {
                "build_s": filling["seconds"],
                "behaviours_per_s": len(behaviours) / filling["seconds"],
            }
            yield row_of("filling", common | seconds | {"processes": processes, "repeat": repeat})


def fill_by_command(tables: Path, processes: int, tier: str, dataset: str) -> dict[str, Any]:
    """`accelerate launch` of `build-table` with processes of one thread each; what its one filling says.

    Args:
        tables: an empty folder, in which the table is made.

    Raises:
        ProgramFailedError: it ended with an error, or took more than an hour.
    """
    # accelerate starts several processes under this flag alone; without a GPU they are processes on the CPU.
    several = ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else []
    settings = f"--num_processes {processes} --num_machines 1 --mixed_precision no --dynamo_backend no"
    arguments = ["build-table", "--tier", tier, "--dataset", dataset, "--tables", str(tables.resolve())]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *several, *settings.split()]
    variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    run_program("build-table", [*launch, "-m", "repro", *arguments], variables, LIMIT_S)
    (folder,) = tables.iterdir()
    (filling,) = fillings_of(folder)
    assert filling["processes"] == processes
    return filling
