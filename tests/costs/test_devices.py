"""Peaks of known devices, and that an unknown one never gets somebody else's."""

from __future__ import annotations

import pytest

from repro.costs.devices import DEVICES, device_of, mfu
from repro.costs.projection import PRICES, device_named, gpu_hours
from repro.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("A100-SXM4-40GB", "a100-40"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 SXM5 80GB", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("h100", "h100"),
    ],
)
def test_names_of_drivers(name, key):
    assert device_of(name) is DEVICES[key]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "NVIDIA A10",
            "NVIDIA A1000",
            "Tesla T4",
            "NVIDIA H100",
            "NVIDIA H200 NVL",
            "AMD EPYC, 2 cores",
            "",
        ),
        *("NVIDIA A100-SXM-64GB", "NVIDIA GH200 480GB", "NVIDIA H100 80GB HBM2e"),
        *("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-SXM4-80GB MIG 7g.80gb"),
        *("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H200 MIG 3g.71gb"),
        *("GRID A100-40C", "GRID A100-3-20C", "NVIDIA H200-141C", "GRID A100 80GB PCIe", "NVIDIA vGPU H200"),
    ],
)
def test_an_unknown_device_has_no_mfu(name):
    assert device_of(name) is None
    assert mfu(1e15, name) is None
    with pytest.raises(ConfigError, match="device"):
        device_named(name)


def test_versions_of_a_board_differ_in_memory_alone():
    large, small = DEVICES["a100"], DEVICES["a100-40"]
    assert large.bf16_flops == small.bf16_flops and large.memory_gib == 2 * small.memory_gib


def test_mfu_is_a_share_of_all_devices_together():
    assert mfu(312e12, "NVIDIA A100-SXM4-80GB") == 1.0
    assert mfu(312e12, "NVIDIA A100-SXM4-80GB", device_count=4) == 0.25


def test_hours_by_hand():
    assert gpu_hours(312e12 * 3600, DEVICES["a100"], 0.5) == pytest.approx(2.0)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_bad_mfu_is_refused(share):
    with pytest.raises(ConfigError, match="MFU"):
        gpu_hours(1.0, DEVICES["a100"], share)


def test_every_device_has_a_price_and_a_source():
    assert set(PRICES) == set(DEVICES)
    assert all("data sheet" in device.source for device in DEVICES.values())
