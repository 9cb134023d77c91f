"""Publishing: clean tree, finished runs, at most 25 MiB, whole copies."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from repro.errors import RecordError, StorageError
from repro.records import publish as publish_module
from repro.records.publish import publish
from repro.records.run_id import run_id
from repro.records.store import RunStore


def git(repository, *arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(repository), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    """A git repository with one commit and results/ in it."""
    root = tmp_path / "clone"
    (root / "repro").mkdir(parents=True)
    (root / "repro" / "code.py").write_text("x = 1\n")
    git(root, "init")
    git(root, "add", "-A")
    git(root, "commit", "-m", "first")
    return root


def with_seed(record, seed):
    config = record["config"] | {"seed": seed}
    return record | {"config": config, "run_id": run_id(config, record["device"]["name"])}


def test_finished_runs_are_copied_with_their_targets(store, record, scores, repository):
    diverged = with_seed(record, 1) | {"status": "diverged", "metrics": {}}
    runs = [store.save(record, scores), store.save(diverged)]
    published = publish(runs, repository / "results", repository)
    committed = RunStore(repository / "results" / "runs", repository / "results" / "targets", writable=False)
    assert committed.list() == sorted(published, key=lambda run: str(run.path))
    assert [run.record for run in published] == [record, diverged]
    assert np.array_equal(published[0].scores(), scores)
    assert published[0].targets().same_as(runs[0].targets())
    # The copies themselves make no tree dirty, and the same runs may be published again.
    assert publish(runs, repository / "results", repository) == published


def test_a_dirty_tree_is_refused(store, record, scores, repository):
    run = store.save(record, scores)
    (repository / "repro" / "new.py").write_text("y = 2\n")
    with pytest.raises(RecordError, match="uncommitted changes"):
        publish([run], repository / "results", repository)
    (repository / "repro" / "new.py").unlink()
    (repository / "repro" / "code.py").write_text("x = 2\n")
    with pytest.raises(RecordError, match="uncommitted changes"):
        publish([run], repository / "results", repository)
    assert not (repository / "results").exists()


def test_without_git_nothing_is_published(store, record, scores, tmp_path):
    with pytest.raises(RecordError, match="no git commit"):
        publish([store.save(record, scores)], tmp_path / "results", tmp_path)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("status", ["interrupted", "rehearsal"])
def test_unfinished_runs_are_refused_before_anything_is_copied(store, record, scores, repository, status):
    runs = [store.save(record, scores), store.save(with_seed(record, 1) | {"status": status, "metrics": {}})]
    with pytest.raises(RecordError, match=f"status {status}"):
        publish(runs, repository / "results", repository)
    assert not (repository / "results").exists()


def test_a_damaged_run_is_refused(store, record, scores, repository):
    run = store.save(record, scores)
    (run.path / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecordError, match=r"scores\.parquet"):
        publish([run], repository / "results", repository)
    assert not (repository / "results").exists()


def test_results_over_the_limit_are_refused(store, record, scores, repository, monkeypatch):
    runs = [store.save(record, scores), store.save(with_seed(record, 1), scores)]
    size = sum(path.stat().st_size for run in runs for path in run.path.iterdir())
    size += runs[0].targets_path.stat().st_size
    monkeypatch.setattr(publish_module, "RESULTS_LIMIT_BYTES", size - 1)
    with pytest.raises(StorageError, match="MiB with these runs"):
        publish(runs, repository / "results", repository)
    assert not (repository / "results").exists()
    monkeypatch.setattr(publish_module, "RESULTS_LIMIT_BYTES", size)
    publish(runs, repository / "results", repository)
    publish(runs, repository / "results", repository)  # counted once
    (repository / "results" / "notes.txt").write_text("1")
    with pytest.raises(StorageError, match="MiB with these runs"):
        publish(runs, repository / "results", repository)


def test_the_limit_is_the_stated_one():
    assert publish_module.RESULTS_LIMIT_BYTES == 25 * 1024 * 1024


def test_a_run_made_again_with_the_same_scores_leaves_the_committed_record(store, record, scores, repository):
    """The floor is run before every table: where one is committed, it is no obstacle to publishing."""
    committed = RunStore(repository / "results" / "runs", repository / "results" / "targets")
    again = record | {"time": record["time"] | {"train_s": 1.5}}
    targets = store.save(again, scores).targets()
    committed.save_targets("ml-100k", "dti", "test", targets.group, targets.label)
    committed.save(record, scores)
    new = store.save(with_seed(record, 1), scores)
    published = publish(store.list(), repository / "results", repository)
    assert [run.record for run in published] == [record, new.record]


def test_another_run_under_the_same_id_is_not_overwritten(store, record, scores, repository):
    committed = RunStore(repository / "results" / "runs", repository / "results" / "targets")
    targets = store.save(record, scores).targets()
    committed.save_targets("ml-100k", "dti", "test", targets.group, targets.label)
    committed.save(record, scores[::-1])
    with pytest.raises(RecordError, match="a finished run with other content"):
        publish(store.list(), repository / "results", repository)
    assert np.array_equal(committed.list()[0].scores(), scores[::-1])
