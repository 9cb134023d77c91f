"""Copying finished runs from a user's side to the committed one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repro import paths
from repro.errors import RecordError, StorageError
from repro.records.environment import git_state
from repro.records.schema import FINISHED, OK
from repro.records.store import Run, RunStore

RESULTS_LIMIT_BYTES = 25 * 2**20


def publish(
    runs: Sequence[Run], results_root: Path | None = None, repository: Path = paths.PROJECT_ROOT
) -> list[Run]:
    """Copy runs, with their targets, to `results_root`/runs and `results_root`/targets.

    Everything is checked for all runs before the first is copied.

    Returns:
        The committed runs; those that were there already with the same scores are left as they are.

    Raises:
        RecordError: the git tree is dirty outside of results/ and reports/ (or there is no git), a run is
            interrupted or a rehearsal, a file is damaged, or another run is there under the same id.
        StorageError: results would exceed 25 MiB; cannot be written.
    """
    root = paths.results_dir() if results_root is None else Path(results_root)
    require_clean_tree(repository)
    scores = {}
    for run in runs:
        if run.status not in FINISHED:
            raise RecordError(
                run.path, f"status {run.status}", f"one of {', '.join(FINISHED)}", "finish it first"
            )
        scores[run.path] = run.scores() if run.status == OK else None
    _check_size(runs, root)
    store = RunStore(root / "runs", root / "targets")
    published = []
    for run in runs:
        if run.status == OK:
            targets, config = run.targets(), run.record["config"]
            name = (config["dataset"], config["protocol"], config["tier"])
            store.save_targets(*name, targets.group, targets.label, targets.target)
        there = store.find(*run.path.parts[-3:])
        same = there is not None and there.status == run.status == OK and _same_scores(there, run)
        published.append(there if there is not None and same else store.save(run.record, scores[run.path]))
    return published


def _same_scores(committed: Run, run: Run) -> bool:
    """Of a run that another machine of the same kind has made again, times and versions are others."""
    return bool(np.array_equal(committed.scores(), run.scores()))


def require_clean_tree(repository: Path = paths.PROJECT_ROOT) -> None:
    """Refuse to publish from a changed tree; asked before training, too.

    Raises:
        RecordError: the git tree is dirty outside of results/ and reports/, or there is no git.
    """
    state = git_state(repository)
    if state["sha"] is None or state["dirty"]:
        raise RecordError(
            repository,
            "uncommitted changes" if state["sha"] else "no git commit",
            "a clean git tree (results/ and reports/ apart), so that a commit names the code",
            "commit or stash your changes, then publish again",
        )


def _check_size(runs: Sequence[Run], root: Path) -> None:
    sizes = {path: path.stat().st_size for path in root.rglob("*") if path.is_file()}
    for run in runs:
        parts = run.path.parts[-3:]  # tier, dataset, run id
        sizes |= {root.joinpath("runs", *parts, f.name): f.stat().st_size for f in run.path.glob("[!.]*.*")}
        if run.targets_path.exists():
            sizes[root / "targets" / run.targets_path.name] = run.targets_path.stat().st_size
    total = sum(sizes.values())
    if total > RESULTS_LIMIT_BYTES:
        raise StorageError(
            root,
            f"{total / 2**20:.1f} MiB with these runs",
            f"at most {RESULTS_LIMIT_BYTES / 2**20:.0f} MiB of committed results",
            "publish fewer runs, or remove stale ones from results/ first",
        )
