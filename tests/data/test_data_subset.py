import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.data import TEST, TRAIN, VALIDATION, SyntheticSettings, load_prepared, take_subset
from repro.errors import ConfigError

SMALL = SyntheticSettings(num_interactions=3_000, interactions_per_user=30, num_items=100)


@pytest.fixture(scope="module")
def prepared():
    return load_prepared("synthetic", "dti", synthetic=SMALL)


@settings(max_examples=60, deadline=None)
@given(numbers=st.tuples(*[st.none() | st.integers(1, 4_000)] * 3))
def test_counts_are_exact_and_targets_consecutive(prepared, numbers):
    subset = take_subset(prepared, *numbers)
    for split, number in zip((TRAIN, VALIDATION, TEST), numbers, strict=True):
        available = len(prepared.targets(split))
        assert len(subset.targets(split)) == (available if number is None else min(number, available))
        assert np.isin(subset.targets(split), prepared.targets(split)).all()
    train = subset.targets(TRAIN)
    cut_users = 0
    for user in np.unique(subset.interactions.user[train]):
        kept = np.sort(subset.position[train[subset.interactions.user[train] == user]])
        full = prepared.targets(TRAIN)
        full = np.sort(prepared.position[full[prepared.interactions.user[full] == user]])
        assert kept.tolist() == full[: len(kept)].tolist()  # the first ones, without gaps
        cut_users += len(kept) < len(full)
    assert cut_users <= 1


def test_interactions_stay_and_the_checksum_follows_the_targets(prepared):
    subset = take_subset(prepared, train_targets=500)
    assert subset.interactions is prepared.interactions
    assert subset.sha256 != prepared.sha256
    assert subset.source_sha256 == prepared.source_sha256
    assert take_subset(prepared, train_targets=500).sha256 == subset.sha256
    assert take_subset(prepared).sha256 == prepared.sha256


def test_order_of_calls_does_not_matter(prepared):
    at_once = take_subset(prepared, 700, 50, 60)
    in_turn = take_subset(take_subset(take_subset(prepared, test_targets=60), 700), validation_targets=50)
    assert in_turn.sha256 == at_once.sha256
    alone = take_subset(prepared, test_targets=60)
    assert alone.targets(TEST).tolist() == at_once.targets(TEST).tolist()


def test_smaller_subsets_lie_inside_larger_ones(prepared):
    small, large = take_subset(prepared, 100, 20, 20), take_subset(prepared, 900, 90, 90)
    for split in (TRAIN, VALIDATION, TEST):
        assert np.isin(small.targets(split), large.targets(split)).all()


def test_choice_is_no_prefix_in_time_and_not_the_first_users(prepared):
    subset = take_subset(prepared, 600, 60, 60)
    for split in (VALIDATION, TEST):
        assert subset.targets(split).tolist() != prepared.targets(split)[:60].tolist()
    users = np.unique(subset.interactions.user[subset.targets(TRAIN)])
    assert users.max() > len(users)


def test_choice_is_the_same_everywhere():
    """Literal values: records made elsewhere count on the same targets."""
    real = take_subset(load_prepared("ml-100k"), 5, 3, 3)
    assert real.targets(TRAIN).tolist() == [38_036, 38_037, 38_038, 38_041, 38_046]
    assert real.targets(VALIDATION).tolist() == [81_079, 83_448, 85_182]
    assert real.targets(TEST).tolist() == [90_014, 90_726, 92_974]


@pytest.mark.parametrize("number", [0, -3])
def test_numbers_below_one_are_refused(prepared, number):
    with pytest.raises(ConfigError, match="validation_targets"):
        take_subset(prepared, validation_targets=number)
