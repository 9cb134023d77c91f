"""DIN's training speed beside that of two maintained libraries, on the same data and with the same sizes.

Every measurement is a process of its own (baseline_programs.py); the programs take turns, every other round
in reverse order, so that a machine that slows down hurts all of them alike. At last our program trains one
whole epoch. About five minutes on two quiet cores.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro.costs.baseline_programs import Setup, command
from repro.costs.programs import run_program
from repro.data import default_protocol
from repro.errors import ConfigError
from repro.records.environment import device_name, environment, num_cores
from repro.records.measurements import write_measurement

PEER_OF = {"fuxictr": "fuxictr", "fuxictr-batches-ready": "fuxictr", "deepctr-torch": "deepctr-torch"}
PROGRAMS = ("ours", *PEER_OF)
TARGETS, REPEATS = 60_000, 3


def run_benchmark(
    data_dir: Path | None, root: Path, targets: int | None = TARGETS, repeats: int = REPEATS
) -> Path:
    """Measure on ml-1m, or on ml-100k where no folder is given, and write <root>/baseline_speed/din-*.json.

    Args:
        data_dir: folder with the files of ml-1m.
        root: results/ or runs/.
        targets: training targets per measurement; None: the whole epoch each time.
        repeats: measurements per program.

    Raises:
        ConfigError: a library is missing. ProgramFailedError. DataError, StorageError: as loading the data.
    """
    versions = {name: _version(name) for name in sorted(set(PEER_OF.values()))}
    dataset = "ml-100k" if data_dir is None else "ml-1m"
    folder = None if data_dir is None else str(data_dir.resolve())
    setup = Setup(dataset, default_protocol(dataset), folder, targets, _threads())
    rows = list(_measurements(setup, repeats))
    return write_measurement(root, "baseline_speed", f"din-{dataset}", environment() | versions, rows)


def _measurements(setup: Setup, repeats: int) -> Iterator[dict[str, Any]]:
    for repeat in range(repeats):
        for program in PROGRAMS if repeat % 2 == 0 else reversed(PROGRAMS):
            yield _row(program, setup, repeat, whole_epoch=False)
    yield _row("ours", replace(setup, targets=None), 0, whole_epoch=True)


def _row(program: str, setup: Setup, repeat: int, whole_epoch: bool) -> dict[str, Any]:
    start = time.perf_counter()
    measured = _run_alone(program, setup)
    seconds = time.perf_counter() - start
    print(f"{program}: {measured['targets_per_s']:,.0f} targets/s ({seconds:.0f} s in all)", flush=True)
    return {
        "device": device_name(),
        "threads": setup.threads,
        "program": program,
        "dataset": setup.dataset,
        "protocol": setup.protocol,
        "n": setup.n,
        "batch": setup.batch_targets,
        "repeat": repeat,
        "whole_epoch": whole_epoch,
        **measured,
    }


def _run_alone(program: str, setup: Setup) -> dict[str, Any]:
    """Measure in a new process, which sees no GPU."""
    threads = str(setup.threads)
    variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch, "result.json")
        run_program(program, command(program, setup, result), variables)
        return json.loads(result.read_text())


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        fix = "nox -s bench_baselines, which installs it into an environment of its own"
        raise ConfigError("environment", f"no {distribution}", "the libraries to compare with", fix) from None


def _threads() -> int:
    """`OMP_NUM_THREADS`, else one per core that this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or num_cores())
