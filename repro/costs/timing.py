"""How fast the training loop trains: the real model, prompts, optimiser and loop, for SW and DTI at each k.

Every method gets the same: batches that fill one padded length with as many prompts as fit, so one
compilation serves all rows and no ratio comes from padding or from the size of a step. (In a training run a
batch holds a set number of targets instead.) Weights are random, in the shape of the tier's model: that
changes no time, and nothing has to be downloaded. Tokens are counted without padding; the instruction counts
once per batch. Clocks wait for the device; compilation and the first steps are left out.

With `fp8` the frozen base of a LoRA model computes in fp8 (`fp8_base.py`), in rows and a file of its own.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro.backbones.loading import Backbone, group_of, load_backbone
from repro.backbones.shapes import SHAPES
from repro.backbones.spec import RANDOM_PREFIX, BackboneSpec
from repro.costs.architecture import architecture_from
from repro.costs.closed_form import Cost, Training, sum_model_cost
from repro.costs.devices import mfu
from repro.costs.fp8_base import base_into_fp8, check_fp8
from repro.costs.full_batches import FullBatches
from repro.costs.prompt_counts import sum_counts
from repro.data import TEST, TRAIN, VALIDATION, PreparedData
from repro.experiments.run_config import Tier
from repro.methods.dti import dti_tuned
from repro.methods.method import SumMethod
from repro.methods.sliding_window import sliding_window
from repro.methods.sum_batches import SumBatches, batches_of
from repro.methods.sum_model import SumModel
from repro.pipeline import Workshop
from repro.prompts.templates import template_for
from repro.prompts.tokenise import TokenisedItems, tokenise_items
from repro.records.environment import device_slug
from repro.records.growing import GrowingMeasurement
from repro.training.loop import Trainer
from repro.training.memory import peak_gib
from repro.training.task import Task

KS = (1, 5, 10, 20, 30, 40, 50, 100)
LARGE_MODEL_LENGTH = 12_288  # places of a step of an 8B model with LoRA, for which 80 GB suffice
CPU_LENGTH = 4096  # places of a step on a processor, which takes seconds; two prompts of k = 100 fit
_DTYPES = {"bf16": "bfloat16 autocast", "fp32": "float32"}


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        ks: targets per prompt; 1 is the sliding window. n: context interactions.
        length: text tokens and [SUM]s of a step, padding included.
        steps: per repetition. repeats: repetitions of every row.
        warm: steps of a stretch in front of them; stretches go on until they settle.
    """

    ks: tuple[int, ...]
    n: int
    length: int
    steps: int
    repeats: int
    warm: int = 8


def plan_for(tier: Tier, fp8: str | None = None) -> Plan:
    """The sweep of a tier: every k, with few short steps where nothing is compiled; in fp8 k = 1 and 50.

    Tier `test` has two rows.
    """
    if fp8 is not None:
        return Plan((1, 50), tier.n, LARGE_MODEL_LENGTH, steps=6, repeats=2, warm=2)
    if tier.compiled and tier.backbone.tuning == "lora":  # of a large model: a step takes most of a second
        return Plan(KS, tier.n, LARGE_MODEL_LENGTH, steps=6, repeats=3, warm=2)
    if tier.compiled:
        return Plan(KS, tier.n, tier.sizes.max_tokens, steps=30, repeats=3)
    if tier.name == "test":
        return Plan((1, 5), tier.n, 1024, steps=2, repeats=2, warm=1)
    return Plan(KS, tier.n, CPU_LENGTH, steps=10, repeats=3, warm=2)


def method_of(n: int, k: int) -> SumMethod:
    """Sliding window at k = 1, else DTI in our recipe: it has no fix, so it is windowed attention alone."""
    return sliding_window(n) if k == 1 else dti_tuned(n, k)


def measure(
    workshop: Workshop,
    tier: Tier,
    dataset: str,
    protocol: str,
    say: Callable[[str], None],
    plan: Plan | None = None,
    fp8: str | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Rows of a timing file, k by k, `plan.repeats` of each; a row that runs out of memory says so.

    The first k, the sliding window, is measured again after the last: a device slows down by a per cent or
    two while it gets warm.

    Args:
        fp8: recipe (`fp8_base.RECIPES`) of the frozen base's products; None: as its weights are stored.

    Raises:
        ConfigError: `fp8` where it cannot run.
    """
    if fp8 is not None:
        check_fp8(fp8, tier.backbone, workshop.device)
    plan = plan or plan_for(tier, fp8)
    loaded = load(workshop, tier, dataset, protocol)
    of_base: dict[str, Any] = {} if fp8 is None else _into_fp8(tier, loaded, plan, fp8)
    if of_base:
        say(f"fp8, {fp8}: [SUM] states differ by {of_base['fp8_difference']:.2%} from the stored base's")
    again = plan.ks[:1] if len(plan.ks) > 1 else ()
    for place, k in enumerate((*plan.ks, *again)):
        found = measure_method(tier, method_of(plan.n, k), loaded, plan)
        for row in found:
            row["repeat"] += plan.repeats * (place == len(plan.ks))
        speeds = " / ".join(_shown(row["tokens_per_s"]) for row in found)
        once_more = " (again, on the warm device)" if place == len(plan.ks) else ""
        say(f"k = {k}{once_more}: {speeds} tokens/s, {_shown(found[-1]['targets_per_s'])} targets/s")
        yield [{"device": workshop.device_name, **row, **of_base} for row in found]


def timing_file(
    root: Path,
    tier: Tier,
    dataset: str,
    device: str,
    made_from: dict[str, str | None],
    fp8: str | None = None,
    variants: bool = False,
) -> GrowingMeasurement:
    """<root>/timing/<tier>-<dataset>-<device>[-fp8-<recipe>|-variants].json, anew: no earlier row stays.

    Args:
        made_from: `environment.commit()` from before the first row.
    """
    name, versions = f"{tier.name}-{dataset}-{device_slug(device)}", dict(made_from)
    if variants:
        name += "-variants"
    if fp8 is not None:
        name += f"-fp8-{fp8}"
        versions["torchao"] = importlib.metadata.version("torchao")
    return GrowingMeasurement(root, "timing", name, lambda row, rows: False, versions)


def shape_of(spec: BackboneSpec) -> BackboneSpec:
    """The same model with random weights, where its shape is known."""
    shape = next((name for name in SHAPES if name in spec.name.lower()), None)
    return spec if shape is None else replace(spec, name=RANDOM_PREFIX + shape, revision=None)


@dataclass(frozen=True)
class Loaded:
    """What all rows share."""

    data: PreparedData
    items: TokenisedItems
    backbone: Backbone
    device: torch.device


def load(workshop: Workshop, tier: Tier, dataset: str, protocol: str) -> Loaded:
    """The data, and the tier's model in its shape."""
    data = workshop.load(tier, dataset, protocol).data  # first: a missing one is refused at once
    backbone = load_backbone(shape_of(tier.backbone), workshop.device)
    answers = (backbone.yes_id, backbone.no_id)
    items = tokenise_items(data.items, backbone.tokenizer, template_for(dataset), answers)
    return Loaded(data, items, backbone, workshop.device)


def _into_fp8(tier: Tier, loaded: Loaded, plan: Plan, recipe: str) -> dict[str, Any]:
    """Exchange the base's products; what its rows have in common. No MFU: peaks are of bfloat16 products."""
    task = _task(replace(tier, compiled=False), method_of(plan.n, plan.ks[-1]), loaded, plan)
    batch: Any = task.train.load(task.train.epoch(0, 0)[0], loaded.device)
    with torch.autocast(loaded.device.type, torch.bfloat16, enabled=tier.training.precision == "bf16"):
        difference = base_into_fp8(loaded.backbone.model, recipe, lambda: _states(task.model, batch))
    return {"fp8": recipe, "fp8_difference": difference, "mfu": None}


def _states(model: Any, batch: Any) -> torch.Tensor:
    """(S, E) final states of a batch's [SUM]s, padding left out."""
    return model.hidden_states(batch.plan)[batch.plan.label >= 0]


def measure_method(
    tier: Tier, method: SumMethod, loaded: Loaded, plan: Plan, as_trained: bool = False
) -> list[dict[str, Any]]:
    """Rows of one method, `plan.repeats` of them, or one that says that memory ran out.

    Args:
        as_trained: with the steps of a training run, `batch_targets` targets each, in place of full ones.
    """
    task = _task(tier, method, loaded, plan, as_trained)
    number = plan.warm + plan.steps
    keys = (task.train.epoch(0, 0) * number)[:number]
    trainer = Trainer(task, replace(tier.training, max_epochs=1), 0, None, "timing")
    fixed = _fixed(tier, method, keys[plan.warm :])
    assert isinstance(task.train, SumBatches)
    cost = step_cost(tier, method, loaded.backbone, task.train, keys[plan.warm :])
    if loaded.device.type == "cuda":  # with the warm-up: what a graph's replay uses is allotted there
        torch.cuda.reset_peak_memory_stats(loaded.device)
    try:
        trainer.warm_up(evaluation=False)
        settle(lambda: _seconds(trainer, keys[: plan.warm]))
        rows = [
            fixed | {"repeat": repeat} | _speed(trainer, keys[plan.warm :], loaded.device, cost.train)
            for repeat in range(plan.repeats)
        ]
    except torch.OutOfMemoryError:
        failed = ("tokens_per_s", "targets_per_s", "step_ms", "peak_gib")
        rows = [
            fixed | {"repeat": 0, "compile_s": None, "mfu": None} | dict.fromkeys(failed, "out_of_memory")
        ]
    finally:
        trainer.accelerator.free_memory()
    common = {"cuda_graph": trainer.replays}
    return [
        row | common | {"compile_s": row.get("compile_s", trainer.clocks.seconds.get("compile"))}
        for row in rows
    ]


def settle(stretch: Callable[[], float], most: int = 12) -> None:
    """Run stretches until two in a row take the same time within 3 %, `most` at most.

    The first seconds of a process are slower: compilers' own worker processes still start, memory is touched
    for the first time.
    """
    before = stretch()
    for _ in range(most - 1):
        now = stretch()
        if abs(now - before) <= 0.03 * now:
            return
        before = now


def _seconds(trainer: Trainer, keys: list[Any]) -> float:
    """Training on these batches, on the clocks of the measurement."""
    before = trainer.clocks["train"] + trainer.clocks["data"]
    trainer.train_on(keys)
    return trainer.clocks["train"] + trainer.clocks["data"] - before


def _speed(trainer: Trainer, keys: list[Any], device: torch.device, flops: int) -> dict[str, Any]:
    """Train on the batches once and divide; `flops` is what they cost together."""
    progress = trainer.progress
    tokens, targets = progress.tokens_raw, progress.targets
    seconds = _seconds(trainer, keys)
    tokens, targets = progress.tokens_raw - tokens, progress.targets - targets
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "tokens_per_s": tokens / seconds,
        "targets_per_s": targets / seconds,
        "step_ms": 1e3 * seconds / len(keys),
        "peak_gib": peak_gib(device),
        "mfu": mfu(flops / seconds, name, trainer.accelerator.num_processes),
    }


def step_cost(
    tier: Tier, method: SumMethod, backbone: Backbone, batches: SumBatches, keys: Sequence[np.ndarray]
) -> Cost:
    """Closed-form FLOPs of training on these batches once: what MFU is a share by.

    The same count as the projection's (visible pairs, LM head, no padding), so that its hours undo this
    MFU; not the "6 P" (LoRA: "4 P") per token of other people's MFUs, which leaves attention and head out.
    """
    spec, reset = tier.backbone, method.fixes.reset
    return sum_model_cost(
        architecture_from(backbone.config.to_dict()),
        sum_counts(batches, keys),
        Training(spec.tuning, spec.lora_rank, spec.train_embeddings),
        None if reset is None else reset.layers,
        tier.loss,
    )


def _task(tier: Tier, method: SumMethod, loaded: Loaded, plan: Plan, as_trained: bool = False) -> Task:
    backbone, data = loaded.backbone, loaded.data
    group = group_of(backbone)
    train, validation, test = (
        batches_of(data, loaded.items, method, split, tier.training.batch_targets, group, tier.sizes)
        for split in (TRAIN, VALIDATION, TEST)
    )
    full = FullBatches(train.source, train.rows, train.fixes, train.sizes, 1, group)
    full.length, full.number = plan.length, plan.warm + plan.steps
    model = SumModel(backbone, tier.loss, tier.compiled).to(loaded.device)
    return Task(
        model,
        train if as_trained else full,
        validation,
        test,
        data.interactions.label,
        data.interactions.user,
    )


def _fixed(tier: Tier, method: SumMethod, keys: Sequence[np.ndarray]) -> dict[str, Any]:
    cut = {} if tier.backbone.layers is None else {"layers": tier.backbone.layers}
    return cut | {
        "device_count": 1,
        "backbone": shape_of(tier.backbone).name,
        "tuning": tier.backbone.tuning,
        "dtype": _DTYPES[tier.training.precision],
        "compile": tier.compiled,
        "method": method.name,
        "k": method.prompt.k,
        "n": method.prompt.n,
        "batch": max(round(float(np.mean([len(key) for key in keys]))), 1),
    }


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}"
