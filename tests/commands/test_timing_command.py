"""`timing`: the sweep over k and DTI's variants, measured on this processor and shown on their page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from command_cases import files_below, table_below

from repro.costs.timing import plan_for
from repro.costs.timing_variants import AS_TRAINED, OURS, SLIDING, variants
from repro.experiments.tiers import tier_named
from repro.records.environment import device_name, device_slug
from repro.records.measurements import read_measurement

pytestmark = pytest.mark.usefixtures("on_the_processor")
TIMING = ("timing", "--tier", "test", "--dataset", "synthetic")
PAGES = {"README.md", "timing.json", "timing.md", "timing.png", "timing.svg"}
MODEL = f"tiny-llama shape, full, {{}}{device_name()} (yours)"


def measured_rows(own_folders, suffix: str = "") -> tuple[Path, list[dict[str, Any]]]:
    """The one file below runs and its rows; nothing was written elsewhere than to the page."""
    path = own_folders / "runs" / "timing" / f"test-synthetic-{device_slug(device_name())}{suffix}.json"
    assert files_below(own_folders / "runs") == {f"timing/{path.name}"}
    written = files_below(own_folders / "reports")
    assert {name for name in written if not name.startswith("reference/")} == PAGES
    assert not (own_folders / "results").exists()
    return path, read_measurement(path).rows


def mean_of(rows: list[dict[str, Any]], key: str, **chosen: Any) -> float:
    return mean(row[key] for row in rows if all(row[name] == value for name, value in chosen.items()))


@pytest.mark.slow
def test_timing_measures_every_k_and_renders_the_page(command, own_folders) -> None:
    code, out, err = command(*TIMING)
    assert code == 0, err
    path, rows = measured_rows(own_folders)
    assert f"wrote {path}" in out
    plan = plan_for(tier_named("test"))
    repeats = Counter(row["k"] for row in rows)
    assert set(repeats) == set(plan.ks) and min(repeats.values()) >= plan.repeats
    for row in rows:
        assert (row["device"], row["n"]) == (device_name(), plan.n)
        assert row["method"] == ("sw" if row["k"] == 1 else "dti") and "variant" not in row
        tokens_per_step = row["tokens_per_s"] * row["step_ms"] / 1e3
        assert 0.5 * plan.length < tokens_per_step <= plan.length, "a full batch, as it was trained on"

    page = (own_folders / "reports" / "timing.md").read_text(encoding="utf-8")
    assert path.name in page.split("## Provenance")[1]
    shown = {row["k"]: row for row in table_below(page, MODEL.format(f"n = {plan.n}, "))}
    assert list(shown) == ["1 (SW)" if k == 1 else str(k) for k in plan.ks]
    for k, row in zip(plan.ks, shown.values(), strict=True):
        targets = mean_of(rows, "targets_per_s", k=k)
        assert row["targets/s"] == f"{targets:,.0f}"
        assert row["tokens/s"] == f"{mean_of(rows, 'tokens_per_s', k=k):,.0f}"
        assert row["step, ms"] == f"{mean_of(rows, 'step_ms', k=k):,.1f}"
        assert row["speed-up"] == f"{targets / mean_of(rows, 'targets_per_s', k=1):.2f}"


@pytest.mark.slow
def test_timing_variants_have_a_file_and_a_table_of_their_own(command, own_folders) -> None:
    code, out, err = command(*TIMING, "--variants")
    assert code == 0, err
    path, rows = measured_rows(own_folders, "-variants")
    assert f"wrote {path}" in out
    plan = plan_for(tier_named("test"))
    titles = list(dict.fromkeys(row["variant"] for row in rows))
    expected = [*variants(plan.n, max(plan.ks), window_tokens=1), SLIDING, AS_TRAINED]
    assert [re.sub(r"\d+ tokens", "1 tokens", title) for title in titles] == expected
    assert {title: f"{title}: " in out for title in titles} == dict.fromkeys(titles, True)

    page = (own_folders / "reports" / "timing.md").read_text(encoding="utf-8")
    assert "Not run." in page, "variants are no rows of the sweep"
    shown = {row["variant"]: row for row in table_below(page, f"Variants of DTI, {MODEL.format('')}")}
    assert list(shown) == titles
    ours = mean_of(rows, "targets_per_s", variant=OURS)
    for title, row in shown.items():
        targets = mean_of(rows, "targets_per_s", variant=title)
        assert row["targets/s"] == f"{targets:,.0f}"
        assert row["extra time"] == ("—" if title == OURS else f"{ours / targets - 1:+.1%}")


def test_variants_and_fp8_are_measured_one_by_one(command, own_folders) -> None:
    code, _, err = command("timing", "--tier", "test", "--variants", "--fp8", "tensorwise")
    assert code == 2 and "one of the two" in err
    assert not (own_folders / "runs").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--fp8", "tensorwise"), "LoRA leaves frozen"),
        (("--fp8", "int4"), "tensorwise, rowwise"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_a_file_is_begun(command, own_folders, asked, said) -> None:
    code, out, err = command(*TIMING, *asked)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and said in err and "to fix: " in err
    assert not (own_folders / "runs").exists()
    assert {name.split("/")[0] for name in files_below(own_folders / "reports")} == {"reference"}
