"""The [SUM]s' own attention: its tables, and the operator against autograd on scores written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from prompt_cases import Case, cases
from test_interval_tables import of_length

from repro.backbones.fix_settings import Fixes, Reset
from repro.backbones.interval_tables import interval_tables, plan_intervals, sum_tables
from repro.backbones.sum_intervals import sum_interval_attention

LAYOUTS = ("deferred", "inline-positions", "inline-visible")
ON_DEVICE = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    ),
]


def drawn(layout: str, k: int, seed: int, device: str = "cpu"):
    """A batch's tables for all places and for its [SUM]s, the [SUM]s' places, and the positions."""
    batch = of_length(k, seed, sum_layout=layout, instruction="hidden")
    tables = interval_tables(batch)
    place, position = tables.place[len(batch.tokens) :], batch.position[tables.order]
    found = sum_tables(tables, place, 0.05, position)
    return tables, place, position, [torch.from_numpy(each).to(device) for each in found]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_a_sum_sees_what_it_sees_among_all_places(case: Case) -> None:
    batch = case.pack()
    tables = interval_tables(batch)
    assume(not tables.num_prefix)
    place, position = tables.place[len(batch.tokens) :], batch.position[tables.order]
    lo, hi, own, slope, at, seen_as, key_position, first, stop = sum_tables(tables, place, 0.1, position)
    keys = np.arange(len(seen_as))
    whole = (tables.seen_as >= tables.lo[:, None]) & (tables.seen_as < tables.hi[:, None])
    whole |= keys == keys[:, None]
    seen = (seen_as >= lo[:, None]) & (seen_as < hi[:, None]) | (keys == own[:, None])
    assert np.array_equal(seen, whole[place])
    assert np.array_equal(at, position[place].astype(np.float32)) and (slope == np.float32(0.1)).all()
    assert np.array_equal(key_position, position.astype(np.float32))
    for key in keys:
        assert not seen[: first[key], key:].any() and not seen[stop[key] :, : key + 1].any()


@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("heads", "num_kv", "head_dim"), [(2, 2, 16), (9, 3, 64), (8, 2, 128)])
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 999), k=st.sampled_from([1, 3, 40]))
def test_values_and_gradients_are_those_of_written_out_scores(
    device, layout, heads, num_kv, head_dim, seed, k
) -> None:
    tables, place, position, on_device = drawn(layout, k, seed, device)
    places, sums, generator = len(tables.order), len(place), torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_(True)

    query, both, weight = (
        leaf(sums, heads, head_dim),
        leaf(places, 2 * num_kv, head_dim),
        leaf(sums, heads, head_dim),
    )
    key, value = both.split(num_kv, dim=1)  # rows at another stride than a tensor of their own
    out, _ = sum_interval_attention(query, key, value, on_device, head_dim**-0.5)
    grads = torch.autograd.grad((out * weight.detach()).sum(), [query, both])
    lo, hi, seen_as = (
        torch.from_numpy(each).to(device) for each in (tables.lo[place], tables.hi[place], tables.seen_as)
    )
    at, own = torch.from_numpy(position).float().to(device), torch.from_numpy(place).to(device)
    seen = (seen_as >= lo[:, None]) & (seen_as < hi[:, None]) | (
        torch.arange(places, device=device) == own[:, None]
    )
    group = heads // num_kv
    scores = torch.einsum("qhd,khd->hqk", query, key.repeat_interleave(group, 1)) * head_dim**-0.5
    scores = (scores + 0.05 * (at - at[own][:, None])).masked_fill(~seen, -torch.inf)
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value.repeat_interleave(group, 1))
    expected_grads = torch.autograd.grad((expected * weight.detach()).sum(), [query, both])
    for ours, theirs in zip([out, *grads], [expected, *expected_grads], strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.parametrize(
    ("fixes", "instruction", "own_kernels"),
    [
        (Fixes(None, "alibi-plain-keys", 0.1), "hidden", True),
        (Fixes(Reset(), "alibi-plain-keys", 0.1), "hidden", True),
        (Fixes(None, "alibi-plain-keys", 0.1), "visible", False),
        (Fixes(Reset(layers="all"), "alibi-plain-keys", 0.1), "hidden", False),
        (Fixes(None, "alibi-rotated-keys", 0.1), "hidden", False),
        (Fixes(), "hidden", False),
    ],
)
def test_own_kernels_where_keys_are_unrotated_and_nothing_else_is_asked(
    fixes, instruction, own_kernels
) -> None:
    batch = of_length(3, 0, sum_layout="deferred", instruction=instruction)
    plan, _ = plan_intervals(batch, fixes, torch.device("cpu"))
    assert (plan.sum_tables is not None) == own_kernels
    assert plan.sums_inside == (fixes.position != "alibi-plain-keys" and fixes.reset is None)


def test_tables_are_refused_where_the_instruction_is_visible() -> None:
    batch = of_length(3, 0, sum_layout="deferred", instruction="visible")
    tables = interval_tables(batch)
    with pytest.raises(AssertionError, match="hidden instruction"):
        sum_tables(tables, tables.place[len(batch.tokens) :], 0.1, batch.position[tables.order])
