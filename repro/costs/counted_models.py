"""The project's own modules on the meta device, put before both counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repro.backbones.decoder import causal_batch
from repro.backbones.fix_settings import Fixes
from repro.backbones.loading import load_backbone
from repro.backbones.plan import BatchPlan, plan_batch
from repro.backbones.shapes import Shape
from repro.backbones.spec import BackboneSpec
from repro.costs.attention_op import counted_attention
from repro.costs.closed_form import SumCounts, Training, causal_pairs
from repro.costs.counters import fvcore_forward, torch_counter
from repro.costs.layer_stack import LayerStack, build_stack
from repro.methods.sum_batches import SumBatch
from repro.methods.sum_model import SumModel


@dataclass(frozen=True)
class Counted:
    """What the two counters found.

    Attributes:
        fvcore_forward: forward pass, x2 of fvcore's multiply-adds.
        torch_forward, torch_train: FlopCounterMode's forward pass, and forward with backward.
        kept_bytes: of the tensors that autograd keeps for the backward pass, parameters left out.
    """

    fvcore_forward: int
    torch_forward: int
    torch_train: int
    kept_bytes: int


class _Kept:
    """Bytes of the distinct storages that autograd keeps, in the dtypes that the module runs in."""

    def __init__(self, model: nn.Module) -> None:
        self._known = {p.untyped_storage()._cdata for p in model.parameters()}
        self._alive: list[Tensor] = []  # a storage's address is its own only while it lives
        self.total = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._alive.append(tensor.detach())
            self.total += storage.nbytes()
        return tensor


def count_module(
    model: nn.Module,
    inputs: Sequence[Tensor],
    loss: Callable[[Any], Tensor],
    attention: Callable[[], AbstractContextManager[None]],
) -> Counted:
    """Forward and backward pass of a module before both counters.

    Args:
        inputs: tensors on the meta device. loss: from the module's output to the scalar that is minimised.
        attention: context in which attention calls are the counted operator.

    Raises:
        CountError: an operation without a handler.
    """
    with attention():
        with torch_counter() as count:
            kept = _Kept(model)
            with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
                out = loss(model(*inputs))
            forward = count.total
            out.backward()
        traced = fvcore_forward(model, *inputs)
    return Counted(traced, forward, count.total, kept.total)


class _FromTokens(nn.Module):
    """A `SumModel` as a function of its text tokens, which is what a tracer wants."""

    def __init__(self, model: SumModel, plan: BatchPlan) -> None:
        super().__init__()
        self.model, self.plan = model, plan

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        out = self.model(SumBatch(replace(self.plan, tokens=tokens), len(self.plan.label), 0, 0))
        return out.loss_sum, out.score


class SumModelCounter:
    """Counts training steps of SW, DTI- and DTI for one backbone; no weight is ever allocated.

    Args:
        spec: the backbone; its shape is built on the meta device.
        loss: as in `SumModel`.
    """

    def __init__(self, spec: BackboneSpec, loss: str = "vocabulary") -> None:
        backbone = load_backbone(spec, "meta")
        self.config = backbone.config
        self.model = SumModel(backbone, loss).to("meta").train()

    def count(self, counts: SumCounts, fixes: Fixes) -> Counted:
        """Both counts of a forward and backward pass over all `counts` at once.

        A meta tensor has a length and no content, so a whole epoch is one forward pass here.
        """
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        small = plan_batch(causal_batch(np.arange(2)), fixes, group, 2, 2, "meta")

        def numbers(length: int) -> Tensor:
            return torch.empty(length, dtype=torch.int64, device="meta")

        plan = replace(
            small,
            tokens=numbers(counts.text),
            rotary_position=numbers(counts.text + counts.sums),
            label=numbers(counts.sums),
        )

        def attention() -> AbstractContextManager[None]:
            return counted_attention(text=counts.text_pairs, sums=counts.sum_pairs)

        model = _FromTokens(self.model, plan)
        try:
            return count_module(model, [plan.tokens], lambda out: out[0], attention)
        finally:
            self.model.zero_grad(set_to_none=True)


class StackCounter:
    """Counts training steps of LLM-CTR, or of BAHE's upper layers with or without the encoding of behaviours.

    Args:
        shape: the architecture. training: as for `closed_form.stack_cost`.
        head_vectors: vectors that one sample's head reads.
        bahe: the frozen layers do not read the sequences, they encode behaviours.
    """

    def __init__(
        self,
        shape: Shape,
        training: Training,
        head_vectors: int,
        bahe: bool = False,
    ) -> None:
        self.hidden, self.head_vectors = int(shape.arguments["hidden_size"]), head_vectors
        self.stack = build_stack(shape, training, head_vectors * self.hidden, bahe).train()
        # The embedding table is trained: its rows, which are the stack's input, have gradients.
        self.input_grad = training.tuning == "full" and training.train_embeddings and not bahe

    def count(self, sequences: Sequence[int], samples: int, behaviours: Sequence[int] = ()) -> Counted:
        """Both counts of a step.

        Args:
            sequences: length of each sequence, of all samples together. samples: S.
            behaviours: tokens of each behaviour that is encoded in the same step.
        """

        def vectors(length: int) -> Tensor:
            return torch.empty(length, self.hidden, device="meta", requires_grad=self.input_grad)

        pooled = torch.zeros(samples, self.head_vectors, dtype=torch.int64, device="meta")
        inputs = [vectors(sum(sequences)), pooled, *([vectors(sum(behaviours))] if behaviours else [])]
        pairs = {"text": causal_pairs(sequences), "behaviours": causal_pairs(behaviours)}
        model = _Both(self.stack) if behaviours else self.stack
        try:
            return count_module(model, inputs, torch.sum, lambda: counted_attention(**pairs))
        finally:
            self.stack.zero_grad(set_to_none=True)


def kept_bytes(shape: Shape, training: Training, tokens: int, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps of all layers over one sequence of so many tokens, on the meta device.

    Args:
        dtype: of weights and activations; LoRA's adapters are fp32 in any case, as they are trained.
    """
    stack = build_stack(shape, training, int(shape.arguments["hidden_size"]), False).train().to(dtype)
    for name, module in stack.named_modules():
        if "lora_" in name:
            module.float()
    vectors = torch.empty(tokens, int(shape.arguments["hidden_size"]), device="meta", dtype=dtype)
    pooled = torch.zeros(1, 1, dtype=torch.int64, device="meta")
    kept = _Kept(stack)
    with (
        counted_attention(text=0),
        torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor),
    ):
        stack(vectors.requires_grad_(True), pooled)
    return kept.total


class _Both(nn.Module):
    """A stack that encodes the behaviours in the same step as it reads the sequences."""

    def __init__(self, stack: LayerStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, vectors: Tensor, pooled: Tensor, behaviour_tokens: Tensor) -> Tensor:
        # The sum ties the encoding into the graph; a tracer drops what nothing reads.
        return self.stack(vectors + 0 * self.stack.encode(behaviour_tokens).sum(), pooled)
