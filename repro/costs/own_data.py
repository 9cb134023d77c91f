"""`python -m repro cost`: FLOPs, GPU-hours, price and memory for a user's own data and backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.costs.architecture import Architecture, architecture_of
from repro.costs.closed_form import Cost, Training, check_sizes, equation_3, sum_model_cost, token_limit
from repro.costs.projection import (
    INSTRUCTION_TOKENS,
    MICRO_BATCH_TOKENS,
    PRICES,
    Mfu,
    check_tokens,
    device_named,
    gpu_hours,
    measured_mfu,
    memory_gib,
    need,
    uniform_counts,
)
from repro.reporting.formatting import count, ratio, table


@dataclass(frozen=True)
class Workload:
    """What is to be trained.

    Attributes:
        targets: training targets of an epoch.
        tokens: of one interaction's text with its answer.
        backbone: as in `BackboneSpec.name`.
        n, k: context interactions, targets per streaming prompt. epochs: passes over the targets.
    """

    targets: int
    tokens: float
    backbone: str
    training: Training
    n: int = 20
    k: int = 50
    epochs: float = 1.0


@dataclass(frozen=True)
class Bill:
    """One method's cost.

    Attributes:
        flops: of all epochs. gpu_hours: on one device at `mfu`. price: US dollars for them.
        memory_gib: of one device, with MICRO_BATCH_TOKENS tokens at a time and no checkpointing.
    """

    flops: float
    forward_per_target: float
    train_per_target: float
    gpu_hours: float
    price: float
    memory_gib: float
    mfu: Mfu


def project_cost(
    work: Workload,
    device: str,
    mfu: float | None = None,
    price: float | None = None,
    timing: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Bill]:
    """Bills of the sliding window (`sw`) and of DTI without its fixes (`dti`), which move costs by under 1 %.

    Args:
        device: key or name of a listed device. mfu: None takes the nearest measurement on it in `timing`,
            else an assumed value. price: US dollars per GPU-hour; None takes an assumed one.
        timing: rows of `results/timing`.

    Raises:
        ConfigError: a size out of range, a prompt longer than the model's positions, an unknown device.
        BackboneError: the backbone is not found or not of the Llama pattern.
    """
    check_sizes(work.n, work.k)
    need(0 < work.epochs < math.inf, "epochs", work.epochs, "a positive number")
    check_tokens(work.tokens)
    chosen, arch = device_named(device), architecture_of(work.backbone)
    rate = PRICES[chosen.key] if price is None else price
    need(0 <= rate < math.inf, "price", rate, "zero or more US dollars per GPU-hour")
    kept = _kept_bytes_per_token(arch, work.training)
    bills = {}
    for method, k in (("sw", 1), ("dti", work.k)):
        length = INSTRUCTION_TOKENS + math.ceil((work.n + k) * work.tokens)
        arch.check_length(length, f"prompt of n = {work.n}, k = {k}, {work.tokens:g} tokens per interaction")
        counts = uniform_counts(work.n, k, work.tokens, INSTRUCTION_TOKENS, work.targets)
        cost: Cost = sum_model_cost(arch, counts, work.training)
        name = work.backbone.rpartition("/")[2].removeprefix("random:").lower()
        used = (
            Mfu(mfu, "given")
            if mfu is not None
            else measured_mfu(timing, chosen, name, work.training.tuning, method, k)
        )
        flops = cost.train * work.epochs
        hours = gpu_hours(flops, chosen, used.value)
        bills[method] = Bill(
            flops=flops,
            forward_per_target=cost.forward / work.targets,
            train_per_target=cost.train / work.targets,
            gpu_hours=hours,
            price=hours * rate,
            memory_gib=memory_gib(arch, work.training, kept, max(MICRO_BATCH_TOKENS, length)),
            mfu=used,
        )
    return bills


def _kept_bytes_per_token(arch: Architecture, training: Training) -> float:
    """What autograd keeps per token of all layers, counted on the meta device in `counted_dtype`."""
    import torch

    from repro.backbones.shapes import Shape
    from repro.costs.counted_models import kept_bytes

    arguments = {
        "vocab_size": arch.vocab, "hidden_size": arch.hidden, "intermediate_size": arch.intermediate,
        "num_hidden_layers": arch.layers, "num_attention_heads": arch.heads,
        "num_key_value_heads": arch.kv_heads, "head_dim": arch.head_dim,
        "max_position_embeddings": arch.positions, "tie_word_embeddings": arch.tied,
    }  # fmt: skip
    dtype = getattr(torch, counted_dtype(training))
    total = kept_bytes(Shape("own", "llama", arguments), training, MICRO_BATCH_TOKENS, dtype)
    return total / MICRO_BATCH_TOKENS


def counted_dtype(training: Training) -> str:
    """Number format that memory is counted in.

    float32 for full fine-tuning, though a GPU trains it under bf16 autocast: the meta device has no autocast.
    Autocast keeps the inputs of products in half as many bytes and a bf16 copy of the weights besides.
    """
    return "bfloat16" if training.tuning == "lora" else "float32"


def cost_table(work: Workload, device: str, gpus: int, bills: Mapping[str, Bill]) -> str:
    """The bills as a table for the terminal."""
    need(gpus >= 1, "gpus", gpus, "at least 1")
    chosen = device_named(device)
    sw = bills["sw"]
    lines = [
        (
            "sliding window" if method == "sw" else f"DTI, k = {work.k}",
            f"{bill.forward_per_target:.3e}", f"{bill.train_per_target:.3e}", f"{bill.flops:.3e}",
            ratio(sw.flops / bill.flops), f"{bill.gpu_hours:,.2f}", f"{bill.gpu_hours / gpus:,.2f}",
            f"{bill.price:,.2f}", f"{bill.memory_gib:.1f}", f"{bill.mfu.value:.2f}, {bill.mfu.source}",
        )
        for method, bill in bills.items()
    ]  # fmt: skip
    headers = (
        "method", "forward FLOPs/target", "training FLOPs/target", "FLOPs in all", "SW's / row's",
        "GPU-hours", f"hours on {gpus} GPU{'s' * (gpus > 1)}", "US $", "memory, GiB", "MFU",
    )  # fmt: skip
    head = (
        f"Projected, not measured: {count(work.targets)} targets, {work.epochs:g} epoch"
        f"{'s' * (work.epochs != 1)}, {work.backbone}, "
        f"{work.training.tuning}, n = {work.n}, {work.tokens:g} tokens per interaction, {chosen.title} "
        f"({chosen.bf16_flops / 1e12:g} TFLOP/s bf16).\nEquation 3 of DTI: {equation_3(work.n, work.k):.2f}; "
        f"token limit: {token_limit(work.n, work.k):.2f}.\n"
        f"Memory: {MICRO_BATCH_TOKENS:,} tokens at a time, {counted_dtype(work.training)} activations, no "
        f"checkpointing.\nPrice: {sw.price / sw.gpu_hours:.2f} US $ per GPU-hour (--price sets another).\n\n"
    )
    return head + table(headers, lines)
