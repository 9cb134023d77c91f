"""Peak speed and memory of accelerators, for MFU and projections; a device that is not listed has none."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """An accelerator as its maker describes it.

    Attributes:
        key: as the command line and pages name it.
        title: as sold.
        bf16_flops: peak of dense bf16 matrix products, FLOP/s (half of the figure "with sparsity").
        memory_gib: in GiB (its GB as printed: 80 GB = 74.5 GiB).
        source: where both figures are printed.
        pattern: matches the name that the driver reports.
    """

    key: str
    title: str
    bf16_flops: float
    memory_gib: float
    source: str
    pattern: str


def _gib(gigabytes: float) -> float:
    return gigabytes * 1e9 / 2**30


_A100 = "NVIDIA A100 Tensor Core GPU data sheet (BF16 Tensor Core 312 TFLOPS, without sparsity)"
_H100 = "NVIDIA H100 Tensor Core GPU data sheet (BF16 Tensor Core, halved: printed with sparsity)"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet (BF16 Tensor Core, halved: printed with sparsity)"

# The order matters: the first pattern that matches wins. "H100 80GB HBM3" is what drivers call the SXM board.
DEVICES: dict[str, Device] = {
    device.key: device
    for device in (
        Device("a100", "A100 80 GB", 312e12, _gib(80), _A100, r"\bA100[ -](SXM4-)?80GB\b"),
        Device("a100-40", "A100 40 GB", 312e12, _gib(40), _A100, r"\bA100-(SXM4|PCIE)-40GB\b"),
        Device("h100-pcie", "H100 PCIe 80 GB", 756e12, _gib(80), _H100, r"\bH100 PCIe\b"),
        Device("h100-nvl", "H100 NVL 94 GB", 835e12, _gib(94), _H100, r"\bH100 NVL\b"),
        Device("h100", "H100 SXM 80 GB", 989e12, _gib(80), _H100, r"\bH100 (SXM|80GB HBM3)"),
        Device("h200", "H200 SXM 141 GB", 989e12, _gib(141), _H200, r"\bH200(?! NVL)\b"),
    )
}

# A slice (MIG) or a share (vGPU, e.g. "GRID A100-10C", "NVIDIA H200-141C") does not have the board's peak.
_PART_OF_A_BOARD = re.compile(r"\bMIG\b|\bGRID\b|\bvGPU\b|-\d+[ABCQ]\b", re.IGNORECASE)


def device_of(name: str) -> Device | None:
    """The device that a driver's name means, or None: an unknown one is never taken for another.

    A slice or a share of a board (MIG, vGPU) is None too: its peak is not the board's.

    Args:
        name: a key of DEVICES, or a name such as "NVIDIA H100 80GB HBM3".
    """
    if name in DEVICES:
        return DEVICES[name]
    if _PART_OF_A_BOARD.search(name):
        return None
    return next((each for each in DEVICES.values() if re.search(each.pattern, name)), None)


def mfu(flops_per_s: float, device_name: str, device_count: int = 1) -> float | None:
    """Model FLOPs utilisation: share of the devices' bf16 peak; None for a device that is not listed.

    Args:
        flops_per_s: FLOPs of the model (without recomputation) per second, on all devices together.
        device_name: as the driver reports it.
        device_count: devices that worked together.
    """
    device = device_of(device_name)
    return None if device is None else flops_per_s / (device.bf16_flops * device_count)
