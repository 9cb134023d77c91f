"""The fast set: a few short runs trained again and compared with their lists."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from repro.errors import ReproError
from repro.experiments.run_config import RunConfig
from repro.pipeline import Workshop
from repro.records.schema import OK
from repro.records.store import Run, RunStore
from repro.regression.committed import run_problems
from repro.regression.findings import Finding, Verdict
from repro.regression.references import UPDATE, machine
from repro.regression.tolerance import judge
from repro.reporting.cells import flatten

Configs = Callable[[int], Sequence[RunConfig]]  # number of seeds -> one run per seed, 0 first
THREADS = 2
METRICS = {"auc": "AUC", "log_loss": "log loss"}


def retrain(
    name: str, reference: Mapping[str, Any] | None, configs: Configs, workshop: Workshop
) -> list[Finding]:
    """Train the first seed of a row and judge its AUC and log loss; one line each.

    A reference with other settings or numerics has nothing to say of the new run: it is then not trained.
    """
    config = configs(1)[0]
    reason = "no reference" if reference is None else stale_reason(reference, config)
    if reference is None or reason:
        return [_not_run(name, f"{reason}: {UPDATE}")]
    try:
        run = train(config, workshop)
    except ReproError as error:
        return [_not_run(name, str(error))]
    if run["status"] != OK:
        return [_not_run(name, f"the run ended as {run['status']}")]
    problems = run["problems"]
    if run["test_targets"] != reference["test_targets"]:
        problems.append(
            f"tested on {run['test_targets']} targets, the reference on {reference['test_targets']}"
        )
    findings = []
    for metric, title in METRICS.items():
        values = {each["seed"]: each[metric] for each in reference["runs"]}
        findings.append(judge(f"{name}, {title}", metric, values, config.seed, run[metric]))
    if problems:
        findings.append(Finding(f"{name}, record", Verdict.DIFFERS, slip="any", note="; ".join(problems)))
    if same_kind_of_machine(reference, workshop):
        findings = [_moved(finding) for finding in findings]
    return findings


def train_reference(configs: Sequence[RunConfig], workshop: Workshop) -> dict[str, Any]:
    """Train every seed; content of a reference file.

    Raises:
        ReproError: bad data or weights, or a run that did not end well.
    """
    runs = []
    for config in configs:
        run = train(config, workshop)
        if run["status"] != OK or run["problems"]:
            found = "; ".join([run["status"], *run["problems"]])
            raise ReproError(f"seed {config.seed}", found, "a run that is ok", "repair it first")
        runs.append({"seed": config.seed} | {key: run[key] for key in ("auc", "log_loss", "train_s")})
    return {
        "device": workshop.device_name,
        "threads": THREADS,
        "config": settings(configs[0]),
        "test_targets": run["test_targets"],
        "runs": runs,
    }


def train(config: RunConfig, workshop: Workshop) -> dict[str, Any]:
    """One run in a store of its own, then thrown away: in runs/ it would be found finished next time.

    A behaviour table is filled anew: one on disk may hold the vectors of an older program.

    Returns:
        `status`, `problems` of its record, `test_targets`, `train_s` and, if ok, `auc` and `log_loss`.

    Raises:
        ReproError: bad data or weights, or a record that does not hold.
    """
    with tempfile.TemporaryDirectory(prefix="regression-") as folder, fixed_threads():
        store = RunStore(Path(folder), Path(folder) / "targets")
        run = replace(workshop, store=store, tables=None).run(config)
        return _result(run)


def settings(config: RunConfig) -> dict[str, Any]:
    """What a reference and a run must share: all settings but the seed, as JSON has them."""
    resolved: dict[str, Any] = json.loads(json.dumps(config.resolved()))
    resolved.pop("seed")
    return resolved


def stale_reason(reference: Mapping[str, Any], config: RunConfig) -> str:
    """Why a reference cannot be compared with a run of this configuration; empty if it can."""
    old, new = flatten(reference["config"]), flatten(settings(config))
    changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if any(key.startswith("numerics.") for key in changed):
        return "numerics changed"
    if changed:
        return f"settings changed ({', '.join(changed)})"
    return f"made with {reference['threads']} threads" if reference["threads"] != THREADS else ""


def same_kind_of_machine(reference: Mapping[str, Any], workshop: Workshop) -> bool:
    """Whether a reference comes from such a processor, with these versions: then it has our very numbers.

    Not so where either side does not know its processor.
    """
    here = machine()
    known = here["processor"] is not None
    return known and (workshop.device_name, here) == (reference["device"], reference["environment"])


@contextmanager
def fixed_threads() -> Iterator[None]:
    """`THREADS` torch threads, so that sums are taken in the same order on machines of the same kind."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _result(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "status": run.status,
        "problems": run_problems(run),
        "test_targets": record["data"]["test_targets"],
        "train_s": record["time"]["train_s"] or 0.0,
    } | {key: record["metrics"].get(key) for key in METRICS}


def _moved(finding: Finding) -> Finding:
    """On the reference's own kind of machine, nothing but the program can have moved a number."""
    if finding.verdict is not Verdict.WITHIN_NOISE:
        return finding
    note = f"the reference's seed, processor and versions: raise the numerics of what moved it, then {UPDATE}"
    return replace(finding, verdict=Verdict.MOVED, note=note)


def _not_run(name: str, note: str) -> Finding:
    return Finding(name, Verdict.NOT_RUN, note=note)
