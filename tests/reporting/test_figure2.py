"""Figure 2: what is plotted, and that the same numbers give the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import matplotlib
import pytest

from repro.reporting import drawing, render_all
from repro.reporting.drawing import draw
from repro.reporting.figure2 import figure_data, state
from repro.reporting.inputs import load_inputs

FILES = ("figure2.png", "figure2.svg", "figure2.json", "figure2.md")


def data(world, own=False):
    return figure_data(load_inputs(world.results, world.runs if own else None, world.reports / "reference"))


def rendered(world):
    render_all(world.results, None, world.reports, only=["figure2"])
    return {name: (world.reports / name).read_bytes() for name in FILES}


def test_points_are_means_with_bands_around_them(world):
    sw = [world.add(0.6, seed=seed).record["metrics"]["auc"] for seed in (0, 1)]
    dti = [world.add(0.5, seed=seed, method="dti", k=50).record["metrics"]["auc"] for seed in (0, 1)]
    world.add(0.3, method="dti-minus", k=50)
    (panel,) = data(world)["panels"]
    assert panel["sw"]["auc"] == pytest.approx(sum(sw) / 2)
    assert [series["name"] for series in panel["series"]] == ["DTI-", "DTI"]
    (point,) = panel["series"][1]["points"]
    assert point["k"] == 50
    assert point["auc"] == pytest.approx(sum(dti) / 2)
    assert point["low"] < point["auc"] < point["high"]
    assert point["relative"] == pytest.approx(100 * (sum(dti) / sum(sw) - 1))
    assert point["relative_low"] < point["relative"] < point["relative_high"]


def test_a_curve_changes_nothing_but_k(world):
    world.add()
    for k in (5, 10):
        world.add(0.5, method="dti", k=k)
        world.add(0.4, method="dti", k=k, instruction="hidden")
    (panel,) = data(world)["panels"]
    assert [series["name"] for series in panel["series"]] == [
        "DTI, instruction = hidden",
        "DTI, instruction = visible",
    ]
    assert [[point["k"] for point in series["points"]] for series in panel["series"]] == [[5, 10], [5, 10]]


def test_committed_and_yours_are_panels_of_their_own(world):
    world.add()
    world.add(0.4, own=True, record={"device.name": "mine"})
    titles = [panel["title"] for panel in data(world, own=True)["panels"]]
    assert [title.rpartition(" ")[2] for title in titles] == ["(committed)", "(yours)"]


def test_failed_rows_have_no_point(world):
    world.add()
    world.add(method="dti", k=5, record={"status": "diverged"})
    assert data(world)["panels"][0]["series"] == []


def test_the_index_counts_the_points_that_are_drawn(world):
    world.add()
    world.add(0.5, method="dti", k=5)
    world.add(0.5, method="dti", k=10, instruction="hidden")
    world.add(method="dti", k=20, record={"status": "diverged"})
    world.add(0.4, own=True, method="dti-minus", k=5)
    inputs = load_inputs(world.results, world.runs, world.reports / "reference")
    panels = figure_data(inputs)["panels"]
    drawn = sum(len(curve["points"]) for panel in panels for curve in panel["series"])
    drawn += sum(panel["sw"] is not None for panel in panels)
    assert len(panels) == 2
    assert state(inputs) == f"{drawn} points in 2 panels; ml-100k"


def test_the_papers_curve_is_there_without_any_record(world):
    files = rendered(world)
    found = json.loads(files["figure2.json"])["data"]
    assert found["panels"] == []
    assert found["paper"]["ml-1m"]["dti-minus"][-1] == [50, -0.83]
    assert b"Not run" in files["figure2.md"]
    assert files["figure2.png"].startswith(b"\x89PNG")


def test_same_records_same_bytes_without_dates(world):
    world.add()
    world.add(0.5, method="dti", k=50)
    first = rendered(world)
    code = (
        "import sys; from pathlib import Path; from repro.reporting import render_all\n"
        "render_all(*map(Path, sys.argv[1:]), only=['figure2'])"
    )
    folders = (world.results, world.runs, world.reports)
    subprocess.run(
        [sys.executable, "-c", code, *folders], check=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    )
    assert first == {name: (world.reports / name).read_bytes() for name in FILES}
    assert b"<dc:date>" not in first["figure2.svg"]
    assert b"tEXt" not in first["figure2.png"]


def test_a_users_matplotlib_settings_change_nothing(world):
    world.add()
    plotted = data(world)
    expected = draw(plotted, "svg")
    drawing._drawn.cache_clear()
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "savefig.transparent": True}):
        assert draw(plotted, "svg") == expected


def test_other_numbers_give_another_image(world):
    world.add()
    plotted = data(world)
    before = draw(plotted, "png")
    plotted["panels"][0]["sw"]["auc"] += 0.01
    assert draw(plotted, "png") != before
