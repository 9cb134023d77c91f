"""Folders of finished runs: written whole, never overwritten, read with every check.

<runs>/<tier>/<dataset>/<run-id>/record.json, scores.parquet      one training run
<targets>/<dataset>-<protocol>-<tier>.parquet                     its test targets, once for all runs
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repro import paths
from repro.errors import RecordError, StorageError
from repro.records.atomic import json_bytes, write_file, write_folder
from repro.records.columns import (
    Targets,
    anonymous_groups,
    check_score_values,
    read_scores,
    read_targets,
    scores_bytes,
    targets_bytes,
)
from repro.records.schema import OK, parse_record, validate_record

RECORD_FILE, SCORES_FILE = "record.json", "scores.parquet"


@dataclass(frozen=True)
class Run:
    """A run on disk; scores and targets are read when asked for."""

    path: Path  # its folder
    record: dict[str, Any]  # validated content of record.json
    targets_path: Path  # the targets file that its scores belong to

    @property
    def run_id(self) -> str:
        """Name of the run and of its folder."""
        return self.record["run_id"]

    @property
    def status(self) -> str:
        """ok | out_of_memory | diverged | interrupted | rehearsal."""
        return self.record["status"]

    def scores(self) -> np.ndarray:
        """(T,) float32 probability of a "yes" for each test target, in canonical test order.

        Raises:
            RecordError: the run is not ok, or one of its files is missing, damaged or of other targets.
        """
        if self.status != OK:
            raise RecordError(
                self.path / RECORD_FILE,
                f"status {self.status}",
                "status ok (others have no scores)",
                "run it again",
            )
        targets = self.targets()
        num_targets = self.record["data"]["test_targets"]
        if len(targets.target) != num_targets:
            raise RecordError(
                f"{self.path / RECORD_FILE}, field data.test_targets",
                str(num_targets),
                f"{len(targets.target)}, the rows of {self.targets_path}",
                "restore both files from git, or delete the run's folder and run again",
            )
        return read_scores(self.path / SCORES_FILE, targets.target)

    def targets(self) -> Targets:
        """Labels and anonymous users of the test targets, in the order of `scores`."""
        return read_targets(self.targets_path)


class RunStore:
    """Runs below one folder, and the targets they were tested on.

    Args:
        runs: holds <tier>/<dataset>/<run-id>/.
        targets: holds <dataset>-<protocol>-<tier>.parquet; may lie inside `runs`.
        writable: False refuses to save (committed results).
    """

    def __init__(self, runs: Path, targets: Path, writable: bool = True) -> None:
        self.runs, self.targets_folder, self.writable = Path(runs), Path(targets), writable

    def folder(self, tier: str, dataset: str, run_id: str) -> Path:
        """Where a run lives or will live."""
        return self.runs / _part("tier", tier) / _part("dataset", dataset) / _part("run_id", run_id)

    def targets_path(self, dataset: str, protocol: str, tier: str) -> Path:
        """Where the targets of a test set live or will live."""
        parts = [_part("dataset", dataset), _part("protocol", protocol), _part("tier", tier)]
        return self.targets_folder / f"{'-'.join(parts)}.parquet"

    def save_targets(
        self,
        dataset: str,
        protocol: str,
        tier: str,
        user: np.ndarray,
        label: np.ndarray,
        target: np.ndarray | None = None,
    ) -> Path:
        """Write the test targets once; when they are there, check that they are the same.

        Args:
            user: (T,) any user numbers; stored anonymised, by first appearance.
            label: (T,) 0/1.
            target: (T,) ascending row numbers in the protocol's canonical test order, for a tier that tests
                on a part of it; 0..T-1 if left out.

        Raises:
            RecordError: other targets are there under this name. StorageError: cannot be written.
        """
        rows = np.arange(len(user)) if target is None else np.asarray(target)
        where = self.targets_path(dataset, protocol, tier)
        if (
            not len(rows) == len(user) == len(label)
            or not np.isin(label, (0, 1)).all()
            or (np.diff(rows) <= 0).any()
        ):
            raise RecordError(
                where,
                f"{len(rows)} targets, {len(user)} users, {len(label)} labels",
                "equally many, targets ascending, labels 0 or 1",
                "pass the columns of the test targets in canonical order",
            )
        targets = Targets(
            rows.astype(np.int32), anonymous_groups(np.asarray(user)), np.asarray(label, dtype=np.int8)
        )
        if where.exists():
            if not read_targets(where).same_as(targets):
                raise RecordError(
                    where,
                    "other test targets under the same data set, protocol and tier",
                    "the identical targets for every run",
                    "the data or its preparation changed: give the tier another name, or move this file and "
                    "the runs tested on it away",
                )
        else:
            self._check_writable(where)
            write_file(where, targets_bytes(targets))
        return where

    def save(self, record: Mapping[str, Any], scores: np.ndarray | None = None) -> Run:
        """Write a run; its targets must have been saved before.

        A run that is there with the same content is left alone. One that is not ok (interrupted, out of
        memory, ...) is replaced: scores first, the record last, so that a kill in between leaves the old one.

        Args:
            record: every key of `schema.Record`.
            scores: (T,) one per target, in canonical test order; None unless status is ok.

        Raises:
            RecordError: record or scores do not hold, or an ok run with other content is there.
            StorageError: disk full, no permission, read-only store; what was there before is still there.
        """
        validate_record(record)
        stored: dict[str, Any] = json.loads(json_bytes(record))  # as a reader will see it: tuples are lists
        config = stored["config"]
        folder = self.folder(config["tier"], config["dataset"], stored["run_id"])
        targets_path = self.targets_path(config["dataset"], config["protocol"], config["tier"])
        if (scores is None) != (stored["status"] != OK):
            raise RecordError(
                folder,
                f"status {stored['status']} with{'out' if scores is None else ''} scores",
                "scores if, and only if, the status is ok",
                "pass the scores of an ok run, and none with another status",
            )
        files = {RECORD_FILE: json_bytes(stored)}
        if scores is not None:
            scores = np.asarray(scores, dtype=np.float32)
            files[SCORES_FILE] = _checked_scores(stored, scores, targets_path)
        existing = self.find(config["tier"], config["dataset"], stored["run_id"])
        if (
            existing is not None
            and existing.record == stored
            and (scores is None or np.array_equal(existing.scores(), scores))
        ):
            return existing
        if existing is not None and existing.status == OK:
            raise RecordError(
                folder,
                "a finished run with other content",
                "a new run, or the very same content",
                "delete that folder first if the run is really to be repeated",
            )
        self._check_writable(folder)
        if folder.exists():
            for name in sorted(files, reverse=True):  # scores.parquet, then record.json
                write_file(folder / name, files[name])
        else:
            write_folder(folder, files)
        return Run(folder, stored, targets_path)

    def find(self, tier: str, dataset: str, run_id: str) -> Run | None:
        """The run, whatever its status, or None.

        Raises:
            RecordError: its record is damaged or belongs elsewhere.
        """
        folder = self.folder(tier, dataset, run_id)
        return self._read(folder) if (folder / RECORD_FILE).is_file() else None

    def list(self) -> list[Run]:
        """All runs, whatever their status, sorted by path.

        Raises:
            RecordError: a record is damaged or lies in the wrong folder.
        """
        records = self.runs.glob(f"*/*/*/{RECORD_FILE}")
        return [self._read(path.parent) for path in sorted(records) if not path.parent.name.startswith(".")]

    def _read(self, folder: Path) -> Run:
        path = folder / RECORD_FILE
        try:
            text = path.read_bytes()
        except OSError as error:
            raise StorageError(
                path, error.strerror or str(error), "a readable file", "fix permissions"
            ) from error
        record = parse_record(text, path)
        config = record["config"]
        expected = self.folder(config["tier"], config["dataset"], record["run_id"])
        if folder != expected:
            raise RecordError(
                path, f"the record of {expected}", f"that of {folder}", f"move it to {expected}"
            )
        return Run(folder, record, self.targets_path(config["dataset"], config["protocol"], config["tier"]))

    def _check_writable(self, where: Path) -> None:
        if not self.writable:
            raise StorageError(
                where,
                "committed results are read-only",
                "a user's own store",
                "publish finished runs with --publish",
            )


def committed_store() -> RunStore:
    """Committed runs: results/runs and results/targets, read-only."""
    return RunStore(paths.results_dir() / "runs", paths.results_dir() / "targets", writable=False)


def user_store() -> RunStore:
    """A user's own runs: runs/ and runs/targets."""
    return RunStore(paths.runs_dir(), paths.runs_dir() / "targets")


def _checked_scores(record: dict[str, Any], scores: np.ndarray, targets_path: Path) -> bytes:
    targets = read_targets(targets_path)
    counts = (len(scores), record["data"]["test_targets"], len(targets.target))
    if scores.ndim != 1 or len(set(counts)) > 1:
        raise RecordError(
            record["run_id"],
            f"{counts[0]} scores, data.test_targets {counts[1]}, {counts[2]} rows in {targets_path}",
            "the same number three times",
            "save the targets of this data set, protocol and tier, and score exactly them",
        )
    check_score_values(scores, f"{record['run_id']}, scores")
    return scores_bytes(targets.target, scores)


def _part(name: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise RecordError(
            f"field {name}",
            repr(value),
            "letters, digits, dots, dashes and underscores",
            "choose another name",
        )
    return value
