"""Linear layers with adapters in fewer passes: equal to peft's own, eager and compiled."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_attention import N, embeddings
from test_fast_decoder import as_planned, assert_same, padded
from torch import nn
from torch._inductor.utils import run_and_get_code

from repro.backbones import fast_decoder, lora_linear
from repro.backbones.decoder import Decoder
from repro.backbones.fix_settings import Fixes
from repro.backbones.loading import load_backbone, trainable_parameters
from repro.backbones.lora_linear import linear, linears
from repro.backbones.plan import plan_batch
from repro.backbones.spec import BackboneSpec
from repro.prompts.settings import PromptSettings

ROWS, WIDTH, RANK = 24, 32, 4
OUTPUTS = {"q": 32, "k": 16, "v": 16}
IN_PLACE = "torch.ops.repro.add_product_.default("


class Three(nn.Module):
    """Layers of one input, as queries, keys and values."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        for name, width in OUTPUTS.items():
            setattr(self, name, nn.Linear(WIDTH, width, bias=bias))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [getattr(self, name)(x) for name in OUTPUTS]


def adapted(bias: bool = False, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """peft's model around three layers; adapters are drawn, so that none adds zero."""
    torch.manual_seed(0)
    config = LoraConfig(**{"r": RANK, "lora_alpha": 3 * RANK, "target_modules": list(OUTPUTS), **settings})
    model = get_peft_model(Three(bias).to(dtype), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    return model


def layers_of(model: Any) -> list[Any]:
    return [getattr(model.base_model.model, name) for name in OUTPUTS]


def computed(function: Any, model: Any, autocast: bool = False) -> tuple[list, list]:
    """Outputs of a function of (layers, x); gradients of x and of everything that is trained."""
    x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
        outputs = function(layers_of(model), x)
    draw = torch.Generator().manual_seed(2)
    loss = sum((out.float() * torch.randn(out.shape, generator=draw)).sum() for out in outputs)
    trained = [p for p in model.parameters() if p.requires_grad]
    return list(outputs), list(torch.autograd.grad(loss, [x, *trained]))


def assert_close(found: tuple[list, list], expected: tuple[list, list], tolerance: float) -> None:
    for ours, theirs in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert ours.dtype == theirs.dtype
        assert float((ours - theirs).detach().double().norm() / theirs.detach().double().norm()) < tolerance


def theirs(layers: list[Any], x: torch.Tensor) -> list[torch.Tensor]:
    return [layer(x) for layer in layers]


def one_by_one(layers: list[Any], x: torch.Tensor) -> list[torch.Tensor]:
    return [linear(layer, x) for layer in layers]


def compiled(function: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False, fullgraph=True)


@pytest.mark.parametrize("compiling", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("function", "bias"), [(linears, False), (linears, True), (one_by_one, False)])
@pytest.mark.parametrize(
    ("autocast", "dtype", "tolerance"),
    [(False, torch.float32, 1e-5), (True, torch.float32, 2e-2), (True, torch.bfloat16, 2e-2)],
)
def test_values_and_gradients_are_those_of_peft(
    compiling, function, bias, autocast, dtype, tolerance
) -> None:
    model = adapted(bias, dtype, rank_pattern={"k": 2 * RANK})  # ranks need not be the same
    ours = computed(compiled(function) if compiling else function, model, autocast)
    assert_close(ours, computed(theirs, model, autocast), tolerance)


def test_bfloat16_is_not_further_from_the_exact_values_than_peft() -> None:
    model = adapted(dtype=torch.bfloat16)
    exact = computed(theirs, copy.deepcopy(model).float())

    def off(found: tuple[list, list]) -> float:
        pairs = zip([*found[0], *found[1]], [*exact[0], *exact[1]], strict=True)
        return sum(float((a.float() - b).detach().norm() / b.detach().norm()) for a, b in pairs)

    of_peft = off(computed(theirs, model, autocast=True))
    for function in (linears, compiled(linears)):
        assert off(computed(function, model, autocast=True)) < 1.05 * of_peft


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("targets", "sums"), [(["q"], (1, 1)), (["q", "k", "v"], (3, 0))])
def test_compiled_code_adds_in_place_and_copies_nothing(targets, sums, autocast) -> None:
    """One sum per output, none on a copy, and what autograd would sum itself is summed in the next kernel."""
    model = adapted(dtype=torch.bfloat16 if autocast else torch.float32, target_modules=targets)

    def between(layers: list[Any], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return linears(layers[: len(targets)], x.sin())  # or the gradient would be the graph's own output

    function = compiled(between)
    _, (forward, backward) = run_and_get_code(lambda: computed(function, model, autocast))
    assert (forward.count(IN_PLACE), backward.count(IN_PLACE)) == sums
    assert forward.count("extern_kernels.mm(") == 1 + len(targets), "one product with all A, one with each W"
    assert "extern_kernels.addmm(" not in forward, "which would copy"
    if len(targets) == 1:
        assert "extern_kernels.addmm(" not in backward


def test_any_number_of_rows_is_one_compilation() -> None:
    """As the last layer's few [SUM]s and BAHE's sequences are compiled."""
    model = adapted()
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        function = torch.compile(linears, dynamic=True, fullgraph=True)
        for rows in (24, 7):
            x = torch.randn(rows, WIDTH).requires_grad_()
            gradients = []
            for call in (function, theirs):
                outputs = call(layers_of(model), x)
                gradients.append(torch.autograd.grad(sum(out.square().sum() for out in outputs), x)[0])
            torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-5)


def test_no_gradient_is_asked_of_an_input_that_needs_none() -> None:
    model = adapted()
    function = compiled(linears)
    x = torch.randn(ROWS, WIDTH)
    for call in (linears, function):
        sum(out.sum() for out in call(layers_of(model), x)).backward()
    with torch.no_grad():
        for ours, reference in zip(function(layers_of(model), x), theirs(layers_of(model), x), strict=True):
            torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


def merged(model: Any) -> None:
    model.merge_adapter()


def disabled(model: Any) -> None:
    model.base_model.disable_adapter_layers()


def second_adapter(model: Any) -> None:
    model.add_adapter("second", LoraConfig(r=RANK, target_modules=list(OUTPUTS)))
    model.base_model.set_adapter(["default", "second"])


def unchanged(model: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({}, merged),
        ({}, disabled),
        ({}, second_adapter),
        ({"use_dora": True}, unchanged),
        ({"lora_dropout": 0.5}, unchanged),
        ({"lora_bias": True}, unchanged),
        ({"target_modules": ["q", "k"]}, unchanged),
        ({"target_modules": []}, unchanged),
    ],
    ids=["merged", "disabled", "two adapters", "dora", "dropout", "bias", "one is plain", "all are plain"],
)
def test_everything_else_is_left_to_the_modules(settings, change, monkeypatch) -> None:
    bias = bool(settings.get("lora_bias"))
    model = Three() if settings.get("target_modules") == [] else adapted(bias, **settings)
    layers = [getattr(model, name) for name in OUTPUTS] if isinstance(model, Three) else layers_of(model)
    model.train()
    change(model)
    calls: list[Any] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: calls.append(module))
    x = torch.randn(ROWS, WIDTH)
    torch.manual_seed(3)
    found = linears(layers, x)
    assert calls == layers
    torch.manual_seed(3)
    for ours, reference in zip(found, theirs(layers, x), strict=True):
        assert torch.equal(ours, reference)


def test_dropout_does_nothing_in_evaluation() -> None:
    model = adapted(lora_dropout=0.5).eval()
    calls: list[Any] = []
    for layer in layers_of(model):
        layer.register_forward_hook(lambda module, inputs, output: calls.append(module))
    assert_close(computed(linears, model), computed(one_by_one, model), 1e-5)
    assert not calls


def test_adapters_of_another_precision_than_the_input_are_pefts_business() -> None:
    model, x = adapted(dtype=torch.bfloat16), torch.randn(ROWS, WIDTH).bfloat16()
    for ours, reference in zip(linears(layers_of(model), x), theirs(layers_of(model), x), strict=True):
        assert torch.equal(ours, reference)


def test_a_layer_with_adapters_is_two_graphs_for_all_layers() -> None:
    """With peft's modules inside, as the fast path compiles it; equal to the path by query blocks."""
    backbone, graphs = load_backbone(BackboneSpec("random:tiny-llama", tuning="lora", lora_rank=RANK)), []
    with torch.no_grad():
        for name, parameter in trainable_parameters(backbone).items():
            parameter.add_(0.1 if "lora_B" in name else 0.0)

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm)
    torch._dynamo.reset()
    for half in (fast_decoder.attention_half, fast_decoder.mlp_half):
        compiled = torch.compile(half, backend=count, fullgraph=True, dynamic=False)
        setattr(decoder.fast, half.__name__, compiled)
    batch = padded(PromptSettings(n=N, k=4))
    text, sums = embeddings(backbone, batch)
    group, outputs = backbone.config.num_attention_heads // backbone.config.num_key_value_heads, []
    for intervals in (False, True):
        plan = plan_batch(batch, Fixes(), group, N, 4, intervals=intervals)
        out = decoder.forward_sums(as_planned(text, plan), sums, plan)[: batch.num_sums]
        draw = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        trained = list(trainable_parameters(backbone).values())
        outputs.append([out, *torch.autograd.grad((out * draw).sum(), trained)])
    assert_same(outputs[1], outputs[0])
    assert len(graphs) == 2


def test_the_operator_adds_in_place() -> None:
    total, left, right = torch.ones(3, 5), torch.randn(3, 2), torch.randn(2, 5)
    expected = total + left @ right
    lora_linear.add_product_(total, left, right)
    torch.testing.assert_close(total, expected)
