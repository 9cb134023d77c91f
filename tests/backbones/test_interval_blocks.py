"""The block lists of the interval mask against the dense mask, over drawn data, formats and paddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_cases import Case, cases, make_data, make_items

from repro.backbones import interval_blocks as module
from repro.backbones.interval_blocks import IntervalBlocks, array_order, block_lists, interval_blocks
from repro.backbones.visibility import dense_visibility
from repro.data.interactions import TRAIN
from repro.prompts.packing import PackedBatch, PromptSource, pack_rows, pad_batch
from repro.prompts.rows import build_rows
from repro.prompts.settings import PromptSettings


def pad_to_blocks(batch: PackedBatch, sums: int) -> PackedBatch:
    return pad_batch(batch, -(len(batch.position) + sums) % module.BLOCK, sums)


def seen_by_rule(blocks: IntervalBlocks) -> np.ndarray:
    """(N, N) the mask as the kernel evaluates it, from lo, hi and the prefix alone."""
    key = np.arange(len(blocks.order))
    query = key[:, None]
    seen = (key >= blocks.lo[:, None]) & (key < blocks.hi[:, None]) | (key == query)
    seen |= (key < blocks.num_prefix) & (query >= blocks.num_prefix)
    if blocks.sum_lo is not None:
        seen |= (key >= blocks.sum_lo[:, None]) & (key < blocks.sum_hi[:, None])
    return seen


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)


@settings(max_examples=200)
@given(cases(), st.integers(0, 5))
def test_rule_and_blocks_are_the_dense_mask(case: Case, sums: int) -> None:
    batch = pad_to_blocks(case.pack(), sums)
    blocks, block = interval_blocks(batch), module.BLOCK
    dense = dense_visibility(batch)[blocks.order][:, blocks.order]
    assert np.array_equal(seen_by_rule(blocks), dense)
    tiles = dense.reshape(len(dense) // block, block, -1, block).transpose(0, 2, 1, 3)
    assert np.array_equal(blocks.partial | blocks.full, tiles.any((2, 3)))
    assert not (blocks.full & ~tiles.all((2, 3))).any()
    assert not (blocks.full & blocks.partial).any()
    assert np.array_equal(np.sort(blocks.order), np.arange(len(dense)))
    assert np.array_equal(blocks.order[blocks.sum_place], len(batch.tokens) + np.arange(len(batch.label)))


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
    order, num_text = array_order(batch), len(batch.tokens)
    kinds = order >= num_text
    runs = np.flatnonzero(kinds[1:] & ~kinds[:-1])
    sums_per_run = np.diff(np.flatnonzero(np.diff(np.r_[False, kinds, False].astype(int))))[::2]
    assert len(runs) == len(build_rows(make_data([40, 40], train_only=True, min_context=4), TRAIN, 4, k)) + 1
    assert sums_per_run.max() <= max(k, 3)


def test_most_blocks_of_a_wide_window_are_full(monkeypatch) -> None:
    """The mask is evaluated at the edges of intervals only."""
    batch = packed(50)
    wide = replace(batch, lo=np.where(batch.hi > 0, np.minimum(batch.lo, batch.num_prefix), batch.lo))
    blocks = interval_blocks(wide)
    assert blocks.full.sum() > 4 * blocks.partial.sum()


def test_blocks_per_query_do_not_grow_with_k() -> None:
    per_query = [
        (lambda b: (b.partial | b.full).sum() / len(b.partial))(interval_blocks(packed(k))) for k in (5, 36)
    ]
    assert per_query[1] < 1.3 * per_query[0]
