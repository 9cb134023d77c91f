"""BAHE's deployment on reports/projection.md: 50 million samples a day on 8 A100s, from counted FLOPs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from repro.costs.architecture import architecture_of
from repro.costs.closed_form import Training
from repro.costs.devices import DEVICES, device_of, mfu
from repro.costs.projection import (
    BAHE_BATCH,
    BAHE_GPUS,
    BAHE_RANK,
    BAHE_SAMPLES_PER_DAY,
    DEFAULT_MFU,
    PRICES,
    Mfu,
    carried_mfu,
    gpu_hours,
    lora_kept_bytes_per_token,
    memory_gib,
)
from repro.methods.bahe.settings import lower_layers
from repro.reporting.flops_rows import TITLES, Row, length_sweeps
from repro.reporting.flops_vs_length import ONE_SEQUENCE, rows_by_length
from repro.reporting.formatting import ABSENT, count, listed, table
from repro.reporting.inputs import ORIGINS, Inputs

LENGTHS = (1024, 2048)  # the paper's
A100 = DEVICES["a100"]


@dataclass(frozen=True)
class Side:
    """LLM-CTR or BAHE with one backbone at one text length.

    Attributes:
        row: closed form, FLOPs per sample.
        measured: efficiency records of the same shape, method and lengths, on any device.
    """

    backbone: str
    tokens: int
    row: Row
    measured: list[Row]

    @property
    def mfu(self) -> Mfu:
        """Of a training step."""
        rows = [row for row in self.measured if isinstance(row.get("mfu"), float)]
        return carried_mfu([(row["device"], row["mfu"]) for row in rows], A100)

    @property
    def table_mfu(self) -> Mfu:
        """Of the encoder that fills the table, from the seconds of the builds."""
        flops, found = self.row["length"]["table_flops_per_behaviour"], []
        for row in self.measured:
            seconds, number = row["table_build_s"], row.get("table_behaviours")
            if isinstance(seconds, float) and number:
                share = mfu(flops * number / seconds, row["device"], row["device_count"])
                found += [] if share is None else [(row["device"], share)]
        return carried_mfu(found, A100)

    @property
    def samples_per_s(self) -> list[float]:
        """Measured on an A100."""
        rows = [row for row in self.measured if device_of(row["device"]) is A100]
        return [row["samples_per_s"] for row in rows if isinstance(row["samples_per_s"], float | int)]

    @property
    def method(self) -> str:
        """`llm-ctr` or `bahe`."""
        return str(self.row["method"])

    @property
    def flops(self) -> float:
        """Training FLOPs of one sample."""
        return float(self.row["train_flops_per_target"])

    @property
    def named(self) -> tuple[str, str, str]:
        """First columns of every table."""
        return self.backbone, f"{self.tokens:,}", TITLES[self.method]


def section(inputs: Inputs) -> list[str]:
    """Blocks of the section, without its heading."""
    sides = list(_sides(inputs))
    need = BAHE_SAMPLES_PER_DAY / 86_400 / BAHE_GPUS
    rate = (
        f"50 million samples a day are {need:.1f} samples per second and GPU. The paper's model is not "
        "known here; the shapes below are this project's. Projected samples/s at the MFU given, and the "
        "MFU that the stated rate would need. Training alone: the table's encoding stands apart below. MFU "
        "is the median of the [efficiency records](bahe_efficiency.md) of the same shape, method and "
        "lengths on one device: an A100, or where nobody measured one, the device with the nearest peak (of "
        "equal ones the first by name), whose MFU is assumed to carry over."
    )
    if not sides:
        return [rate, "Not run."]
    day = (
        f"LoRA r = {BAHE_RANK}, {BAHE_GPUS} × {A100.title} at {PRICES[A100.key]:.2f} US $ per GPU-hour "
        f"(assumed). Memory of one GPU: the whole model in bf16, fp32 adapters of the trained layers with "
        f"AdamW, and what autograd keeps of {BAHE_BATCH} samples at a time (closed form of eager layers, no "
        "checkpointing; temporary buffers come on top)."
    )
    table_text = (
        "Each distinct behaviour goes through the frozen layers once, forward only. How many there are is "
        "not printed, so the cost is given for a million; the last column is the most it can be, every "
        "behaviour of every sample of the day encoded anew."
    )
    return [
        rate,
        _rates(sides, need),
        _below_default(sides),
        "### A day of training",
        day,
        _days(sides),
        "### Encoding the table",
        table_text,
        _encoding(sides),
    ]


def _sides(inputs: Inputs) -> Iterator[Side]:
    for sweep in length_sweeps(inputs):
        for backbone, _ in sweep.backbones:
            for tokens, methods in rows_by_length(sweep, backbone).items():
                if tokens in LENGTHS:
                    for name, row in methods.items():
                        if name != ONE_SEQUENCE:  # a variant, of which no rate is stated
                            yield Side(backbone, tokens, row, _efficiency_rows(inputs, backbone, row))


def _efficiency_rows(inputs: Inputs, backbone: str, row: Row) -> list[Row]:
    """Records of this whole shape, method, text length and number of behaviours."""
    layers, detail = architecture_of(f"random:{backbone}").layers, row["length"]
    return [
        each
        for origin in ORIGINS
        for file in inputs.bahe[origin]
        for each in file.rows
        if each["method"].replace("_", "-") == row["method"]
        and each["text_tokens"] == detail["text_tokens"]
        and backbone in each["backbone"].lower()
        and each.get("layers") in (None, layers)
        and detail["behaviours"] in (None, each.get("behaviours"))
    ]


def _below_default(sides: list[Side]) -> str:
    """Which methods' measured MFU the rest of the page would overstate."""
    said = []
    for method in dict.fromkeys(side.method for side in sides):
        found = [side.mfu.value for side in sides if side.method == method and side.mfu.value < DEFAULT_MFU]
        said += [f"{TITLES[method]} ({min(found):.3f} to {max(found):.3f})"] if found else []
    if not said:
        return ""
    return f"An MFU of {DEFAULT_MFU:.2f}, assumed elsewhere on this page, does not hold for {listed(said)}."


def _rates(sides: list[Side], need: float) -> str:
    lines = []
    for side in sides:
        needed, measured = need * side.flops / A100.bf16_flops, side.samples_per_s
        lines.append(
            (
                *side.named,
                f"{need:.1f}" if side.method == "bahe" else ABSENT,
                f"{statistics.median(measured):,.1f}" if measured else "not run",
                f"{A100.bf16_flops * side.mfu.value / side.flops:,.1f}",
                f"{side.mfu.value:.3f}, {side.mfu.source}",
                f"{needed:.4f}" if needed <= 1 else f"{needed:.2f} (more than the peak)",
            )
        )
    headers = (
        "backbone", "text tokens", "method", "stated, samples/s per GPU", "A100, measured",
        "A100, samples/s (projected)", "MFU", "MFU that the stated rate needs",
    )  # fmt: skip
    return table(headers, lines)


def _days(sides: list[Side]) -> str:
    lines = []
    for side in sides:
        hours, memory = gpu_hours(BAHE_SAMPLES_PER_DAY * side.flops, A100, side.mfu.value), _memory(side)
        wall = hours / BAHE_GPUS
        lines.append(
            (
                *side.named,
                f"{hours:,.1f} (projected)",
                f"{wall:,.1f}" if wall <= 24 else f"{wall:,.1f} (longer than the day)",
                f"{hours * PRICES[A100.key]:,.0f}",
                f"{memory:,.1f}",
                *("yes" if memory <= DEVICES[key].memory_gib else "no" for key in ("a100-40", "a100")),
            )
        )
    headers = (
        "backbone", "text tokens", "method", "GPU-hours a day", f"hours on {BAHE_GPUS} A100s", "US $ a day",
        "memory, GiB", "within 40 GB", "within 80 GB",
    )  # fmt: skip
    return table(headers, lines)


def _memory(side: Side) -> float:
    """GiB of one GPU with BAHE_BATCH samples at a time."""
    arch, detail = architecture_of(f"random:{side.backbone}"), side.row["length"]
    cut = lower_layers(detail["layer_cut"] or 0.0, arch.layers)
    training = Training("lora", BAHE_RANK, train_embeddings=False, frozen_layers=cut)
    kept = lora_kept_bytes_per_token(arch, BAHE_RANK, arch.layers - cut)
    return memory_gib(arch, training, kept, BAHE_BATCH * (detail["behaviours"] or side.tokens))


def _encoding(sides: list[Side]) -> str:
    lines = []
    for side in sides:
        if side.method != "bahe":
            continue
        detail, price = side.row["length"], PRICES[A100.key]
        million = gpu_hours(1e6 * detail["table_flops_per_behaviour"], A100, side.table_mfu.value)
        anew = million * BAHE_SAMPLES_PER_DAY * detail["behaviours"] / 1e6
        lines.append(
            (
                side.backbone,
                f"{side.tokens:,}",
                count(detail["behaviours"]),
                f"{side.table_mfu.value:.3f}, {side.table_mfu.source}",
                f"{million:,.3f} (projected)",
                f"{million * price:,.3f}",
                f"{anew:,.1f} (projected)",
            )
        )
    headers = (
        "backbone", "text tokens", "behaviours per sample", "MFU of the encoder",
        "GPU-hours per million behaviours", "US $ per million", "GPU-hours a day, all anew",
    )  # fmt: skip
    return table(headers, lines)
