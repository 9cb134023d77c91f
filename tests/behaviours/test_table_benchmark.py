"""The table's benchmark and its commands, small."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from repro.backbones.spec import BackboneSpec
from repro.behaviours import table_benchmark
from repro.behaviours.table import keeps_tables
from repro.cli import app
from repro.errors import ConfigError, TableError
from repro.paths import PROJECT_ROOT, cache_dir
from repro.records.measurements import read_measurement, write_measurement

TINY = BackboneSpec("random:tiny-llama")
needs_lance = pytest.mark.skipif(not keeps_tables(), reason="pylance is not installed")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A benchmark of seconds, and a cache and runs of its own."""
    monkeypatch.setattr(table_benchmark, "DATASET", "synthetic")
    monkeypatch.setattr(table_benchmark, "ENCODED_ON_CPU", 64)
    monkeypatch.setattr(table_benchmark, "BackboneSpec", lambda: TINY)
    for name in ("cache", "runs", "reports"):
        monkeypatch.setenv(f"REPRO_{name.upper()}_DIR", str(tmp_path / name))
    shutil.copytree(PROJECT_ROOT / "reports" / "reference", tmp_path / "reports" / "reference")


@needs_lance
def test_rows_say_what_was_measured(small, tmp_path) -> None:
    path = table_benchmark.run_benchmark(tmp_path, sizes=(5000, 20_000), repeats=1, show=lambda line: None)
    assert path.parent == tmp_path / "behaviour_table"
    rows = read_measurement(path).rows
    storage = [row for row in rows if row["measured"] == "storage"]
    assert [(row["storage"], row["behaviours"]) for row in storage] == [
        *(("memory", 5000), ("lance", 5000)),
        *(("memory", 20_000), ("lance", 20_000)),
    ]
    for row in storage:
        vectors = row["behaviours"] * row["width"] * 4
        assert row["behaviours_per_s"] == pytest.approx(row["behaviours"] / row["build_s"])
        assert row["index_bytes"] > row["text_bytes"] > 0
        assert vectors <= row["table_bytes"] <= 1.1 * vectors + 2 * row["text_bytes"]
        assert row["export_bytes"] == (vectors if row["storage"] == "lance" else None)
    encoder = [row for row in rows if row["measured"] == "encoder"]
    assert [(row["precision"], row["behaviours"]) for row in encoder] == [("fp32", 64), ("bf16", 64)]
    assert all(row["backbone"] == TINY.title and row["num_layers"] == 2 for row in encoder)
    assert list(cache_dir().glob("tmp*")) == [], "nothing is left"


def test_without_pylance_the_rest_is_measured(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(table_benchmark, "keeps_tables", lambda: False)
    said: list[str] = []
    path = table_benchmark.run_benchmark(tmp_path, sizes=(5000,), repeats=1, show=said.append)
    measured = read_measurement(path)
    assert [row["storage"] for row in measured.rows] == ["memory", None, None]
    assert "pylance is not installed" in said[0] and "pylance" not in measured.environment
    stored = measured.rows[0] | {"storage": "lance"}
    write_measurement(tmp_path, "behaviour_table", path.stem, measured.environment, [stored, *measured.rows])
    before = path.read_bytes()
    with pytest.raises(TableError, match="rows of storage on disk"):
        table_benchmark.run_benchmark(tmp_path, sizes=(5000,), repeats=1, show=said.append)
    assert path.read_bytes() == before


def test_tables_smaller_than_a_lookup_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="sizes: 100"):
        table_benchmark.run_benchmark(tmp_path, sizes=(100, 5000))


def test_the_help_names_the_smallest_size() -> None:
    shown = CliRunner().invoke(app, ["bench-table", "--help"], env={"COLUMNS": "200"}).output
    assert f"each {table_benchmark.ASKED:,} or more" in shown


@needs_lance
@pytest.mark.parametrize(
    ("option", "value"),
    [*(("--layer-cut", value) for value in ("1.5", "0", "nan", "0.01")), ("--pooling", "max")],
)
def test_a_refused_option_of_build_table_is_named(small, option, value) -> None:
    error = CliRunner().invoke(app, ["build-table", "--tier", "test", option, value]).exception
    assert isinstance(error, ConfigError)
    assert error.where == option and value in error.found and error.fix == f"pass another {option}"


@needs_lance
def test_bench_table_command(small, tmp_path) -> None:
    done = CliRunner().invoke(app, ["bench-table", "--sizes", "5000", "--repeats", "1"])
    assert done.exit_code == 0, done.output
    assert "lance, 5,000 behaviours" in done.output and f"wrote {tmp_path / 'runs'}" in done.output
    assert "5,000" in (tmp_path / "reports" / "bahe_open.md").read_text()
    refused = CliRunner().invoke(app, ["bench-table", "--sizes", "many"])
    assert isinstance(refused.exception, ConfigError)


@needs_lance
def test_build_table_command_builds_what_training_reads(small, monkeypatch) -> None:
    arguments = ["build-table", "--tier", "test", "--dataset", "synthetic"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = sorted(path.name for path in (cache_dir() / "behaviours").iterdir())
    assert [name.partition(".")[2] for name in written] == ["lance"]

    from repro.behaviours.encoding import BehaviourEncoder

    monkeypatch.setattr(BehaviourEncoder, "encode", lambda *_: pytest.fail("everything is there already"))
    assert CliRunner().invoke(app, arguments).output == done.output
    from repro.experiments.bahe import bahe_runs
    from repro.experiments.tiers import tier_named
    from repro.pipeline import Workshop

    tier, workshop = tier_named("test"), Workshop()
    (run,) = bahe_runs(tier, "synthetic", "per-user", "bahe", 1)
    task = workshop.task(run, workshop.load(run.tier, run.dataset, run.protocol))
    assert task.behaviours_encoded is not None, "its table was read, and nothing encoded"
