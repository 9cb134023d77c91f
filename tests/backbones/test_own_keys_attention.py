"""Attention over all places with un-rotated keys for the [SUM]s, against autograd on scores written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_interval_tables import of_length, projected_heads, rotated_dense_attention
from test_sum_intervals import LAYOUTS, ON_DEVICE, SLOPE, named, seen_by_sums

from repro.backbones import interval_tables as module
from repro.backbones.interval_tables import IntervalTables, interval_tables
from repro.backbones.layer_parts import rotate
from repro.backbones.own_keys_attention import own_keys_attention
from repro.prompts.packing import PackedBatch


def looked_up(batch: PackedBatch, tables: IntervalTables, device: str) -> list[list[torch.Tensor]]:
    """The operator's tables: of all places, and of the [SUM]s."""
    found = (tables.tables, named(tables, batch, False).values())
    return [[torch.from_numpy(table).to(device) for table in each] for each in found]


def written_out(
    leaf: torch.Tensor, turn: list[torch.Tensor], num_kv: int, batch: PackedBatch, tables: IntervalTables
) -> torch.Tensor:
    """The reference (N, H, D): text as ever, then the rows of the [SUM]s from un-rotated keys."""
    found, scale, group = named(tables, batch, False), leaf.shape[2] ** -0.5, leaf.shape[1] // num_kv - 2
    all_places = [torch.from_numpy(table) for table in tables.tables]
    text, _ = rotated_dense_attention(leaf, turn, num_kv, all_places, tables.num_prefix, scale)
    own = torch.from_numpy(found["own"]).long()
    query, key, value = leaf.split([group * num_kv, num_kv, num_kv], dim=1)
    query = rotate(query[own], *(x[own] for x in turn))
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    apart = torch.from_numpy(found["key_position"] - found["position"][:, None])
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale + SLOPE * apart
    seen = torch.from_numpy(np.logical_or(*seen_by_sums(found, tables.num_prefix)))
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return text.index_copy(0, own, torch.einsum("hqk,khd->qhd", weights, value))


@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("heads", "num_kv", "head_dim"), [(2, 2, 16), (9, 3, 64), (4, 2, 32), (4, 1, 128)])
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 999),
    k=st.sampled_from([1, 3, 40, 50]),
    chunk=st.integers(520, 900),
    instruction=st.sampled_from(["visible", "hidden"]),
    resting=st.booleans(),
)
def test_values_and_gradients_are_those_of_written_out_scores(
    device, layout, together, heads, num_kv, head_dim, seed, k, chunk, instruction, resting
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk if device == "cuda" else chunk // 20)
        histories = (40, 40) if device == "cuda" else (12, 9)
        batch = of_length(k, seed, histories, sum_layout=layout, instruction=instruction)
        tables = interval_tables(batch)
    places, dtype = len(tables.order), torch.bfloat16 if device == "cuda" and head_dim > 16 else torch.float32
    drawn = (places, heads, num_kv, head_dim, together, seed)
    leaf, projected, turn = projected_heads(*drawn, device=device, dtype=dtype)
    if resting:  # [SUM]s at rotary position 0, as under the fix
        own = tables.place[len(batch.tokens) :]
        turn = [
            x.index_fill(0, torch.from_numpy(own).to(device), at) for x, at in zip(turn, (1, 0), strict=True)
        ]
    weight = torch.randn(places, heads, head_dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    arguments = (projected, *turn, *looked_up(batch, tables, device), num_kv)
    results = []
    for _ in range(2):
        out = own_keys_attention(*arguments, tables.num_prefix, head_dim**-0.5)[0]
        results.append([out, *torch.autograd.grad(out, leaf, weight.to(device), retain_graph=True)])
    assert all(torch.equal(*both) for both in zip(*results, strict=True)), "the same bits every time"

    exact, turn = leaf.detach().cpu().double().requires_grad_(), [x.cpu().double() for x in turn]
    expected = written_out(exact, turn, num_kv, batch, tables)
    (grad,) = torch.autograd.grad(expected, exact, weight.double())
    (ours, our_grad), sizes = (x.detach().cpu().double() for x in results[0]), [heads, num_kv, num_kv]
    pairs = [(ours, expected), *zip(our_grad.split(sizes, dim=1), grad.split(sizes, dim=1), strict=True)]
    for found, reference in pairs:
        assert (found - reference).norm() <= (1e-2 if dtype is torch.bfloat16 else 1e-5) * reference.norm()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("instruction", ["visible", "hidden"])
def test_compilers_get_what_the_operator_returns(together: bool, instruction: str) -> None:
    """Shapes, strides, aliasing and gradients, traced and run."""
    batch = of_length(3, instruction=instruction)
    tables = interval_tables(batch)
    _, projected, turn = projected_heads(len(tables.order), 4, 2, 8, together, 0)
    projected = [x.detach().requires_grad_() for x in projected]
    arguments = (projected, *turn, *looked_up(batch, tables, "cpu"), 2, tables.num_prefix, 0.3)
    torch.library.opcheck(own_keys_attention, arguments)
