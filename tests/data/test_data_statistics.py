import pytest

from repro.data import dataset_statistics, load_prepared, split_statistics


def test_published_table_2_of_ml_1m(ml_1m_dir):
    unpruned, pruned = dataset_statistics(load_prepared("ml-1m", "dti", ml_1m_dir))
    assert [unpruned[key] for key in ("users", "items", "samples")] == [6_040, 3_706, 1_000_209]
    assert round(unpruned["sparsity"], 4) == 0.9553
    assert [pruned[key] for key in ("users", "items", "samples")] == [6_040, 3_416, 999_611]
    assert (unpruned["stage"], pruned["stage"]) == ("unpruned", "pruned")


def test_splits_of_ml_100k():
    prepared = load_prepared("ml-100k")
    rows = split_statistics(prepared)
    assert [row["split"] for row in rows] == ["train", "validation", "test"]
    assert [row["targets"] for row in rows] == [75_683, 9_348, 9_541]
    assert [row["interactions"] for row in rows] == [79_429, 9_928, 9_930]
    assert rows[2]["users"] == 166
    assert rows[2]["likes"] == pytest.approx(0.5636, abs=1e-4)
