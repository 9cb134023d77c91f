"""Training LLM-CTR and BAHE against the length of a user's text: step time, peak memory, FLOPs.

Both sides are the models, batches and layers of the quality runs, on synthetic text of set lengths
(`text_samples`), with random weights in a known shape. Batches are laid out and behaviours looked up by the
thread that does so in training; a step is `training_step.TrainingStep`. Building the table is timed apart.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from repro.backbones.loading import Backbone, load_backbone
from repro.backbones.spec import RANDOM_PREFIX, BackboneSpec
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import BehaviourTable, fill, open_table
from repro.behaviours.texts import Behaviours
from repro.costs.architecture import Architecture, architecture_from
from repro.costs.bahe_flops import bahe_cost, llm_ctr_cost
from repro.costs.devices import mfu
from repro.costs.text_samples import TextSamples, behaviours_per_sample, random_behaviours
from repro.costs.training_step import TrainingStep, peak_bytes
from repro.experiments.bahe_efficiency import Plan
from repro.methods.bahe.batches import BaheBatches, Layout
from repro.methods.bahe.llm_ctr import LlmCtrModel
from repro.methods.bahe.model import BaheModel
from repro.methods.bahe.settings import bahe, llm_ctr
from repro.methods.bahe.vectors import TableVectors
from repro.records.environment import device_name, device_slug
from repro.records.growing import GrowingMeasurement
from repro.training.clocks import synchronise
from repro.training.prefetch import loaded

LLM_CTR, BAHE = "llm_ctr", "bahe"  # as in records
TOTAL_STEPS = 10_000  # of the cosine
NUM_BATCHES = 4  # different ones
FULL = 0.9  # of a device's memory; a step that needs more is not captured
Row = dict[str, Any]


def measure(
    plan: Plan, spec: BackboneSpec, device: torch.device, say: Callable[[str], None]
) -> Iterator[list[Row]]:
    """The rows of one backbone, a list after every length of either side; BAHE first.

    A method whose step does not fit the device has one row per length that says so.
    """
    for method in (BAHE, LLM_CTR):
        yield from _side(plan, spec, method, device, say)
        _release(device)


@dataclass(frozen=True)
class Side:
    """One method of one backbone, ready to be trained.

    Attributes:
        tables: by tokens per behaviour, with the seconds of the build; LLM-CTR has none of either.
    """

    method: str
    model: nn.Module
    behaviours: dict[int, Behaviours]
    tables: dict[int, tuple[BehaviourTable, float]]
    arch: Architecture
    frozen: int


def _side(
    plan: Plan, spec: BackboneSpec, method: str, device: torch.device, say: Callable[[str], None]
) -> Iterator[list[Row]]:
    side = _built(plan, spec, method, device)
    _release(device)  # of what only building the table needed
    for tokens in plan.text_tokens:
        rows: list[Row] = []
        for size in plan.sizes_at(tokens) if method == BAHE else [plan.behaviour_tokens]:
            found = _measured(plan, spec, side, tokens, size, device)
            _release(device)
            rows += found
            shown = found[-1]["step_ms"]
            shown = shown if isinstance(shown, str) else f"{shown:,.2f} ms, {found[-1]['peak_gib']:.2f} GiB"
            say(f"{spec.name}, {method}, {tokens:,} tokens, {size} per behaviour: {shown}")
        yield rows


def _built(plan: Plan, spec: BackboneSpec, method: str, device: torch.device) -> Side:
    """One side's model on the device and BAHE's tables; what else the backbone has goes with it."""
    backbone = load_backbone(spec, device)
    arch = architecture_from(backbone.config.to_dict())
    sizes = dict.fromkeys(size for tokens in plan.text_tokens for size in plan.sizes_at(tokens))
    behaviours = {size: random_behaviours(plan.table_behaviours, size, arch.vocab) for size in sizes}
    if method == LLM_CTR:
        model = LlmCtrModel(backbone, llm_ctr(1), plan.compiled).to(device).train()
        return Side(method, model, behaviours, {}, arch, frozen=0)
    settings = replace(bahe(1), layer_cut=plan.layer_cut)
    frozen = settings.num_lower(backbone.num_layers)
    tables = {size: _table(plan, backbone, frozen, each, device) for size, each in behaviours.items()}
    upper = BaheModel(backbone, settings, plan.compiled).to(device).train()
    return Side(method, upper, behaviours, tables, arch, frozen)


def _table(
    plan: Plan, backbone: Backbone, frozen: int, behaviours: Behaviours, device: torch.device
) -> tuple[BehaviourTable, float]:
    """A table of all behaviours, and the seconds that its build took."""
    encoder = BehaviourEncoder(
        backbone, frozen, precision=plan.training.precision, template=behaviours.template
    )
    encoder.encode(behaviours.tokens_of(np.arange(1)))  # first calls load kernels
    table = open_table(None, encoder.fingerprint, encoder.width)
    synchronise(device)
    begin = time.perf_counter()
    fill(table, behaviours, encoder)
    return table, time.perf_counter() - begin


def _batches(
    plan: Plan, side: Side, tokens: int, size: int, device: torch.device
) -> tuple[BaheBatches, list[np.ndarray]]:
    """Batches of one length, and the keys of a few of them."""
    behaviours = side.behaviours[size]
    source = TextSamples(behaviours_per_sample(tokens, size), len(behaviours))
    rows = np.arange(plan.batch * NUM_BATCHES)
    label = (rows % 2).astype(np.float32)
    vectors = TableVectors(side.tables[size][0], behaviours) if side.method == BAHE else None
    kind = "side-by-side" if side.method == BAHE else "written-out"
    layout = Layout(
        kind,
        multiple=1,
        target_multiple=1,
        max_places=plan.batch * tokens,
        packed=_compiled(plan, device),
        alike=side.method == LLM_CTR,
    )
    batches = BaheBatches(source, behaviours, vectors, label, rows, plan.batch, layout)
    return batches, np.split(rows, NUM_BATCHES)


def _measured(
    plan: Plan, spec: BackboneSpec, side: Side, tokens: int, size: int, device: torch.device
) -> list[Row]:
    """Rows of one length, one per repetition; a single one where the device's memory was too small."""
    behaviours = behaviours_per_sample(tokens, size)
    if side.method == BAHE:
        flops = bahe_cost(side.arch, behaviours, side.frozen, spec.lora_rank).train
    else:
        flops = llm_ctr_cost(side.arch, tokens, spec.lora_rank).train
    table, build_s = side.tables.get(size, (None, None))
    device_title = device_name(str(device))
    fixed = {
        "device": device_title,
        "device_count": 1,
        "backbone": spec.name,
        "layers": side.arch.layers,
        "layer_cut": side.frozen / side.arch.layers,
        "batch": plan.batch,
        "text_tokens": tokens,
        "method": side.method,
        "train_flops_per_sample": flops,
        "table_build_s": build_s,
        "table_behaviours": None if table is None else len(table),
        "dtype": _dtype(plan, spec),
        "compile": _compiled(plan, device),
        "behaviour_tokens": size,
        "behaviours": behaviours,
    }
    batches, keys = _batches(plan, side, tokens, size, device)
    try:
        found = _steps(plan, side.model, batches, keys, device)
    except torch.OutOfMemoryError:
        found = None  # what the failed step held goes with the exception, before anything else is allocated
    side.model.zero_grad(set_to_none=True)
    if found is None:
        failed = dict.fromkeys(("step_ms", "samples_per_s", "peak_gib"), "out_of_memory")
        return [fixed | failed]
    rows = []
    for repeat, seconds in enumerate(found.seconds):
        speed = plan.batch / seconds
        rows.append(
            fixed
            | {
                "repeat": repeat,
                "step_ms": 1e3 * seconds,
                "samples_per_s": speed,
                "peak_gib": found.peak / 2**30,
                "reserved_gib": None if found.reserved is None else found.reserved / 2**30,
                "cuda_graph": found.captured,
                "mfu": mfu(flops * speed, device_title),
            }
        )
    return rows


@dataclass(frozen=True)
class Steps:
    """Seconds per step of every repetition; bytes of memory; whether steps were captured."""

    seconds: list[float]
    peak: int
    reserved: int | None
    captured: bool


def _steps(
    plan: Plan, model: nn.Module, batches: BaheBatches, keys: list[np.ndarray], device: torch.device
) -> Steps:
    """Warm up, read the memory of a step, capture it on CUDA, and time repetitions."""
    step = TrainingStep(model, batches.load(keys[0], device), plan.training, TOTAL_STEPS, device)
    step.warm_up()
    peak, captured, reserved = peak_bytes(step), False, None
    if device.type == "cuda":
        captured = plan.graphs and torch.cuda.max_memory_reserved() < FULL * torch.cuda.mem_get_info()[1]
        if captured:
            step.capture()
    probe = _seconds_per_step(step, batches, keys, 1, device)
    number = min(max(math.ceil(plan.seconds / probe), plan.least_steps), 100)
    seconds = [_seconds_per_step(step, batches, keys, number, device) for _ in range(plan.repeats)]
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved()
    if not math.isfinite(float(step.loss)):
        raise AssertionError("the loss of a measured step is not finite")
    return Steps(seconds, peak, reserved, captured)


def _seconds_per_step(
    step: TrainingStep, batches: BaheBatches, keys: list[np.ndarray], number: int, device: torch.device
) -> float:
    """Mean of so many steps, batches loaded as in training."""
    order = [keys[each % len(keys)] for each in range(number)]
    synchronise(device)
    begin = time.perf_counter()
    with closing(loaded(batches, order, device)) as stream:
        for batch in stream:
            step(batch)
        synchronise(device)
    return (time.perf_counter() - begin) / number


def _release(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def run_benchmark(plan: Plan, tier: str, root: Path, say: Callable[[str], None]) -> list[Path]:
    """Measure and write <root>/bahe/efficiency-<tier>-<shape>-<device>.json, after every length.

    Rows of an earlier run with the same settings in the same environment stay until they are measured again;
    an earlier file with any others stays until everything is measured (`GrowingMeasurement`).
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    written = []
    for spec in plan.backbones:
        shape = spec.name.removeprefix(RANDOM_PREFIX)
        name = f"efficiency-{tier}-{shape}-{device_slug(device_name(str(device)))}"
        file = GrowingMeasurement(root, "bahe", name, partial(_agrees, plan, spec, device))
        for found in measure(plan, spec, device, say):
            file.put(found, partial(_same_length, found[0]))
        written.append(file.finish())
    return written


def _agrees(plan: Plan, spec: BackboneSpec, device: torch.device, row: Row, rows: Sequence[Row]) -> bool:
    """Whether an earlier row may stand beside rows of this plan.

    Whether steps were to be captured is read from all rows: one that fills the device never is.
    """
    sizes = {plan.behaviour_tokens, *(plan.other_sizes if row["method"] == BAHE else ())}
    captured = any(each.get("cuda_graph") for each in rows)
    settings = (row["device"], row["batch"], row.get("dtype"), row.get("compile"), captured)
    graphs = plan.graphs and device.type == "cuda"
    now = (device_name(str(device)), plan.batch, _dtype(plan, spec), _compiled(plan, device), graphs)
    return settings == now and row.get("behaviour_tokens") in sizes


def _same_length(new: Row, row: Row) -> bool:
    return (row["method"], row["text_tokens"]) == (new["method"], new["text_tokens"])


def _compiled(plan: Plan, device: torch.device) -> bool:
    """Whether layers are compiled: on CUDA, where the plan says so."""
    return plan.compiled and device.type == "cuda"


def _dtype(plan: Plan, spec: BackboneSpec) -> str:
    return f"{spec.dtype} weights" + (", bf16 autocast" if plan.training.precision == "bf16" else "")
