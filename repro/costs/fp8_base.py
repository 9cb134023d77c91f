"""The frozen base of a LoRA model in fp8: torchao's float8 training, for its products alone.

Inputs, gradients and weights of a base projection are scaled and rounded to 8 bits in front of each product:
by the largest value of the whole tensor (`tensorwise`, the faster one), or of each row (`rowwise`, the more
exact one: with powers of two; products for inputs' gradients are scaled afterwards). What a product returns
is bfloat16. Weights stay stored as they are and are rounded in every step. Adapters, embeddings, norms and
the LM head are left alone.

A frozen weight has no gradient: torchao asks for its product all the same, and the compiler drops what nobody
reads. Eagerly it is computed for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from repro.backbones.spec import BackboneSpec
from repro.errors import ConfigError

RECIPES = ("tensorwise", "rowwise")
INSTALL = 'python -m pip install "torchao>=0.18"'
OLDEST = (8, 9)  # CUDA capability with fp8 products: Ada; H100 is 9.0


def check_fp8(recipe: str, spec: BackboneSpec, device: torch.device) -> None:
    """Refuse what cannot run in fp8, before anything is loaded.

    Raises:
        ConfigError: unknown recipe, a base that is trained, a device without fp8 products, no torchao.
    """
    where = f"--fp8 {recipe}"
    if recipe not in RECIPES:
        raise ConfigError(where, repr(recipe), f"one of {', '.join(RECIPES)}", "correct the name")
    if spec.tuning != "lora":
        found = f"tuning {spec.tuning!r} of {spec.name}"
        raise ConfigError(where, found, "a base that LoRA leaves frozen", "choose such a tier: --tier paper")
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if capability is None or capability < OLDEST:
        found = f"device {device.type!r}" if capability is None else f"CUDA capability {capability}"
        expected = f"a CUDA device with fp8 products: capability {OLDEST} or above, as an H100's"
        raise ConfigError(where, found, expected, "leave the option out, or use such a device")
    _torchao(where)


def base_into_fp8(
    model: Any, recipe: str, states: Callable[[], torch.Tensor], emulate: bool = False
) -> float:
    """Exchange the frozen projections below peft's adapters, in place; their weights stay the same tensors.

    Args:
        model: peft's model. recipe: of `RECIPES`.
        states: computes something with the model; asked before and after.
        emulate: round to fp8 and multiply in higher precision; for tests on devices without fp8.

    Returns:
        The norm of the states' difference as a share of their norm before.
    """
    float8 = _torchao(f"fp8, recipe {recipe}")
    config = replace(float8.Float8LinearConfig.from_recipe_name(recipe), emulate=emulate)
    names: list[str] = []

    def is_base(module: Any, name: str) -> bool:
        chosen = name.rpartition(".")[2] == "base_layer"
        assert not (chosen and module.weight.requires_grad), f"{name} is trained"
        names.extend([name] * chosen)
        return chosen

    with torch.no_grad():
        before = states().float()
        float8.convert_to_float8_training(model, config=config, module_filter_fn=is_base)
        assert names, "no adapters"
        return float((states().float() - before).norm() / before.norm())


def _torchao(where: str) -> Any:
    try:
        import torchao.float8
    except ImportError as error:
        found = f"torchao cannot be imported ({error})"
        raise ConfigError(where, found, "torchao, the extra `fp8`", INSTALL) from None
    return torchao.float8
