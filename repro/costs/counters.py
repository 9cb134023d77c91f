"""Two independent FLOP counters over real modules: fvcore (forward) and PyTorch's own (forward and backward).

Both count matrix products only, one multiply-add as 2 FLOPs; fvcore's own handlers count it as 1 and are
doubled here. An operation is counted by a handler, or it is on the list of those that hold no matrix product;
anything else raises `CountError`, so that an attention or product without a handler is never free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from fvcore.nn.jit_analysis import JitModelAnalysis
from fvcore.nn.jit_handles import addmm_flop_jit, bmm_flop_jit, get_shape, linear_flop_jit, matmul_flop_jit
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from repro.costs.attention_op import BACKWARD, FORWARD, backward_flops, forward_flops
from repro.errors import CountError

# Operations without a matrix product, beside those that PyTorch tags as pointwise and those that are views.
_FREE_NAMES = """
    alias all __and__ any arange argmax bernoulli binary_cross_entropy binary_cross_entropy_with_logits
    broadcast_tensors cat chunk clone constant_pad_nd contiguous copy_ cross_entropy_loss cumsum detach
    detach_ dropout embedding embedding_dense_backward empty empty_like expand expand_as eye fill_
    flatten flip full full_like gather gelu ger index index_add index_put index_put_ index_select item
    layer_norm lerp lift_fresh _local_scalar_dense _log_softmax log_softmax _log_softmax_backward_data
    masked_fill mean narrow native_dropout native_dropout_backward native_layer_norm
    native_layer_norm_backward new_empty new_empty_strided new_full new_ones new_zeros nll_loss
    nll_loss_backward nll_loss_forward nll_loss_nd numpy_T ones ones_like __or__ pad permute relu repeat
    repeat_interleave reshape rms_norm rsub _safe_softmax scalar_tensor scatter scatter_add select
    select_backward size slice slice_backward _softmax softmax _softmax_backward_data split
    split_with_sizes squeeze stack sum t to _to_copy transpose tril type_as unbind unflatten
    _unsafe_view unsqueeze var view view_as where zero_ zeros zeros_like
"""
FREE = frozenset(_FREE_NAMES.split())
Formula = Callable[..., int]


@dataclass(frozen=True)
class Handlers:
    """What the counters know beyond the plain matrix products: our attention operator.

    Attributes:
        forward, backward: FLOPs of it from (pairs, products, heads, head_dim). None: no handler.
    """

    forward: Formula | None = forward_flops
    backward: Formula | None = backward_flops


HANDLERS = Handlers()


# --- fvcore ---------------------------------------------------------------------------------------


class _Products(JitModelAnalysis):
    """Multiply-adds of matrix products in a traced forward pass."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], handlers: Handlers) -> None:
        super().__init__(model, inputs)
        self.set_op_handle("aten::linear", linear_flop_jit)
        self.set_op_handle("aten::matmul", matmul_flop_jit, "aten::mm", matmul_flop_jit)
        self.set_op_handle("aten::bmm", bmm_flop_jit, "aten::addmm", addmm_flop_jit)
        formula = handlers.forward
        if formula is not None:
            self.set_op_handle("repro::attention", lambda inputs, outputs: _attention(inputs, formula))
        self.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")


def _attention(inputs: list[Any], formula: Formula) -> int:
    _, heads, head_dim = get_shape(inputs[0])
    pairs, products = (int(value.toIValue()) for value in inputs[4:6])
    return formula(pairs, products, heads, head_dim) // 2  # as fvcore's own: multiply-adds


def fvcore_forward(model: nn.Module, *inputs: Tensor) -> int:
    """FLOPs of a forward pass by fvcore, x2 of what it counts.

    Args:
        model: traced with `inputs`; on the meta device nothing is computed.

    Raises:
        CountError: an operation that has no handler and is not on the list of free ones.
    """
    analysis = _Products(model, inputs, HANDLERS)
    with torch.no_grad():
        total = int(analysis.total())
    for name in analysis.unsupported_ops():
        space, _, short = name.partition("::")
        if space == "prim" or (space == "aten" and _is_free(short)):
            continue
        raise _unsupported("fvcore", name)
    return 2 * total


# --- PyTorch --------------------------------------------------------------------------------------


class _RefuseUnknown(TorchDispatchMode):
    """Raises at the first operation that is neither counted nor known to be free."""

    def __init__(self, counted: Set[Any]) -> None:
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = func._overloadpacket
        own = func.namespace in ("aten", "prim", "prims")
        if packet not in self.counted and not (own and _is_free(packet.__name__)):
            raise _unsupported("torch", str(func))
        return func(*args, **(kwargs or {}))


@dataclass
class TorchCount:
    """FLOPs counted so far by the innermost counter."""

    counter: FlopCounterMode

    @property
    def total(self) -> int:
        """FLOPs since the counter was entered."""
        return int(self.counter.get_total_flops())


@contextmanager
def torch_counter() -> Iterator[TorchCount]:
    """Counts everything that PyTorch dispatches inside, backward passes included.

    Raises:
        CountError: as `fvcore_forward`.
    """
    mapping: dict[Any, Any] = {torch.ops.aten.mv: _matrix_vector}
    if HANDLERS.forward is not None:
        mapping[FORWARD] = _by_shape(HANDLERS.forward, query=0)
    if HANDLERS.backward is not None:
        mapping[BACKWARD] = _by_shape(HANDLERS.backward, query=1)
    counter = FlopCounterMode(display=False, depth=0, custom_mapping=mapping)
    # PyTorch's own formulas for fused attention count whole squares, whatever a query may see.
    counted = {op for op in counter.flop_registry if op in mapping or "attention" not in str(op)}
    with _RefuseUnknown(counted), counter:
        yield TorchCount(counter)


def _by_shape(formula: Formula, query: int) -> Formula:
    """The formula as FlopCounterMode calls it: with the operator's arguments, tensors as shapes."""

    def flops(*arguments: Any, out_shape: Any = None, **rest: Any) -> int:
        _, heads, head_dim = arguments[query]
        return formula(arguments[-2], arguments[-1], heads, head_dim)

    return flops


def _matrix_vector(matrix: Any, vector: Any, *, out_shape: Any = None, **rest: Any) -> int:
    return 2 * matrix[0] * matrix[1]


# --- shared ---------------------------------------------------------------------------------------


@cache
def _is_free(name: str) -> bool:
    """Whether an aten operation holds no matrix product: listed above, pointwise by its tag, or a view."""
    if name in FREE or name.removesuffix("_") in FREE:
        return True
    packet = getattr(torch.ops.aten, name, None)
    overloads = [] if packet is None else [getattr(packet, overload) for overload in packet.overloads()]
    return any(torch.Tag.pointwise in each.tags or each.is_view for each in overloads)


def _unsupported(counter: str, name: str) -> CountError:
    return CountError(
        f"FLOP counter {counter}",
        f"no handler for {name}",
        "a handler for every attention and matrix product",
        "add one in repro/costs/counters.py, or add the operation to FREE if it holds no matrix product",
    )
