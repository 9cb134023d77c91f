"""The compiled fast forward pass on CUDA against query blocks there: values and gradients, drawn formats."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from prompt_cases import Case, cases
from test_attention import FIXES, embeddings
from tiny_backbones import tiny_backbone

from repro.backbones.decoder import Decoder
from repro.backbones.interval_blocks import BLOCK, num_places
from repro.backbones.plan import plan_batch
from repro.prompts.packing import pad_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LENGTH = 2 * BLOCK  # one padded length, so that all examples share their compilations


@functools.cache
def backbone():
    """Three query heads on one key-value head, head size 16: the smallest the kernel takes."""
    sizes = {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 48, "head_dim": 16}
    made = tiny_backbone("llama", num_hidden_layers=3, **sizes)
    made.model.to("cuda")
    return made


@functools.cache
def decoder(compiled: bool) -> Decoder:
    made = backbone()
    return Decoder(made.layers, made.decoder.rotary_emb, made.decoder.norm, compiled)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-3))


@pytest.mark.parametrize("name", FIXES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_values_and_gradients_equal_query_blocks(name: str, case: Case) -> None:
    case = replace(case, chosen=case.chosen[:4])
    packed = case.pack(sum_multiple=8)
    if num_places(packed) > LENGTH:
        return
    batch, fixes = pad_batch(packed, LENGTH - num_places(packed), 0), FIXES[name]
    results = []
    for flex in (False, True):
        made = backbone()
        made.model.to("cpu")
        text, sums = embeddings(made, batch)
        made.model.to("cuda")
        leaves = [leaf.detach().cuda().requires_grad_() for leaf in (text, sums)]
        plan = plan_batch(batch, fixes, 3, case.settings.n, case.settings.k, "cuda", flex)
        out = decoder(flex).forward_sums(*leaves, plan)[: batch.num_sums]
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).cuda()
        used = [p for n, p in made.decoder.named_parameters() if "embed_tokens" not in n]
        results.append([out, *torch.autograd.grad((out * weights).sum(), [*leaves, *used])])
    for ours, reference in zip(results[1], results[0], strict=True):
        assert difference(ours, reference) < 2e-3
