"""The table's benchmark and its commands, small."""

from __future__ import annotations

import os
import shutil

import pytest
from typer.testing import CliRunner

from repro.backbones.spec import BackboneSpec
from repro.behaviours import table_benchmark
from repro.behaviours.table import keeps_tables
from repro.cli import app
from repro.costs import filling_benchmark
from repro.errors import ConfigError, TableError
from repro.paths import PROJECT_ROOT, cache_dir
from repro.records.measurements import read_measurement, write_measurement

TINY = BackboneSpec("random:tiny-llama")
needs_lance = pytest.mark.skipif(not keeps_tables(), reason="pylance is not installed")


FILLING = table_benchmark.row_of(
    "filling",
    {
        "device": "Test CPU, 2 cores", "threads": 1, "repeat": 0, "processes": 2, "behaviours": 30,
        "build_s": 3.0, "behaviours_per_s": 10.0, "width": 48, "storage": "lance", "backbone": "tiny",
        "num_layers": 2, "precision": "fp32", "tokens": 300,
    },
)  # fmt: skip


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A benchmark of seconds, and a cache and runs of its own."""
    monkeypatch.setattr(filling_benchmark, "filling_rows", lambda tier, repeats: iter([FILLING] * repeats))
    monkeypatch.setattr(table_benchmark, "DATASET", "synthetic")
    monkeypatch.setattr(table_benchmark, "ENCODED_ON_CPU", 64)
    monkeypatch.setattr(table_benchmark, "BackboneSpec", lambda: TINY)
    for name in ("cache", "runs", "reports"):
        monkeypatch.setenv(f"REPRO_{name.upper()}_DIR", str(tmp_path / name))
    shutil.copytree(PROJECT_ROOT / "reports" / "reference", tmp_path / "reports" / "reference")


@needs_lance
def test_rows_say_what_was_measured(small, tmp_path) -> None:
    said: list[str] = []
    path = table_benchmark.run_benchmark(tmp_path, (5000, 20_000), 1, show=said.append, more=iter([FILLING]))
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
    texts = [row for row in rows if row["measured"] == "texts"]
    assert [row["behaviours"] for row in texts] == [5001, 20_001], "three of each item"
    for row in texts:
        assert row["behaviours_per_s"] == pytest.approx(row["behaviours"] / row["build_s"])
        assert row["threads"] == 1 and row["backbone"] == TINY.title and row["width"] is None
        assert row["tokens"] > row["text_bytes"] / 2, "the tiny tokenizer reads bytes"
    assert rows[-1] == FILLING and said[-1] == "filling by 2 processes, 30 behaviours: 10 per s"
    encoder = [row for row in rows if row["measured"] == "encoder"]
    assert [(row["precision"], row["behaviours"]) for row in encoder] == [("fp32", 64), ("bf16", 64)]
    assert all(row["backbone"] == TINY.title and row["num_layers"] == 2 for row in encoder)
    assert list(cache_dir().glob("tmp*")) == [], "nothing is left"


def test_without_pylance_the_rest_is_measured(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(table_benchmark, "keeps_tables", lambda: False)
    said: list[str] = []
    path = table_benchmark.run_benchmark(tmp_path, sizes=(5000,), repeats=1, show=said.append)
    measured = read_measurement(path)
    assert [row["storage"] for row in measured.rows] == ["memory", None, None, None]
    assert "pylance is not installed" in said[0] and "pylance" not in measured.environment
    stored = measured.rows[0] | {"storage": "lance"}
    write_measurement(tmp_path, "behaviour_table", path.stem, measured.environment, [stored, *measured.rows])
    before = path.read_bytes()
    with pytest.raises(TableError, match="rows of storage on disk"):
        table_benchmark.run_benchmark(tmp_path, sizes=(5000,), repeats=1, show=said.append)
    assert path.read_bytes() == before


@pytest.mark.parametrize("before", [None, "true"])
def test_texts_are_prepared_by_one_thread_and_the_variable_is_put_back(monkeypatch, before) -> None:
    name = "TOKENIZERS_PARALLELISM"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with pytest.raises(KeyError), table_benchmark.one_tokenizer_thread():
        assert os.environ[name] == "false"
        raise KeyError
    assert os.environ.get(name) == before


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
    assert "texts, 5,001 behaviours" in done.output and "filling by 2 processes" in done.output
    page = (tmp_path / "reports" / "bahe_open.md").read_text()
    assert "5,000" in page and "Texts, " in page and "Filling, Test CPU, 2 cores, 1 thread a process" in page
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
