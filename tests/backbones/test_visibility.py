"""Query blocks, the banded form of a batch's visibility, against the dense matrix; and how much they cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_cases import Case, cases, make_data, make_items

from repro.backbones.plan import MAX_SUM_BLOCK, TEXT_BLOCK
from repro.backbones.visibility import KEY_MULTIPLE, QueryBlocks, dense_visibility, query_blocks
from repro.data.interactions import TRAIN
from repro.prompts.packing import PromptSource, pack_rows
from repro.prompts.rows import build_rows
from repro.prompts.settings import PromptSettings


def scattered(blocks: QueryBlocks, num_keys: int) -> np.ndarray:
    """(queries, keys) int: how often each key is visible to each query."""
    times = np.zeros((blocks.num_queries, num_keys), dtype=int)
    num_blocks, size, _ = blocks.visible.shape
    for block in range(num_blocks):
        for place in range(size):
            query = block * size + place
            if query < blocks.num_queries:
                np.add.at(
                    times[query], blocks.key_index[block].numpy(), blocks.visible[block, place].int().numpy()
                )
    return times


@settings(max_examples=150)
@given(cases(), st.integers(1, 70), st.integers(1, 9), st.sampled_from([1, 5, 16]), st.sampled_from([1, 3]))
def test_blocks_hold_each_visible_key_exactly_once(case: Case, text_block, sum_block, multiple, sums) -> None:
    batch = case.pack(text_multiple=multiple, sum_multiple=sums)
    dense, num_text, total = dense_visibility(batch), len(batch.tokens), len(batch.position)
    for of_sums, block, queries in (
        (False, text_block, slice(num_text)),
        (True, sum_block, slice(num_text, None)),
    ):
        blocks = query_blocks(batch, of_sums, block)
        assert blocks.key_index.min() >= 0 and blocks.key_index.max() < total
        assert blocks.key_index.shape[1] % KEY_MULTIPLE == 0
        assert blocks.visible.any(-1).all(), "a query without a key, padding of the last block included"
        assert np.array_equal(scattered(blocks, total), dense[queries].astype(int))


@given(cases(), st.integers(1, 9), st.sampled_from([1, 3]))
def test_distance_and_offset_of_every_visible_key(case: Case, block, multiple) -> None:
    """Distance in interactions from key to target, offset in positions; 0 where no distance is meant."""
    batch = case.pack(text_multiple=multiple, sum_multiple=multiple)
    blocks, num_text = query_blocks(batch, True, block), len(batch.tokens)
    size = blocks.visible.shape[1]
    for b, c, place in np.argwhere(blocks.visible.numpy()):
        number = min(b * size + c, len(batch.label) - 1)
        query, key = num_text + number, int(blocks.key_index[b, place])
        is_interaction = batch.num_prefix <= key < batch.num_text
        expected = batch.ordinal[query] - batch.ordinal[key] if is_interaction else 0
        assert blocks.distance[b, c, place] == expected
        assert blocks.offset[b, c, place] == batch.position[query] - batch.position[key]
        if batch.label[number] >= 0:
            assert expected >= 0 and batch.position[query] - batch.position[key] >= 0


def test_text_blocks_carry_no_distances() -> None:
    source = PromptSource(make_data([6], train_only=True), make_items(), PromptSettings(n=2, k=3))
    blocks = query_blocks(pack_rows(source, build_rows(source.data, TRAIN, 2, 3), np.array([0])), False, 4)
    assert blocks.distance is None and blocks.offset is None


def pairs_per_target(k: int, layout: str, n: int = 10, num_targets: int = 400) -> tuple[float, float]:
    """(computed, visible) pairs of query and key per target, text and [SUM]s together."""
    data = make_data([num_targets + n], train_only=True, min_context=n)
    rows = build_rows(data, TRAIN, n, k)
    format_ = PromptSettings(n=n, k=k, sum_layout=layout)
    batch = pack_rows(PromptSource(data, make_items(longest=20), format_), rows, np.arange(len(rows)), 64, 8)
    computed = visible = 0
    for of_sums, block in ((False, TEXT_BLOCK), (True, min(MAX_SUM_BLOCK, k))):
        blocks = query_blocks(batch, of_sums, block)
        computed += blocks.visible.numel()
        visible += int(blocks.visible.sum())
    return computed / batch.num_sums, visible / batch.num_sums


@pytest.mark.parametrize("layout", ["deferred", "inline-visible"])
def test_cost_per_target_does_not_grow_with_k(layout) -> None:
    """More targets per prompt cost fewer pairs each, towards a limit; a dense mask's would grow with k."""
    cost = {k: pairs_per_target(k, layout) for k in (1, 10, 50, 200)}
    assert cost[200][0] < 1.1 * cost[50][0] < 1.2 * cost[10][0] < cost[1][0]
    computed, visible = cost[200]
    assert computed < 3 * visible, "gathered keys that no query of the block sees"
