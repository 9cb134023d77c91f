"""User sequences against the slow way, and that nothing of the future or of the answer is in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bahe_cases import N, behaviours, data, with_labels

from repro.data import TEST, TRAIN, PreparedData
from repro.errors import ConfigError
from repro.methods.bahe.sequences import (
    SequenceSource,
    back_to_back,
    side_by_side,
    written_out,
)

NAMES = ("liked", "disliked", "recent")


def naive(own: PreparedData, row: int, n: int) -> list[list[int]]:
    """Behaviours of each sequence of one target, from the documented rule."""
    history = own.history(row)[-n:]
    item, label = own.interactions.item[history], own.interactions.label[history]
    number = behaviours().answered[item, label]
    return [number[label == 1].tolist(), number[label == 0].tolist(), number.tolist()]


def rows_of(own: PreparedData) -> np.ndarray:
    return np.concatenate([own.targets(TRAIN)[:20], own.targets(TEST)])


def real(places) -> list[list[int]]:
    return [line[:count].tolist() for line, count in zip(places.value, places.length, strict=True)]


@pytest.mark.parametrize("n", [1, N, 50])
@pytest.mark.parametrize("multiple", [1, 8])
def test_rows_are_those_of_the_slow_way(n, multiple) -> None:
    rows = rows_of(data())
    source = SequenceSource(data(), behaviours(), NAMES, n)
    sequences = source.cut(rows)
    expected = [naive(data(), row, n) for row in rows]
    assert any(not each for target in expected for each in target), "some sequence is empty"

    apart = side_by_side(sequences, multiple)
    assert real(apart) == [target[s] for s in range(3) for target in expected]
    together = back_to_back(sequences, multiple)
    assert real(together) == [[*target[0], *target[1], *target[2]] for target in expected]

    tokens = behaviours().tokens_of
    item = [int(behaviours().alone[data().interactions.item[row]]) for row in rows]
    texts = written_out(sequences, behaviours(), multiple)
    whole = [
        np.concatenate(tokens(np.array([*target[0], *target[1], *target[2], own]))).tolist()
        for target, own in zip(expected, item, strict=True)
    ]
    assert real(texts) == whole
    assert source.lengths(rows, behaviours()).tolist() == [len(each) for each in whole]
    assert source.lengths(rows).tolist() == [len([*a, *b, *c]) + 1 for a, b, c in expected]
    for places in (apart, together, texts):
        assert places.value.shape[1] % multiple == 0


def test_pooling_weights_are_means_over_segments() -> None:
    rows = rows_of(data())
    sequences = SequenceSource(data(), behaviours(), NAMES, N).cut(rows)
    expected = [naive(data(), row, N) for row in rows]
    together = back_to_back(sequences, 4)
    for target, weights in zip(expected, together.pool, strict=True):
        begin = 0
        for numbers, line in zip(target, weights, strict=True):
            wanted = np.zeros(len(line))
            wanted[begin : begin + len(numbers)] = 1 / max(len(numbers), 1)
            assert np.allclose(line, wanted)
            begin += len(numbers)
    apart = side_by_side(sequences, 4).pool
    assert np.allclose(apart.sum(2)[:, 0], [bool(t[s]) for s in range(3) for t in expected])


def test_no_answer_of_a_target_and_nothing_later_is_read() -> None:
    """A planted leak: every answer from the target on is turned round, and so is the order of later items."""
    row = int(data().targets(TEST)[5])
    user = data().interactions.user
    later = (user == user[row]) & (np.arange(len(user)) >= row)
    assert later.sum() > 1
    label = np.where(later, 1 - data().interactions.label, data().interactions.label)
    item = data().interactions.item.copy()
    item[np.flatnonzero(later)[1:]] = 0
    planted = replace(with_labels(label), interactions=replace(with_labels(label).interactions, item=item))
    plain = SequenceSource(data(), behaviours(), NAMES, 50).cut(np.array([row]))
    turned = SequenceSource(planted, behaviours(), NAMES, 50).cut(np.array([row]))
    for name in ("behaviour", "member", "item"):
        assert np.array_equal(getattr(plain, name), getattr(turned, name)), name
    before = np.flatnonzero((user == user[row]) & (np.arange(len(user)) < row))
    label = data().interactions.label.copy()
    label[before[-1]] = 1 - label[before[-1]]
    seen = SequenceSource(with_labels(label), behaviours(), NAMES, 50).cut(np.array([row]))
    assert not np.array_equal(plain.behaviour, seen.behaviour), "an earlier answer is read"


def test_sequences_of_the_source_go_by_its_column() -> None:
    column = (np.arange(len(data().interactions)) % 3 == 0).astype(np.int8)
    named = replace(
        data(),
        interactions=replace(data().interactions, sequence=column),
        sequences=("bought", "seen"),
    )
    rows = rows_of(named)
    found = real(side_by_side(SequenceSource(named, behaviours(), ("seen", "bought"), N).cut(rows), 1))
    for place, row in enumerate(rows):
        history = named.history(row)[-N:]
        number = behaviours().answered[named.interactions.item[history], named.interactions.label[history]]
        assert found[place] == number[column[history] == 1].tolist()
        assert found[len(rows) + place] == number[column[history] == 0].tolist()


def test_a_sequence_that_the_data_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match="'clicked'"):
        SequenceSource(data(), behaviours(), ("liked", "clicked"), N)


def test_items_are_read_in_the_version_that_is_served_to_their_target() -> None:
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def served(item: np.ndarray, row: np.ndarray) -> np.ndarray:
        asked.append((item, row))
        return (item + 1) % len(data().items)

    rows = rows_of(data())
    source = SequenceSource(data(), behaviours(), NAMES, N, served)
    moved, plain = source.cut(rows), SequenceSource(data(), behaviours(), NAMES, N).cut(rows)
    for item, row in asked:
        assert (np.broadcast_to(row, item.shape) == rows.reshape(-1, *[1] * (item.ndim - 1))).all()
    following = (data().interactions.item[rows] + 1) % len(data().items)
    assert np.array_equal(moved.item, behaviours().alone[following])
    assert not np.array_equal(moved.behaviour, plain.behaviour)
