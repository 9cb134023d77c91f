"""reports/projection.md: DTI's Table 3 and BAHE's deployment in GPU-hours, price and memory, from FLOPs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from repro.costs.architecture import architecture_of
from repro.costs.closed_form import Training, equation_3, sum_model_cost
from repro.costs.devices import DEVICES, device_of
from repro.costs.projection import (
    BAHE_GPUS,
    BAHE_SAMPLES_PER_DAY,
    DEFAULT_MFU,
    INSTRUCTION_TOKENS,
    MICRO_BATCH_TOKENS,
    PAPER_EPOCHS,
    PAPER_TOKENS,
    PRICES,
    TRAIN_SHARE,
    gpu_hours,
    implied_mfu,
    measured_mfu,
    memory_gib,
    uniform_counts,
)
from repro.reporting.flops_rows import CLOSED, TITLES, Row, length_sweeps, prompt_sweeps, provenance
from repro.reporting.flops_vs_length import rows_by_length
from repro.reporting.formatting import ABSENT, page, ratio, table
from repro.reporting.inputs import ORIGINS, Inputs
from repro.reporting.references import PAPER_DATASETS

NAME, BACKBONE, TUNING, CONTEXT = "projection", "llama-3.1-8b", "lora", 20
SHOWN = ("a100", "h100")
BAHE_LENGTHS = (1024, 2048)  # the paper's


@dataclass(frozen=True)
class Cell:
    """One cell of the paper's Table 3, with the FLOPs of one epoch.

    Attributes:
        prompts: whose lengths the prompts have, in words. kept: bytes that autograd keeps per token, or None.
    """

    dataset: str
    method: str
    k: int
    hours: float
    prompts: str
    targets: int
    flops: float
    kept: float | None


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    order = list(PAPER_DATASETS)
    cells = [*_paper_lengths(inputs), *_own_lengths(inputs)]
    cells.sort(key=lambda cell: (order.index(cell.dataset), cell.prompts, cell.k))
    timing = _timing(inputs)
    devices = "; ".join(
        f"{DEVICES[key].title} {DEVICES[key].bf16_flops / 1e12:g} TFLOP/s ({DEVICES[key].source}), "
        f"{PRICES[key]:.2f} US $ per hour"
        for key in SHOWN
    )
    blocks = [
        "**Projections, not measurements**: GPU-hours = training FLOPs / (peak × MFU). MFU is the median "
        f"of this project's timing records nearest to the cell, else {DEFAULT_MFU:.2f}, which is assumed. "
        f'Peaks of dense bf16 and assumed prices: {devices}. A column of what was measured reads "not '
        'run" where nobody did.',
        "## DTI, Table 3: Llama-3.1-8B, LoRA r = 16, n = 20",
        "The paper gives hours until convergence on A100s, but neither the number of GPUs nor of epochs "
        f"(at most {PAPER_EPOCHS}), and no prompt length but one: a context of 20 interactions takes up to "
        f"701 tokens. So two sets of prompts are projected. *Paper length*: {PAPER_TOKENS:.0f} tokens for "
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
        _memory(cells),
        "## BAHE: 50 million samples a day on 8 A100s",
        _bahe(inputs, timing),
        provenance([*prompt_sweeps(inputs), *length_sweeps(inputs)]),
    ]
    return {f"{NAME}.md": page("Projection of cost to the papers' scale", NAME, blocks)}


def state(inputs: Inputs) -> str:
    """Which cells rest on counted rows, for the index."""
    counted = {cell.dataset for cell in _own_lengths(inputs)}
    return f"counted prompts of {', '.join(sorted(counted))}" if counted else "the paper's prompt length only"


def _timing(inputs: Inputs) -> list[Row]:
    return [row for origin in ORIGINS for file in inputs.timing[origin] for row in file.rows]


def _paper_lengths(inputs: Inputs) -> list[Cell]:
    arch, training = architecture_of(f"random:{BACKBONE}"), Training(TUNING)
    cells = []
    for (dataset, method, k), hours in inputs.paper_hours.items():
        targets = round(TRAIN_SHARE * inputs.paper_statistics[dataset].samples)
        counts = uniform_counts(CONTEXT, k, PAPER_TOKENS, INSTRUCTION_TOKENS, targets)
        cost = sum_model_cost(arch, counts, training, None if method == "sw" else "last")
        cells.append(Cell(dataset, method, k, hours, "paper length", targets, float(cost.train), None))
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
                kept = row["prompt"]["kept_bytes_per_token"]
                hours = inputs.paper_hours[key]
                cells.append(Cell(*key, hours, f"ours, {sweep.title}", targets, flops, kept))
    return cells


def _name(cell: Cell) -> str:
    return TITLES[cell.method] if cell.method == "sw" else f"{TITLES[cell.method]}, k = {cell.k}"


def _table3(cells: Sequence[Cell], timing: Sequence[Row]) -> str:
    headers = ["data set", "method", "prompts", "paper, hours", "PFLOPs per epoch", "MFU"]
    for key in SHOWN:
        title = DEVICES[key].title
        headers += [f"{title}, hours per epoch measured", f"{title}, GPU-hours per epoch", "US $"]
    headers.append(f"at {PAPER_EPOCHS} epochs, A100 GPU-hours")
    lines = []
    for cell in cells:
        mfu = measured_mfu(timing, BACKBONE, TUNING, cell.method, cell.k)
        line = [PAPER_DATASETS[cell.dataset], _name(cell), cell.prompts, f"{cell.hours:.2f}"]
        line += [f"{cell.flops / 1e15:,.0f}", f"{mfu.value:.2f}, {mfu.source}"]
        for key in SHOWN:
            hours = gpu_hours(cell.flops, DEVICES[key], mfu.value)
            line += [_measured(cell, key, timing), f"{hours:,.2f} (projected)", f"{hours * PRICES[key]:,.2f}"]
        line.append(f"{PAPER_EPOCHS * gpu_hours(cell.flops, DEVICES['a100'], mfu.value):,.1f} (projected)")
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


def _memory(cells: Sequence[Cell]) -> str:
    arch, training = architecture_of(f"random:{BACKBONE}"), Training(TUNING)
    lines = []
    for cell in cells:
        if cell.kept is None:
            continue
        full = memory_gib(arch, training, cell.kept, MICRO_BATCH_TOKENS)
        # With checkpointing each layer keeps its bf16 input; one layer at a time has everything.
        kept = 2 * arch.hidden * arch.layers + cell.kept / arch.layers
        lines.append(
            (
                PAPER_DATASETS[cell.dataset],
                _name(cell),
                f"{cell.kept / 2**20:.2f}",
                f"{full:.1f}",
                f"{memory_gib(arch, training, kept, MICRO_BATCH_TOKENS):.1f}",
            )
        )
    if not lines:
        return "Not run: no counted prompts of ML-1M."
    headers = ("data set", "method", "kept per token, MiB", "GiB", "GiB with checkpointing")
    text = (
        f"bf16 base, fp32 adapters with AdamW, {MICRO_BATCH_TOKENS:,} tokens at a time; what autograd "
        "keeps was counted on the meta device (eager layers; a compiled or fused layer keeps less). "
        "Temporary buffers and fragmentation come on top. An A100 or H100 has 74.5 GiB."
    )
    return text + "\n\n" + table(headers, lines)


def _bahe(inputs: Inputs, timing: Sequence[Row]) -> str:
    need = BAHE_SAMPLES_PER_DAY / 86_400 / BAHE_GPUS
    text = (
        f"50 million samples a day are {need:.1f} samples per second and GPU. The paper's model is not "
        "known here; the shapes below are this project's. Projected samples/s at the MFU given, and the "
        "MFU that the stated rate would need."
    )
    lines = [
        _bahe_line(inputs, timing, need, backbone, tuning, tokens, row)
        for sweep in length_sweeps(inputs)
        for backbone, tuning in sweep.backbones
        for tokens, methods in rows_by_length(sweep, backbone).items()
        if tokens in BAHE_LENGTHS
        for row in methods.values()
    ]
    headers = (
        "backbone", "text tokens", "method", "stated, samples/s per GPU", "A100, measured",
        "A100, samples/s (projected)", "MFU", "MFU that the stated rate needs",
    )  # fmt: skip
    return text + "\n\n" + (table(headers, lines) if lines else "Not run.")


def _bahe_line(
    inputs: Inputs, timing: Sequence[Row], need: float, backbone: str, tuning: str, tokens: int, row: Row
) -> tuple[str, ...]:
    method, peak = row["method"], DEVICES["a100"].bf16_flops
    mfu = measured_mfu(timing, backbone, tuning, method, 1)
    needed = need * row["train_flops_per_target"] / peak
    rates = [
        each["samples_per_s"]
        for origin in ORIGINS
        for file in inputs.bahe[origin]
        for each in file.rows
        if (each["method"].replace("_", "-"), each["text_tokens"]) == (method, tokens)
        and backbone in each["backbone"].lower()
        and device_of(each["device"]) is DEVICES["a100"]
        and isinstance(each["samples_per_s"], float | int)
    ]
    return (
        backbone,
        f"{tokens:,}",
        TITLES[method],
        f"{need:.1f}" if method == "bahe" else ABSENT,
        f"{statistics.median(rates):,.1f}" if rates else "not run",
        f"{peak * mfu.value / row['train_flops_per_target']:,.1f}",
        f"{mfu.value:.2f}, {mfu.source}",
        f"{needed:.4f}" if needed <= 1 else f"{needed:.2f} (more than the peak)",
    )
