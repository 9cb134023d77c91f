"""Linear layers with LoRA adapters (peft's) in fewer passes over their inputs and outputs.

peft computes W x and B (A x), multiplies the latter by alpha / r, and adds. At the width of an MLP each step
moves as many bytes as the layer's own output, and the backward pass does the same with gradients. Here

- alpha / r is multiplied into B, which is small, so that neither B (A x) nor a gradient is scaled;
- layers that read the same input have one product with all their A, and one for its gradient;
- a compiled layer adds B (A x) onto W x inside the matrix product (cuBLAS with beta = 1). So is the gradient
  through A added onto that through W where one layer reads the input; where several do, autograd sums their
  gradients, which the compiler does inside the next kernel, and this one with them.

The sum needs an operator that says that it writes in place. Given `torch.addmm`, the compiler either takes it
apart again and writes the product out before it is added, or has the library write to another place, for
which all of the addend is copied first. The operator is called on a clone, as autograd wants it; the compiler
sees that the addend is read nowhere else, and leaves the clone out (tested).

Eagerly (on a CPU, under a FLOP counter) the same products are left to autograd.

Shapes: N rows, E inputs, F outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.backbones.layer_parts import autocast_dtype, cast_once


@torch.library.custom_op("repro::add_product_", mutates_args=("total",))
def add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in place."""
    total.addmm_(left, right)


@add_product_.register_fake
def _(total: Tensor, left: Tensor, right: Tensor) -> None:
    return None


def _plus_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """total + left @ right; compiled, in the memory of `total`."""
    out = total.clone()
    add_product_(out, left, right)
    return out


class _AddProduct(torch.autograd.Function):
    """total + left @ right.T, with the sum inside the product."""

    @staticmethod
    def forward(ctx: Any, total_NF: Tensor, left_NR: Tensor, right_FR: Tensor) -> Tensor:
        ctx.save_for_backward(left_NR, right_FR)
        return _plus_product(total_NF, left_NR, right_FR.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor]:
        (grad_NF,) = gradients
        left_NR, right_FR = ctx.saved_tensors
        return grad_NF, grad_NF @ right_FR, grad_NF.T @ left_NR


class _Fork(torch.autograd.Function):
    """x itself, for the frozen weights, and x @ down.T; backward adds the second gradient onto the first."""

    @staticmethod
    def forward(ctx: Any, x_NE: Tensor, down_RE: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x_NE, down_RE)
        return x_NE.view_as(x_NE), x_NE @ down_RE.T

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor]:
        grad_NE, grad_NR = gradients
        x_NE, down_RE = ctx.saved_tensors
        return _plus_product(grad_NE, grad_NR, down_RE), grad_NR.T @ x_NE


def _adapter(module: Any) -> str | None:
    """The name of the one plain adapter that peft would add here; None where it would do something else."""
    if not hasattr(module, "lora_A"):
        return None
    from peft.tuners.lora.layer import Linear  # takes seconds: only where the model has been wrapped with it

    if type(module) is not Linear or module.disable_adapters or module.merged:
        return None
    active = [name for name in module.active_adapters if name in module.lora_A]
    if len(active) != 1 or active[0] in module.lora_variant:  # DoRA and other ways to add
        return None
    dropout: Any = module.lora_dropout[active[0]]
    drops = not isinstance(dropout, nn.Identity) and dropout.training and dropout.p > 0
    biased = module.lora_A[active[0]].bias is not None or module.lora_B[active[0]].bias is not None
    return None if drops or biased else active[0]


def linears(modules: Sequence[Any], x_NE: Tensor) -> tuple[Tensor, ...]:
    """Several linear layers of one input, each plain or peft's: (N, F) each.

    Equal to calling them one by one but for rounding: B is scaled before it is rounded to bfloat16, and the
    adapter's part is not rounded before it is added. What is not plain LoRA (dropout in training, several
    adapters, merged or disabled ones, DoRA, adapters with biases or in another dtype than the input's without
    autocast, other kinds of layers) is called as it is, and then so are the others.
    """
    names, x_NE = [_adapter(module) for module in modules], cast_once(x_NE)
    downs = [m.lora_A[name].weight for m, name in zip(modules, names, strict=True) if name is not None]
    mixed = autocast_dtype(x_NE) is None and any(down.dtype != x_NE.dtype for down in downs)
    if len(downs) < len(modules) or mixed:
        return tuple(module(x_NE) for module in modules)
    down_RE = (torch.cat(downs) if len(downs) > 1 else downs[0]).to(x_NE.dtype)
    compiling = torch.compiler.is_compiling()
    if compiling and len(modules) == 1 and x_NE.requires_grad and torch.is_grad_enabled():
        x_NE, low_NR = _Fork.apply(x_NE, down_RE)
    else:
        low_NR = F.linear(x_NE, down_RE)
    outputs = []
    for module, name, low in zip(modules, names, low_NR.split([len(d) for d in downs], dim=-1), strict=True):
        up_FR = (module.lora_B[name].weight * module.scaling[name]).to(x_NE.dtype)
        base_NF = module.base_layer(x_NE)
        outputs.append(
            _AddProduct.apply(base_NF, low, up_FR) if compiling else torch.addmm(base_NF, low, up_FR.T)
        )
    return tuple(outputs)


def linear(module: Any, x_NE: Tensor) -> Tensor:
    """One linear layer, plain or peft's, as `linears`: (N, F)."""
    return linears([module], x_NE)[0]
