"""The fast forward pass (interval tables, merged order, fused projections) against query blocks, on the CPU.

There attention itself is written out densely; `test_fast_decoder_on_gpu.py` runs the kernels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_attention import FIXES, FORMATS, TOKEN_WINDOWS, N, assert_close, backbone_of, embeddings, make_case

from repro.backbones import fast_decoder, interval_tables
from repro.backbones.decoder import Decoder
from repro.backbones.fix_settings import Fixes, Reset
from repro.backbones.interval_tables import num_places
from repro.backbones.plan import BatchPlan, plan_batch
from repro.errors import BackboneError
from repro.prompts.packing import PackedBatch, pad_batch
from repro.prompts.settings import INSTRUCTIONS, SUM_LAYOUTS, PromptSettings


@pytest.fixture(autouse=True)
def several_copies_of_the_instruction(monkeypatch) -> None:
    monkeypatch.setattr(interval_tables, "CHUNK", 9)


def padded(settings: PromptSettings, lengths: tuple[int, ...] = (7, 5, 3)) -> PackedBatch:
    batch = make_case(settings, lengths).pack(sum_multiple=4)
    return pad_batch(batch, -num_places(batch) % 32, 0)


def as_planned(text: torch.Tensor, plan: BatchPlan) -> torch.Tensor:
    """Embeddings of the plan's tokens, which end in padding."""
    return torch.nn.functional.pad(text, (0, 0, 0, len(plan.tokens) - len(text)))


def both(
    family: str, settings: PromptSettings, fixes: Fixes, lengths: tuple[int, ...] = (7, 5, 3)
) -> tuple[list, list, BatchPlan]:
    """Scores, then gradients of embeddings and weights, by query blocks and by the fast path."""
    backbone, batch = backbone_of(family), padded(settings, lengths)
    group = backbone.config.num_attention_heads // backbone.config.num_key_value_heads
    decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
    leaves = embeddings(backbone, batch)
    used = [p for n, p in backbone.decoder.named_parameters() if "embed_tokens" not in n]
    results = []
    for intervals in (False, True):
        plan = plan_batch(batch, fixes, group, N, settings.k, intervals=intervals)
        out = decoder.forward_sums(as_planned(leaves[0], plan), leaves[1], plan)[: batch.num_sums]
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        results.append([out, *torch.autograd.grad((out * weights).sum(), [*leaves, *used])])
    return results[0], results[1], plan


def assert_same(fast: list, slow: list) -> None:
    for ours, reference in zip(fast, slow, strict=True):
        assert_close(ours, reference)


@pytest.mark.parametrize("settings", FORMATS, ids=lambda s: f"{s.sum_layout}-{s.window}-{s.instruction}")
@pytest.mark.parametrize("name", ["none", "alibi, rotated keys", "reset and alibi, plain keys"])
def test_every_prompt_format_equals_query_blocks(settings, name) -> None:
    slow, fast, _ = both("llama", settings, FIXES[name])
    assert_same(fast, slow)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma"])
@pytest.mark.parametrize("name", FIXES)
def test_every_fix_and_family_equals_query_blocks(family, name) -> None:
    settings = PromptSettings(n=N, k=4, instruction="hidden")
    reset = FIXES[name].reset
    if reset is not None and reset.mixing == "hidden" and family.startswith("qwen"):
        with pytest.raises(BackboneError, match="bias or a norm of their own"):
            both(family, settings, FIXES[name])
        return
    slow, fast, _ = both(family, settings, FIXES[name])
    assert_same(fast, slow)


@pytest.mark.parametrize(
    ("fixes", "layout", "inside"),
    [
        (Fixes(), "deferred", True),
        (Fixes(), "inline-visible", True),
        (Fixes(reset=Reset()), "deferred", True),
        (Fixes(Reset(), "alibi-rotated-keys", 0.1), "deferred", True),
        (Fixes(None, "alibi-rotated-keys", 0.1), "inline-positions", True),
        (Fixes(None, "alibi-plain-keys", 0.1), "deferred", False),
        (Fixes(Reset(layers="all")), "deferred", False),
    ],
)
def test_sums_are_inside_of_the_kernel_wherever_they_can_be(fixes, layout, inside) -> None:
    settings = PromptSettings(n=N, k=4, sum_layout=layout)
    assert both("llama", settings, fixes)[2].intervals.sums_inside == inside


@pytest.mark.parametrize("name", FIXES)
@pytest.mark.parametrize("instruction", INSTRUCTIONS)
@pytest.mark.parametrize("layout", SUM_LAYOUTS)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(k=st.sampled_from([1, 3, 40]), lengths=st.lists(st.integers(3, 16), min_size=1, max_size=3))
def test_fixes_layouts_and_instructions_equal_query_blocks(name, instruction, layout, k, lengths) -> None:
    prompt = PromptSettings(n=N, k=k, sum_layout=layout, instruction=instruction)
    slow, fast, _ = both("llama", prompt, FIXES[name], tuple(lengths))
    for ours, reference in zip(fast, slow, strict=True):  # the reference rounds by up to 1.5e-5 of it
        scale = max(1.0, float(reference.detach().abs().max()))
        torch.testing.assert_close(ours, reference, atol=3e-5 * scale, rtol=0)


@pytest.mark.parametrize("name", FIXES)
@pytest.mark.parametrize("prompt", TOKEN_WINDOWS, ids=lambda s: f"{s.sum_layout}-{s.instruction}")
def test_every_fix_in_every_layout_with_a_token_window_equals_query_blocks(name, prompt) -> None:
    slow, fast, _ = both("llama", prompt, FIXES[name], (9, 6))
    assert_same(fast, slow)


@pytest.mark.parametrize("name", FIXES)
def test_only_a_reset_that_mixes_hidden_states_gathers_keys(name, monkeypatch) -> None:
    def gather(*_):
        raise NotImplementedError("gathered")

    monkeypatch.setattr(fast_decoder, "sum_attention", gather)
    prompt, reset = PromptSettings(n=N, k=4), FIXES[name].reset
    batch, backbone = padded(prompt), backbone_of("llama")
    plan = plan_batch(batch, FIXES[name], 3, N, prompt.k, intervals=True)
    decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
    text, sums = (leaf.detach() for leaf in embeddings(backbone, batch))
    if reset is not None and reset.mixing == "hidden":
        with pytest.raises(NotImplementedError, match="gathered"):
            decoder.forward_sums(as_planned(text, plan), sums, plan)
    else:
        assert plan.sums is plan.sum_mask is plan.bias is plan.alpha is None
        assert decoder.forward_sums(as_planned(text, plan), sums, plan).isfinite().all()


def test_sliding_window_and_streaming_rows_of_a_token_window() -> None:
    for k in (1, 9):
        slow, fast, _ = both("llama", PromptSettings(n=N, k=k, window="tokens", window_tokens=1), Fixes())
        assert_same(fast, slow)


@pytest.mark.parametrize("name", ["reset and alibi, rotated keys", "alibi, plain keys"])
def test_a_layer_is_two_graphs_for_all_layers_and_batches_of_a_length(name) -> None:
    """What the compiler sees: its two halves."""
    settings, fixes = PromptSettings(n=N, k=4), FIXES[name]
    backbone, graphs = backbone_of("llama"), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
    torch._dynamo.reset()
    for half in (fast_decoder.attention_half, fast_decoder.mlp_half):
        compiled = torch.compile(half, backend=count, fullgraph=True, dynamic=False)
        setattr(decoder.fast, half.__name__, compiled)
    for chosen in (slice(None), slice(None, None, -1)):
        case = make_case(settings)
        batch = replace(case, chosen=case.chosen[chosen]).pack(sum_multiple=4)
        batch = pad_batch(batch, 160 - num_places(batch), 0)
        text, sums = (leaf.detach() for leaf in embeddings(backbone, batch))
        outputs = []
        for intervals in (False, True):
            with torch.no_grad():
                plan = plan_batch(batch, fixes, 3, N, settings.k, intervals=intervals)
                outputs.append(decoder.forward_sums(as_planned(text, plan), sums, plan)[: batch.num_sums])
        assert_close(outputs[1], outputs[0])
    assert len(graphs) == 2


def test_padding_changes_nothing() -> None:
    settings = PromptSettings(n=N, k=4)
    batch, backbone = padded(settings), backbone_of("llama")
    longer = pad_batch(batch, 61, 3)
    decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
    outputs = []
    for packed in (batch, longer, replace(longer, label=np.where(longer.label < 0, 1, longer.label))):
        text, sums = (leaf.detach() for leaf in embeddings(backbone, packed))
        sums = sums[:1].expand(len(packed.label), -1)
        with torch.no_grad():
            plan = plan_batch(packed, Fixes(), 3, N, settings.k, intervals=True)
            outputs.append(decoder.forward_sums(as_planned(text, plan), sums, plan)[: batch.num_sums])
    assert_close(outputs[1], outputs[0])
    assert_close(outputs[2], outputs[0])
