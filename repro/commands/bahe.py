"""Commands for BAHE: its quality page, its ablations and the questions that its paper leaves open."""

from __future__ import annotations

from collections.abc import Mapping

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
    ShareOption,
    TierOption,
)
from repro.commands.training import check_seeds, train
from repro.errors import ConfigError


def bahe(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    share: ShareOption = None,
    publish: PublishOption = False,
) -> None:
    """Train and test BAHE, LLM-CTR and DTI over BAHE beside SW, DTI and DIN on the same targets."""
    from repro.experiments.bahe import bahe_runs
    from repro.experiments.floor import with_floor

    train(("bahe",), with_floor(bahe_runs), tier, dataset, protocol, data_dir, rows, seeds, share, publish)


def bahe_ablation(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    share: ShareOption = None,
    publish: PublishOption = False,
) -> None:
    """Train BAHE with one part changed at a time, on the same targets."""
    from repro.experiments.bahe_ablation import ablation_runs
    from repro.experiments.floor import with_floor

    runs_of = with_floor(ablation_runs)
    train(("bahe_ablation",), runs_of, tier, dataset, protocol, data_dir, rows, seeds, share, publish)


def bahe_open(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    share: ShareOption = None,
    publish: PublishOption = False,
) -> None:
    """Layer cuts, tables that age, and leakage of DTI over BAHE (rows `cuts`, `stale`, `leakage`).

    `leakage` is the same at every tier, on data of its own: alone, it takes --seeds and --publish only.
    """
    from repro.experiments.bahe_open import LEAKAGE, open_rows, open_runs
    from repro.experiments.floor import with_floor
    from repro.experiments.rows import is_first_share

    names = open_rows(rows)
    check_seeds(seeds)
    if set(names) != {LEAKAGE}:
        runs_of = with_floor(open_runs)
        train(("bahe_open",), runs_of, tier, dataset, protocol, data_dir, rows, seeds, share, publish)
    else:
        given = {"tier": tier, "dataset": dataset, "protocol": protocol, "data-dir": data_dir, "share": share}
        _refuse(given)
    if LEAKAGE in names and is_first_share(share):
        _measure_leakage(seeds or 1, publish)


def _refuse(options: Mapping[str, object]) -> None:
    """Refuse options that the leakage rows have no use for."""
    for name, value in options.items():
        if value is not None:
            where = f"--rows leakage, --{name}"
            expected = "nothing: these rows have planted data and a small model of their own"
            raise ConfigError(where, repr(str(value)), expected, f"leave --{name} out")


def _measure_leakage(seeds: int, publish: bool) -> None:
    """Measure what neither the file nor, without `publish`, the committed one has; render after each row."""
    if publish:
        output.require_clean_tree()

    from repro.experiments.leakage import leakage_runs
    from repro.leakage import is_measured, leakage_file, measure_leakage
    from repro.pipeline import Workshop, is_first_process

    workshop, runs = Workshop(), leakage_runs(seeds)
    device = workshop.device_name
    committed = leakage_file(paths.results_dir(), device, runs)
    file = committed if publish else leakage_file(paths.runs_dir(), device, runs)
    missing = [run for run in runs if not is_measured(run, device, file.rows + committed.rows)]
    if is_first_process():
        typer.echo(f"leakage: {len(runs) - len(missing)} of {len(runs)} rows are there already")
    for run in missing:
        row = measure_leakage(workshop, run)
        if is_first_process():
            file.put([row])
            output.render("bahe_open", own=not publish)
    if not is_first_process():
        return
    path = file.finish()
    output.render("bahe_open", own=not publish)
    typer.echo(f"wrote {path}" if missing else f"rendered: {paths.reports_dir() / 'bahe_open.md'}")
