"""From FLOPs to hours, price and memory; and the function that any user can call."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from repro import cli
from repro.backbones.shapes import SHAPES
from repro.costs.architecture import architecture_of
from repro.costs.closed_form import Training
from repro.costs.counted_models import kept_bytes
from repro.costs.devices import DEVICES
from repro.costs.own_data import Workload, cost_table, project_cost
from repro.costs.projection import (
    DEFAULT_MFU,
    MICRO_BATCH_TOKENS,
    PRICES,
    carried_mfu,
    checkpointed_bytes_per_token,
    gpu_hours,
    implied_mfu,
    lora_kept_bytes_per_token,
    measured_mfu,
    memory_gib,
)
from repro.errors import BackboneError, ConfigError

TINY = Workload(1000, 10.0, "random:tiny-llama", Training("lora"), n=4, k=8, epochs=2.0)


def timing(
    mfu, method="dti", k=50, backbone="random:llama-3.1-8b", tuning="lora", device="NVIDIA H100 80GB HBM3"
):
    return {"mfu": mfu, "method": method, "k": k, "backbone": backbone, "tuning": tuning, "device": device}


def test_mfu_is_the_median_of_the_nearest_measurement():
    rows = [timing(0.5), timing(0.52), timing(0.51), timing(0.3, k=1), timing(0.6, "sw", 1), timing(None)]
    found = measured_mfu(rows, DEVICES["h100"], "llama-3.1-8b", "lora", "dti", 40)
    assert found.value == 0.51 and "H100" in found.source and "k = 50" in found.source
    assert measured_mfu(rows, DEVICES["h100"], "llama-3.1-8b", "lora", "sw", 1).value == 0.6


def test_mfu_is_the_target_devices_own():
    a100 = timing(0.3, device="NVIDIA A100-SXM4-80GB")
    rows = [a100, timing(0.5), timing(0.9, device="NVIDIA A100-SXM4-80GB MIG 1g.10gb")]
    values = {
        key: measured_mfu(rows, DEVICES[key], "llama-3.1-8b", "lora", "dti", 50)
        for key in ("a100", "h100", "a100-40", "h200")
    }
    assert {key: mfu.value for key, mfu in values.items()} == {
        "a100": 0.3, "h100": 0.5, "a100-40": DEFAULT_MFU, "h200": DEFAULT_MFU,
    }  # fmt: skip
    assert "assumed" in values["h200"].source and "A100" in values["a100"].source


def test_an_mfu_is_carried_over_where_the_device_has_none():
    h100, a100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
    others = [(h100, 0.1), (h100, 0.3), (h100, 0.2)]
    carried = carried_mfu(others, DEVICES["a100"])
    assert carried.value == 0.2 and carried.source == f"measured on {h100}, assumed for the A100 80 GB"
    own = carried_mfu([*others, (a100, 0.7)], DEVICES["a100"])
    assert own.value == 0.7 and own.source == f"measured on {a100}"
    assert carried_mfu([], DEVICES["a100"]).value == DEFAULT_MFU


def test_a_carried_mfu_is_of_one_device_whatever_others_measured():
    h100, h200, pcie = "NVIDIA H100 80GB HBM3", "NVIDIA H200", "NVIDIA H100 PCIe"
    measured = [(h100, 0.1), (h100, 0.3)]
    before = carried_mfu(measured, DEVICES["a100"])
    for order in (1, -1):
        both = [*measured, (h200, 0.6), (h200, 0.7), (h200, 0.8)][::order]
        assert carried_mfu(both, DEVICES["a100"]) == before, "of equal peaks, the first by name"
    a100_40 = "NVIDIA A100-SXM4-40GB"
    nearer = carried_mfu([*measured, (pcie, 0.4), (a100_40, 0.9)], DEVICES["a100"])
    assert nearer.source == f"measured on {a100_40}, assumed for the A100 80 GB"
    assert carried_mfu([*measured, (pcie, 0.4)], DEVICES["a100"]).value == 0.4, "the nearest peak"
    assert carried_mfu([(h200, 0.6), (pcie, 0.4)], DEVICES["h100"]).value == 0.6


def test_a_bill_takes_the_mfu_of_its_device():
    own = {"backbone": "random:tiny-llama"}
    rows = [timing(0.3, **own, device="NVIDIA A100-SXM4-80GB"), timing(0.5, **own)]
    found = {key: project_cost(TINY, key, timing=rows)["dti"].mfu.value for key in ("a100", "h100", "h200")}
    assert found == {"a100": 0.3, "h100": 0.5, "h200": DEFAULT_MFU}


@pytest.mark.parametrize(
    "row",
    [
        timing(None),
        timing("out_of_memory"),
        timing(0.5, backbone="smollm2-135m"),
        timing(0.5, tuning="full"),
    ],
)
def test_mfu_of_something_else_is_not_taken(row):
    found = measured_mfu([row], DEVICES["h100"], "llama-3.1-8b", "lora", "dti", 50)
    assert found.value == DEFAULT_MFU and "assumed" in found.source


def test_implied_mfu_undoes_the_hours():
    hours = gpu_hours(1e18, DEVICES["a100"], 0.37)
    assert implied_mfu(1e18, hours, DEVICES["a100"]) == pytest.approx(0.37)
    with pytest.raises(ConfigError, match="hours"):
        implied_mfu(1e18, 0.0, DEVICES["a100"])


def test_memory_by_hand():
    arch = architecture_of("random:tiny-llama")
    trained = arch.layers * arch.lora_parameters(16)
    lora = memory_gib(arch, Training("lora", 16), 10.0, 100) * 2**30
    assert lora == pytest.approx(2 * arch.parameters + 16 * trained + 1000)
    assert memory_gib(arch, Training(), 0.0, 100) * 2**30 == pytest.approx(16 * arch.parameters)
    fixed = memory_gib(arch, Training(train_embeddings=False), 0.0, 100) * 2**30
    table = arch.vocab * arch.hidden
    assert fixed == pytest.approx(16 * (arch.parameters - table) + 2 * table)


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-qwen", "smollm2-135m"])
def test_what_autograd_keeps_in_closed_form_is_what_is_counted(shape):
    arch, training, tokens = architecture_of(f"random:{shape}"), Training("lora", 8, False), 1000
    counted = kept_bytes(SHAPES[shape], training, tokens, torch.bfloat16)
    rotary, pooled = 2 * 2 * arch.head_dim * tokens, 2 * arch.hidden + 8  # bf16 cosines and sines; the head's
    assert counted == tokens * lora_kept_bytes_per_token(arch, 8, arch.layers) + rotary + pooled
    inputs = kept_bytes(SHAPES[shape], replace(training, checkpointing=True), tokens, torch.bfloat16)
    of_one_layer = lora_kept_bytes_per_token(arch, 8, 1)
    every = lora_kept_bytes_per_token(arch, 8, arch.layers)
    checkpointed = checkpointed_bytes_per_token(arch, every, 2)
    assert inputs - rotary - pooled == tokens * (checkpointed - of_one_layer)


def test_a_bill_adds_up():
    bills = project_cost(TINY, "a100", mfu=0.25, price=2.0)
    for bill in bills.values():
        assert bill.flops == pytest.approx(bill.train_per_target * TINY.targets * TINY.epochs)
        assert bill.gpu_hours == pytest.approx(gpu_hours(bill.flops, DEVICES["a100"], 0.25))
        assert bill.price == pytest.approx(2.0 * bill.gpu_hours)
        assert bill.memory_gib * 2**30 > 2 * architecture_of(TINY.backbone).parameters + MICRO_BATCH_TOKENS
    assert bills["sw"].flops > 3 * bills["dti"].flops
    text = cost_table(TINY, "a100", 4, bills)
    assert "bfloat16 activations" in text
    assert "Projected, not measured" in text and f"{bills['sw'].train_per_target:.3e}" in text


def test_the_assumed_price_and_mfu_are_said():
    bill = project_cost(TINY, "NVIDIA H100 80GB HBM3")["dti"]
    assert bill.price == pytest.approx(PRICES["h100"] * bill.gpu_hours)
    assert "assumed" in cost_table(TINY, "h100", 1, {"sw": bill, "dti": bill})


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"n": 0}, ConfigError, "at least 1"),
        ({"k": 0}, ConfigError, "at least 1"),
        ({"targets": 0}, ConfigError, "targets"),
        *(({"tokens": x}, ConfigError, "tokens per interaction") for x in (1.0, math.nan, math.inf)),
        ({"epochs": math.nan}, ConfigError, "epochs"),
        ({"training": Training("lora", frozen_layers=1)}, ConfigError, "frozen_layers=1"),
        ({"training": Training("lora", checkpointing=True)}, ConfigError, "checkpointing=True"),
        ({"epochs": 0.0}, ConfigError, "epochs"),
        ({"n": 900, "tokens": 20.0}, ConfigError, "positions"),
        ({"backbone": "random:none"}, BackboneError, "unknown shape"),
    ],
)
def test_bad_sizes_are_refused(change, error, match):
    with pytest.raises(error, match=match):
        project_cost(Workload(**{**vars(TINY), **change}), "a100")


def test_a_fraction_of_a_token_counts():
    flops = [project_cost(replace(TINY, tokens=x), "a100")["dti"].flops for x in (10.0, 10.5, 11.0)]
    assert flops[0] < flops[1] < flops[2]
    assert flops[1] == pytest.approx((flops[0] + flops[2]) / 2, rel=1e-3)


def test_an_unknown_device_and_no_gpu_are_refused():
    with pytest.raises(ConfigError, match="device"):
        project_cost(TINY, "NVIDIA RTX 9090")
    with pytest.raises(ConfigError, match="gpus"):
        cost_table(TINY, "a100", 0, project_cost(TINY, "a100"))


def test_the_command_prints_both_methods(monkeypatch, capsys):
    arguments = "cost --targets 1000 --tokens 10 --backbone random:tiny-llama --n 4 --k 8 --device a100"
    monkeypatch.setattr("sys.argv", ["repro", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "sliding window" in (text := capsys.readouterr().out) and "DTI, k = 8" in text
