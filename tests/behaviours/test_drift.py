"""Texts that change over time: which version a table serves, and what keeping up costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.behaviours.drift import UNKNOWN_TEXT, Drift, DriftingItems
from repro.behaviours.texts import Behaviours
from repro.data import Items
from repro.errors import ConfigError
from repro.prompts.templates import Template

NUM_ROWS, NUM_ITEMS = 50, 6
ITEMS = Items(
    tuple("abcdef"),
    ("one", "two words", "three words here", "four words are here", "a b c d e f g h", "Ünïcode thing"),
    ((),) * NUM_ITEMS,
)


def drifting(**changes) -> DriftingItems:
    values = {"kind": "revealed", "share": 0.5, "refresh_every": 7, "changes": 3} | changes
    return DriftingItems(ITEMS, NUM_ROWS, Drift(**values))


def by_text(items: Items) -> Behaviours:
    """Behaviours of items, told apart by text alone, as a table does it."""
    number: dict[str, int] = {}
    texts = [(f"{text} no", f"{text} yes", text) for text in items.text]
    rows = np.array([[number.setdefault(text, len(number)) for text in each] for each in texts])
    empty = np.zeros(0, dtype=np.int32)
    return Behaviours(tuple(number), empty, empty, rows[:, :2], rows[:, 2], Template(""))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["revised", "revealed"]),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([1, 2, 7, 49, 50, 1000, None]),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_it_is_what_a_table_would_do_refresh_by_refresh(kind, share, every, changes, seed) -> None:
    """A plain simulation: a catalogue, a set of encoded texts, and what each item is called in the table."""
    made = DriftingItems(ITEMS, NUM_ROWS, Drift(kind, share, every, changes, seed))
    behaviours, encoded, called, refreshes = by_text(made.items), set(), [""] * NUM_ITEMS, 0
    for row in range(NUM_ROWS):
        if row == 0 or (every is not None and row % every == 0):
            refreshes += 1
            for item in range(NUM_ITEMS):
                version = sum(at <= row for at in made.changed_at[item].tolist())
                number = item * (changes + 1) + version
                called[item] = made.items.text[number]
                encoded |= {*behaviours.answered[number].tolist(), int(behaviours.alone[number])}
        served = made.served(np.arange(NUM_ITEMS), row)
        assert [made.items.text[number] for number in served] == called
    assert made.refreshes == refreshes
    assert made.encoded(behaviours) == len(encoded)


def test_rows_are_broadcast_against_items() -> None:
    made = drifting()
    item, row = np.array([[0, 1, 2], [3, 4, 5]]), np.array([[3], [49]])
    expected = [
        [int(made.served(np.array(i), int(r[0]))) for i in line] for line, r in zip(item, row, strict=True)
    ]
    assert made.served(item, row).tolist() == expected


def test_the_last_version_of_a_revealed_text_is_the_item_s_own_and_the_first_says_nothing() -> None:
    made = drifting(share=1.0)
    versions = np.array(made.items.text).reshape(NUM_ITEMS, 4)
    assert set(versions[:, 0]) == {UNKNOWN_TEXT} and versions[:, -1].tolist() == list(ITEMS.text)
    assert versions[4].tolist() == [UNKNOWN_TEXT, "a b c", "a b c d e f", "a b c d e f g h"]


def test_revised_texts_keep_every_word_and_differ() -> None:
    versions = np.array(drifting(kind="revised", share=1.0).items.text).reshape(NUM_ITEMS, 4)
    for text, own in zip(ITEMS.text, versions, strict=True):
        assert len(set(own)) == 4 and all(version.endswith(text) for version in own)


def test_which_items_change_depends_on_share_and_seed_alone() -> None:
    made = drifting()
    assert (made.changed_at < NUM_ROWS).any(1).sum() == 3 and (made.changed_at > 0).all()
    assert np.array_equal(made.changed_at, drifting(kind="revised", refresh_every=None).changed_at)
    assert not np.array_equal(made.changed_at, drifting(seed=1).changed_at)


def test_seldom_refreshes_encode_less_and_none_serves_the_first_versions_for_ever() -> None:
    costs = [drifting(share=1.0, refresh_every=r) for r in (1, 10, 25, None)]
    encoded = [made.encoded(by_text(made.items)) for made in costs]
    assert encoded == sorted(encoded, reverse=True) and encoded[0] > encoded[-1]
    everything = np.arange(NUM_ITEMS)
    assert np.array_equal(costs[-1].served(everything, NUM_ROWS - 1), everything * 4)


@pytest.mark.parametrize(
    "wrong", [{"kind": "lost"}, {"share": 0.0}, {"share": 1.5}, {"refresh_every": 0}, {"changes": 0}]
)
def test_settings_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=f"drift, {next(iter(wrong))}"):
        drifting(**wrong)
