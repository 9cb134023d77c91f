from dataclasses import replace

import numpy as np
import pytest

from repro.data import Interactions, apply_protocol
from repro.data.interactions import content_checksum, group_by_user


@pytest.fixture
def prepared(make_source):
    rows = [
        (user, (step * 3 + user) % 5, (user * step) % 2, 10 * step + user)
        for user in range(3)
        for step in range(20)
    ]
    return apply_protocol(make_source(rows), "rella", 2)


def test_group_by_user_example():
    user_rows, offsets, position = group_by_user(np.array([1, 0, 1], dtype=np.int32))
    assert user_rows.tolist() == [1, 0, 2]
    assert offsets.tolist() == [0, 1, 3]
    assert position.tolist() == [0, 0, 1]


def test_arrays_are_read_only(prepared):
    for column in (prepared.interactions.label, prepared.is_target, prepared.split, prepared.user_rows):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def swapped(column, a=0, b=1):
    column = column.copy()
    column[[a, b]] = column[[b, a]]
    return column


def in_sequence(prepared, number):
    """The interactions, each in the same sequence."""
    column = np.full(len(prepared.interactions), number, dtype=np.int8)
    return replace(prepared.interactions, sequence=column)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"split": p.split.astype(np.int64)}, "split is not"),
        (lambda p: {"split": np.full_like(p.split, 3)}, "unknown value"),
        (lambda p: {"is_target": np.ones_like(p.is_target)}, "too little context"),
        (lambda p: {"position": swapped(p.position, 0, 50)}, "position|context"),
        (lambda p: {"user_rows": swapped(p.user_rows)}, "out of order"),
        (lambda p: {"user_rows": swapped(p.user_rows, 0, 50)}, "mixes users"),
        (lambda p: {"items": p.items.take(np.array([0, 1]))}, "no entry in Items"),
        (lambda p: {"interactions": p.interactions.take(np.arange(60)[::-1])}, "chronological"),
        (lambda p: {"sequences": ("click",)}, "do not go together"),
        (lambda p: {"interactions": in_sequence(p, 0)}, "do not go together"),
        (lambda p: {"interactions": in_sequence(p, 1), "sequences": ("click",)}, "has no name"),
        (lambda p: {"interactions": in_sequence(p, -1), "sequences": ("click",)}, "has no name"),
    ],
)
def test_broken_invariants_are_refused(prepared, change, message):
    with pytest.raises(ValueError, match=message):
        replace(prepared, **change(prepared))


@pytest.mark.parametrize("column", ["user", "item", "label", "timestamp"])
def test_interactions_refuse_other_types_and_values(prepared, column):
    good = vars(prepared.interactions)
    with pytest.raises(ValueError, match=column):
        Interactions(**{**good, column: good[column].astype(np.float64)})
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        Interactions(**{**good, "label": good["label"] + np.int8(1)})


def test_a_sequence_is_taken_along_and_has_its_own_type(prepared):
    interactions = in_sequence(prepared, 2)
    assert interactions.take(np.array([3, 5])).sequence.tolist() == [2, 2]
    with pytest.raises(ValueError, match="sequence"):
        replace(interactions, sequence=interactions.sequence.astype(np.int64))


def test_checksum_covers_every_part(prepared):
    def checksum(**changed):
        columns = {name: changed.get(name, column) for name, column in vars(prepared.interactions).items()}
        return content_checksum(
            Interactions(**columns),
            changed.get("items", prepared.items),
            changed.get("split", prepared.split),
            changed.get("is_target", prepared.is_target),
        )

    assert checksum() == prepared.sha256
    flipped_label = prepared.interactions.label.copy()
    flipped_label[7] ^= 1
    changes = [
        {"label": flipped_label},
        {"user": swapped(prepared.interactions.user)},
        {"item": swapped(prepared.interactions.item)},
        {"timestamp": prepared.interactions.timestamp + 1},
        {"split": swapped(prepared.split, 0, 59)},
        {"is_target": ~prepared.is_target},
        {"items": replace(prepared.items, text=("other", *prepared.items.text[1:]))},
        {"items": replace(prepared.items, categories=(("other",), *prepared.items.categories[1:]))},
    ]
    assert len({prepared.sha256, *(checksum(**change) for change in changes)}) == len(changes) + 1
