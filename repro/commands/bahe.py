"""Commands for BAHE's ablations and for the questions that its paper leaves open."""

from __future__ import annotations

import typer

from repro import paths
from repro.commands import output
from repro.commands.options import (
    DataDirOption,
    DatasetOption,
    ProtocolOption,
    PublishOption,
    RowsOption,
    SeedsOption,
    TierOption,
)
from repro.commands.training import check_seeds, train


def bahe_ablation(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    publish: PublishOption = False,
) -> None:
    """Train BAHE with one part changed at a time, on the same targets."""
    from repro.experiments.bahe_ablation import ablation_runs
    from repro.experiments.floor import with_floor

    runs_of = with_floor(ablation_runs)
    train(("bahe_ablation",), runs_of, tier, dataset, protocol, data_dir, rows, seeds, publish)


def bahe_open(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    publish: PublishOption = False,
) -> None:
    """Layer cuts, tables that age, and leakage of DTI over BAHE (rows `cuts`, `stale`, `leakage`)."""
    from repro.experiments.bahe_open import LEAKAGE, open_rows, open_runs
    from repro.experiments.floor import with_floor

    names = open_rows(rows)
    check_seeds(seeds)
    if set(names) != {LEAKAGE}:
        runs_of = with_floor(open_runs)
        train(("bahe_open",), runs_of, tier, dataset, protocol, data_dir, rows, seeds, publish)
    if LEAKAGE not in names:
        return
    if publish:
        output.require_clean_tree()

    from repro.experiments.leakage import leakage_runs
    from repro.leakage import measure_leakage, write_leakage
    from repro.pipeline import Workshop, is_first_process

    workshop, measured = Workshop(), []
    root = paths.results_dir() if publish else paths.runs_dir()
    for run in leakage_runs(seeds or 1):
        measured.append(measure_leakage(workshop, run))
        if is_first_process():
            path = write_leakage(root, measured)
            output.render("bahe_open", own=not publish)
    if is_first_process():
        typer.echo(f"wrote {path}")
