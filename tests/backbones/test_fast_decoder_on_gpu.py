"""The interval kernels on CUDA: against dense attention, and in the forward pass against query blocks."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from prompt_cases import Case, cases
from test_attention import FIXES, embeddings
from test_fast_decoder import as_planned
from test_interval_tables import of_length, projected_heads, rotated_dense_attention
from tiny_backbones import tiny_backbone

from repro.backbones import interval_tables
from repro.backbones.decoder import Decoder
from repro.backbones.interval_attention import interval_attention
from repro.backbones.interval_tables import num_places
from repro.backbones.plan import plan_batch
from repro.backbones.sum_intervals import sum_interval_attention
from repro.backbones.tuning import PROJECTIONS
from repro.prompts.packing import pad_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LENGTH = 256  # one padded length for what is compiled
FEW = ("none", "alibi, plain keys", "reset last, projected")  # for key norms and adapters


@functools.cache
def backbone(kind: str):
    """Three query heads on one key-value head, head size 16: the smallest that the kernels take.

    Args:
        kind: an architecture, or `lora`: llama with adapters, of which all that is trained is drawn.
    """
    sizes = {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 48, "head_dim": 16}
    made = tiny_backbone("llama" if kind == "lora" else kind, num_hidden_layers=3, **sizes)
    if kind == "lora":
        get_peft_model(made.model, LoraConfig(r=4, lora_alpha=8, target_modules=list(PROJECTIONS)))
        with torch.no_grad():
            for parameter in (p for p in made.model.parameters() if p.requires_grad):
                parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
    made.model.to("cuda")
    return made


def difference(a: torch.Tensor, b: torch.Tensor, least: float = 1e-3) -> float:
    """As a share of the norm of b, or of `least`: a gradient that is zero but for rounding has no share."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=least))


@pytest.mark.parametrize("layout", ["deferred", "inline-positions", "inline-visible"])
@pytest.mark.parametrize("slope", [None, 0.02])
@pytest.mark.parametrize(("heads", "num_kv", "head_dim"), [(2, 2, 16), (9, 3, 64), (4, 1, 64), (8, 2, 128)])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 999),
    k=st.sampled_from([1, 3, 40]),
    chunk=st.integers(520, 900),
    instruction=st.sampled_from(["visible", "hidden"]),
    together=st.booleans(),
)
def test_kernels_equal_dense_attention(
    heads, num_kv, head_dim, slope, layout, seed, k, chunk, instruction, together
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interval_tables, "CHUNK", chunk)
        batch = of_length(k, seed, sum_layout=layout, instruction=instruction)
        tables = interval_tables.interval_tables(batch, slope)
    places, dtype = len(tables.order), torch.bfloat16 if head_dim > 16 else torch.float32
    drawn = (places, heads, num_kv, head_dim, together, seed)
    leaf, projected, turn = projected_heads(*drawn, device="cuda", dtype=dtype)
    looked_up = [torch.from_numpy(table).cuda() for table in tables.tables]
    arguments = (tables.num_prefix, head_dim**-0.5)
    generator = torch.Generator("cuda").manual_seed(seed + 1)
    weights = torch.randn(places, heads, head_dim, generator=generator, device="cuda", dtype=dtype)
    out, lse, _ = interval_attention(projected, *turn, looked_up, num_kv, *arguments)
    (grad,) = torch.autograd.grad(out, leaf, weights, retain_graph=True)
    exact = leaf.detach().double().requires_grad_()
    reference, reference_lse = rotated_dense_attention(exact, turn, num_kv, looked_up, *arguments)
    (expected,) = torch.autograd.grad(reference, exact, weights.double())
    assert difference(lse, reference_lse) < 2e-3
    assert difference(out, reference) < 1e-2  # queries and keys are rounded after the rotary embedding too
    parts = (x.split([heads, num_kv, num_kv], dim=1) for x in (grad, expected))
    for ours, theirs in zip(*parts, strict=True):
        assert difference(ours, theirs) < 1e-2
    again = interval_attention(projected, *turn, looked_up, num_kv, *arguments)[0]
    assert torch.equal(grad, torch.autograd.grad(again, leaf, weights)[0]), "same bits every time"


@pytest.mark.parametrize("layout", ["deferred", "inline-visible"])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("heads", "num_kv", "head_dim"), [(9, 3, 64), (4, 4, 64), (32, 8, 128)])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 999),
    k=st.sampled_from([1, 3, 40, 50]),
    chunk=st.sampled_from([30, 200, 2048]),
    instruction=st.sampled_from(["visible", "hidden"]),
    slope=st.sampled_from([0.0, 0.02]),
)
def test_kernels_of_sums_equal_dense_attention_in_bfloat16(
    heads, num_kv, head_dim, reset, layout, seed, k, chunk, instruction, slope
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interval_tables, "CHUNK", chunk)
        batch = of_length(k, seed, sum_layout=layout, instruction=instruction)
        tables = interval_tables.interval_tables(batch)
    looked_up = [torch.from_numpy(t) for t in interval_tables.sum_tables(tables, batch, slope, reset)]
    generator, places, sums = torch.Generator().manual_seed(seed), len(tables.order), len(batch.label)
    query = torch.randn(sums, heads, head_dim, generator=generator, dtype=torch.bfloat16)
    both = torch.randn(places, 4 * num_kv, head_dim, generator=generator, dtype=torch.bfloat16)
    weights = torch.randn(query.shape, generator=generator, dtype=torch.bfloat16)
    arguments = (tables.num_prefix, [0.1, 0.7, 2.0, 0.5], head_dim**-0.5)
    results = []
    for device, dtype in (("cpu", torch.float64), ("cuda", torch.bfloat16), ("cuda", torch.bfloat16)):
        leaves = [x.to(device, dtype).requires_grad_() for x in (query, both)]
        keys = list(leaves[1].split(num_kv, dim=1))[: 4 if reset else 2]
        on_device = [table.to(device) for table in looked_up]
        out, lse = sum_interval_attention(leaves[0], keys, on_device, *arguments)
        grads = torch.autograd.grad(out, leaves, weights.to(device, dtype))
        results.append([x.detach().cpu() for x in (out, lse, *grads)])
    exact, ours, again = results
    assert difference(ours[1], exact[1]) < 2e-3
    assert all(difference(one, other) < 1e-2 for one, other in zip(ours, exact, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(ours, again, strict=True)), "the same bits"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("llama", name) for name in FIXES), *((kind, name) for kind in ("qwen3", "lora") for name in FEW)],
)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_values_and_gradients_equal_query_blocks(kind: str, name: str, compiled: bool, case: Case) -> None:
    case = replace(case, chosen=case.chosen[:4])
    packed = case.pack(sum_multiple=8)
    assume(num_places(packed) <= LENGTH)
    batch, fixes = pad_batch(packed, LENGTH - num_places(packed), 0), FIXES[name]
    made, results = backbone(kind), []
    decoder = Decoder(made.layers, made.decoder.rotary_emb, made.decoder.norm)
    if compiled:
        decoder.fast = compiled_layers(kind, name)
    for intervals in (False, True):
        made.model.to("cpu")
        text, sums = embeddings(made, batch)
        made.model.to("cuda")
        leaves = [leaf.detach().cuda().requires_grad_() for leaf in (text, sums)]
        plan = plan_batch(batch, fixes, 3, case.settings.n, case.settings.k, "cuda", intervals)
        out = decoder.forward_sums(as_planned(leaves[0], plan), leaves[1], plan)[: batch.num_sums]
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).cuda()
        named = made.decoder.named_parameters()
        used = [p for n, p in named if p.requires_grad and "embed_tokens" not in n]
        results.append([out, *torch.autograd.grad((out * weights).sum(), [*leaves, *used])])
    least = max(1e-3, 0.01 * max(float(reference.norm()) for reference in results[0]))
    for ours, reference in zip(results[1], results[0], strict=True):
        assert difference(ours, reference, least) < 3e-3


@functools.cache
def compiled_layers(kind: str, name: str):
    made = backbone(kind)
    return Decoder(made.layers, made.decoder.rotary_emb, made.decoder.norm, compiled=True).fast
