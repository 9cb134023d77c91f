"""Banded attention against one dense mask: values and gradients, for every prompt format and fix."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_decoder import naive_forward
from prompt_cases import Case, make_data, make_items, naive_visibility, read_out
from tiny_backbones import tiny_backbone

from repro.backbones.decoder import Decoder
from repro.backbones.fix_settings import Fixes, Reset
from repro.backbones.plan import plan_batch
from repro.backbones.visibility import dense_visibility
from repro.data.interactions import TRAIN
from repro.errors import BackboneError
from repro.prompts.packing import PackedBatch, PromptSource
from repro.prompts.rows import build_rows
from repro.prompts.settings import INSTRUCTIONS, SUM_LAYOUTS, PromptSettings

N = 2
TOLERANCE = 1e-5
FAMILIES = {
    # One key-value head for three query heads, and two for four; Qwen2: projections with a bias, own head.
    "llama": {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 24},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {},
    "gemma": {},
}
FIXES = {
    "none": Fixes(),
    "alibi, rotated keys": Fixes(position="alibi-rotated-keys", alibi_slope=0.1),
    "alibi, plain keys": Fixes(position="alibi-plain-keys", alibi_slope=0.1),
    "reset last, projected": Fixes(reset=Reset(0.1, 0.7)),
    "reset all, projected": Fixes(reset=Reset(0.1, 0.7, layers="all")),
    "reset last, hidden": Fixes(reset=Reset(0.1, 0.7, mixing="hidden")),
    "reset all, hidden": Fixes(reset=Reset(0.1, 0.7, layers="all", mixing="hidden")),
    "reset and alibi, rotated keys": Fixes(Reset(0.1, 0.7, tau=0.5), "alibi-rotated-keys", 0.1),
    "reset and alibi, plain keys": Fixes(
        Reset(0.0, 1.0, layers="all", mixing="hidden"), "alibi-plain-keys", 0.1
    ),
}
FORMATS = [
    PromptSettings(n=N, k=4, sum_layout=layout, instruction=instruction, **window)
    for layout in SUM_LAYOUTS
    for instruction in INSTRUCTIONS
    for window in ({}, {"window": "tokens", "window_tokens": 7})
]
TOKEN_WINDOWS = [settings for settings in FORMATS if settings.window == "tokens"]


@functools.cache
def backbone_of(family: str, layers: int = 3):
    return tiny_backbone(family, num_hidden_layers=layers, **FAMILIES[family])


def make_case(settings: PromptSettings, lengths: tuple[int, ...] = (7, 5, 3)) -> Case:
    data = make_data(list(lengths), seed=3, train_only=True, min_context=1)
    rows = build_rows(data, TRAIN, settings.n, settings.k)
    return Case(PromptSource(data, make_items(longest=3), settings), rows, np.arange(len(rows)))


def banded(backbone, text, sums, batch: PackedBatch, settings: PromptSettings, fixes: Fixes):
    group = backbone.config.num_attention_heads // backbone.config.num_key_value_heads
    plan = plan_batch(batch, fixes, group, settings.n, settings.k)
    decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
    return decoder.forward_sums(text, sums, plan)


def embeddings(backbone, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Leaves; [SUM]s differ from one another here, so that a mix-up of two shows."""
    generator = torch.Generator().manual_seed(1)
    text = backbone.embed_tokens(torch.from_numpy(batch.tokens)).detach()
    sums = 0.2 * torch.randn(len(batch.label), text.shape[1], generator=generator)
    return text.requires_grad_(), sums.requires_grad_()


def gradients(backbone, out: torch.Tensor, leaves: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    used = [p for name, p in backbone.decoder.named_parameters() if "embed_tokens" not in name]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    return list(torch.autograd.grad((out * weights).sum(), [*leaves, *used]))


def assert_close(ours: torch.Tensor, naive: torch.Tensor) -> None:
    scale = max(1.0, float(naive.detach().abs().max()))
    assert torch.allclose(ours, naive, atol=TOLERANCE * scale, rtol=0)


def compare(family: str, settings: PromptSettings, fixes: Fixes) -> None:
    backbone, case = backbone_of(family), make_case(settings)
    batch = case.pack(text_multiple=16, sum_multiple=4)
    real = torch.from_numpy(batch.label >= 0)
    leaves = embeddings(backbone, batch)
    visible = torch.from_numpy(dense_visibility(batch))
    ours = banded(backbone, *leaves, batch, settings, fixes)[real]
    naive = naive_forward(backbone, *leaves, batch, visible, fixes, settings.n)[0][real]
    assert_close(ours, naive)
    for our_gradient, naive_gradient in zip(
        gradients(backbone, ours, leaves), gradients(backbone, naive, leaves), strict=True
    ):
        assert_close(our_gradient, naive_gradient)


@pytest.mark.parametrize("settings", FORMATS, ids=lambda s: f"{s.sum_layout}-{s.window}-{s.instruction}")
@pytest.mark.parametrize("name", ["none", "reset last, projected", "reset and alibi, plain keys"])
def test_every_prompt_format_equals_a_dense_mask(settings, name) -> None:
    compare("llama", settings, FIXES[name])


@pytest.mark.parametrize("name", FIXES)
@pytest.mark.parametrize("settings", TOKEN_WINDOWS, ids=lambda s: f"{s.sum_layout}-{s.instruction}")
def test_every_fix_in_every_layout_with_a_token_window_equals_a_dense_mask(name, settings) -> None:
    compare("llama", settings, FIXES[name])


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("name", FIXES)
def test_every_fix_equals_its_definition(family, name) -> None:
    """Among them the reset's cheap form against a mixed state per pair, normalised, projected, rotated."""
    fixes, settings = FIXES[name], PromptSettings(n=N, k=4)
    if family == "llama" or fixes.reset is None or fixes.reset.mixing == "projected":
        compare(family, settings, fixes)
        compare(family, replace(settings, sum_layout="inline-visible", instruction="hidden"), fixes)
        return
    with pytest.raises(BackboneError, match="bias or a norm of their own"):
        compare(family, settings, fixes)


def test_gemma_with_its_shifted_norm_equals_its_definition() -> None:
    """Its norm multiplies by 1 + weight; mixing before it is still linear."""
    compare("gemma", PromptSettings(n=N, k=4), FIXES["reset all, hidden"])


@pytest.mark.parametrize("name", [name for name in FIXES if name != "none"])
def test_every_fix_changes_something(name) -> None:
    settings = PromptSettings(n=N, k=4)
    backbone, batch = backbone_of("llama"), make_case(settings).pack()
    leaves = embeddings(backbone, batch)
    plain = banded(backbone, *leaves, batch, settings, Fixes())
    assert not torch.allclose(plain, banded(backbone, *leaves, batch, settings, FIXES[name]), atol=1e-2)


def first_layer(backbone, leaves, batch, settings, fixes) -> torch.Tensor:
    """(T + S, E) output of the first of two layers, caught on its way to the second."""
    group = backbone.config.num_attention_heads // backbone.config.num_key_value_heads
    plan = plan_batch(batch, fixes, group, settings.n, settings.k)
    decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
    caught, finish = [], decoder.finish

    def catch(layer, hidden, attended):
        caught.append(finish(layer, hidden, attended))
        return caught[-1]

    decoder.finish = catch
    decoder.forward_sums(*leaves, plan)
    return caught[0]


@pytest.mark.parametrize("settings", FORMATS, ids=lambda s: f"{s.sum_layout}-{s.window}-{s.instruction}")
@pytest.mark.parametrize("name", ["none", "reset all, hidden", "reset and alibi, rotated keys"])
def test_the_first_layer_has_zero_gradient_outside_of_the_visible_set(settings, name) -> None:
    """Exactly zero, and not zero inside. Visibility: the documented rule, written out in `prompt_cases`."""
    backbone, case = backbone_of("llama", layers=2), make_case(settings, lengths=(6, 3))
    batch = case.pack()
    leaves = embeddings(backbone, batch)
    out = first_layer(backbone, leaves, batch, settings, FIXES[name])
    visible = naive_visibility(read_out(case), settings)
    assert out.shape[0] == len(visible)
    for query in range(len(visible)):
        grads = torch.autograd.grad(out[query].square().sum(), leaves, retain_graph=True)
        touched = (torch.cat(grads) != 0).any(-1).numpy()
        assert np.array_equal(touched, visible[query])


def reach(settings: PromptSettings) -> list[int]:
    """Of every [SUM] of a two-layer model: interactions outside of its window that its output depends on."""
    backbone, case = backbone_of("llama", layers=2), make_case(settings, lengths=(8,))
    batch = case.pack()
    leaves = embeddings(backbone, batch)
    out, found = banded(backbone, *leaves, batch, settings, Fixes()), []
    visible = dense_visibility(batch)
    for number in range(batch.num_sums):
        (grad,) = torch.autograd.grad(out[number].square().sum(), leaves[:1], retain_graph=True)
        outside = ~visible[batch.num_text + number, : batch.num_text]
        found.append(int((((grad != 0).any(-1).numpy()) & outside).sum()))
    return found


def test_two_layers_leak_from_beyond_the_window_in_streaming_prompts_only() -> None:
    """What the reset is there for (DTI section 4.1): a context token has itself read older interactions."""
    assert reach(PromptSettings(n=N, k=1)) == [0] * 7
    streaming = reach(PromptSettings(n=N, k=7))
    assert streaming[:N] == [0] * N, "nothing older exists yet"
    assert all(count > 0 for count in streaming[N:])


@pytest.mark.parametrize("settings", FORMATS, ids=lambda s: f"{s.sum_layout}-{s.window}-{s.instruction}")
@pytest.mark.parametrize("name", ["none", "reset and alibi, rotated keys"])
def test_a_prompt_alone_equals_the_same_prompt_packed_beside_others(settings, name) -> None:
    backbone, case = backbone_of("llama"), make_case(settings)
    fixes, head = FIXES[name], backbone.lm_head_weight
    generator = torch.Generator().manual_seed(1)
    sum_embedding = 0.2 * torch.randn(backbone.hidden_size, generator=generator)

    def logits(batch: PackedBatch) -> dict[int, torch.Tensor]:
        text = backbone.embed_tokens(torch.from_numpy(batch.tokens))
        out = (
            banded(backbone, text, sum_embedding.expand(len(batch.label), -1), batch, settings, fixes)
            @ head.T
        )
        return {int(row): out[i].detach() for i, row in enumerate(batch.target_row) if row >= 0}

    together = logits(case.pack(text_multiple=32, sum_multiple=8))
    backwards = logits(replace(case, chosen=case.chosen[::-1]).pack())
    assert len(together) == len(backwards) == int(case.rows.num_targets.sum()) > 10
    for row in case.chosen:
        for target, alone in logits(replace(case, chosen=np.array([row])).pack()).items():
            assert torch.allclose(together[target], alone, atol=TOLERANCE * float(alone.abs().max()), rtol=0)
            assert torch.allclose(backwards[target], alone, atol=TOLERANCE * float(alone.abs().max()), rtol=0)


@pytest.mark.parametrize("weights", ["fp32 under autocast", "bf16"])
@pytest.mark.parametrize("name", FIXES)
def test_every_fix_runs_in_bf16_near_fp32(name, weights) -> None:
    settings, fixes = PromptSettings(n=N, k=4, instruction="hidden"), FIXES[name]
    exact, batch = backbone_of("llama"), make_case(settings).pack(16, 4)
    expected = banded(exact, *embeddings(exact, batch), batch, settings, fixes)[: batch.num_sums].detach()
    backbone = exact if weights != "bf16" else copy.deepcopy(exact)
    dtype = torch.float32 if weights != "bf16" else torch.bfloat16
    backbone.model.to(dtype)
    leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in embeddings(exact, batch)]
    with torch.autocast("cpu", torch.bfloat16, enabled=weights != "bf16"):
        ours = banded(backbone, *leaves, batch, settings, fixes)[: batch.num_sums]
    assert float((ours.detach().float() - expected).norm() / expected.norm()) < 0.1
    assert all(torch.isfinite(grad).all() for grad in gradients(backbone, ours.float(), tuple(leaves)))
