"""The index's table of losses: the comparisons of BAHE's page, and what is clearly above the floor."""

from __future__ import annotations

from bahe_report_cases import config_of, full, inputs_of
from report_cases import NO_LLM, UNTRAINED, table_rows

from repro.methods.bahe.settings import dti_bahe, llm_ctr
from repro.reporting.bahe_quality_rows import groups, pairs
from repro.reporting.headline_groups import main_groups
from repro.reporting.headline_losses import losses_table

OURS = {"recipe": "tuned", "backbone_settings__lora_rank": 64}
OTHER = {"device.name": "Another device"}


def add(world, method, signal: float, seeds: int = 3, record=None, **changes) -> None:
    record = {"time.train_s": 8.0, "time.table_build_s": 2.0} | (record or {})
    for seed in range(seeds):
        world.add(signal, seed=seed, record=record, **config_of(method, **OURS), **changes)


def add_sw_and_dti(world, dti: float = 0.9, record=None) -> None:
    for seed in range(3):
        world.add(0.9, seed=seed, recipe="tuned", record=record)
        world.add(dti, seed=seed, method="dti", k=50, recipe="tuned", record=record)


def lines_of(world) -> list[dict[str, str]]:
    return table_rows(losses_table(main_groups(inputs_of(world))).partition("**")[0])


def test_each_method_is_compared_with_what_it_takes_the_place_of(world) -> None:
    add_sw_and_dti(world, 0.2)
    add(world, llm_ctr(10), 0.9)
    add(world, full(), 0.9)
    add(world, dti_bahe(10, 50), 0.1)
    (line,) = lines_of(world)
    assert [line[name] for name in ("data set", "device", "epochs at most")] == [
        "ml-100k", "Test CPU, 2 cores", "1",
    ]  # fmt: skip
    assert line["DTI − SW"].startswith("-0.") and line["DTI − SW"].endswith(", lower")
    assert line["BAHE − LLM-CTR"] == "+0.0000, not told apart"
    assert line["DTI over BAHE − BAHE"].startswith("-0.")


def test_numbers_and_verdicts_are_those_of_bahe_s_page(world) -> None:
    add_sw_and_dti(world, 0.2)
    add(world, full(), 0.6)
    (group,) = groups(inputs_of(world))
    (pair,) = [each for each in pairs(group.rows["committed"]) if each.first.slot[0] == "sw"]
    (line,) = lines_of(world)
    assert line["DTI − SW"] == f"{-pair.difference.mean:+.4f}, lower" and pair.difference.mean > 0
    assert line["BAHE − LLM-CTR"] == "—"


def test_single_runs_are_no_verdict_on_methods(world) -> None:
    add(world, llm_ctr(10), 0.9, seeds=1)
    add(world, full(), 0.1)
    assert lines_of(world)[0]["BAHE − LLM-CTR"].endswith(", lower in these runs")


def test_rows_that_train_longer_have_a_line_and_name_a_shorter_partner(world) -> None:
    add(world, llm_ctr(10), 0.9)
    add(world, full(), 0.1)
    add(world, full(), 0.9, training__max_epochs=10)
    one, ten = lines_of(world)
    assert (one["epochs at most"], ten["epochs at most"]) == ("1", "10")
    assert one["BAHE − LLM-CTR"].endswith(", lower")
    assert ten["BAHE − LLM-CTR"] == "+0.0000, not told apart (LLM-CTR: 1 epoch)"


def test_devices_are_lines_and_a_partner_of_another_device_is_named(world) -> None:
    add_sw_and_dti(world, record=OTHER)
    add(world, llm_ctr(10), 0.9)
    add(world, full(), 0.9)
    for seed in range(3):
        world.add(0.9, seed=seed, method="dti", k=50, recipe="tuned")
    (line,) = lines_of(world)
    assert line["DTI − SW"] == "+0.0000, not told apart (SW: on Another device)"
    add(world, full(), 0.9, record=OTHER)
    assert [each["device"] for each in lines_of(world)] == ["Another device", "Test CPU, 2 cores"]


def test_whichever_row_is_of_another_device_is_named(world) -> None:
    for seed in range(3):
        world.add(0.9, seed=seed, recipe="tuned")
        world.add(0.9, seed=seed, method="dti", k=50, recipe="tuned", record=OTHER)
    add(world, full(), 0.9)
    (line,) = lines_of(world)
    assert line["DTI − SW"] == "+0.0000, not told apart (DTI: on Another device)"


def test_two_rows_of_another_device_are_no_comparison_of_this_one(world) -> None:
    add_sw_and_dti(world, record=OTHER)
    add(world, llm_ctr(10), 0.9)
    add(world, full(), 0.9)
    (line,) = lines_of(world)
    assert (line["device"], line["DTI − SW"]) == ("Test CPU, 2 cores", "—")


def test_what_is_clearly_above_the_floor_is_named(world) -> None:
    def said() -> str:
        return losses_table(main_groups(inputs_of(world))).partition("**Clearly above the floor**")[2]

    add(world, full(), 0.1)
    assert said() == "", "without a floor"
    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    assert ": ml-100k: no row. " in said()
    for seed in range(3):
        world.add(0.9, seed=seed, method="din", **NO_LLM)
    assert ": ml-100k: DIN. No other row is called good" in said()
