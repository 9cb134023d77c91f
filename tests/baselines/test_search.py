"""SIM's search against a loop, its category bits, and the bands of ages."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from id_cases import make_id_data

from baselines.histories import Histories
from baselines.search import BITS_PER_WORD, SearchSettings, category_words
from baselines.sim import age_band
from repro.data.interactions import PreparedData


def naive_search(data: PreparedData, row: int, settings: SearchSettings) -> list[tuple[int, int, int]]:
    """(item from 1, answer, age) of what is kept, oldest first."""
    rows, categories = data.interactions, data.items.categories
    wanted = set(categories[rows.item[row]])
    found = []
    for age, past in enumerate(data.history(row)[::-1], start=1):
        if age <= settings.limit and len(found) < settings.keep and wanted & set(categories[rows.item[past]]):
            found.append((int(rows.item[past]) + 1, int(rows.label[past]) + 1, age))
    return found[::-1]


@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    num_categories=st.sampled_from([1, 3, 200]),
    limit=st.integers(1, 30),
    keep=st.integers(1, 8),
)
def test_finds_what_a_loop_finds(lengths, seed, num_categories, limit, keep) -> None:
    data, settings = make_id_data(lengths, seed, num_categories), SearchSettings(limit, keep)
    rows = np.arange(len(data.interactions))
    searched = Histories(data, settings).batch(rows, 2, "cpu").searched
    for index, row in enumerate(rows):
        expected = naive_search(data, row, settings)
        padding = [(0, 0, 0)] * (keep - len(expected))
        columns = (searched.item[index], searched.answer[index], searched.age[index])
        assert list(zip(*(column.tolist() for column in columns), strict=True)) == padding + expected


@given(seed=st.integers(0, 1000), num_categories=st.sampled_from([1, BITS_PER_WORD, BITS_PER_WORD + 1, 150]))
def test_two_items_share_a_bit_where_they_share_a_category(seed, num_categories) -> None:
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(num_categories, size=min(3, num_categories), replace=False) + 1 for _ in range(12)]
    chosen[0][:] = num_categories  # the last bit is used
    chosen[0][1:] = 0
    table = torch.tensor(np.array(chosen))
    words = category_words(table, num_categories)
    assert words.shape == (12, -(-num_categories // BITS_PER_WORD))
    for one in range(12):
        for other in range(12):
            shared = (set(chosen[one]) & set(chosen[other])) - {0}
            assert bool((words[one] & words[other]).any()) == bool(shared)


def test_a_search_keeps_nothing_between_batches() -> None:
    data = make_id_data([300, 300])
    plain, searching = Histories(data), Histories(data, SearchSettings())
    extra = {
        key: column for key, column in searching.columns("cpu").items() if key not in plain.columns("cpu")
    }
    assert {key: tuple(column.shape) for key, column in extra.items()} == {"words": (len(data.items) + 1, 1)}


def test_bands_of_ages_double() -> None:
    ages = torch.tensor([0, 1, 2, 3, 4, 7, 8, 255, 256, 500])
    assert age_band(ages).tolist() == [0, 1, 2, 2, 3, 3, 4, 8, 9, 9]
