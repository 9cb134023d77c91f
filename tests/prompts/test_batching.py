"""Length buckets against every choice of buckets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from repro.prompts.batching import length_buckets


def padding(lengths: list[int], buckets: list[int]) -> int:
    return sum(min(b for b in buckets if b >= length) - length for length in lengths)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=14), st.integers(1, 4))
def test_buckets_waste_least_and_hold_everything(lengths: list[int], count: int) -> None:
    buckets = length_buckets(np.array(lengths), count).tolist()
    distinct = sorted(set(lengths))
    choices = [
        [*chosen, distinct[-1]]
        for size in range(min(count, len(distinct)))
        for chosen in combinations(distinct[:-1], size)
    ]
    assert len(buckets) <= count
    assert buckets == sorted(buckets) and max(buckets) == max(lengths)
    assert padding(lengths, buckets) == min(padding(lengths, each) for each in choices)


def test_example_of_the_docstring() -> None:
    assert length_buckets(np.array([1, 1, 4, 5, 5]), 2).tolist() == [1, 5]
