"""What the real prompts allow a sweep of reports/timing.md: tokens and FLOPs of `results/flops`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from repro.records.environment import device_slug
from repro.records.measurements import Measurement
from repro.reporting.flops_rows import processed_tokens, prompt_sweeps
from repro.reporting.formatting import ABSENT
from repro.reporting.inputs import Inputs

SW, NO_FIXES = "sw", "dti-minus"  # the timed DTI has no fix: `method_of` of `costs/timing.py`
LEGEND = {
    "Tokens of these prompts": "SW's tokens per target over DTI's, with the real prompts. Users end before "
    "their last prompt is full, which the token limit leaves out.",
    "Counted FLOPs": "SW's training FLOPs per target over those of DTI without fixes, which is what is timed "
    "here; in closed form, with attention and LM head: the speed-up at equal use of the device. Both are "
    f"from [flops_vs_k](flops_vs_k.md); {ABSENT} where it has no such row.",
}


@dataclass(frozen=True)
class Bounds:
    """SW's cost of a target over DTI's: tokens, and FLOPs of training in closed form."""

    tokens: float
    flops: float

    @property
    def cells(self) -> tuple[str, str]:
        """The two columns of the page."""
        return f"{self.tokens:.2f}", f"{self.flops:.2f}"


def bounds_of(
    inputs: Inputs, file: Measurement, first: Mapping[str, Any], ks: Iterable[int]
) -> dict[int, Bounds]:
    """By k, where FLOP records have SW and DTI without fixes; 1 is the sliding window. Empty for a cut model.

    Args:
        file: a timing file. first: a row of it, whose device, model, tuning and n are looked up.
    """
    dataset, shape = _dataset(file, first["device"]), first["backbone"].removeprefix("random:")
    found: dict[int, Bounds] = {}
    if first.get("layers") is not None:  # records have the whole shape, and all of the data's prompts
        return found
    for flops in prompt_sweeps(inputs):
        if (shape, first["tuning"]) not in flops.backbones:
            continue
        sw = flops.one(SW, first["n"], 1, shape, tuning=first["tuning"])
        for k in ks:
            row = sw if k == 1 else flops.one(NO_FIXES, first["n"], k, shape, tuning=first["tuning"])
            if sw is not None and row is not None and row["dataset"] == dataset:
                key = "train_flops_per_target"
                ratio = Bounds(processed_tokens(sw) / processed_tokens(row), sw[key] / row[key])
                found.setdefault(k, ratio)
    return found


def _dataset(file: Measurement, device: str) -> str:
    """From the file's name, <tier>-<dataset>-<device>...: its rows do not say."""
    return file.path.stem.partition("-")[2].partition(f"-{device_slug(device)}")[0]
