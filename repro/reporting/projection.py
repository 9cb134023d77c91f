"""reports/projection.md: DTI's Table 3 and BAHE's deployment in GPU-hours, price and memory, from FLOPs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from repro.costs.architecture import architecture_of
from repro.costs.closed_form import Training, equation_3, sum_model_cost
from repro.costs.devices import DEVICES, device_of
from repro.costs.projection import (
    DEFAULT_MFU,
    INSTRUCTION_TOKENS,
    MICRO_BATCH_TOKENS,
    PAPER_EPOCHS,
    PAPER_TOKENS,
    PRICES,
    TRAIN_SHARE,
    checkpointed_bytes_per_token,
    gpu_hours,
    implied_mfu,
    lora_kept_bytes_per_token,
    measured_mfu,
    memory_gib,
    uniform_counts,
)
from repro.reporting import projection_bahe
from repro.reporting.flops_rows import (
    CLOSED,
    TITLES,
    Row,
    length_sweeps,
    prompt_sweeps,
    provenance,
    timing_rows,
)
from repro.reporting.formatting import ABSENT, count, page, ratio, table
from repro.reporting.inputs import Inputs
from repro.reporting.references import PAPER_DATASETS

NAME, BACKBONE, TUNING, CONTEXT = "projection", "llama-3.1-8b", "lora", 20
SHOWN = ("a100", "h100")
FITTED = ("a100-40", "a100", "h100")


@dataclass(frozen=True)
class Cell:
    """One cell of the paper's Table 3, with the FLOPs of one epoch.

    Attributes:
        prompts: whose lengths the prompts have, in words. longest: tokens of the longest prompt.
        kept: bytes that autograd keeps per token where it was counted on these prompts.
    """

    dataset: str
    method: str
    k: int
    hours: float
    prompts: str
    targets: int
    flops: float
    longest: int
    kept: float | None


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    order = list(PAPER_DATASETS)
    cells = [*_paper_lengths(inputs), *_own_lengths(inputs)]
    cells.sort(key=lambda cell: (order.index(cell.dataset), cell.prompts, cell.k))
    timing = timing_rows(inputs)
    devices = "; ".join(
        f"{DEVICES[key].title} {DEVICES[key].bf16_flops / 1e12:g} TFLOP/s ({DEVICES[key].source}), "
        f"{PRICES[key]:.2f} US $ per hour"
        for key in SHOWN
    )
    blocks = [
        "**Projections, not measurements**: GPU-hours = training FLOPs / (peak × MFU). MFU is the median "
        "of this project's timing records on the same device that are nearest to the cell, else "
        f"{DEFAULT_MFU:.2f}, which is assumed; BAHE's section has a rule of its own. "
        f'Peaks of dense bf16 and assumed prices: {devices}. A column of what was measured reads "not '
        'run" where nobody did.',
        "## DTI, Table 3: Llama-3.1-8B, LoRA r = 16, n = 20",
        "The paper gives hours until convergence on A100s, but neither the number of GPUs nor of epochs "
        f"(at most {PAPER_EPOCHS}), and no prompt length but one: a context of 20 interactions takes up to "
        f"701 tokens. So two sets of prompts are projected. *Paper length*: {PAPER_TOKENS:.2f} tokens for "
        f"every interaction and {100 * TRAIN_SHARE:.0f} % of the samples of its Table 2 as targets; for "
        "CDs and Kindles that length is an assumption, since nothing is printed. *Ours*: the counted "
        "FLOPs of real prompts of this project.",
        _table3(cells, timing),
        "### What the paper's hours imply",
        "Implied MFU = FLOPs of one epoch / (the paper's hours × peak of one A100). With e epochs on g "
        "GPUs it is e / g times as much, so one column is enough: a value of 0.2 with 2 epochs on one GPU "
        "would be 0.4. Between methods the unknown e / g cancels if it is the same, and what is left is "
        "the ratio of times beside the ratio of FLOPs.",
        _implied(cells, inputs),
        "### Memory of one GPU",
        _memory(cells, inputs),
        "## BAHE: 50 million samples a day on 8 A100s",
        *projection_bahe.section(inputs),
        provenance([*prompt_sweeps(inputs), *length_sweeps(inputs)]),
    ]
    return {f"{NAME}.md": page("Projection of cost to the papers' scale", NAME, blocks)}


def state(inputs: Inputs) -> str:
    """Which cells rest on counted rows, for the index."""
    counted = {cell.dataset for cell in _own_lengths(inputs)}
    return f"counted prompts of {', '.join(sorted(counted))}" if counted else "the paper's prompt length only"


def _paper_lengths(inputs: Inputs) -> list[Cell]:
    arch, training = architecture_of(f"random:{BACKBONE}"), Training(TUNING)
    cells = []
    for (dataset, method, k), hours in inputs.paper_hours.items():
        targets = round(TRAIN_SHARE * inputs.paper_statistics[dataset].samples)
        counts = uniform_counts(CONTEXT, k, PAPER_TOKENS, INSTRUCTION_TOKENS, targets)
        cost = sum_model_cost(arch, counts, training, None if method == "sw" else "last")
        longest = math.ceil((CONTEXT + k) * PAPER_TOKENS) + INSTRUCTION_TOKENS
        flops = float(cost.train)
        cells.append(Cell(dataset, method, k, hours, "paper length", targets, flops, longest, None))
    return cells


def _own_lengths(inputs: Inputs) -> list[Cell]:
    cells = []
    for sweep in prompt_sweeps(inputs):
        for row in sweep.rows:
            key = (row["dataset"], row["method"], row["k"])
            here = (row["backbone"], row["n"], row["counter"]) == (BACKBONE, CONTEXT, CLOSED)
            if here and key in inputs.paper_hours:
                targets = row["prompt"]["targets"]
                flops = row["train_flops_per_target"] * targets
                kept, longest = row["prompt"]["kept_bytes_per_token"], row["prompt"]["longest_prompt"]
                hours = inputs.paper_hours[key]
                cells.append(Cell(*key, hours, f"ours, {sweep.title}", targets, flops, longest, kept))
    return cells


def _name(cell: Cell) -> str:
    return TITLES[cell.method] if cell.method == "sw" else f"{TITLES[cell.method]}, k = {cell.k}"


def _table3(cells: Sequence[Cell], timing: Sequence[Row]) -> str:
    headers = ["data set", "method", "prompts", "paper, hours", "PFLOPs per epoch"]
    for key in SHOWN:
        title = DEVICES[key].title
        headers += [f"{title}, MFU", f"{title}, hours per epoch measured"]
        headers += [f"{title}, GPU-hours per epoch", "US $"]
    headers.append(f"at {PAPER_EPOCHS} epochs, A100 GPU-hours")
    lines = []
    for cell in cells:
        line = [PAPER_DATASETS[cell.dataset], _name(cell), cell.prompts, f"{cell.hours:.2f}"]
        line.append(f"{cell.flops / 1e15:,.0f}")
        hours = {}
        for key in SHOWN:
            mfu = measured_mfu(timing, DEVICES[key], BACKBONE, TUNING, cell.method, cell.k)
            hours[key] = gpu_hours(cell.flops, DEVICES[key], mfu.value)
            line += [f"{mfu.value:.2f}, {mfu.source}", _measured(cell, key, timing)]
            line += [f"{hours[key]:,.2f} (projected)", f"{hours[key] * PRICES[key]:,.2f}"]
        line.append(f"{PAPER_EPOCHS * hours['a100']:,.1f} (projected)")
        lines.append(line)
    return table(headers, lines)


def _measured(cell: Cell, device: str, timing: Sequence[Row]) -> str:
    """Hours of an epoch at the measured targets per second of this model, method, n and k on one device."""
    rates = [
        row["targets_per_s"]
        for row in timing
        if BACKBONE in row["backbone"].lower()
        and (row["tuning"], row["method"], row["n"]) == (TUNING, cell.method, CONTEXT)
        and (row["k"] or 1, row["device_count"]) == (cell.k, 1)
        and device_of(row["device"]) is DEVICES[device]
        and isinstance(row["targets_per_s"], float | int)
    ]
    if not rates or cell.kept is None:  # the paper's prompt length was never run
        return "not run"
    return f"{cell.targets / statistics.median(rates) / 3600:,.2f}"


def _implied(cells: Sequence[Cell], inputs: Inputs) -> str:
    lines = []
    for cell in cells:
        sw = next(c for c in cells if (c.dataset, c.prompts, c.method) == (cell.dataset, cell.prompts, "sw"))
        lines.append(
            (
                PAPER_DATASETS[cell.dataset],
                _name(cell),
                cell.prompts,
                f"{implied_mfu(cell.flops, cell.hours, DEVICES['a100']):.3f}",
                ratio(sw.hours / cell.hours),
                ratio((sw.flops / sw.targets) / (cell.flops / cell.targets)),
                ABSENT if cell.method == "sw" else f"{equation_3(CONTEXT, cell.k):.2f}",
            )
        )
    headers = (
        "data set", "method", "prompts", "implied MFU × GPUs / epochs", "paper's hours, SW / method",
        "FLOPs, SW / method", "equation 3",
    )  # fmt: skip
    return table(headers, lines)


def _memory(cells: Sequence[Cell], inputs: Inputs) -> str:
    arch, training, counted = architecture_of(f"random:{BACKBONE}"), Training(TUNING), _counted_kept(inputs)
    lines = []
    for cell in cells:
        kept, source = cell.kept, "counted"
        if kept is None:  # what a token keeps does not depend on whose prompt it stands in
            kept = counted.get((cell.method, cell.k))
            source = "counted on other prompts"
        if kept is None:
            kept = lora_kept_bytes_per_token(arch, training.rank, arch.layers)
            source = "closed form"
        tokens = max(MICRO_BATCH_TOKENS, cell.longest)
        full = memory_gib(arch, training, kept, tokens)
        least = memory_gib(arch, training, checkpointed_bytes_per_token(arch, kept, 2), tokens)
        lines.append(
            (
                PAPER_DATASETS[cell.dataset], _name(cell), cell.prompts, count(cell.longest),
                f"{kept / 2**20:.2f}, {source}", f"{full:.1f}", f"{least:.1f}",
                *(_fits(full, least, DEVICES[key].memory_gib) for key in FITTED),
            )
        )  # fmt: skip
    headers = (
        "data set", "method", "prompts", "longest prompt, tokens", "kept per token, MiB", "GiB",
        "GiB with checkpointing", *(f"fits {DEVICES[key].title}" for key in FITTED),
    )  # fmt: skip
    sizes = ", ".join(f"{DEVICES[key].title}: {DEVICES[key].memory_gib:.1f} GiB" for key in FITTED)
    text = (
        f"bf16 base, fp32 adapters with AdamW, {MICRO_BATCH_TOKENS:,} tokens at a time or one longer prompt; "
        "what autograd keeps was counted on the meta device (eager layers, adapters read fp32 copies: a "
        "compiled, fused or autocast layer keeps less). Temporary buffers and fragmentation come on top and "
        "are not in *fits*. Checkpointing is not an option of this project's training loop; it costs up to "
        f"one more forward pass. {sizes}."
    )
    return text + "\n\n" + table(headers, lines)


def _counted_kept(inputs: Inputs) -> dict[tuple[str, int], float]:
    """Bytes that autograd keeps per token, by method and k; of the last sweep that counted them."""
    return {
        (row["method"], row["k"]): row["prompt"]["kept_bytes_per_token"]
        for sweep in prompt_sweeps(inputs)
        for row in sweep.rows
        if (row["backbone"], row["n"], row["counter"]) == (BACKBONE, CONTEXT, CLOSED)
        and row["prompt"]["kept_bytes_per_token"]
    }


def _fits(full: float, checkpointed: float, there: float) -> str:
    return "yes" if full <= there else "with checkpointing" if checkpointed <= there else "no"
