"""Rows: every target exactly once, whatever n and k are; and batches of rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_cases import datasets, make_data

from repro.data.interactions import TEST, TRAIN, VALIDATION
from repro.errors import ConfigError
from repro.prompts.batching import batch_rows, epoch_order
from repro.prompts.rows import MAX_K, MAX_N, Rows, build_rows

SPLITS = (TRAIN, VALIDATION, TEST)


def targets_of(data, rows: Rows, chosen=None) -> list[int]:
    """Rows of PreparedData that are targets of the chosen rows, with repetitions."""
    found = []
    for row in range(len(rows)) if chosen is None else chosen:
        along = np.arange(rows.start[row], rows.stop[row])
        found += data.user_rows[along[rows.target[along]]].tolist()
    return found


@given(datasets(), st.integers(1, 6), st.integers(1, 8), st.sampled_from(SPLITS))
def test_every_target_stands_in_exactly_one_row(data, n, k, split) -> None:
    rows = build_rows(data, split, n, k)
    assert sorted(targets_of(data, rows)) == data.targets(split).tolist()
    for row in range(len(rows)):
        first, start, stop = int(rows.first[row]), int(rows.start[row]), int(rows.stop[row])
        users = set(data.interactions.user[data.user_rows[first:stop]].tolist())
        assert len(users) == 1
        user = users.pop()
        assert first == max(start - n, data.user_offsets[user])
        assert rows.target[start] and rows.target[stop - 1]
        assert 1 <= rows.num_targets[row] <= k
        assert rows.num_targets[row] == rows.target[start:stop].sum()


@given(datasets(), st.integers(1, 6), st.sampled_from(SPLITS))
def test_the_targets_are_the_same_at_every_k(data, n, split) -> None:
    sliding = sorted(targets_of(data, build_rows(data, split, n, 1)))
    for k in (2, 3, 10, MAX_K):
        assert sorted(targets_of(data, build_rows(data, split, n, k))) == sliding


@given(datasets(), st.integers(1, 4))
def test_no_row_spans_more_than_a_window_without_targets(data, n) -> None:
    rows = build_rows(data, TRAIN, n, MAX_K)
    for start, stop in zip(rows.start, rows.stop, strict=True):
        targets = np.flatnonzero(rows.target[start:stop])
        assert (np.diff(targets) <= n + 1).all()


def test_the_example_in_the_docstring() -> None:
    data = make_data([9], train_only=True, min_context=5)
    rows = build_rows(data, TRAIN, 3, 2)
    assert list(zip(rows.first, rows.start, rows.stop, strict=True)) == [(2, 5, 7), (4, 7, 9)]


def test_a_split_without_targets_has_no_rows_and_no_batches() -> None:
    data = make_data([5], train_only=True)
    rows = build_rows(data, TEST, 3, 2)
    assert len(rows) == 0 and len(rows.num_targets) == 0
    assert batch_rows(rows, 4, np.arange(0)) == []


@given(datasets(), st.integers(1, 6), st.integers(1, 8), st.integers(1, 20), st.integers(0, 99))
def test_batches_hold_every_row_once_and_the_set_number_of_targets_on_average(data, n, k, size, seed) -> None:
    rows = build_rows(data, TRAIN, n, k)
    order = epoch_order(len(rows), seed, 0)
    batches = batch_rows(rows, size, order)
    assert np.array_equal(np.concatenate([*batches, np.arange(0)]), order)
    assert all(len(batch) for batch in batches)
    assert (
        sorted(t for batch in batches for t in targets_of(data, rows, batch)) == data.targets(TRAIN).tolist()
    )
    done = 0
    for batch in batches:
        count = int(rows.num_targets[batch].sum())
        assert count < size + k, "a batch is at most a row over its share"
        first_end = done + int(rows.num_targets[batch[0]])
        done += count
        assert (first_end - 1) // size == (done - 1) // size, "all rows of a batch end in its share"


@given(datasets(), st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_every_method_takes_the_same_number_of_steps(data, n, k, seed) -> None:
    size = 8  # at least k: rows are no larger than a batch
    rows = build_rows(data, TRAIN, n, k)
    steps = len(batch_rows(rows, size, epoch_order(len(rows), seed, 0)))
    sliding = math.ceil(len(data.targets(TRAIN)) / size)
    assert steps == sliding


def test_the_order_of_an_epoch_is_seeded() -> None:
    assert np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 1, 2))
    assert not np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 1, 3))
    assert not np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 2, 2))
    assert sorted(epoch_order(50, 1, 2)) == list(range(50))


@pytest.mark.parametrize(("n", "k"), [(0, 1), (-1, 1), (MAX_N + 1, 1), (5, 0), (5, -3), (5, MAX_K + 1)])
def test_n_or_k_out_of_range_is_refused(n, k) -> None:
    with pytest.raises(ConfigError) as error:
        build_rows(make_data([5], train_only=True), TRAIN, n, k)
    assert error.value.where.startswith("n" if k == 1 else "k")
    assert error.value.found == str(n if k == 1 else k)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_without_targets_is_refused(size) -> None:
    rows = build_rows(make_data([5], train_only=True), TRAIN, 2, 2)
    with pytest.raises(ConfigError, match="batch_targets"):
        batch_rows(rows, size, np.arange(len(rows)))
