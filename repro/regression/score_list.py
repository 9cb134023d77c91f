"""`results/references/scores.json`: a checksum of the scores of every committed run.

A metric is a mean over thousands of targets: an edit of a single score can move it by less than any
tolerance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from repro.errors import ReproError
from repro.records.schema import OK
from repro.records.store import RunStore
from repro.regression.findings import Finding, Verdict, exact
from repro.regression.references import SCORES, UPDATE, read_reference

METRIC = "checksums of committed scores"


def score_checksums(results: Path) -> dict[str, str]:
    """sha256 of the (T,) little-endian float32 scores of every ok run, by run id.

    Raises:
        RecordError, StorageError: a record or its scores are damaged.
    """
    runs = RunStore(results / "runs", results / "targets", writable=False).list()
    return {run.run_id: score_sha256(run.scores()) for run in runs if run.status == OK}


def score_sha256(scores: np.ndarray) -> str:
    """Checksum of (T,) scores."""
    return hashlib.sha256(np.ascontiguousarray(scores, dtype="<f4").tobytes()).hexdigest()


def check_score_list(results: Path) -> Iterator[Finding]:
    """One line: the scores of all committed runs against their list."""
    try:
        reference = read_reference(results / "references", SCORES)
        found = score_checksums(results)
    except ReproError as error:
        yield Finding(METRIC, Verdict.NOT_RUN, note=str(error))
        return
    if reference is None:
        yield Finding(METRIC, Verdict.NOT_RUN, note=f"no reference: {UPDATE} --rows none")
        return
    yield exact(METRIC, f"{len(reference['scores'])} runs", list_problems(reference["scores"], found))


def list_problems(listed: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """One line for each run whose scores are others than listed, or that only one side has."""
    problems = []
    for name in sorted({*listed, *found}):
        if name not in listed:
            problems.append(f"{name}: not in the list: {UPDATE} --rows none")
        elif name not in found:
            problems.append(f"{name}: in the list, but no committed run; if meant, {UPDATE} --rows none")
        elif listed[name] != found[name]:
            problems.append(f"{name}: its scores are not those of the list; restore scores.parquet from git")
    return problems
