"""Records of the same rows from a second device: what is said of the first stays as it is."""

from __future__ import annotations

import json

from bahe_report_cases import TUNED, config_of, full
from report_cases import NO_LLM, UNTRAINED, table, table_rows

from repro.reporting import render_all
from repro.reporting.baselines import state
from repro.reporting.figure2 import figure_data
from repro.reporting.headline_groups import main_groups
from repro.reporting.headline_scores import headline_scores
from repro.reporting.inputs import load_inputs

OTHER = {"device.name": "Another device"}


def page(world, name):
    render_all(world.results, None, world.reports, only=[name])
    return (world.reports / f"{name}.md").read_text()


def add_rows(world, record=None):
    for seed in range(3):
        world.add(0.6, seed=seed, record=record)
        world.add(0.55, seed=seed, method="dti", k=50, record=record)
        world.add(0.45, seed=seed, method="dti", k=10, record=record)


def without_device(rows):
    return [{name: cell for name, cell in row.items() if name != "row"} for row in rows.values()]


def test_holm_s_adjustment_to_sw_is_over_one_device(world):
    add_rows(world)
    before = table(page(world, "table1"), "Differences to SW")
    add_rows(world, OTHER)
    after = table(page(world, "table1"), "Differences to SW")
    for device in ("Test CPU, 2 cores", "Another device"):
        of_device = {label: row for label, row in after.items() if label.endswith(f"on {device}")}
        assert without_device(of_device) == without_device(before)


def test_the_floor_is_met_on_each_device_apart(world):
    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    add_rows(world)
    before = table(page(world, "table1"), "Above the floor")
    assert "**Test CPU, 2 cores:**" not in page(world, "table1")
    add_rows(world, OTHER)
    parts = page(world, "table1").split("### Above the floor\n")[1].split("\n#")[0].split(":**\n")
    assert len(parts) == 3 and parts[0].strip() == "**Another device"
    for part in parts[1:]:
        assert without_device(table(f"### x\n{part}", "x")) == without_device(before)


def test_the_floor_is_met_on_each_device_apart_by_baselines_too(world):
    def add(record):
        for seed in range(3):
            world.add(0.5, seed=seed, method="din", n=30, **NO_LLM, record=record)
            world.add(0.4, seed=seed, method="sim", n=30, **NO_LLM, record=record)

    def above(text):
        return [
            line.split("|")[2:]
            for part in text.split("Strongest of the floor")[1:]
            for line in part.split("<details>")[0].splitlines()
            if line.startswith(("| DIN", "| SIM"))
        ]

    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    add(None)
    before = above(page(world, "baselines"))
    add(OTHER)
    after = above(page(world, "baselines"))
    assert len(before) == 2 and after == before * 2


def test_the_floor_is_a_row_of_baselines_once(world):
    """Its runs stay listed; where the numbers differ, each device's are a row."""

    def shown():
        section = page(world, "baselines").split("\n## ml-100k")[1].split("\nStrongest")[0]
        return {row["row"]: row["device"] for row in table_rows(section)}

    def rows_in_index():
        return state(load_inputs(world.results, None, world.reports / "reference")).partition(";")[0]

    rates = {"method": "rates", "n": None, **NO_LLM, "training": None}
    for device in ({}, OTHER):
        world.add(0.1, **rates, record=UNTRAINED | device)
        world.add(0.5, method="din", n=30, **NO_LLM, record=device)
    assert shown() == {
        "Like rates": "Another device and Test CPU, 2 cores",
        "DIN, n = 30, on Another device": "Another device",
        "DIN, n = 30, on Test CPU, 2 cores": "Test CPU, 2 cores",
    }
    assert page(world, "baselines").count("| `rates-seed0-") == 2 and rows_in_index() == "3 rows"
    world.add(0.5, **rates, record=UNTRAINED | {"device.name": "Third device"})
    assert list(shown())[:2] == ["Like rates, on Another device", "Like rates, on Third device"]
    assert rows_in_index() == "4 rows"


def test_a_row_of_another_device_is_judged_with_its_own(world):
    """Alone beside this device's rows it would be adjusted over fewer rows than where it was made."""

    def judged(section):
        return [
            row["row"] for row in table_rows(section.split("**Above the floor:**")[1].split("<details>")[0])
        ]

    world.add(0.1, method="rates", n=None, **NO_LLM, training=None, record=UNTRAINED)
    for seed in range(3):
        world.add(0.9, seed=seed, method="din", **NO_LLM)
        world.add(0.9, seed=seed, record=OTHER)
        for device in ({}, OTHER):
            world.add(0.9, seed=seed, record=device, **config_of(full(), **TUNED))
    other, own = (part.split("\n## ")[0] for part in page(world, "bahe").split("\n## ml-100k")[1:])
    assert judged(own) == ["DIN", "BAHE"] and judged(other) == ["SW", "BAHE"]
    left_out = "Not compared with the floor here, as made on another device: "
    assert f"{left_out}DIN, on Test CPU, 2 cores. See" in other
    assert f"{left_out}SW, on Another device. See" in own
    found = main_groups(load_inputs(world.results, None, world.reports / "reference"))
    lines = table_rows(headline_scores(found))
    verdicts = {(row["row"], row["device"]): row["clearly above the floor"] for row in lines}
    assert (
        verdicts["DIN", "Test CPU, 2 cores"] == "yes" and list(verdicts).count(("DIN", "Another device")) == 0
    )
    assert verdicts["SW", "Another device"] == "yes" and ("SW", "Test CPU, 2 cores") not in verdicts


def test_with_which_sw_a_row_is_compared_is_said(world):
    def said():
        section = page(world, "table1").split("### Differences to SW\n\n")[1]
        return section.split("|")[0].strip()

    add_rows(world)
    assert said() == ""
    world.add(0.5, method="dti", k=20, record=OTHER)
    assert said() == "Compared with an SW of another device: DTI, k = 20."
    add_rows(world, OTHER)
    assert said() == "SW has records of several devices: each row is compared with the one of its own device."
    world.add(0.6, compiled=True)
    assert said().startswith("SW has records in several settings and of several devices: ")


def test_each_device_is_a_panel_of_its_own_that_names_it(world):
    add_rows(world)
    inputs = load_inputs(world.results, None, world.reports / "reference")
    (alone,) = figure_data(inputs)["panels"]
    assert "Test CPU" not in alone["title"] and alone["sw"]["name"] == "SW"
    add_rows(world, OTHER)
    inputs = load_inputs(world.results, None, world.reports / "reference")
    panels = figure_data(inputs)["panels"]
    assert [panel["title"] for panel in panels] == [
        f"{alone['title']}, {device}" for device in ("Another device", "Test CPU, 2 cores")
    ]
    for panel in panels:
        assert panel | {"title": alone["title"]} == alone
    page(world, "figure2")
    assert json.loads((world.reports / "figure2.json").read_text())["data"]["panels"][0]["series"]


def test_an_sw_from_another_device_is_named(world):
    world.add(0.6)
    world.add(0.5, method="dti", k=50, record=OTHER)
    inputs = load_inputs(world.results, None, world.reports / "reference")
    other, first = figure_data(inputs)["panels"]
    assert other["sw"]["name"] == "SW, on Test CPU, 2 cores" and "relative" in other["series"][0]["points"][0]
    assert first["sw"]["name"] == "SW" and first["series"] == []
    assert "| SW, on Test CPU, 2 cores | 1 " in page(world, "figure2")


def test_a_row_names_its_device_also_where_settings_tell_it_apart(world):
    world.add(backbone_sha256="a" * 64)
    world.add(backbone_sha256="b" * 64, record=OTHER)
    rows = [name for name in table(page(world, "table1"), "Scores") if name.startswith("SW")]
    assert rows == [
        f"SW, k = 1, backbone_sha256 = {'a' * 10}, on Test CPU, 2 cores",
        f"SW, k = 1, backbone_sha256 = {'b' * 10}, on Another device",
    ]


def test_two_checksums_of_a_backbone_are_explained(world):
    add_rows(world)
    assert "backbones](../docs/backbones.md)" not in page(world, "table1")
    world.add(0.6, backbone_sha256="1" * 64)
    assert "what two values in committed records mean: [backbones](../docs/backbones.md)" in page(
        world, "table1"
    )
