"""Runs of the `test` tier in processes of their own that are killed; a script for the tests beside it.

`python forked_runs.py FOLDER` reads plans from stdin, {name: {"row": ..., "processes": 1 or 2, "kills":
[[event, number, signal], ...], ...}}, and writes {name: {"exits": [...], "record": ..., "scores": ...}} to
stdout. Every attempt is a forked process: torch is imported and the data loaded once, before any of them.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch

from repro.experiments.run_config import RunConfig, Subset, Tier
from repro.experiments.table1 import table1_runs
from repro.experiments.tiers import tier_named
from repro.methods.sum_batches import SumBatches
from repro.pipeline import Workshop
from repro.records.store import RunStore
from repro.training.checkpoint import CheckpointFolder

DATASET, PROTOCOL = "synthetic", "rella"
# Event -> (class, method, whether the signal comes after the call). `rename` counts checkpoint files alone.
EVENTS = {
    "load": (SumBatches, "load", False),
    "saved": (CheckpointFolder, "save", True),
    "rename": (Path, "replace", False),
    "optimizer": (torch.optim.AdamW, "step", True),
    "record": (RunStore, "save", False),
    "recorded": (RunStore, "save", True),
}


def arm(event: str, number: int, which: int) -> None:
    """Sends this process a signal at the n-th event."""
    owner, name, after = EVENTS[event]
    real, calls = getattr(owner, name), []

    def wrapped(*arguments, **keywords):
        counts = event != "rename" or str(arguments[0]).endswith(".partial")
        calls.extend([None] * counts)
        if counts and not after and len(calls) == number:
            os.kill(os.getpid(), which)
        answer = real(*arguments, **keywords)
        if counts and after and len(calls) == number:
            os.kill(os.getpid(), which)
        return answer

    setattr(owner, name, wrapped)


def small_tier() -> Tier:
    """The `test` tier with half as many targets; 6 steps of 8 targets in each of 2 epochs."""
    tier = tier_named("test")
    subset = Subset(train_targets=48, validation_targets=24, test_targets=24)
    return replace(tier, subset=subset, training=replace(tier.training, batch_targets=8))


def config_of(plan: dict) -> RunConfig:
    config = table1_runs(small_tier(), DATASET, PROTOCOL, plan["row"], 1)[0]
    settings = replace(config.tier.training, **plan.get("settings", {}))
    sizes = replace(config.tier.sizes, **plan.get("sizes", {}))
    return replace(config, tier=replace(config.tier, training=settings, sizes=sizes))


def fork(work) -> int:
    """A child that does `work` and ends with 0, with 130 after Ctrl-C, or with 1; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def exits(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def join_processes(rank: int, processes: int, port: int) -> None:
    """What `accelerate launch --cpu --num_processes` sets."""
    os.environ.update(ACCELERATE_USE_CPU="true", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))


def attempt(workshop: Workshop, config: RunConfig, kill: list | None, processes: int) -> list[int]:
    """One try at a run."""
    port = free_port()

    def work(rank: int) -> None:
        if processes > 1:
            join_processes(rank, processes, port)
        if kill is not None:
            arm(*kill)
        workshop.run(config)

    return exits([fork(lambda rank=rank: work(rank)) for rank in range(processes)])


def carry_out(workshop: Workshop, plan: dict, folder: Path) -> dict:
    store = RunStore(folder, folder / "targets")
    workshop = replace(workshop, store=store)
    config, processes = config_of(plan), plan.get("processes", 1)
    result: dict = {"exits": [], "files": []}
    for kill in [*plan.get("kills", []), None]:
        result["exits"].append(attempt(workshop, config, kill, processes))
        result["files"].append(sorted(p.name for p in folder.rglob("*") if p.is_file()))
    runs = store.list()
    if len(runs) == 1:
        result["record"] = runs[0].record
        result["scores"] = [float(score) for score in runs[0].scores()]
    return result


def main() -> None:
    workshop = Workshop()
    plans = json.load(sys.stdin)
    workshop.load(small_tier(), DATASET, PROTOCOL)
    gc.freeze()  # the children's collectors leave what is shared alone
    results = {
        name: carry_out(workshop, plan, Path(sys.argv[1]) / str(number))
        for number, (name, plan) in enumerate(plans.items())
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
