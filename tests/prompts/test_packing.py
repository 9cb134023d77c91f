"""Packed prompts against prompts written out one token at a time, over random data, formats and orders."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from prompt_cases import NO, YES, Case, array_order, cases, make_data, make_items, naive_visibility, read_out

from repro.backbones.visibility import dense_visibility
from repro.data.interactions import TRAIN
from repro.prompts.packing import PromptSource, pack_rows, pad_batch
from repro.prompts.rows import build_rows
from repro.prompts.settings import PromptSettings


@given(cases())
def test_tokens_positions_and_visibility_equal_the_prompt_written_out(case: Case) -> None:
    batch, tokens = case.pack(), read_out(case)
    in_array = [tokens[i] for i in array_order(tokens)]
    text = [t for t in in_array if t.kind != "sum"]
    sums = [t for t in in_array if t.kind == "sum"]
    assert batch.tokens.tolist() == [t.value for t in text]
    assert batch.position.tolist() == [t.position for t in in_array]
    assert batch.target_row.tolist() == [t.data_row for t in sums]
    assert batch.label.tolist() == case.source.data.interactions.label[batch.target_row].tolist()
    assert (batch.num_text, batch.num_sums, batch.num_tokens) == (len(text), len(sums), len(in_array))
    assert np.array_equal(dense_visibility(batch), naive_visibility(tokens, case.settings))


@given(cases())
def test_no_own_answer_no_future_and_no_other_row_is_visible(case: Case) -> None:
    """The rules that keep a score honest, asserted one by one and not through the window's rule."""
    batch, tokens = case.pack(), read_out(case)
    in_array = [tokens[i] for i in array_order(tokens)]
    for query, key in np.argwhere(dense_visibility(batch)):
        q, x = in_array[query], in_array[key]
        assert x.row in (-1, q.row), "another prompt"
        assert x.number <= q.number, "a later interaction"
        if q.kind == "sum":
            assert not (x.kind == "answer" and x.data_row == q.data_row), "its own answer"
        if x.kind == "sum" and key != query:
            assert case.settings.sum_layout == "inline-visible"


@given(cases())
def test_a_sum_sees_exactly_its_window(case: Case) -> None:
    batch, tokens = case.pack(), read_out(case)
    in_array = [tokens[i] for i in array_order(tokens)]
    visible, settings = dense_visibility(batch), case.settings
    for query in range(batch.num_text, len(in_array)):
        own = in_array[query]
        seen = [in_array[key] for key in np.flatnonzero(visible[query])]
        texts = [t for t in seen if t.kind in ("text", "answer")]
        before = [t for t in tokens[: tokens.index(own)] if t.row == own.row and t.kind != "sum"]
        if settings.window == "tokens":
            assert texts == before[-settings.window_tokens :]
        else:
            first = max(0, own.number - settings.n)
            assert {t.number for t in texts} == set(range(first, own.number + 1))
            assert texts == [t for t in before if t.number >= first], "whole interactions"
        assert sum(t.kind == "instruction" for t in seen) == (
            batch.num_prefix if settings.instruction == "visible" else 0
        )


@given(cases())
def test_packing_several_rows_equals_packing_each_alone(case: Case) -> None:
    """Text and [SUM] arrays of a row are those it has alone, up to where the row begins."""
    batch, prefix = case.pack(), len(case.source.items.instruction)
    text, sums, interactions = prefix, 0, 0
    for row in case.chosen:
        alone = pack_rows(case.source, case.rows, np.array([row]))
        num_text, num_sums = alone.num_text - prefix, alone.num_sums
        own = np.concatenate(
            [np.arange(text, text + num_text), batch.num_text + np.arange(sums, sums + num_sums)]
        )
        keep = np.arange(prefix, len(alone.position))
        assert np.array_equal(batch.tokens[own[:num_text]], alone.tokens[prefix:])
        assert np.array_equal(batch.position[own], alone.position[keep])
        assert np.array_equal(batch.ordinal[own] - interactions, alone.ordinal[keep])
        for low, high, shift in (("lo", "hi", text - prefix), ("sum_lo", "sum_hi", sums)):
            length = getattr(batch, high)[own] - getattr(batch, low)[own]
            assert np.array_equal(length, getattr(alone, high)[keep] - getattr(alone, low)[keep])
            there = length > 0  # where an empty interval lies says nothing
            assert np.array_equal(getattr(batch, low)[own][there] - shift, getattr(alone, low)[keep][there])
        assert np.array_equal(batch.target_row[sums : sums + num_sums], alone.target_row)
        text, sums = text + num_text, sums + num_sums
        interactions += int(alone.ordinal.max()) + 1
    assert (text, sums) == (batch.num_text, batch.num_sums)


@given(cases())
def test_padding_sees_itself_only_and_changes_nothing_else(case: Case) -> None:
    plain, padded = case.pack(), case.pack(text_multiple=16, sum_multiple=4)
    assert len(padded.tokens) % 16 == 0 and len(padded.label) % 4 == 0
    assert (padded.num_text, padded.num_sums) == (plain.num_text, plain.num_sums)
    real = np.concatenate([np.arange(plain.num_text), len(padded.tokens) + np.arange(plain.num_sums)])
    visible = dense_visibility(padded)
    assert np.array_equal(visible[np.ix_(real, real)], dense_visibility(plain))
    padding = np.setdiff1d(np.arange(len(padded.position)), real)
    assert not visible[np.ix_(real, padding)].any()
    for query in padding:
        seen = set(np.flatnonzero(visible[query]).tolist())
        assert seen - set(range(padded.num_prefix)) == {query}
    assert np.array_equal(padded.position[real], plain.position)
    assert (padded.label[plain.num_sums :] == -1).all() and (padded.target_row[plain.num_sums :] == -1).all()


def test_padding_nothing_changes_nothing() -> None:
    source = PromptSource(make_data([6], train_only=True), make_items(), PromptSettings(n=2, k=3))
    batch = pack_rows(source, build_rows(source.data, TRAIN, 2, 3), np.array([0]))
    again = pad_batch(batch, 0, 0)
    for field in fields(batch):
        assert np.array_equal(getattr(again, field.name), getattr(batch, field.name))


@given(cases())
def test_without_answers_in_context_no_answer_token_is_left(case: Case) -> None:
    silent = replace(case.settings, answers_in_context=False)
    batch = Case(PromptSource(case.source.data, case.source.items, silent), case.rows, case.chosen).pack()
    assert not np.isin(batch.tokens, (YES, NO)).any()
    with_answers = replace(case.settings, answers_in_context=True)
    told = Case(
        PromptSource(case.source.data, case.source.items, with_answers), case.rows, case.chosen
    ).pack()
    num_interactions = int((case.rows.stop - case.rows.first)[case.chosen].sum())
    assert np.isin(told.tokens, (YES, NO)).sum() == num_interactions - len(case.chosen)
    assert np.array_equal(told.tokens[~np.isin(told.tokens, (YES, NO))], batch.tokens)


@pytest.mark.parametrize(("layout", "expected"), [("deferred", [4, 7]), ("inline-positions", [4, 8])])
def test_the_example_in_the_module_docstring(layout: str, expected: list[int]) -> None:
    """n = 1, items a, b, c of 2, 1, 2 tokens, targets b and c; inline, c is one position further on."""
    data = make_data([3], seed=1, train_only=True, min_context=1)
    items = make_items(num_prefix=0)
    lengths = np.ones(7, dtype=int)
    lengths[data.interactions.item[[0, 2]]] = 2
    assert lengths[data.interactions.item[1]] == 1, "the seed gives b an item of its own"
    items = replace(
        items,
        tokens=np.arange(20, 20 + lengths.sum(), dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )
    source = PromptSource(data, items, PromptSettings(n=1, k=2, sum_layout=layout))
    batch = pack_rows(source, build_rows(data, TRAIN, 1, 2), np.array([0]))
    assert batch.lo.tolist() == [0, 0, 0, 0, 0, 3, 3, 0, 3]
    assert batch.hi.tolist() == [1, 2, 3, 4, 5, 6, 7, 4, 7]
    assert batch.position[7:].tolist() == expected
    assert batch.position[:7].tolist() == (
        [0, 1, 2, 3, 4, 5, 6] if layout == "deferred" else [0, 1, 2, 3, 5, 6, 7]
    )


@given(cases())
def test_deferred_sums_keep_the_geometry_of_the_sliding_window(case: Case) -> None:
    """Distances in position from a [SUM] to every token of its window are those of its SW prompt."""
    settings = replace(case.settings, sum_layout="deferred", window="interactions", window_tokens=None)
    data, items = case.source.data, case.source.items
    streaming = Case(PromptSource(data, items, settings), case.rows, case.chosen).pack()
    alone = build_rows(data, TRAIN, settings.n, 1)
    which = {int(data.user_rows[start]): row for row, start in enumerate(alone.start)}
    sliding_source = PromptSource(data, items, replace(settings, k=1))
    for number, target in enumerate(streaming.target_row):
        sliding = pack_rows(sliding_source, alone, np.array([which[int(target)]]))
        query = streaming.num_text + number
        window = np.arange(streaming.lo[query], streaming.hi[query])
        text = np.arange(sliding.num_prefix, sliding.num_text)
        assert np.array_equal(streaming.tokens[window], sliding.tokens[text])
        assert np.array_equal(
            streaming.position[query] - streaming.position[window],
            sliding.position[-1] - sliding.position[text],
        )
