import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from repro.data import PROTOCOLS, TEST, TRAIN, VALIDATION, Interactions, Items, Source, apply_protocol
from repro.errors import ConfigError, DataError


@st.composite
def sources(draw) -> Source:
    """Up to 80 events of up to 5 users and 9 items; few distinct times, so ties are many."""
    num_rows = draw(st.integers(1, 80))

    def column(high):
        return draw(st.lists(st.integers(0, high), min_size=num_rows, max_size=num_rows))

    return Source(
        "drawn",
        "Drawn",
        Interactions(
            np.array(column(4), dtype=np.int32),
            np.array(column(8), dtype=np.int32),
            np.array(column(1), dtype=np.int8),
            np.array(column(12), dtype=np.int64),
        ),
        Items(tuple("abcdefghi"), tuple(f"item {letter}" for letter in "abcdefghi"), ((),) * 9),
        "0" * 64,
    )


def naive(source, protocol, min_context):
    """[(user, item, label, time, split, is_target)] in the plainest way."""
    columns = ("user", "item", "label", "timestamp")
    rows = list(zip(*(getattr(source.interactions, name).tolist() for name in columns), strict=True))
    if protocol == "dti":
        items = [row[1] for row in rows]
        rows = [row for row in rows if items.count(row[1]) >= 5]
    rows = sorted(rows, key=lambda row: row[3])  # sorted is stable
    earlier = [sum(other[0] == row[0] for other in rows[:number]) for number, row in enumerate(rows)]
    eligible = [count >= min_context for count in earlier]
    result = []
    for number, row in enumerate(rows):
        if protocol == "dti":
            rank, total = number, len(rows)
        elif protocol == "rella":
            rank, total = sum(eligible[:number]), sum(eligible)
        else:
            rank, total = earlier[number], sum(other[0] == row[0] for other in rows)
        train, validation = total * 8 // 10, total // 10
        split = TRAIN if rank < train else VALIDATION if rank < train + validation else TEST
        result.append((*row, split, eligible[number]))
    return result


def prepare_or_skip(source, protocol, min_context):
    try:
        return apply_protocol(source, protocol, min_context)
    except DataError:
        assume(False)


@settings(max_examples=150, deadline=None)
@given(sources(), st.sampled_from(PROTOCOLS), st.integers(0, 3))
def test_equals_the_naive_version(source, protocol, min_context):
    prepared = prepare_or_skip(source, protocol, min_context)
    found = prepared.interactions
    keys = [prepared.items.key[item] for item in found.item]
    expected = naive(source, protocol, min_context)
    assert keys == ["abcdefghi"[row[1]] for row in expected]
    assert found.label.tolist() == [row[2] for row in expected]
    assert found.timestamp.tolist() == [row[3] for row in expected]
    assert prepared.split.tolist() == [row[4] for row in expected]
    assert prepared.is_target.tolist() == [row[5] for row in expected]
    old_users = sorted({row[0] for row in expected})
    assert [old_users[user] for user in found.user] == [row[0] for row in expected]


@settings(max_examples=100, deadline=None)
@given(sources(), st.sampled_from(PROTOCOLS), st.integers(0, 3))
def test_history_holds_all_earlier_rows_of_the_user_and_no_later_one(source, protocol, min_context):
    prepared = prepare_or_skip(source, protocol, min_context)
    user, time = prepared.interactions.user, prepared.interactions.timestamp
    for split in (TRAIN, VALIDATION, TEST):
        for row in prepared.targets(split):
            history = prepared.history(row)
            assert history.tolist() == [other for other in range(row) if user[other] == user[row]]
            assert len(history) >= min_context
            assert (time[history] <= time[row]).all()


@settings(max_examples=100, deadline=None)
@given(sources(), st.sampled_from(["dti", "rella"]), st.integers(0, 3))
def test_global_split_has_no_future_row_in_train(source, protocol, min_context):
    prepared = prepare_or_skip(source, protocol, min_context)
    assert (np.diff(prepared.split) >= 0).all()
    time = prepared.interactions.timestamp
    assert time[prepared.targets(TRAIN)].max() <= time[prepared.targets(VALIDATION)].min()
    assert time[prepared.targets(VALIDATION)].max() <= time[prepared.targets(TEST)].min()
    total = int(prepared.is_target.sum()) if protocol == "rella" else len(prepared.split)
    counted = prepared.is_target if protocol == "rella" else slice(None)
    sizes = np.bincount(prepared.split[counted], minlength=3).tolist()
    assert sizes == [total * 8 // 10, total // 10, total - total * 8 // 10 - total // 10]


@settings(max_examples=100, deadline=None)
@given(sources(), st.integers(0, 3))
def test_per_user_split_keeps_each_users_order(source, min_context):
    prepared = prepare_or_skip(source, "per-user", min_context)
    for user in range(prepared.num_users):
        rows = prepared.user_rows[prepared.user_offsets[user] : prepared.user_offsets[user + 1]]
        length = len(rows)
        assert (np.diff(prepared.split[rows]) >= 0).all()
        sizes = np.bincount(prepared.split[rows], minlength=3)
        assert sizes[TRAIN] == length * 8 // 10
        assert sizes[VALIDATION] == length // 10


def steady_rows(num_users=4, length=40):
    return [
        (user, step % 7, (user + step) % 2, 10 * step) for user in range(num_users) for step in range(length)
    ]


def test_ties_keep_file_order(make_source):
    rows = [(0, item, item % 2, item // 4) for item in (7, 3, 9, 1, 8, 2, 6, 0, 5, 4)] * 2
    prepared = apply_protocol(make_source(rows), "rella", 1)
    by_time = sorted(range(len(rows)), key=lambda number: rows[number][3])
    assert prepared.interactions.item.tolist() == [rows[number][1] for number in by_time]


def test_pruning_is_one_pass_and_counts_both_stages(make_source):
    rows = [*steady_rows(), (4, 9, 1, 5), (4, 9, 0, 6), (4, 9, 0, 7), (4, 9, 0, 8)]
    prepared = apply_protocol(make_source(rows), "dti")
    assert prepared.counts["raw_interactions"] == 164
    assert (prepared.counts["raw_users"], prepared.counts["users"]) == (5, 4)
    assert (prepared.counts["raw_items"], prepared.counts["items"]) == (8, 7)
    assert prepared.counts["interactions"] == 160
    assert "key9" not in prepared.items.key


def test_rows_with_little_context_stay_as_context(make_source):
    prepared = apply_protocol(make_source(steady_rows()), "rella", 5)
    assert len(prepared.interactions) == 160
    assert prepared.is_target.sum() == 160 - 4 * 5
    assert not prepared.is_target[prepared.position < 5].any()


@pytest.mark.parametrize(
    ("rows", "protocol", "found"),
    [
        (
            [(0, item, item % 2, item) for item in range(30)],
            "dti",
            "no interaction of 30 is left after pruning",
        ),
        (steady_rows(num_users=1, length=6), "rella", "0 train targets"),
        ([(user, 0, 1, step) for user in range(4) for step in range(30)], "dti", "every label is 1"),
    ],
)
def test_nothing_left(make_source, rows, protocol, found):
    with pytest.raises(DataError) as caught:
        apply_protocol(make_source(rows), protocol)
    assert found in caught.value.found
    assert "handmade" in caught.value.where


def test_settings_out_of_range(make_source):
    source = make_source(steady_rows())
    with pytest.raises(ConfigError, match="dti, rella, per-user"):
        apply_protocol(source, "random")
    with pytest.raises(ConfigError, match="0 or more"):
        apply_protocol(source, "dti", -1)
