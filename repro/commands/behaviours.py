"""Commands about the behaviour table: build one ahead of training, and measure one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from repro import paths
from repro.commands import output
from repro.commands.options import DataDirOption, DatasetOption, ProtocolOption, PublishOption, TierOption
from repro.errors import ConfigError, TableError


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """A setting that is refused was typed on the command line: the error names its option."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(option, error.found, error.expected, f"pass another {option}") from None


def build_table(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    layer_cut: Annotated[float, typer.Option(help="Share of the layers that encode a behaviour.")] = 0.5,
    pooling: Annotated[str, typer.Option(help="Of a behaviour's tokens: last or mean.")] = "last",
    tables: Annotated[
        Path | None,
        typer.Option(help="Folder of the tables; default: the cache's, the only one that training reads."),
    ] = None,
) -> None:
    """Fill the behaviour table that BAHE's runs of a tier and data set read; only what is missing is encoded.

    All of the table's vectors are then read back once, each against its checksum. Under
    `accelerate launch -m repro build-table` all processes share the encoding.
    """
    from repro.behaviours.pooling import POOLINGS
    from repro.data import default_protocol
    from repro.experiments.tiers import tier_named
    from repro.methods.bahe.settings import BAHE, BaheMethod

    chosen = tier_named(tier)
    dataset = dataset or chosen.datasets[0]
    with _naming("--layer-cut" if pooling in POOLINGS else "--pooling"):
        method = BaheMethod(BAHE, chosen.n, layer_cut=layer_cut, pooling=pooling)
    from repro.behaviours.build import processes
    from repro.behaviours.encoding import BehaviourEncoder
    from repro.behaviours.lance_table import INSTALL, LanceTable
    from repro.behaviours.texts import behaviours_of
    from repro.methods.bahe.filled_table import filled_table, tables_folder
    from repro.pipeline import Workshop
    from repro.prompts.templates import template_for

    folder = tables_folder(paths.cache_dir())
    if folder is None:
        raise TableError("behaviour table", "pylance is not installed", "a place on disk", INSTALL)
    folder, workshop = tables or folder, Workshop(data_dir)
    items = workshop.load(chosen, dataset, protocol or default_protocol(dataset)).data.items
    backbone = workshop.backbone(chosen)
    backbone.model.to(workshop.device)
    with _naming("--layer-cut"):
        num_lower = method.num_lower(backbone.num_layers)
    answers = (backbone.yes_id, backbone.no_id)
    behaviours = behaviours_of(items, backbone.tokenizer, template_for(dataset), answers)
    precision = chosen.training.precision
    encoder = BehaviourEncoder(backbone, num_lower, pooling, precision, template=behaviours.template)
    table, behaviour_s = filled_table(folder, behaviours, encoder)
    cost = "unknown" if behaviour_s is None else f"{behaviour_s * len(behaviours):.1f} s"
    if processes().is_main_process:
        assert isinstance(table, LanceTable), "tables have a folder"
        table.verify()
        typer.echo(
            f"{len(behaviours):,} behaviours of {dataset} are in {folder}, table {encoder.fingerprint[:12]} "
            f"of {len(table):,}; cost of encoding them on this device: {cost}"
        )


def bench_table(
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Behaviours, comma-separated, each 4,096 or more; default: 10 thousand to 1 million."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Of every measurement.")] = 3,
    publish: PublishOption = False,
) -> None:
    """Rates of building and reading the behaviour table on this machine, and its size.

    Storage, texts and the encoder are measured apart, and then `build-table` by one process and by two.
    """
    from repro.behaviours.table import keeps_tables
    from repro.behaviours.table_benchmark import SIZES, run_benchmark
    from repro.costs.filling_benchmark import filling_rows
    from repro.experiments.tiers import tier_named

    try:
        chosen = [int(size) for size in sizes.split(",")] if sizes else list(SIZES)
    except ValueError:
        raise ConfigError("sizes", repr(sizes), "whole numbers", "for example 10000,100000") from None
    if repeats < 1:
        raise ConfigError("repeats", str(repeats), "at least 1", "pass a positive number to --repeats")
    root = output.root_of(publish)
    fillings = filling_rows(tier_named(None), repeats) if keeps_tables() else ()
    path = run_benchmark(root, chosen, repeats, show=typer.echo, more=fillings)
    typer.echo(f"wrote {path}")
    output.render("bahe_open", own=not publish)
