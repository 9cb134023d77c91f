"""Does the cost per target grow with k? Counts and times of attention and of a training step on this machine.

A dense mask over a prompt of k targets costs O(k) pairs per target; the banded form costs a bounded number.
The same 400 targets of one synthetic user stand in 40, 8 or 2 prompts of 10, 50 or 200 targets. Weights are
random (SmolLM2's shape, first 4 layers), which changes no time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from tabulate import tabulate

from repro.backbones.attention import sum_attention, text_attention
from repro.backbones.loading import Backbone, group_of, load_backbone
from repro.backbones.plan import MAX_SUM_BLOCK, TEXT_BLOCK, BatchPlan
from repro.backbones.spec import BackboneSpec
from repro.backbones.visibility import query_blocks
from repro.data import TRAIN, PreparedData, SyntheticSettings, apply_protocol, take_subset
from repro.data.synthetic import generate
from repro.methods.dti import dti_tuned
from repro.methods.method import BatchSizes
from repro.methods.sum_batches import SumBatches, batches_of
from repro.methods.sum_model import SumModel
from repro.prompts.packing import PackedBatch, pack_rows
from repro.prompts.templates import template_for
from repro.prompts.tokenise import TokenisedItems, tokenise_items

CONTEXT = 10  # n
TARGETS_PER_PROMPT = (10, 50, 200)  # k
NUM_TARGETS = 400
LAYERS = 4
SIZES = BatchSizes()


@dataclass(frozen=True)
class PairCounts:
    """(query, key) pairs of one attention layer, per target.

    Attributes:
        computed: in the query blocks. visible: of these, what a query may see. dense: what one dense mask
            over each prompt would compute. tokens: queries, [SUM]s and padding included.
    """

    computed: float
    visible: float
    dense: float
    tokens: float


def benchmark_data() -> PreparedData:
    """One user with NUM_TARGETS training targets, each with CONTEXT or more earlier interactions."""
    length = (NUM_TARGETS + CONTEXT) * 10 // 8 + 10  # 8 of 10 interactions are for training
    size = SyntheticSettings(num_interactions=length, interactions_per_user=length, num_items=200)
    data = apply_protocol(generate(size), "per-user", min_context=CONTEXT)
    return take_subset(data, train_targets=NUM_TARGETS)


def benchmark_batches(data: PreparedData, items: TokenisedItems, k: int, group: int = 1) -> SumBatches:
    """All training targets as one batch of streaming prompts of k targets (deferred [SUM]s, no fix)."""
    return batches_of(data, items, dti_tuned(CONTEXT, k), TRAIN, NUM_TARGETS, group, SIZES)


def count_pairs(batches: SumBatches) -> PairCounts:
    """Count the pairs that one layer computes for all targets; the same on every machine."""
    computed = visible = dense = tokens = 0
    for part in _parts(batches):
        packed: PackedBatch = pack_rows(
            batches.source, batches.rows, part, SIZES.text_multiple, SIZES.sum_multiple
        )
        tokens += len(packed.position)
        dense += sum(len(pack_rows(batches.source, batches.rows, row[None]).position) ** 2 for row in part)
        for of_sums, block in ((False, TEXT_BLOCK), (True, min(MAX_SUM_BLOCK, batches.rows.k))):
            blocks = query_blocks(packed, of_sums, block)
            computed += blocks.visible.numel()
            visible += int(blocks.visible.sum())
    targets = batches.num_targets
    return PairCounts(computed / targets, visible / targets, dense / targets, tokens / targets)


def _parts(batches: SumBatches) -> Iterable:
    return [part for key in batches.in_order() for part in batches.split(key)]


def time_attention(batches: SumBatches, config: object, device: torch.device) -> float:
    """Seconds per target of one layer's attention, forward and backward, over all targets; best of three."""
    plans = [batches.load(part, device).plan for part in _parts(batches)]
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads  # type: ignore[attr-defined]
    head_dim = config.hidden_size // heads  # type: ignore[attr-defined]

    def draw(length: int, count: int) -> torch.Tensor:
        return torch.randn(length, count, head_dim, device=device, requires_grad=True)

    inputs = [
        (draw(length, heads), draw(length, kv_heads), draw(length, kv_heads))
        for length in (len(plan.tokens) + len(plan.label) for plan in plans)
    ]

    def attend(plan: BatchPlan, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        num_text, scale = len(plan.tokens), head_dim**-0.5
        assert plan.text is not None and plan.text_mask is not None, "sizes are no whole blocks"
        assert plan.sums is not None and plan.sum_mask is not None
        text = text_attention(query[:num_text], key, value, plan.text, plan.text_mask, scale)
        sums = sum_attention(query[num_text:], key, value, plan.sums, plan.sum_mask, scale)
        (text.sum() + sums.sum()).backward()

    def run() -> None:
        for plan, tensors in zip(plans, inputs, strict=True):
            attend(plan, *tensors)

    return min(_seconds(run, device) for _ in range(3)) / batches.num_targets


def time_step(batches: SumBatches, backbone: Backbone, device: torch.device) -> tuple[float, float]:
    """(seconds per target, tokens per second without padding) of a training step; packing is part of it."""
    model = SumModel(backbone, loss="answers").to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    parts, tokens = list(_parts(batches)), 0

    def run() -> None:
        nonlocal tokens
        tokens = 0
        for part in parts:
            batch = batches.load(part, device)
            tokens += batch.num_tokens
            (model(batch).loss_sum / batches.num_targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = min(_seconds(run, device) for _ in range(2))  # the first warms up
    return seconds / batches.num_targets, tokens / seconds


def _seconds(function: Callable[[], None], device: torch.device) -> float:
    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - start


def run_benchmark() -> str:
    """Count and time k = 10, 50, 200 and return a Markdown table; under a minute on two CPU cores."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = BackboneSpec(name="random:smollm2-135m", layers=LAYERS, train_embeddings=False)
    backbone = load_backbone(spec, device)
    config, data = backbone.config, benchmark_data()
    answers = (backbone.yes_id, backbone.no_id)
    items = tokenise_items(data.items, backbone.tokenizer, template_for("synthetic"), answers)
    group = group_of(backbone)
    rows = []
    for k in TARGETS_PER_PROMPT:
        batches = benchmark_batches(data, items, k, group)
        pairs, attention = count_pairs(batches), time_attention(batches, config, device)
        step, tokens_per_s = time_step(batches, backbone, device)
        rows.append(
            [
                k,
                pairs.tokens,
                pairs.visible,
                pairs.computed,
                pairs.dense,
                attention * 1e3,
                step * 1e3,
                tokens_per_s,
            ]
        )
    headers = [
        "k", "tokens per target", "pairs visible", "pairs computed", "pairs of a dense mask",
        "attention, ms per target and layer", "training step, ms per target", "tokens/s",
    ]  # fmt: skip
    formats = ("d", ".1f", ",.0f", ",.0f", ",.0f", ".3f", ".2f", ",.0f")
    cells = [[format(value, form) for value, form in zip(row, formats, strict=True)] for row in rows]
    title = (
        f"{NUM_TARGETS} targets, n = {CONTEXT}, {spec.title}, fp32, {device.type}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; forward and backward; "
        "pairs per target and layer\n\n"
    )
    table = tabulate(
        cells, headers, tablefmt="github", colalign=("right",) * len(headers), disable_numparse=True
    )
    return title + table
