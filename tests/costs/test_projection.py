"""From FLOPs to hours, price and memory; and the function that any user can call."""

from __future__ import annotations

import pytest

from repro import cli
from repro.costs.architecture import architecture_of
from repro.costs.closed_form import Training
from repro.costs.devices import DEVICES
from repro.costs.own_data import Workload, cost_table, project_cost
from repro.costs.projection import (
    DEFAULT_MFU,
    MICRO_BATCH_TOKENS,
    PRICES,
    gpu_hours,
    implied_mfu,
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
    found = measured_mfu(rows, "llama-3.1-8b", "lora", "dti", 40)
    assert found.value == 0.51 and "H100" in found.source and "k = 50" in found.source
    assert measured_mfu(rows, "llama-3.1-8b", "lora", "sw", 1).value == 0.6


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
    found = measured_mfu([row], "llama-3.1-8b", "lora", "dti", 50)
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


def test_a_bill_adds_up():
    bills = project_cost(TINY, "a100", mfu=0.25, price=2.0)
    for bill in bills.values():
        assert bill.flops == pytest.approx(bill.train_per_target * TINY.targets * TINY.epochs)
        assert bill.gpu_hours == pytest.approx(gpu_hours(bill.flops, DEVICES["a100"], 0.25))
        assert bill.price == pytest.approx(2.0 * bill.gpu_hours)
        assert bill.memory_gib * 2**30 > 2 * architecture_of(TINY.backbone).parameters + MICRO_BATCH_TOKENS
    assert bills["sw"].flops > 3 * bills["dti"].flops
    text = cost_table(TINY, "a100", 4, bills)
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
        ({"tokens": 1.0}, ConfigError, "tokens per interaction"),
        ({"epochs": 0.0}, ConfigError, "epochs"),
        ({"n": 900, "tokens": 20.0}, ConfigError, "positions"),
        ({"backbone": "random:none"}, BackboneError, "unknown shape"),
    ],
)
def test_bad_sizes_are_refused(change, error, match):
    with pytest.raises(error, match=match):
        project_cost(Workload(**{**vars(TINY), **change}), "a100")


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
