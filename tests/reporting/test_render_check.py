"""Writing pages, and that `check` catches whatever is not what the records give."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from bahe_report_cases import config_of, full
from report_cases import NO_LLM

from repro.errors import ConfigError, StorageError
from repro.records.atomic import write_file
from repro.records.columns import read_scores, scores_bytes
from repro.reporting import check, render, render_all
from repro.reporting.pages import PAGES


@pytest.fixture(scope="module")
def template(tmp_path_factory, new_world):
    """A world with records and every page rendered, once."""
    world = new_world(tmp_path_factory.mktemp("reported"))
    world.add(0.6)
    world.add(0.5, method="dti", k=50)
    world.add_statistics()
    render_all(world.results, None, world.reports)
    return world.results.parent


@pytest.fixture
def reported(template, new_world, tmp_path):
    """A copy of it to damage."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return new_world(tmp_path)


def differences(world):
    return check(world.results, None, world.reports)


def test_fresh_pages_have_no_difference(reported):
    assert differences(reported) == []


def test_rendering_twice_gives_the_same_bytes(reported):
    def contents():
        return {path.name: path.read_bytes() for path in reported.reports.glob("*.*")}

    before = contents()
    render_all(reported.results, None, reported.reports)
    assert contents() == before
    drawn = {name.removesuffix(".json") for name in before if name.endswith(".json")}
    assert {"figure2", "flops_vs_k", "flops_vs_length"} <= drawn <= set(PAGES)
    assert set(before) == {"README.md", *(f"{name}.md" for name in PAGES)} | {
        f"{name}.{kind}" for name in drawn for kind in ("png", "svg", "json")
    }


@pytest.mark.parametrize("name", ["README.md", "table1.md", "table2.md", "figure2.md"])
def test_an_edited_page_is_caught_and_the_line_named(reported, name):
    path = reported.reports / name
    lines = path.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("| ") and i > 4)
    lines[number] = lines[number][:-2] + "9|"
    path.write_text("\n".join(lines) + "\n")
    (difference,) = differences(reported)
    assert difference.startswith(f"{name}, line {number + 1}:")


def test_an_edited_digit_is_shown_in_the_difference(reported):
    path = reported.reports / "table1.md"
    text = path.read_text()
    start = text.index("0.", text.index("| SW, k = 1"))
    path.write_text(text[:start] + "0.9999" + text[start + 6 :])
    (difference,) = differences(reported)
    assert "0.9999" in difference and text[start : start + 6] in difference


def test_an_appended_line_is_caught(reported):
    with (reported.reports / "table1.md").open("a") as page:
        page.write("one more\n")
    assert "has" in differences(reported)[0]


@pytest.mark.parametrize(
    "name",
    ["README.md", "table1.md", "table2.md", "figure2.md", "figure2.png", "figure2.svg", "figure2.json"],
)
def test_a_missing_file_is_caught(reported, name):
    (reported.reports / name).unlink()
    assert differences(reported) == [f"{name}: missing"]


@pytest.mark.parametrize("name", ["figure2.png", "figure2.svg"])
def test_an_edited_image_is_caught(reported, name):
    path = reported.reports / name
    path.write_bytes(path.read_bytes() + b" ")
    assert differences(reported) == [f"{name}: not the image that was written with figure2.json"]


def test_an_image_of_other_data_is_caught_even_with_its_own_sidecar(reported):
    """Someone commits the figure of another set of records: it is whole in itself, and wrong."""
    path = reported.reports / "figure2.json"
    sidecar = json.loads(path.read_bytes())
    sidecar["data"]["panels"][0]["sw"]["auc"] += 0.001
    path.write_text(json.dumps(sidecar))
    assert differences(reported) == ["figure2.json: the plotted numbers are not those that the records give"]


def test_an_image_of_another_matplotlib_passes(reported):
    """Its bytes differ from a fresh one's, but it was written with the numbers that the records give."""
    image, path = reported.reports / "figure2.png", reported.reports / "figure2.json"
    image.write_bytes(image.read_bytes() + b"other encoder")
    sidecar = json.loads(path.read_bytes())
    sidecar["images_sha256"]["figure2.png"] = hashlib.sha256(image.read_bytes()).hexdigest()
    sidecar["renderer"] = {"matplotlib": "3.9.0"}
    path.write_text(json.dumps(sidecar))
    assert differences(reported) == []


def test_a_damaged_sidecar_is_caught(reported):
    (reported.reports / "figure2.json").write_text("{")
    assert "damaged" in differences(reported)[0]


def test_one_edited_score_is_caught(reported):
    """A change too small to move any printed digit of a metric changes the page's checksum of scores."""
    run = next(run for run in store(reported).list() if run.record["config"]["method"] == "dti")
    target = run.targets().target
    path = run.path / "scores.parquet"
    score = read_scores(path, target).copy()
    score[0] = np.nextafter(score[0], np.float32(1))
    path.write_bytes(scores_bytes(target, score))
    (difference,) = differences(reported)
    assert difference.startswith("table1.md, line")


def test_a_score_edited_for_a_better_auc_is_caught(reported):
    run = store(reported).list()[0]
    target = run.targets()
    (run.path / "scores.parquet").write_bytes(scores_bytes(target.target, target.label.astype(np.float32)))
    (difference,) = differences(reported)
    assert "metrics.auc" in difference and "record.json" in difference


def test_an_edited_metric_is_caught(reported):
    path = store(reported).list()[0].path / "record.json"
    record = json.loads(path.read_text())
    record["metrics"]["log_loss"] -= 0.01
    path.write_text(json.dumps(record))
    assert "metrics.log_loss" in differences(reported)[0]


def test_a_new_record_makes_pages_differ(reported):
    reported.add(0.5, method="dti", k=10)
    assert {each.split(",")[0].split(":")[0] for each in differences(reported)} == {
        "table1.md",
        "figure2.json",
        "figure2.md",
        "README.md",
    }


def test_a_file_that_no_page_renders_is_caught(reported):
    (reported.reports / "table9.md").write_text("typed by hand\n")
    assert differences(reported) == ["table9.md: no page renders this"]


def test_line_ends_of_a_checkout_do_not_matter(reported):
    for name in ("table1.md", "figure2.svg"):
        path = reported.reports / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert differences(reported) == []


def test_only_the_named_page_and_the_index_are_written(world):
    written = render_all(world.results, None, world.reports, only=["table2"])
    assert [path.name for path in written] == ["table2.md", "README.md"]
    assert sorted(path.name for path in world.reports.glob("*.*")) == ["README.md", "table2.md"]


def test_an_unknown_page_is_a_config_error(world):
    with pytest.raises(ConfigError, match="table9"):
        render_all(world.results, None, world.reports, only=["table9"])


def test_the_index_lists_every_page_with_its_state(reported):
    text = (reported.reports / "README.md").read_text()
    for name in PAGES:
        assert f"[{name}]({name}.md)" in text and f"`nox -s {name}`" in text
    assert "| 2 of 13 rows; ml-100k " in text
    assert "| ml-1m (dti)" in text or "and ml-1m (dti)" in text


def test_every_page_starts_with_how_to_reproduce_it(reported):
    for name in PAGES:
        lines = (reported.reports / f"{name}.md").read_text().splitlines()
        assert lines[0].startswith("# ")
        assert lines[2] == f"Reproduce: `nox -s {name}`"
        assert "\n## Provenance\n" in "\n".join(lines)


def test_an_old_page_survives_a_full_disk(reported, monkeypatch):
    before = (reported.reports / "table1.md").read_bytes()
    reported.add(0.5, method="dti", k=10)

    def full(path, content):
        if path.name == "table1.md":
            raise StorageError(path, "No space left on device", "space", "free some")
        write_file(path, content)

    monkeypatch.setattr(render, "write_file", full)
    with pytest.raises(StorageError, match="No space left"):
        render_all(reported.results, None, reported.reports)
    assert (reported.reports / "table1.md").read_bytes() == before


def test_nothing_that_trains_is_imported():
    code = (
        "import sys, repro.reporting\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'peft', 'repro.training', 'repro.backbones'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def store(world):
    return world.committed


@pytest.mark.parametrize("name", ["table1", "baselines", "bahe"])
def test_the_largest_sections_come_first_and_groceries_last(world, name):
    config = {
        "table1": {},
        "baselines": {"method": "din", **NO_LLM},
        "bahe": config_of(full(), recipe="tuned", backbone_settings__lora_rank=64),
    }[name]
    record = {"time.train_s": 8.0}
    sizes = {"groceries gpu": 91_249, "ml-100k cpu": 3_600, "ml-100k gpu": 75_683, "ml-1m gpu": 776_007}
    for place, targets in sizes.items():
        dataset, tier = place.split()
        changes = config | {"dataset": dataset, "tier": tier}
        world.add(record=record | {"data.train_targets": targets}, **changes)
    render_all(world.results, None, world.reports, only=[name])
    lines = (world.reports / f"{name}.md").read_text().splitlines()
    titles = [line.split(", ") for line in lines if line.startswith("## ") and ", tier " in line]
    found = [f"{title[0][3:]} {title[2][5:8]}" for title in titles]
    assert found == ["ml-1m gpu", "ml-100k gpu", "ml-100k cpu", "groceries gpu"]
