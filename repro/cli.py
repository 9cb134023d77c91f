"""The command line: one command per table or figure, plus tools. It picks tier, data set, rows and seeds."""

from __future__ import annotations

import sys
from itertools import chain
from typing import Annotated

import typer
from rich.console import Console

from repro import paths
from repro.commands import bahe as bahe_commands
from repro.commands import behaviours, output, training
from repro.commands.options import (
    DataDirOption,
    DatasetOption,
    ProtocolOption,
    PublishOption,
    ShareOption,
    TierOption,
)
from repro.costs.commands import cost_commands
from repro.errors import ConfigError, ReproError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(cost_commands)
error_console = Console(file=sys.stderr, highlight=False)

app.command()(training.table1)
app.command()(training.figure2)
app.command()(training.baselines)
app.command()(bahe_commands.bahe)
app.command("bahe-ablation")(bahe_commands.bahe_ablation)
app.command("bahe-open")(bahe_commands.bahe_open)


@app.command()
def table2(
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    publish: PublishOption = False,
) -> None:
    """Statistics of a data set beside DTI's Table 2."""
    from repro.experiments.table2 import write_statistics

    root = output.root_of(publish)
    typer.echo(f"wrote {write_statistics(dataset or 'ml-100k', protocol, data_dir, root)}")
    output.render("table2", own=not publish)
    output.say_rendered(["table2"])


@app.command()
def report(
    check: Annotated[
        bool, typer.Option("--check", help="Fail when committed pages differ from a rendering.")
    ] = False,
    committed: Annotated[
        bool, typer.Option("--committed", help="Leave your own runs out, as the committed pages do.")
    ] = False,
) -> None:
    """Render all pages from the records, or check that they are what the committed records give."""
    from repro.reporting import check as check_pages

    if not check:
        output.render(own=not committed)
        output.say_rendered()
        return
    differences = check_pages(paths.results_dir(), None, paths.reports_dir())
    for difference in differences:
        error_console.print(difference, markup=False, soft_wrap=True)
    if differences:
        error_console.print("to mend: nox -s report -- --committed, then commit reports/", soft_wrap=True)
        raise typer.Exit(1)
    typer.echo("reports: every page is what the records give")


@app.command()
def regression(
    update: Annotated[
        bool, typer.Option("--update", help="Renew the references and print what changed.")
    ] = False,
    rows: Annotated[
        str | None, typer.Option(help="Retrained rows, comma-separated, or none; default: all.")
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Tell whether any committed number, prompt or AUC moved; exit 1 if one did."""
    import os

    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch: the references are CPU runs in fp32
    if update:
        output.require_clean_tree()

    from repro.experiments.regression import regression_gate
    from repro.pipeline import Workshop
    from repro.regression.findings import render as render_findings

    gate, workshop = regression_gate(rows, data_dir), Workshop()
    if update:
        for line in gate.update(workshop):
            typer.echo(line)
        return
    findings = list(gate.check(workshop))
    typer.echo(render_findings(findings))
    if not all(finding.passes for finding in findings):
        raise typer.Exit(1)


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
    models: Annotated[
        str | None,
        typer.Option(help="ID-based models to search instead, comma-separated, or `all`."),
    ] = None,
    bahe: Annotated[bool, typer.Option("--bahe", help="Search BAHE's family instead.")] = False,
    share: ShareOption = None,
    publish: PublishOption = False,
) -> None:
    """Try settings on the validation split and write all trials down."""
    from repro.data import default_protocol
    from repro.experiments.baselines import model_names
    from repro.experiments.tiers import tier_named

    chosen = tier_named(tier)
    dataset = dataset or chosen.datasets[0]
    names = model_names(models) if models else []
    if names and bahe:
        raise ConfigError("--bahe", "beside --models", "one of the two", "run them one after the other")
    root = output.root_of(publish)
    from repro.pipeline import Workshop
    from repro.selection import run_bahe_selection, run_baseline_selection, run_selection

    request = (Workshop(data_dir), chosen, dataset, default_protocol(dataset))
    if names:
        written = run_baseline_selection(*request, names, root, share)
    else:
        written = (run_bahe_selection if bahe else run_selection)(*request, root, share)
    for path in written:
        typer.echo(f"wrote {path}")
    if not written:
        typer.echo("this share is done; the file is written once all shares are")


app.command()(training.table3)


@app.command()
def timing(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    fp8: Annotated[
        str | None,
        typer.Option(help="LoRA's frozen base in fp8 (torchao), k = 1 and 50 alone: tensorwise or rowwise."),
    ] = None,
    variants: Annotated[
        bool,
        typer.Option("--variants", help="DTI at k = 50 in every layout, window and fix, beside ours and SW."),
    ] = False,
    publish: PublishOption = False,
) -> None:
    """Training speed and memory of SW and DTI against k, in the model's shape with random weights.

    Raises:
        ConfigError: `--fp8` together with `--variants`; fp8 where it cannot run.
    """
    from repro.data import default_protocol
    from repro.errors import ConfigError
    from repro.experiments.tiers import tier_named

    chosen = tier_named(tier)
    dataset = dataset or chosen.datasets[0]
    root = output.root_of(publish)
    if variants and fp8 is not None:
        raise ConfigError(
            "timing", f"--variants and --fp8 {fp8}", "one of the two", "measure them one by one"
        )
    from repro.costs.timing import measure, timing_file
    from repro.costs.timing_variants import measure_variants
    from repro.pipeline import Workshop
    from repro.records.environment import commit

    workshop = Workshop(data_dir)
    asked, made_from = (workshop, chosen, dataset, default_protocol(dataset), typer.echo), commit()
    measured = measure_variants(*asked) if variants else measure(*asked, fp8=fp8)
    first = next(measured)  # what cannot be measured is refused before a file is begun
    file = timing_file(root, chosen, dataset, workshop.device_name, made_from, fp8, variants)
    for rows in chain([first], measured):
        file.put(rows)
    typer.echo(f"wrote {file.finish()}")
    output.render("timing", own=not publish)
    output.say_rendered(["timing"])


@app.command("bench-attention")
def bench_attention() -> None:
    """Time of attention and of a training step per target at k = 10, 50 and 200 on this machine."""
    from repro.costs.attention_benchmark import run_benchmark

    typer.echo(run_benchmark())


app.command("build-table")(behaviours.build_table)
app.command("bench-table")(behaviours.bench_table)


@app.command("bench-baselines")
def bench_baselines(data_dir: DataDirOption = None, publish: PublishOption = False) -> None:
    """Training speed of DIN beside FuxiCTR's and DeepCTR-Torch's, on ml-1m if --data-dir names its folder."""
    from repro.costs.baseline_benchmark import run_benchmark
    from repro.records.measurements import read_measurement
    from repro.reporting.baseline_speed import speed_section

    path = run_benchmark(data_dir, output.root_of(publish))
    measured = read_measurement(path)
    typer.echo(f"\n{speed_section(measured.environment, measured.rows)}\n\nwrote {path}")


def main() -> None:
    """Entry point: a user's error is one message without a traceback (exit 2); Ctrl-C exits with 130."""
    try:
        app()
    except ReproError as error:
        error_console.print(f"error: {error}", style="bold", soft_wrap=True, markup=False)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, SystemExit) as stopped:
        if isinstance(stopped, SystemExit) and stopped.code != 130:  # Typer's own for Ctrl-C
            raise
        error_console.print("interrupted: the same command goes on from what is finished", soft_wrap=True)
        raise SystemExit(130) from None
