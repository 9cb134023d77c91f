"""The tables of the interval mask against the dense mask, over drawn data, formats and paddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompt_cases import Case, cases, make_data, make_items

from repro.backbones import interval_tables as module
from repro.backbones.interval_attention import dense_attention, interval_attention
from repro.backbones.interval_tables import HIDDEN, INSTRUCTION, IntervalTables, interval_tables, num_places
from repro.backbones.layer_parts import rotate
from repro.backbones.visibility import dense_visibility
from repro.data.interactions import TRAIN
from repro.prompts.packing import PackedBatch, PromptSource, pack_rows, pad_batch
from repro.prompts.rows import build_rows
from repro.prompts.settings import PromptSettings


def of_length(k: int, seed: int = 0, histories: tuple[int, ...] = (40, 40), **settings) -> PackedBatch:
    data = make_data(list(histories), seed, train_only=True, min_context=4)
    prompt = PromptSettings(n=4, k=k, **settings)
    rows = build_rows(data, TRAIN, prompt.n, k)
    source = PromptSource(data, make_items(longest=3), prompt)
    return pad_batch(pack_rows(source, rows, np.arange(len(rows)), sum_multiple=8), 5, 3)


def seen_by_rule(tables: IntervalTables) -> np.ndarray:
    """(N, N) the mask as the kernels evaluate it."""
    place = np.arange(len(tables.order))
    seen = (tables.seen_as >= tables.lo[:, None]) & (tables.seen_as < tables.hi[:, None])
    seen |= place == place[:, None]
    if tables.num_prefix:
        first = tables.copy[:, None]
        seen |= (place >= first) & (place < first + tables.num_prefix) & (place < place[:, None])
    return seen


@pytest.fixture(autouse=True)
def many_copies(monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 6)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases(), st.integers(0, 7), st.integers(0, 5))
def test_rule_is_the_dense_mask(case: Case, text: int, sums: int) -> None:
    batch = pad_batch(case.pack(), text, sums)
    tables, dense = interval_tables(batch), dense_visibility(batch)
    seen = seen_by_rule(tables)
    times = np.zeros((len(seen), len(dense)), dtype=int)  # how often each query sees each token
    np.add.at(times.T, tables.order, seen.T.astype(int))
    assert np.array_equal(times, dense[tables.order])
    assert np.array_equal(tables.order[tables.place], np.arange(len(dense)))
    copies = np.flatnonzero(tables.order == 0) if batch.num_prefix else []
    assert len(tables.order) == len(dense) + batch.num_prefix * max(len(copies) - 1, 0) == num_places(batch)
    assert (np.diff(tables.lo) >= 0).all() and (np.diff(tables.hi) >= 0).all()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases(), st.integers(1, 9))
def test_runs_of_queries_and_keys_hold_all_that_is_seen(case: Case, tile: int) -> None:
    """What the kernels' loops go over: every seen pair is in the loop of its tile of queries and of keys."""
    tables = interval_tables(pad_batch(case.pack(), 3, 2))
    place, seen = np.arange(len(tables.order)), seen_by_rule(tables)
    of_copy = np.zeros_like(seen)
    if tables.num_prefix:
        first = tables.copy[:, None]
        of_copy = (place >= first) & (place < first + tables.num_prefix) & (place != place[:, None])
    seen &= ~of_copy  # the copies have loops of their own
    for at in range(0, len(place), tile):
        last = min(at + tile, len(place)) - 1
        begin, stop = min(tables.lo[at], at), max(tables.hi[last], last + 1)
        keys = np.flatnonzero(seen[at : last + 1].any(0))
        assert begin <= keys.min() and keys.max() < stop
        queries = np.flatnonzero(seen[:, at : last + 1].any(1))
        assert tables.first[at] <= queries.min() and queries.max() < tables.stop[last]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cases())
def test_copies_cut_the_queries_into_those_that_see_each(case: Case) -> None:
    tables = interval_tables(pad_batch(case.pack(), 3, 2))
    if not tables.num_prefix:
        return
    starts = tables.copies[tables.copies < len(tables.order)]
    assert len(starts) < len(tables.copies), "the last stop is the end"
    for start, stop in zip(tables.copies, tables.copies[1:], strict=False):
        assert (tables.copy[start:stop] == start).all()
        assert (tables.seen_as[start : start + tables.num_prefix] == INSTRUCTION).all()


def test_the_number_of_copies_kept_depends_on_the_length_alone() -> None:
    longest = max(num_places(of_length(k, seed)) for k in (1, 40) for seed in range(4))
    batches = [of_length(k, seed) for k in (1, 40) for seed in range(4)]
    same = [interval_tables(pad_batch(batch, longest - num_places(batch), 0)) for batch in batches]
    assert len({tuple(len(table) for table in tables.tables) for tables in same}) == 1


@pytest.mark.parametrize("k", [1, 3, 36])
def test_sums_stand_right_behind_what_they_see(k: int) -> None:
    batch = of_length(k)
    tables, num_text = interval_tables(batch), len(batch.tokens)
    place = tables.place[num_text + np.flatnonzero(batch.label >= 0)]
    assert np.array_equal(tables.hi[place], place)
    assert (tables.seen_as[place] == HIDDEN).all()


def test_tiles_per_query_do_not_grow_with_k() -> None:
    """A tile of keys is read by about a window of queries, however many targets a prompt has."""

    def computed(k: int) -> float:
        tables = interval_tables(of_length(k, histories=(150, 150)))
        read = tables.stop[7::8] - tables.first[:-7:8]
        return float(np.mean(read[: len(read) // 2]))

    assert computed(100) < 1.3 * computed(8)


def projected_heads(
    places: int, heads: int, num_kv: int, head_dim: int, together: bool, seed: int, **draw
) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """A leaf (N, H + 2K, D), what the operator takes of it (one tensor, or three), cosines and sines."""
    generator = torch.Generator(draw.get("device", "cpu")).manual_seed(seed)
    leaf = torch.randn(places, heads + 2 * num_kv, head_dim, generator=generator, **draw).requires_grad_()
    angle = torch.randn(places, head_dim // 2, generator=generator, device=leaf.device).repeat(1, 2)
    query, key, value = leaf.split([heads, num_kv, num_kv], dim=1)
    projected = [leaf] if together else [query.contiguous(), key.contiguous(), value]
    return leaf, projected, [angle.cos(), angle.sin()]


def rotated_dense_attention(leaf: torch.Tensor, turn: list[torch.Tensor], num_kv: int, *arguments):
    """The reference: rotary embedding, then attention with all scores written out."""
    query, key, value = leaf.split([leaf.shape[1] - 2 * num_kv, num_kv, num_kv], dim=1)
    return dense_attention(rotate(query, *turn), rotate(key, *turn), value, *arguments)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cases(), st.booleans(), st.booleans(), st.sampled_from([(4, 2), (3, 1), (2, 2)]))
def test_operator_rotates_and_passes_gradients_on(case: Case, biased: bool, together: bool, heads) -> None:
    tables = interval_tables(case.pack(), 0.1 if biased else None)
    leaf, projected, turn = projected_heads(len(tables.order), *heads, 8, together, seed=0)
    looked_up = [torch.from_numpy(table) for table in tables.tables]
    ours = interval_attention(projected, *turn, looked_up, heads[1], tables.num_prefix, 0.3)[0]
    theirs = rotated_dense_attention(leaf, turn, heads[1], looked_up, tables.num_prefix, 0.3)[0]
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(out, leaf, weights)[0] for out in (ours, theirs)]
    assert torch.equal(ours, theirs)
    assert torch.allclose(*gradients, atol=1e-5)


@pytest.mark.parametrize("together", [True, False])
def test_compilers_get_what_the_operator_returns(together: bool) -> None:
    """Shapes, strides, aliasing and gradients, traced and run."""
    tables = interval_tables(of_length(3))
    _, projected, turn = projected_heads(len(tables.order), 4, 2, 8, together, seed=0)
    if not together:
        projected = [heads.detach().requires_grad_() for heads in projected]
    looked_up = [torch.from_numpy(table) for table in tables.tables]
    torch.library.opcheck(interval_attention, (projected, *turn, looked_up, 2, tables.num_prefix, 0.3))


def test_bias_falls_with_the_distance_of_positions_at_sums_alone() -> None:
    batch = of_length(5)
    tables = interval_tables(batch, 0.25)
    is_sum = tables.order >= len(batch.tokens)
    assert (tables.slope == np.where(is_sum, 0.25, 0)).all()
    assert np.array_equal(tables.position, batch.position[tables.order])
    assert len(interval_tables(replace(batch), None).slope) == 0
