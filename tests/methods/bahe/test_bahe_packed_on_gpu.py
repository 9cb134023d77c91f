"""Packed batches on CUDA: compiled models against padded rows on a CPU, recorded steps against launched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bahe_cases import N, backbone, batches, behaviours
from tiny_backbones import tiny_backbone

from repro.backbones.packed_layers import PackedLayers, packed_rows
from repro.methods.bahe.llm_ctr import LlmCtrModel
from repro.methods.bahe.model import BaheModel
from repro.methods.bahe.settings import BaheMethod, bahe, llm_ctr
from repro.training.recorded import RecordedSteps

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PACKED = {"packed": True, "multiple": 64, "target_multiple": 16, "max_places": 500}
METHODS = {
    "side by side": bahe(N),
    "back to back": BaheMethod("bahe", N, feature_parallel=False),
    "not cached": BaheMethod("bahe", N, cached=False),
    "llm-ctr": llm_ctr(N),
}


def model_of(method: BaheMethod, compiled: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    return (LlmCtrModel if method.name == "llm-ctr" else BaheModel)(backbone(), method, compiled)


def outcome(model: torch.nn.Module, batch) -> tuple[float, torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    output = model(batch)
    output.loss_sum.backward()
    gradients = {n: p.grad.float().cpu() for n, p in model.named_parameters() if p.grad is not None}
    return float(output.loss_sum.detach()), output.score[: batch.num_targets].cpu(), gradients


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bf16", [False, True])
def test_losses_scores_and_gradients_are_those_of_padded_rows_on_a_cpu(name, bf16) -> None:
    method = METHODS[name]
    key = batches(method).targets[:24]
    loss, score, gradients = outcome(model_of(method, False), batches(method).load(key, "cpu"))
    found = batches(method, **PACKED).load(key, "cuda")
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        loss_p, score_p, gradients_p = outcome(model_of(method, True).to("cuda"), found)
    assert loss == pytest.approx(loss_p, rel=2e-2 if bf16 else 1e-3)
    assert torch.allclose(score, score_p, atol=3e-2 if bf16 else 2e-3)
    assert gradients.keys() == gradients_p.keys() and len(gradients) > 10
    allowed = 0.3 if bf16 else 1e-2  # padded rows in bfloat16 are 10 % off themselves on this model
    together, together_p = (torch.cat([g.flatten() for g in gs.values()]) for gs in (gradients, gradients_p))
    assert (together - together_p).norm() < allowed * together.norm()


@pytest.mark.parametrize("name", ["side by side", "back to back", "llm-ctr"])
def test_recorded_steps_are_taken_up_and_give_the_losses_of_launched_ones(name) -> None:
    method = METHODS[name]
    found = batches(method, batch_targets=24, **PACKED)
    model = model_of(method, True).to("cuda")
    recorded = RecordedSteps(model)
    for part in found.warm_up("cuda"):
        recorded.record(found.load(part, "cuda"))
    assert recorded.kept == recorded.asked > 0
    parts = [part for key in found.epoch(0, 0) for part in found.split(key)]
    for part in parts:
        batch = found.load(part, "cuda")
        replayed = recorded.run(batch, 1.0)
        with torch.no_grad():
            launched = model(batch).loss_sum
        assert replayed is not None and torch.allclose(replayed, launched, rtol=1e-3)
    assert recorded.replayed == len(parts) and len(behaviours()) > 1


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_sequences_of_one_length_give_the_same_by_flash_attention_and_by_intervals(family) -> None:
    sizes = {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 48, "head_dim": 16}
    made = tiny_backbone(family, num_hidden_layers=3, **sizes)
    made.model.to("cuda")
    device, hidden = torch.device("cuda"), torch.randn(4 * 96, 48, device="cuda")
    layers = PackedLayers(made.layers, made.decoder.rotary_emb, made.decoder.norm, compiled=True)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        lengths = np.full(4, 96)
        a, b = (layers(hidden, packed_rows(lengths, 4 * 96, device, alike)) for alike in (False, True))
    assert (a.float() - b.float()).norm() < 2e-2 * b.float().norm()
