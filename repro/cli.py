"""The command line: one command per table or figure, plus tools. It picks tier, data set, rows and seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from repro import paths
from repro.errors import ConfigError, ReproError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
error_console = Console(file=sys.stderr, highlight=False)

TierOption = Annotated[
    str | None, typer.Option(help="test, cpu, gpu or paper; default: gpu if there is one, else cpu.")
]
DatasetOption = Annotated[str | None, typer.Option(help="Data set; default: the tier's first.")]
ProtocolOption = Annotated[str | None, typer.Option(help="dti, rella or per-user; default: the data set's.")]
DataDirOption = Annotated[
    Path | None, typer.Option(help="Folder (table: file) with the data set's source files.")
]
RowsOption = Annotated[str | None, typer.Option(help="Rows or groups, comma-separated; default: all.")]
SeedsOption = Annotated[int | None, typer.Option(help="Seeds per row; default: the tier's.")]
PublishOption = Annotated[
    bool, typer.Option("--publish", help="Copy the finished runs to results/ afterwards.")
]


@app.command()
def table1(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    publish: PublishOption = False,
) -> None:
    """Train and test the rows of DTI's Table 1; the page is rendered again after each row."""
    _train_table1(("table1",), tier, dataset, protocol, data_dir, rows, seeds, publish)


@app.command()
def figure2(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    publish: PublishOption = False,
) -> None:
    """AUC against k (DTI's Figure 2): the runs of table1, drawn."""
    _train_table1(("table1", "figure2"), tier, dataset, protocol, data_dir, rows, seeds, publish)


def _train_table1(
    pages: tuple[str, ...],
    tier_name: str | None,
    dataset: str | None,
    protocol: str | None,
    data_dir: Path | None,
    rows: str | None,
    seeds: int | None,
    publish: bool,
) -> None:
    from repro.data import default_protocol
    from repro.experiments.table1 import table1_runs
    from repro.experiments.tiers import tier_named

    tier = tier_named(tier_name)
    if seeds is not None and seeds < 1:
        raise ConfigError("seeds", str(seeds), "at least 1", "pass a positive number to --seeds")
    dataset = dataset or tier.datasets[0]
    protocol = protocol or default_protocol(dataset)
    configs = table1_runs(tier, dataset, protocol, rows, seeds or tier.seeds)
    if publish:
        require_clean_tree()

    from repro.pipeline import (
        Workshop,
        is_first_process,
    )  # imports torch: only once the request is known to be sound

    workshop = Workshop(data_dir)
    runs = []
    for config in configs:
        runs.append(workshop.run(config))
        if is_first_process():
            render(*pages)
    if not is_first_process():
        return
    if publish:
        publish_runs(runs)
        render(*pages, own=False)
    typer.echo(f"rendered: {', '.join(str(paths.reports_dir() / f'{page}.md') for page in pages)}")


@app.command()
def table2(
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    publish: PublishOption = False,
) -> None:
    """Statistics of a data set beside DTI's Table 2."""
    from repro.experiments.table2 import write_statistics

    if publish:
        require_clean_tree()
    root = paths.results_dir() if publish else paths.runs_dir()
    typer.echo(f"wrote {write_statistics(dataset or 'ml-100k', protocol, data_dir, root)}")
    render("table2", own=not publish)


@app.command()
def report(
    check: Annotated[
        bool, typer.Option("--check", help="Fail when committed pages differ from a rendering.")
    ] = False,
) -> None:
    """Render all pages from the records, or check that they are what the records give."""
    from repro.reporting import check as check_pages

    if not check:
        render()
        return
    differences = check_pages(paths.results_dir(), None, paths.reports_dir())
    for difference in differences:
        error_console.print(difference)
    if differences:
        raise typer.Exit(1)
    typer.echo("reports: every page is what the records give")


@app.command("show-prompt")
def show_prompt(
    kind: Annotated[str, typer.Option(help="sw (sliding window) or streaming.")] = "streaming",
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    n: Annotated[int, typer.Option(help="Context interactions.")] = 3,
    k: Annotated[int, typer.Option(help="Targets per streaming prompt.")] = 4,
    sum_layout: Annotated[
        str, typer.Option(help="deferred, inline-positions or inline-visible.")
    ] = "deferred",
    window: Annotated[str, typer.Option(help="interactions or tokens.")] = "interactions",
    window_tokens: Annotated[int | None, typer.Option(help="Size of a token window.")] = None,
    instruction: Annotated[str, typer.Option(help="visible or hidden.")] = "visible",
    row: Annotated[int, typer.Option(help="Which prompt of the training split.")] = 0,
) -> None:
    """Print one prompt with its windows marked, for debugging and papers."""
    from repro.prompts.settings import PromptSettings
    from repro.prompts.show import show_row

    if kind not in ("sw", "streaming"):
        raise ConfigError("kind", repr(kind), "sw or streaming", "pass one of these to --kind")
    settings = PromptSettings(n, 1 if kind == "sw" else k, sum_layout, window, window_tokens, instruction)

    from repro.data import default_protocol
    from repro.experiments.tiers import tier_named

    chosen = tier_named(tier or "cpu")
    dataset = dataset or chosen.datasets[0]
    from repro.pipeline import Workshop

    data, items, tokenizer = Workshop(data_dir).prompt_parts(
        chosen, dataset, protocol or default_protocol(dataset)
    )
    typer.echo(show_row(data, items, settings, row, tokenizer))


@app.command()
def select(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    publish: PublishOption = False,
) -> None:
    """Try learning rates and slopes on the validation split and write all trials down."""
    from repro.data import default_protocol
    from repro.experiments.tiers import tier_named
    from repro.pipeline import Workshop, run_selection

    chosen = tier_named(tier)
    dataset = dataset or chosen.datasets[0]
    if publish:
        require_clean_tree()
    root = paths.results_dir() if publish else paths.runs_dir()
    path = run_selection(Workshop(data_dir), chosen, dataset, default_protocol(dataset), root)
    typer.echo(f"wrote {path}")


@app.command("bench-attention")
def bench_attention() -> None:
    """Time of attention and of a training step per target at k = 10, 50 and 200 on this machine."""
    from repro.costs.attention_benchmark import run_benchmark

    typer.echo(run_benchmark())


def render(*pages: str, own: bool = True) -> None:
    """Render pages (all if none is named) from committed and, if wanted, own records."""
    from repro.reporting import render_all

    runs = paths.runs_dir() if own else None
    render_all(paths.results_dir(), runs, paths.reports_dir(), list(pages) or None)


def require_clean_tree() -> None:
    """Refuse `--publish` on a dirty tree before anything is trained."""
    from repro.records.publish import require_clean_tree

    require_clean_tree()


def publish_runs(runs: list) -> None:  # type: ignore[type-arg]
    """Copy finished runs to results/."""
    from repro.records.publish import publish

    publish(runs, paths.results_dir())


def main() -> None:
    """Entry point: a user's error is one message without a traceback (exit 2); Ctrl-C exits with 130."""
    try:
        app()
    except ReproError as error:
        error_console.print(f"error: {error}", style="bold", soft_wrap=True, markup=False)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
