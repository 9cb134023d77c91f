"""Length buckets against every choice of buckets; micro-batches of equal length."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from repro.prompts.batching import even_parts, length_buckets


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


@given(st.lists(st.integers(1, 12), min_size=1, max_size=60), st.integers(1, 40))
def test_even_parts_are_as_few_as_hold_the_rows_and_equal_but_for_a_row(
    lengths: list[int], most: int
) -> None:
    sizes = np.array(lengths)
    parts = even_parts(sizes, most)
    number = -(-int(sizes.sum()) // most)
    assert parts[0] >= 0 and parts[-1] < number and (np.diff(parts) >= 0).all()
    assert number == 1 or sizes.sum() > (number - 1) * most, "as few as hold that much each"
    share = sizes.sum() / number
    for part in set(parts.tolist()):
        assert sizes[parts == part].sum() <= share + max(lengths)


def test_even_parts_of_the_docstring() -> None:
    assert even_parts(np.array([2, 2, 2, 2, 2]), 4).tolist() == [0, 0, 1, 2, 2]
    assert even_parts(np.array([3, 3, 3]), 9).tolist() == [0, 0, 0], "what fits is not cut"
    assert even_parts(np.array([3, 3, 3]), 9, more=2).tolist() == [0, 1, 2]
