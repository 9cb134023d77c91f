"""Commands about cost: the FLOP sweeps, the projection's page, and `cost` for one's own data and backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repro import paths
from repro.commands import output
from repro.commands.options import PublishOption, TierOption
from repro.costs.devices import DEVICES

cost_commands = typer.Typer()


@cost_commands.command("flops-vs-k")
def flops_vs_k(
    dataset: Annotated[str, typer.Option(help="Data set whose training prompts are counted.")] = "ml-100k",
    protocol: Annotated[str | None, typer.Option(help="Default: the data set's.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the data set's source files.")] = None,
    publish: PublishOption = False,
) -> None:
    """Count FLOPs per target against k and n on real prompts, three ways."""
    from repro.costs.sweeps import k_sweep
    from repro.data import default_protocol

    root, protocol = output.root_of(publish), protocol or default_protocol(dataset)
    rows = k_sweep(dataset, protocol, data_dir)
    _write(root, f"k-{dataset}-{protocol}", rows, ("flops_vs_k", "projection"))


@cost_commands.command("flops-vs-length")
def flops_vs_length(publish: PublishOption = False) -> None:
    """Count FLOPs per sample of LLM-CTR and BAHE against text length, three ways."""
    from repro.costs.sweeps import length_sweep

    root = output.root_of(publish)
    _write(root, "length", length_sweep(), ("flops_vs_length", "projection"))


@cost_commands.command("bahe-efficiency")
def bahe_efficiency(
    tier: TierOption = None,
    shapes: Annotated[str | None, typer.Option(help="Comma-separated; default: the tier's.")] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Text tokens, by commas; other lengths measured before with these settings are kept."
        ),
    ] = None,
    behaviour_tokens: Annotated[int | None, typer.Option(help="Of a behaviour; default: several.")] = None,
    graphs: Annotated[
        bool, typer.Option(help="Capture steps as CUDA graphs, or launch every kernel by itself.")
    ] = True,
    publish: PublishOption = False,
) -> None:
    """Step time, memory and FLOPs of training LLM-CTR and BAHE against text length, on this machine."""
    from repro.experiments.bahe_efficiency import plan_named

    name, plan = plan_named(tier, shapes, lengths, behaviour_tokens, graphs)
    root = output.root_of(publish)
    from repro.costs.bahe_benchmark import run_benchmark

    for path in run_benchmark(plan, name, root, typer.echo):
        typer.echo(f"wrote {path}")
    output.render("bahe_efficiency", own=not publish)
    output.say_rendered(["bahe_efficiency"])


@cost_commands.command()
def projection() -> None:
    """Project DTI's Table 3 and BAHE's deployment from the counted FLOPs, and render the page."""
    output.render("projection")
    output.say_rendered(["projection"])


@cost_commands.command()
def cost(
    targets: Annotated[int, typer.Option(help="Training targets of one epoch.")],
    tokens: Annotated[float, typer.Option(help="Tokens of one interaction's text with its answer.")],
    backbone: Annotated[str, typer.Option(help="As in a tier: hub name, folder or random:<shape>.")],
    tuning: Annotated[str, typer.Option(help="full or lora.")] = "lora",
    rank: Annotated[int, typer.Option(help="Of LoRA.")] = 16,
    n: Annotated[int, typer.Option(help="Context interactions.")] = 20,
    k: Annotated[int, typer.Option(help="Targets per streaming prompt; 1 is the sliding window.")] = 50,
    epochs: Annotated[float, typer.Option(help="Passes over the targets.")] = 1.0,
    device: Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")] = "h100",
    gpus: Annotated[int, typer.Option(help="Devices that share the work.")] = 1,
    mfu: Annotated[
        float | None, typer.Option(help="Share of the peak; default: measured, else assumed.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="US dollars per GPU-hour.")] = None,
) -> None:
    """What training would cost on your data: FLOPs, GPU-hours, price, memory, beside the sliding window."""
    from repro.costs.closed_form import Training
    from repro.costs.own_data import Workload, cost_table, project_cost
    from repro.records.measurements import list_measurements

    work = Workload(targets, tokens, backbone, Training(tuning, rank), n, k, epochs)
    timing = [row for file in list_measurements(paths.results_dir(), "timing") for row in file.rows]
    typer.echo(cost_table(work, device, gpus, project_cost(work, device, mfu, price, timing)))


def _write(root: Path, name: str, rows: list, pages: tuple[str, ...]) -> None:  # type: ignore[type-arg]
    from repro.records.environment import environment
    from repro.records.measurements import write_measurement

    typer.echo(f"wrote {write_measurement(root, 'flops', name, environment(), rows)}")
    output.render(*pages, own=root != paths.results_dir())
    output.say_rendered(pages)
