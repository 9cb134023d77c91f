"""From FLOPs to GPU-hours, price and memory: a projection, never a measurement, and marked so.

hours = training FLOPs / (peak x MFU), with MFU (model FLOPs utilisation) measured on this project's own steps
where there is a record of it, else `DEFAULT_MFU`, an assumption. Imports no torch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.costs.architecture import Architecture
from repro.costs.closed_form import SumCounts, Training, causal_pairs, check_sizes
from repro.costs.devices import DEVICES, Device, device_of
from repro.errors import ConfigError

DEFAULT_MFU = 0.40  # assumed where nothing was measured
PRICES = {
    "a100": 1.80,
    "a100-40": 1.30,
    "h100-pcie": 2.40,
    "h100-nvl": 2.60,
    "h100": 3.00,
    "h200": 3.80,
}  # assumed, US $ an hour
INSTRUCTION_TOKENS = 20
MICRO_BATCH_TOKENS = 4096  # of the memory estimate
OPTIMISER_BYTES = 16  # per trained parameter: fp32 value, gradient, two AdamW moments
PAPER_TOKENS = (
    701 / 20
)  # DTI, introduction: a context of 20 interactions "can take up to 701 tokens" of Llama 3
PAPER_EPOCHS = 10  # DTI, appendix: at most
TRAIN_SHARE = 0.8  # of the samples: split 8:1:1
BAHE_SAMPLES_PER_DAY, BAHE_GPUS = 50_000_000, 8  # BAHE, abstract
BAHE_RANK, BAHE_BATCH = 64, 16  # BAHE, training settings: LoRA's rank, samples per step


@dataclass(frozen=True)
class Mfu:
    """Model FLOPs utilisation and where it is from."""

    value: float
    source: str


def measured_mfu(
    rows: Sequence[Mapping[str, Any]], device: Device, backbone: str, tuning: str, method: str, k: int
) -> Mfu:
    """MFU of the timing rows closest to a run, or `DEFAULT_MFU` where none has an MFU.

    Same device, backbone and tuning; then the same method, where there is one; then the nearest k; the
    median of all rows that remain.

    Args:
        rows: of `results/timing`. device: that the hours are for; another's MFU is never taken.
        backbone: part of the rows' backbone, e.g. `llama-3.1-8b`.
    """
    usable = [
        row
        for row in rows
        if isinstance(row["mfu"], float)
        and device_of(row["device"]) is device
        and backbone in row["backbone"].lower()
        and row["tuning"] == tuning
    ]
    usable = [row for row in usable if row["method"] == method] or usable
    if not usable:
        return Mfu(DEFAULT_MFU, "assumed, none measured")
    distance = min(abs((row["k"] or 1) - k) for row in usable)
    chosen = [row for row in usable if abs((row["k"] or 1) - k) == distance]
    value = statistics.median(row["mfu"] for row in chosen)
    names = ", ".join(sorted({row["device"] for row in chosen}))
    return Mfu(value, f"measured on {names}, {chosen[0]['method']}, k = {chosen[0]['k'] or 1}")


def carried_mfu(measured: Sequence[tuple[str, float]], device: Device) -> Mfu:
    """Median MFU of what was measured on a device, else on one other; `DEFAULT_MFU` where nothing was.

    For steps too small to keep a device busy: what another device reached is the better guess then than an
    MFU that large steps reach. Devices are never pooled: of several others it is the one whose peak is
    nearest to the device's, and of equal ones the first by name, so that both sides of a comparison have the
    same.

    Args:
        measured: (device's name, MFU) of the very step. device: that the hours are for.
    """
    if not measured:
        return Mfu(DEFAULT_MFU, "assumed, none measured")
    chosen = min({name for name, _ in measured}, key=lambda name: (*_unlike(name, device), name))
    carried = "" if device_of(chosen) is device else f", assumed for the {device.title}"
    value = statistics.median(value for name, value in measured if name == chosen)
    return Mfu(value, f"measured on {chosen}{carried}")


def _unlike(name: str, device: Device) -> tuple[bool, float]:
    """How far a measured device is from the one that is asked for: another one, then by its peak."""
    other = device_of(name)
    return other is not device, math.inf if other is None else abs(other.bf16_flops - device.bf16_flops)


def need(good: bool, what: str, found: object, expected: str) -> None:
    """Raises ConfigError unless `good`."""
    if not good:
        raise ConfigError(what, str(found), expected, "choose another value")


def check_tokens(tokens: float) -> float:
    """Tokens of one interaction; raises ConfigError below 2 (a text and its answer), NaN and infinity too."""
    need(2 <= tokens < math.inf, "tokens per interaction", tokens, "at least 2: a text and its answer")
    return tokens


def device_named(name: str) -> Device:
    """A device by key or name.

    Raises:
        ConfigError: not listed; its peak is unknown, so nothing can be projected for it.
    """
    device = device_of(name)
    if device is None:
        raise ConfigError(
            "device", repr(name), f"one of {', '.join(DEVICES)}", "name one, or add it to costs/devices.py"
        )
    return device


def gpu_hours(flops: float, device: Device, mfu: float) -> float:
    """Hours of one device for so many FLOPs.

    Raises:
        ConfigError: `mfu` outside (0, 1].
    """
    need(0.0 < mfu <= 1.0, "MFU", mfu, "a share in (0, 1]")
    return flops / (device.bf16_flops * mfu) / 3600


def implied_mfu(flops: float, hours: float, device: Device) -> float:
    """Share of one device's peak that would do so many FLOPs in so many hours."""
    need(hours > 0, "hours", hours, "a positive number")
    return flops / (hours * 3600 * device.bf16_flops)


def memory_gib(arch: Architecture, training: Training, kept_bytes_per_token: float, tokens: int) -> float:
    """GiB of weights, gradients, AdamW's moments and what autograd keeps of one micro-batch.

    Frozen weights are bf16; trained ones have 16 bytes (fp32 value, gradient, two moments). Temporary
    buffers, fragmentation and the framework's own memory are not in it.

    Args:
        kept_bytes_per_token: see `counted_models.Counted.kept_bytes`. tokens: of a micro-batch.
    """
    if training.tuning == "lora":
        tuned = arch.layers - training.frozen_layers
        trained, frozen = tuned * arch.lora_parameters(training.rank), arch.parameters
    else:
        frozen = training.frozen_layers * arch.layer_parameters
        frozen += 0 if training.train_embeddings else arch.vocab * arch.hidden
        trained = arch.parameters - frozen
    return (2 * frozen + OPTIMISER_BYTES * trained + kept_bytes_per_token * tokens) / 2**30


def lora_kept_bytes_per_token(arch: Architecture, rank: int, layers: int) -> int:
    """What autograd keeps per token of eager layers with LoRA, bf16 with fp32 adapters and no autocast.

    Per layer, in bytes: each norm's fp32 input (4 H) and fp32 scale (4); the fp32 copies that the seven
    adapters make of their inputs (q, k, v, gate and up 4 H each, o 4 Q, down 4 I) and the fp32 inputs of
    their second matrices (7 x 4 r); rotated queries (2 Q), keys and values (2 K each), in the MLP the gate
    before and after its activation and up's output (2 I each).

    Args:
        layers: that are trained; frozen ones below them keep nothing. The shared rotary tables are left out.
    """
    query, key = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    layer = 28 * arch.hidden + 10 * arch.intermediate + 6 * query + 4 * key + 28 * rank + 8
    return layers * layer


def checkpointed_bytes_per_token(arch: Architecture, kept_bytes_per_token: float, value_bytes: int) -> float:
    """What autograd keeps per token at most where every layer is checkpointed.

    Each layer keeps its input alone; while one layer's backward pass runs, everything of that layer is there
    besides.

    Args:
        kept_bytes_per_token: of all layers without checkpointing.
        value_bytes: of one number of a layer's input, 2 for bf16.
    """
    return value_bytes * arch.hidden * arch.layers + kept_bytes_per_token / arch.layers


def uniform_counts(n: int, k: int, interaction_tokens: float, instruction: int, targets: int) -> SumCounts:
    """Counts of an epoch of streaming prompts whose interactions all have the same length and whose users all
    have n interactions before their first target; k = 1 is the sliding window.

    The instruction stands in every prompt and is seen by every query. A length may be a mean, and so a
    fraction: the formulas hold for it as they stand (the spread of lengths adds a little attention, which is
    left out); only the totals are rounded up.

    Raises:
        ConfigError: n or k below 1, fewer than 2 tokens per interaction (text and answer), no target.
    """
    check_sizes(n, k)
    length = check_tokens(interaction_tokens)
    need(targets >= 1, "targets", targets, "at least 1")
    prompts = targets / k
    text = (n + k) * length - 1  # the last target's answer is left out
    own = length * (length + 1) / 2
    pairs = sum(length * min(j, n) * length + own for j in range(n + k))
    pairs -= n * length + length  # of that answer
    pairs += instruction * text + causal_pairs([instruction])
    of_sums = k * (n * length + length - 1 + 1 + instruction)
    return SumCounts(
        text=math.ceil(prompts * (text + instruction)),
        sums=targets,
        text_pairs=math.ceil(prompts * pairs),
        sum_pairs=math.ceil(prompts * of_sums),
    )
