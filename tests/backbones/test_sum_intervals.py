"""The [SUM]s' own attention: its tables, and the operator against autograd on scores written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompt_cases import Case, cases
from test_interval_tables import of_length, seen_by_rule

from repro.backbones import interval_tables as module
from repro.backbones.fix_settings import Reset
from repro.backbones.fixes import reset_ratio
from repro.backbones.interval_tables import IntervalTables, interval_tables, sum_tables
from repro.backbones.sum_intervals import sum_interval_attention
from repro.backbones.visibility import query_blocks
from repro.prompts.packing import PackedBatch, pad_batch

LAYOUTS = ("deferred", "inline-positions", "inline-visible")
OF_SUMS = ("lo", "hi", "own", "copy", "slope", "position", "ordinal")
NAMES = (*OF_SUMS, "seen_as", "key_position", "key_ordinal", "copies", "first", "stop", "readers")
SLOPE, RATIO = 0.05, [0.1, 0.7, 2.0, 0.5]  # a_min, a_max, half of n = 4, tau
ON_DEVICE = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    ),
]


@pytest.fixture(autouse=True)
def many_copies(monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 25)


def named(tables: IntervalTables, batch: PackedBatch, reset: bool) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, sum_tables(tables, batch, SLOPE, reset), strict=True))


def seen_by_sums(found: dict[str, np.ndarray], num_prefix: int) -> tuple[np.ndarray, np.ndarray]:
    """(S, N) twice, as the kernels evaluate it: seen otherwise than in a copy, and in a copy."""
    keys, start = np.arange(len(found["seen_as"])), found["copies"][found["copy"]][:, None]
    seen = (found["seen_as"] >= found["lo"][:, None]) & (found["seen_as"] < found["hi"][:, None])
    of_copy = (keys >= start) & (keys < start + num_prefix)
    return seen | (keys == found["own"][:, None]), of_copy


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(), text=st.integers(0, 5), sums=st.integers(0, 4))
def test_a_sum_sees_what_it_sees_among_all_places(case: Case, text: int, sums: int) -> None:
    batch = pad_batch(case.pack(), text, sums)
    tables = interval_tables(batch)
    found, place = named(tables, batch, False), tables.place[len(batch.tokens) :]
    seen, of_copy = seen_by_sums(found, tables.num_prefix)
    assert np.array_equal(seen | of_copy, seen_by_rule(tables)[place]) and not (seen & of_copy).any()
    position = batch.position[tables.order].astype(np.float32)
    assert np.array_equal(found["key_position"], position) and (found["slope"] == np.float32(SLOPE)).all()
    assert np.array_equal(found["position"], position[place]) and not len(found["ordinal"])
    for key in range(len(place)):
        assert not seen[: found["first"][key], key:].any() and not seen[found["stop"][key] :, : key + 1].any()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(), chunk=st.integers(6, 30))
def test_a_copy_is_read_by_one_run_of_sums(case: Case, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        tables = interval_tables(pad_batch(case.pack(), 3, 2))
        found = named(tables, pad_batch(case.pack(), 3, 2), False)
    assert len(found["readers"]) == len(found["copies"]) and (np.diff(found["copy"]) >= 0).all()
    for number, (begin, stop) in enumerate(zip(found["readers"], found["readers"][1:], strict=False)):
        assert np.array_equal(np.flatnonzero(found["copy"] == number), np.arange(begin, stop))
    assert found["readers"][-1] == len(found["copy"]), "behind the last copy there is no [SUM]"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(), tau=st.sampled_from([0.3, 2.0]))
def test_reset_ratio_from_the_tables_is_that_of_gathered_keys(case: Case, tau: float) -> None:
    batch, n = pad_batch(case.pack(), 3, 2), case.settings.n
    tables, reset = interval_tables(batch), Reset(0.1, 0.7, tau)
    found, blocks = named(tables, batch, True), query_blocks(batch, True, 1)
    gathered = reset_ratio(blocks, reset, n)[:, 0]
    apart = torch.from_numpy(found["ordinal"][:, None] - found["key_ordinal"]).float()
    ratio = torch.where(apart > 0, 0.1 + (0.7 - 0.1) * torch.sigmoid((apart - n / 2) / tau), 0.0)
    at_key = ratio.gather(1, torch.from_numpy(tables.place)[blocks.key_index])
    assert torch.allclose(at_key * blocks.visible[:, 0], gathered * blocks.visible[:, 0], atol=1e-6)


@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("heads", "num_kv", "head_dim"), [(2, 2, 16), (9, 3, 64), (20, 1, 16), (4, 1, 128)])
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 999),
    k=st.sampled_from([1, 3, 40]),
    instruction=st.sampled_from(["visible", "hidden"]),
    window=st.sampled_from([{}, {"window": "tokens", "window_tokens": 5}]),
)
def test_values_and_gradients_are_those_of_written_out_scores(
    device, layout, reset, heads, num_kv, head_dim, seed, k, instruction, window
) -> None:
    batch = of_length(k, seed, (12, 9), sum_layout=layout, instruction=instruction, **window)
    tables, generator = interval_tables(batch), torch.Generator().manual_seed(seed)
    found = named(tables, batch, reset)
    on_device = {name: torch.from_numpy(table).to(device) for name, table in found.items()}

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_(True)

    query = leaf(len(found["lo"]), heads, head_dim)
    both, weight = leaf(len(tables.order), 4 * num_kv, head_dim), leaf(*query.shape).detach()
    keys = list(both.split(num_kv, dim=1))  # rows at another stride than a tensor of their own
    arguments = (list(on_device.values()), tables.num_prefix, RATIO, head_dim**-0.5)
    read = keys if reset else keys[:2]
    out, _ = sum_interval_attention(query, read, *arguments)
    grads = torch.autograd.grad((out * weight).sum(), [query, both])

    key, value, key0, value0 = (x.repeat_interleave(heads // num_kv, 1) for x in keys)
    seen = torch.from_numpy(np.logical_or(*seen_by_sums(found, tables.num_prefix))).to(device)
    alpha = torch.zeros(seen.shape, device=device)
    if reset:
        apart = (on_device["ordinal"][:, None] - on_device["key_ordinal"]).float()
        alpha = RATIO[0] + (RATIO[1] - RATIO[0]) * torch.sigmoid((apart - RATIO[2]) / RATIO[3])
        alpha = torch.where(apart > 0, alpha, 0.0)
    keep, mixed_in = (1 - alpha)[..., None, None], alpha[..., None, None]
    scores = torch.einsum("qhd,qkhd->hqk", query, keep * key + mixed_in * key0) * head_dim**-0.5
    scores = scores + SLOPE * (on_device["key_position"] - on_device["position"][:, None])
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    expected = torch.einsum("hqk,qkhd->qhd", weights, keep * value + mixed_in * value0)
    expected_grads = torch.autograd.grad((expected * weight).sum(), [query, both])
    for ours, theirs in zip([out, *grads], [expected, *expected_grads], strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()
    again, _ = sum_interval_attention(query, read, *arguments)
    repeated = torch.autograd.grad((again * weight).sum(), [query, both])
    assert all(torch.equal(one, two) for one, two in zip(grads, repeated, strict=True)), "the same bits"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("instruction", ["visible", "hidden"])
def test_compilers_get_what_the_operator_returns(reset: bool, instruction: str) -> None:
    """Shapes, strides, aliasing and gradients, traced and run."""
    batch = of_length(3, instruction=instruction)
    tables, generator = interval_tables(batch), torch.Generator().manual_seed(0)
    looked_up = [torch.from_numpy(table) for table in sum_tables(tables, batch, SLOPE, reset)]
    query = torch.randn(len(batch.label), 4, 8, generator=generator).requires_grad_()
    keys = [torch.randn(len(tables.order), 2, 8, generator=generator).requires_grad_() for _ in range(4)]
    arguments = (query, keys if reset else keys[:2], looked_up, tables.num_prefix, RATIO, 0.3)
    torch.library.opcheck(sum_interval_attention, arguments)


def test_the_number_of_programs_depends_on_lengths_alone() -> None:
    """One recorded graph serves all batches of a length."""
    batches = [of_length(k, seed, instruction="visible") for k in (1, 40) for seed in range(4)]
    places = max(module.num_places(batch) for batch in batches)
    sums = max(len(batch.label) for batch in batches)
    shapes = set()
    for batch in batches:
        more = sums - len(batch.label)
        padded = pad_batch(batch, places + sums - module.num_places(batch) - more, more)
        shapes.add(tuple(len(table) for table in sum_tables(interval_tables(padded), padded, SLOPE, True)))
    assert len(shapes) == 1
