"""Cutting histories: against the slow way, memory, batches of a split, categories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from id_cases import make_id_data
from prompt_cases import datasets, make_data

from baselines.histories import DISLIKED, LIKED, PADDING, Catalogue, Histories, IdBatches
from repro.data.interactions import TEST, TRAIN, PreparedData


def naive_history(data: PreparedData, row: int, n: int) -> tuple[list[int], list[int]]:
    """Items (from 1) and answers of the newest n earlier interactions, padded on the left."""
    past = data.history(row)[-n:] if n else []
    items = [int(data.interactions.item[each]) + 1 for each in past]
    answers = [LIKED if data.interactions.label[each] else DISLIKED for each in past]
    padding = [PADDING] * (n - len(items))
    return padding + items, padding + answers


@given(data=datasets(), n=st.integers(0, 20), order=st.randoms(use_true_random=False))
def test_histories_are_those_cut_the_slow_way(data, n, order) -> None:
    rows = np.arange(len(data.interactions))
    order.shuffle(rows)
    batch = Histories(data).batch(rows, n, "cpu")
    for index, row in enumerate(rows):
        items, answers = naive_history(data, row, n)
        assert batch.past_item[index].tolist() == items
        assert batch.past_answer[index].tolist() == answers
    assert batch.item.tolist() == (data.interactions.item[rows] + 1).tolist()
    assert batch.label.tolist() == data.interactions.label[rows].tolist()
    assert batch.target_row.tolist() == rows.tolist() and batch.num_targets == len(rows)


def test_memory_does_not_grow_with_the_length_of_histories() -> None:
    data = make_data([200] * 20)
    columns = Histories(data).columns("cpu")
    assert sum(column.nbytes for column in columns.values()) == 21 * len(data.interactions)
    targets = data.targets(TRAIN)
    for n in (1, 10_000):
        batches = IdBatches(Histories(data), targets, n, 64)
        assert all(np.shares_memory(key, targets) for key in batches.in_order())
        assert sum(key.nbytes for key in batches.epoch(0, 0)) == targets.nbytes


def test_columns_are_moved_to_a_device_once() -> None:
    histories = Histories(make_data([5]))
    assert histories.columns("cpu") is histories.columns(torch.device("cpu"))
    assert histories.columns("meta") is histories.columns("meta")
    assert histories.columns("meta")["item"].device.type == "meta"


def test_an_epoch_has_every_target_once_in_the_seeded_order() -> None:
    data = make_data([30, 20, 10])
    batches = IdBatches(Histories(data), data.targets(TRAIN), 4, 7)
    assert np.concatenate(batches.in_order()).tolist() == data.targets(TRAIN).tolist()
    first, again, later = batches.epoch(1, 0), batches.epoch(1, 0), batches.epoch(1, 1)
    assert [key.tolist() for key in first] == [key.tolist() for key in again]
    assert [key.tolist() for key in first] != [key.tolist() for key in later]
    for keys in (first, later):
        assert sorted(np.concatenate(keys).tolist()) == data.targets(TRAIN).tolist()
        assert [batches.count(key) for key in keys[:-1]] == [7] * (len(keys) - 1)
        assert sum(batches.count(key) for key in keys) == batches.num_targets


def test_histories_of_test_targets_hold_earlier_test_interactions() -> None:
    """They happened before the target; a split bounds what is learned, not what is known."""
    data = make_data([40], seed=2)
    rows = data.targets(TEST)
    batch = Histories(data).batch(rows[-1:], 40, "cpu")
    assert len(rows) >= 3
    assert int((batch.past_item > 0).sum()) == data.position[rows[-1]] > 0


def test_a_catalogue_numbers_categories_by_name() -> None:
    data = make_id_data([5], num_categories=2)
    catalogue = Catalogue.of(data)
    assert catalogue.num_items == len(data.items)
    assert catalogue.categories[0].tolist() == [0] * catalogue.categories.shape[1]
    number = {"genre 0": 1, "genre 1": 2}
    for row, names in zip(catalogue.categories[1:], data.items.categories, strict=True):
        assert [each for each in row.tolist() if each] == [number[name] for name in names]


@pytest.mark.parametrize("lengths", [[1], [3, 1]])
def test_items_without_any_category_have_padding_alone(lengths) -> None:
    catalogue = Catalogue.of(make_data(lengths))
    assert catalogue.num_categories == 0
    assert catalogue.categories.tolist() == [[0]] * (catalogue.num_items + 1)
