"""The block lists of the interval mask against the dense mask, over drawn data, formats and paddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompt_cases import Case, cases, make_data, make_items

from repro.backbones import interval_blocks as module
from repro.backbones.interval_blocks import IntervalBlocks, block_lists, interval_blocks, num_places
from repro.backbones.visibility import dense_visibility
from repro.data.interactions import TRAIN
from repro.prompts.packing import PackedBatch, PromptSource, pack_rows, pad_batch
from repro.prompts.rows import build_rows
from repro.prompts.settings import PromptSettings


def pad_to_blocks(batch: PackedBatch, sums: int) -> PackedBatch:
    return pad_batch(batch, -(num_places(batch) + sums) % module.BLOCK, sums)


def seen_by_rule(blocks: IntervalBlocks) -> np.ndarray:
    """(N, N) the mask as the kernel evaluates it, from lo, hi and copy alone."""
    key = np.arange(len(blocks.order))
    query, first = key[:, None], blocks.copy[:, None]
    seen = (key >= blocks.lo[:, None]) & (key < blocks.hi[:, None]) | (key == query)
    if blocks.num_prefix:
        after = first + blocks.num_prefix
        seen |= (key >= first) & (key < after) & (query >= after)
    if blocks.sum_lo is not None:
        seen |= (key >= blocks.sum_lo[:, None]) & (key < blocks.sum_hi[:, None])
    return seen


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "CHUNK", 6)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases(), st.integers(0, 5))
def test_rule_and_blocks_are_the_dense_mask(case: Case, sums: int) -> None:
    batch = pad_to_blocks(case.pack(), sums)
    blocks, block = interval_blocks(batch), module.BLOCK
    seen, dense = seen_by_rule(blocks), dense_visibility(batch)
    times = np.zeros((len(seen), len(dense)), dtype=int)  # how often each query sees each token
    np.add.at(times.T, blocks.order, seen.T.astype(int))
    assert np.array_equal(times, dense[blocks.order])
    tiles = seen.reshape(len(seen) // block, block, -1, block).transpose(0, 2, 1, 3)
    assert np.array_equal(blocks.partial | blocks.full, tiles.any((2, 3)))
    assert not (blocks.full & ~tiles.all((2, 3))).any()
    assert not (blocks.full & blocks.partial).any()
    assert np.array_equal(blocks.order[blocks.place], np.arange(len(dense)))
    copies = np.flatnonzero(blocks.order == 0) if batch.num_prefix else []
    assert len(blocks.order) == len(dense) + batch.num_prefix * max(len(copies) - 1, 0) == num_places(batch)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_block_lists_hold_the_true_columns_in_order(rows: int, columns: int, seed: int) -> None:
    blocks = np.random.default_rng(seed).random((rows, columns)) < 0.4
    count, index = block_lists(blocks)
    assert [list(index[r, : count[r]]) for r in range(rows)] == [list(np.flatnonzero(row)) for row in blocks]


def packed(k: int, **settings) -> PackedBatch:
    data = make_data([40, 40], train_only=True, min_context=4)
    prompt = PromptSettings(n=4, k=k, **settings)
    rows = build_rows(data, TRAIN, prompt.n, k)
    source = PromptSource(data, make_items(longest=3), prompt)
    return pad_to_blocks(pack_rows(source, rows, np.arange(len(rows))), 3)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_sums_stand_right_behind_their_rows_text(k: int) -> None:
    batch = packed(k)
    blocks, num_text = interval_blocks(batch), len(batch.tokens)
    real = np.flatnonzero(batch.label >= 0)
    between = blocks.place[num_text + real] - (blocks.hi[blocks.place[num_text + real]] - 1)
    assert 1 <= between.min() <= k
    assert between.max() <= 5 * k, "the rest of the row's text and its earlier [SUM]s"


def test_no_copy_of_the_instruction_is_seen_by_many_blocks() -> None:
    blocks = interval_blocks(packed(1))
    starts = np.flatnonzero(blocks.order == 0)
    assert len(starts) > 20
    some = blocks.partial | blocks.full
    assert some.sum(0).max() <= 20, "queries of two chunks and of one row over a chunk's end"


def test_most_blocks_of_a_wide_window_are_full(monkeypatch) -> None:
    """The mask is evaluated at the edges of intervals only."""
    monkeypatch.setattr(module, "CHUNK", 10**6)  # no copies: the windows below would be cut at them
    batch = packed(50)
    wide = replace(batch, lo=np.where(batch.hi > 0, np.minimum(batch.lo, batch.num_prefix), batch.lo))
    blocks = interval_blocks(wide)
    assert blocks.full.sum() > 4 * blocks.partial.sum()


def test_blocks_per_query_do_not_grow_with_k() -> None:
    per_query = [
        (lambda b: (b.partial | b.full).sum() / len(b.partial))(interval_blocks(packed(k))) for k in (5, 36)
    ]
    assert per_query[1] < 1.3 * per_query[0]
