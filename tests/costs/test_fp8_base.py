"""A frozen base in fp8: what is refused, and, where torchao is installed, what is exchanged and measured."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

from repro.backbones.loading import load_backbone, trainable_parameters
from repro.backbones.spec import BackboneSpec
from repro.costs import timing
from repro.costs.fp8_base import RECIPES, base_into_fp8, check_fp8
from repro.costs.timing import Plan, measure, timing_file
from repro.errors import ConfigError
from repro.experiments.tiers import tier_named
from repro.pipeline import Workshop
from repro.records.measurements import read_measurement

SPEC = BackboneSpec("random:tiny-llama", tuning="lora", lora_rank=4, dtype="bfloat16")
TOKENS = torch.tensor([[5, 9, 30, 77, 120, 14, 15, 16] * 4])
CUDA = torch.device("cuda")
needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")


@pytest.mark.parametrize(
    ("recipe", "spec", "device", "capability", "found"),
    [
        ("fp4", SPEC, CUDA, (9, 0), "'fp4'"),
        ("rowwise", replace(SPEC, tuning="full"), CUDA, (9, 0), "tuning 'full'"),
        ("rowwise", SPEC, torch.device("cpu"), (9, 0), "device 'cpu'"),
        ("rowwise", SPEC, CUDA, (8, 0), r"capability \(8, 0\)"),
    ],
)
def test_what_cannot_run_is_refused(recipe, spec, device, capability, found, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with pytest.raises(ConfigError, match=found):
        check_fp8(recipe, spec, device)


def test_without_torchao_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(ConfigError, match="pip install"):
        check_fp8("tensorwise", SPEC, CUDA)


@needs_torchao
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_frozen_projections_alone_are_exchanged(recipe) -> None:
    backbone = load_backbone(SPEC)
    kept = {name: parameter for name, parameter in backbone.model.named_parameters()}

    def states() -> torch.Tensor:
        return backbone.decoder(TOKENS).last_hidden_state

    difference = base_into_fp8(backbone.model, recipe, states, emulate=True)
    assert 1e-4 < difference < 0.5
    of_base = [type(m).__name__ for n, m in backbone.model.named_modules() if n.endswith("base_layer")]
    assert of_base == ["Float8Linear"] * 7 * backbone.num_layers
    others = [m for n, m in backbone.model.named_modules() if not n.endswith("base_layer")]
    assert not any(type(m).__name__ == "Float8Linear" for m in others)
    now = dict(backbone.model.named_parameters())
    assert now.keys() == kept.keys() and all(now[name] is kept[name] for name in kept)
    states().square().mean().backward()
    trained = trainable_parameters(backbone)
    assert {n for n, p in now.items() if p.grad is not None} == trained.keys()


@needs_torchao
def test_rows_of_a_base_in_fp8_say_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "check_fp8", lambda *arguments: None)
    monkeypatch.setattr(timing, "base_into_fp8", partial(base_into_fp8, emulate=True))
    tier = tier_named("test")
    tier = replace(tier, backbone=SPEC, training=replace(tier.training, precision="bf16"))
    plan, said = Plan(ks=(1, 4), n=4, length=256, steps=1, repeats=1, warm=1), []
    workshop = Workshop(device=torch.device("cpu"))
    measured = measure(workshop, tier, "synthetic", "rella", said.append, plan, fp8="rowwise")
    rows = [row for rows in measured for row in rows]
    assert [(row["k"], row["fp8"], row["mfu"]) for row in rows] == [
        (1, "rowwise", None),
        (4, "rowwise", None),
    ]
    assert all(0 < row["fp8_difference"] < 0.5 and row["tokens_per_s"] > 0 for row in rows)
    assert "differ by" in said[0]
    file = timing_file(tmp_path, tier, "synthetic", rows[0]["device"], {}, fp8="rowwise")
    file.put(rows)
    path = file.finish()
    assert path.stem.endswith("-fp8-rowwise")
    assert read_measurement(path).environment["torchao"] is not None
