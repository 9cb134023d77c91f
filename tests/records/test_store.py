"""The store: whole runs or none, no overwriting, damage named."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from repro.errors import RecordError, StorageError
from repro.records.run_id import run_id
from repro.records.store import RunStore, committed_store, user_store


def folder_of(store, record):
    return store.runs / "test" / "ml-100k" / record["run_id"]


def rewrite(path, **columns):
    """Replace columns of a Parquet file."""
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, path)


def test_a_saved_run_is_read_back(store, record, scores, targets):
    saved = store.save(record, scores)
    run = store.find("test", "ml-100k", record["run_id"])
    assert run == saved
    assert run.path == folder_of(store, record)
    assert (run.run_id, run.status, run.record) == (record["run_id"], "ok", record)
    assert run.scores().dtype == np.float32
    assert np.array_equal(run.scores(), scores)
    user, label = targets
    assert np.array_equal(run.targets().label, label)
    group = run.targets().group
    assert np.array_equal(group[:, None] == group, user[:, None] == user)
    assert store.list() == [run]
    assert store.find("test", "ml-100k", "dti-k50-n10-seed1-0000000000") is None


def test_files_are_as_documented(store, record, scores):
    run = store.save(record, scores)
    assert sorted(path.name for path in run.path.iterdir()) == ["record.json", "scores.parquet"]
    text = (run.path / "record.json").read_text()
    assert text == json.dumps(record, indent=1, sort_keys=True) + "\n"
    table = pq.read_table(run.path / "scores.parquet")
    assert [(f.name, str(f.type)) for f in table.schema] == [("target", "int32"), ("score", "float")]
    table = pq.read_table(run.targets_path)
    columns = [("target", "int32"), ("group", "int32"), ("label", "int8")]
    assert [(f.name, str(f.type)) for f in table.schema] == columns
    assert run.targets_path.name == "ml-100k-dti-test.parquet"
    metadata = pq.ParquetFile(run.targets_path).metadata
    assert {metadata.row_group(0).column(i).compression for i in range(3)} == {"ZSTD"}


def test_groups_are_anonymous(store):
    path = store.save_targets(
        "ml-1m", "rella", "test", np.array([907, 907, 3, 907, 55]), np.array([1, 0, 1, 1, 0])
    )
    assert pq.read_table(path)["group"].to_pylist() == [0, 0, 1, 0, 2]


def test_a_part_of_the_test_set_keeps_its_row_numbers(store, record, targets, scores):
    rows = np.arange(50) * 3 + 1
    record["config"]["tier"] = "small"
    record["run_id"] = run_id(record["config"], record["device"]["name"])
    store.save_targets("ml-100k", "dti", "small", *targets, target=rows)
    run = store.save(record, scores)
    assert pq.read_table(run.path / "scores.parquet")["target"].to_pylist() == rows.tolist()
    assert np.array_equal(run.scores(), scores)


def test_targets_are_written_once_and_compared_ever_after(store, targets):
    user, label = targets
    before = store.targets_path("ml-100k", "dti", "test").stat()
    store.save_targets("ml-100k", "dti", "test", user + 1000, label)  # the same users under other numbers
    assert store.targets_path("ml-100k", "dti", "test").stat().st_mtime_ns == before.st_mtime_ns
    flipped = np.append(label[:-1], 1 - label[-1])
    others = [(user, flipped, None), (user[::-1], label, None), (user[:-1], label[:-1], None)]
    for other_user, other_label, rows in [*others, (user, label, np.arange(50) + 1)]:
        with pytest.raises(RecordError, match=r"ml-100k-dti-test\.parquet: other test targets"):
            store.save_targets("ml-100k", "dti", "test", other_user, other_label, rows)


@pytest.mark.parametrize(
    ("user", "label", "target"),
    [([1, 2], [0, 1, 1], None), ([1, 2], [0, 2], None), ([1, 2], [0, 1], [5, 5]), ([1, 2], [0, 1], [5, 4])],
)
def test_targets_that_are_none_are_refused(store, user, label, target):
    with pytest.raises(RecordError, match="targets ascending"):
        store.save_targets("ml-1m", "dti", "test", np.array(user), np.array(label), target)
    assert not store.targets_path("ml-1m", "dti", "test").exists()


def test_the_same_run_again_is_no_change_and_another_is_refused(store, record, scores):
    run = store.save(record, scores)
    before = (run.path / "record.json").stat().st_mtime_ns
    assert store.save(record, scores) == run
    assert (run.path / "record.json").stat().st_mtime_ns == before
    with pytest.raises(RecordError, match="a finished run with other content"):
        store.save(record, scores[::-1])
    slower = record | {"time": record["time"] | {"train_s": 99.0}}
    for other, other_scores in ((slower, scores), (record | {"status": "diverged", "metrics": {}}, None)):
        with pytest.raises(RecordError, match="a finished run with other content"):
            store.save(other, other_scores)
    assert store.list() == [run]
    assert np.array_equal(run.scores(), scores)


def test_an_interrupted_run_is_replaced_when_it_ends(store, record, interrupted, scores):
    (folder_of(store, record) / "checkpoint").mkdir(parents=True)  # a trainer's own files may lie there
    assert store.list() == []
    run = store.save(interrupted)
    with pytest.raises(RecordError, match="status interrupted"):
        run.scores()
    assert store.find("test", "ml-100k", record["run_id"]).status == "interrupted"
    store.save(record, scores)
    assert [r.status for r in store.list()] == ["ok"]
    assert np.array_equal(store.list()[0].scores(), scores)


def test_scores_and_status_belong_together(store, record, interrupted, scores):
    with pytest.raises(RecordError, match="status ok without scores"):
        store.save(record)
    with pytest.raises(RecordError, match="status interrupted with scores"):
        store.save(interrupted, scores)
    assert store.list() == []


def test_scores_must_fit_the_targets(store, record, scores):
    with pytest.raises(RecordError, match=r"49 scores, data\.test_targets 50, 50 rows"):
        store.save(record, scores[:-1])
    fewer = record | {"data": record["data"] | {"test_targets": 49}}
    with pytest.raises(RecordError, match=r"49 scores, data\.test_targets 49, 50 rows"):
        store.save(fewer, scores[:-1])
    for value in (np.nan, np.inf, -0.1, 1.1):
        with pytest.raises(RecordError, match="row 7: score"):
            store.save(record, np.where(np.arange(50) == 7, value, scores))
    store.targets_path("ml-100k", "dti", "test").unlink()
    with pytest.raises(RecordError, match=r"ml-100k-dti-test\.parquet: missing"):
        store.save(record, scores)
    assert not store.runs.joinpath("test").exists()


def test_committed_runs_are_read_only(store, record, scores, targets):
    store.save(record, scores)
    committed = RunStore(store.runs, store.targets_folder, writable=False)
    assert committed.save(record, scores).run_id == record["run_id"]  # nothing to write
    assert np.array_equal(committed.list()[0].scores(), scores)
    other = record | {"config": record["config"] | {"seed": 1}}
    other["run_id"] = run_id(other["config"], other["device"]["name"])
    with pytest.raises(StorageError, match="read-only"):
        committed.save(other, scores)
    with pytest.raises(StorageError, match="read-only"):
        committed.save_targets("ml-1m", "rella", "test", *targets)


def test_the_two_stores_of_the_project(monkeypatch, tmp_path):
    monkeypatch.setenv("REPRO_RUNS_DIR", str(tmp_path))
    assert (user_store().runs, user_store().targets_folder) == (tmp_path, tmp_path / "targets")
    assert user_store().list() == []
    assert committed_store().targets_folder.parts[-2:] == ("results", "targets")
    assert not committed_store().writable


@pytest.mark.parametrize("part", ["", "..", "a/b", ".hidden", "a\n"])
def test_names_cannot_leave_the_store(store, part):
    with pytest.raises(RecordError, match="field tier"):
        store.find(part, "ml-100k", "x")
    with pytest.raises(RecordError, match="field protocol"):
        store.targets_path("ml-100k", part, "test")


def test_damaged_files_are_named(store, record, scores):
    run = store.save(record, scores)
    intact = {path: path.read_bytes() for path in (*run.path.iterdir(), run.targets_path)}

    def damaged(path, content):
        for each, original in intact.items():
            each.write_bytes(original)
        path.write_bytes(content)

    record_path, scores_path = run.path / "record.json", run.path / "scores.parquet"
    for content in (b"", intact[record_path][:200], intact[record_path].replace(b'"auc"', b'"auk"')):
        damaged(record_path, content)
        with pytest.raises(RecordError, match=r"record\.json"):
            store.list()
        with pytest.raises(RecordError, match=r"record\.json"):
            store.find("test", "ml-100k", run.run_id)
    for path in (scores_path, run.targets_path):
        half = len(intact[path]) // 2
        flipped = bytearray(intact[path])
        flipped[-6] ^= 0xFF  # the length of the footer
        for content in (b"", intact[path][:half], intact[path][half:], bytes(flipped), b"score\n0.5\n"):
            damaged(path, content)
            with pytest.raises(RecordError, match=path.name):
                run.scores()
        damaged(path, b"")
        path.unlink()
        with pytest.raises(RecordError, match=f"{path.name}: missing"):
            run.scores()


def test_altered_columns_are_named(store, record, scores):
    run = store.save(record, scores)
    path = run.path / "scores.parquet"
    original = path.read_bytes()
    for columns, message in (
        ({"score": scores.astype(np.float64)}, "score double"),
        ({"target": np.arange(50, dtype=np.int64)}, "target int64"),
        ({"target": np.arange(1, 51, dtype=np.int32)}, "50 scores that are not those"),
        ({"score": np.where(np.arange(50) == 3, np.nan, scores).astype(np.float32)}, "row 3"),
        ({"score": pa.array([None, *scores[1:]], pa.float32())}, "columns target int32, score float"),
    ):
        path.write_bytes(original)
        rewrite(path, **columns)
        with pytest.raises(RecordError, match=message):
            run.scores()
    path.write_bytes(original)
    pq.write_table(pq.read_table(path).slice(0, 49), path)
    with pytest.raises(RecordError, match=r"scores\.parquet: 49 scores"):
        run.scores()


def test_a_count_that_does_not_match_the_targets_is_named(store, record, scores):
    run = store.save(record, scores)
    record["data"]["test_targets"] = 49
    (run.path / "record.json").write_text(json.dumps(record))
    with pytest.raises(RecordError, match=r"record\.json, field data\.test_targets: 49"):
        store.list()[0].scores()


def test_a_moved_record_is_noticed(store, record, scores):
    run = store.save(record, scores)
    run.path.rename(run.path.with_name("sw-n10-seed0-0123456789"))
    with pytest.raises(RecordError, match="move it to"):
        store.list()
