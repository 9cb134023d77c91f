"""The equalities of the design: own forward against transformers', streaming against sliding window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from repro.backbones.fix_settings import Fixes, Reset
from repro.backbones.loading import Backbone, group_of, load_backbone
from repro.backbones.plan import plan_batch
from repro.backbones.spec import BackboneSpec
from repro.data import TRAIN, PreparedData, SyntheticSettings, load_prepared
from repro.methods.sum_model import SumModel
from repro.prompts.packing import PackedBatch, PromptSource, pack_rows
from repro.prompts.rows import build_rows
from repro.prompts.settings import PromptSettings
from repro.prompts.templates import template_for
from repro.prompts.tokenise import TokenisedItems, tokenise_items

N = 4
TOLERANCE = 1e-5
NO_FIXES = Fixes()


@pytest.fixture(scope="module", params=["random:tiny-llama", "random:tiny-qwen"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(BackboneSpec(name=request.param))


@pytest.fixture(scope="module")
def data() -> PreparedData:
    size = SyntheticSettings(num_interactions=100, interactions_per_user=20, num_items=16)
    return load_prepared("synthetic", protocol="rella", synthetic=size)


@pytest.fixture(scope="module")
def items(data: PreparedData, backbone: Backbone) -> TokenisedItems:
    answers = (backbone.yes_id, backbone.no_id)
    short = replace(
        template_for("synthetic"), instruction="Like it?", max_item_tokens=6
    )  # bytes are many tokens
    return tokenise_items(data.items, backbone.tokenizer, short, answers)


def logits_and_gradients(
    model: SumModel,
    batch: PackedBatch,
    backbone: Backbone,
    keep: np.ndarray,
    fixes: Fixes = NO_FIXES,
    k: int = 1,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Vocabulary logits at the kept targets (in order of target row), and gradients of their summed loss."""
    model.zero_grad(set_to_none=True)
    plan = plan_batch(batch, fixes, group_of(backbone), N, k)
    hidden = model.hidden_states(plan)
    order = np.argsort(batch.target_row)
    chosen = [i for i in order if batch.target_row[i] in keep and batch.label[i] >= 0]
    logits = hidden[chosen] @ backbone.lm_head_weight.T
    labels = torch.from_numpy(batch.label[chosen])
    torch.nn.functional.cross_entropy(logits, model.answer_ids[labels], reduction="sum").backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def pack(
    data: PreparedData, items: TokenisedItems, settings: PromptSettings, multiple: int = 1
) -> PackedBatch:
    rows = build_rows(data, TRAIN, settings.n, settings.k)
    return pack_rows(PromptSource(data, items, settings), rows, np.arange(len(rows)), multiple, multiple)


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys() and len(a) > 5
    for name in a:
        scale = max(1.0, float(a[name].abs().max()))
        assert torch.allclose(a[name], b[name], atol=TOLERANCE * scale, rtol=0), name


@pytest.mark.parametrize("k", [1, 2, 5, 50])
def test_first_full_context_target_of_every_row_equals_sliding_window(backbone, data, items, k) -> None:
    """Deferred [SUM], plain position, visible instruction: k = 1 is SW, and so is each row's first target."""
    model = SumModel(backbone)
    rows = build_rows(data, TRAIN, N, k)
    full = rows.start - rows.first == N
    keep = data.user_rows[rows.start[full]] if k > 1 else data.targets(TRAIN)
    assert len(keep) > 2
    sliding = pack(data, items, PromptSettings(n=N, k=1))
    streaming = pack(data, items, PromptSettings(n=N, k=k), multiple=32)
    logits, gradients = logits_and_gradients(model, sliding, backbone, keep)
    logits_k, gradients_k = logits_and_gradients(model, streaming, backbone, keep, k=k)
    assert torch.allclose(logits, logits_k, atol=TOLERANCE, rtol=0)
    assert_same(gradients, gradients_k)


@pytest.mark.parametrize(
    ("settings", "fixes"),
    [
        (PromptSettings(n=N, k=1, instruction="hidden"), Fixes()),
        (PromptSettings(n=N, k=1), Fixes(position="alibi-rotated-keys", alibi_slope=0.05)),
        (PromptSettings(n=N, k=1), Fixes(reset=Reset())),
    ],
)
def test_settings_that_break_the_equality_by_design(backbone, data, items, settings, fixes) -> None:
    model = SumModel(backbone)
    keep = data.targets(TRAIN)
    plain, _ = logits_and_gradients(model, pack(data, items, PromptSettings(n=N, k=1)), backbone, keep)
    other, _ = logits_and_gradients(model, pack(data, items, settings), backbone, keep, fixes)
    assert not torch.allclose(plain, other, atol=1e-3)


def test_own_forward_equals_transformers_on_a_plain_prompt(backbone, data, items) -> None:
    """One SW prompt, written out as an ordinary causal sequence with [SUM] as its last embedding."""
    model = SumModel(backbone)
    rows = build_rows(data, TRAIN, N, 1)
    settings = PromptSettings(n=N, k=1)
    batch = pack_rows(PromptSource(data, items, settings), rows, np.array([7]))
    ours = model.hidden_states(plan_batch(batch, Fixes(), group_of(backbone), N, 1))
    text = backbone.embed_tokens(torch.from_numpy(batch.tokens))
    sequence = torch.cat([text, model.sum_token.weight[None]])[None]
    theirs = backbone.decoder(inputs_embeds=sequence, use_cache=False).last_hidden_state[0, -1:]
    assert torch.allclose(ours, theirs, atol=TOLERANCE, rtol=0)
