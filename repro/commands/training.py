"""Commands that train the runs of a table or figure and render its page after each run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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
from repro.errors import ConfigError

if TYPE_CHECKING:
    from repro.experiments.run_config import RunConfig


def table1(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    share: ShareOption = None,
    publish: PublishOption = False,
) -> None:
    """Train and test the rows of DTI's Table 1; the page is rendered again after each row."""
    from repro.experiments.floor import with_floor
    from repro.experiments.table1 import table1_runs

    train(
        ("table1",), with_floor(table1_runs), tier, dataset, protocol, data_dir, rows, seeds, share, publish
    )


def figure2(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    share: ShareOption = None,
    publish: PublishOption = False,
) -> None:
    """AUC against k (DTI's Figure 2): the runs of table1, drawn."""
    from repro.experiments.floor import with_floor
    from repro.experiments.table1 import table1_runs

    runs_of = with_floor(table1_runs)
    train(("table1", "figure2"), runs_of, tier, dataset, protocol, data_dir, rows, seeds, share, publish)


def baselines(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    share: ShareOption = None,
    publish: PublishOption = False,
) -> None:
    """Train and test the floor and the ID-based models on the targets of a tier."""
    from repro.experiments.baselines import BASELINE_SEEDS, baseline_runs

    seeds = BASELINE_SEEDS if seeds is None else seeds
    request = (tier, dataset, protocol, data_dir, rows, seeds, share, publish)
    train(("baselines", "table1"), baseline_runs, *request)


def table3(
    tier: TierOption = None,
    dataset: DatasetOption = None,
    protocol: ProtocolOption = None,
    data_dir: DataDirOption = None,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    share: ShareOption = None,
    publish: PublishOption = False,
) -> None:
    """Training time until convergence (DTI's Table 3): ten epochs at most, stopped by validation."""
    from repro.experiments.floor import with_floor
    from repro.experiments.table3 import table3_runs

    train(
        ("table3",), with_floor(table3_runs), tier, dataset, protocol, data_dir, rows, seeds, share, publish
    )


def check_seeds(seeds: int | None) -> None:
    """Refuse a number of seeds below 1."""
    if seeds is not None and seeds < 1:
        raise ConfigError("seeds", str(seeds), "at least 1", "pass a positive number to --seeds")


def train(
    pages: tuple[str, ...],
    runs_of: Callable[..., list[RunConfig]],
    tier_name: str | None,
    dataset: str | None,
    protocol: str | None,
    data_dir: Path | None,
    rows: str | None,
    seeds: int | None,
    share: str | None,
    publish: bool,
) -> None:
    """Train the runs that `runs_of` declares for a tier, data set, rows and seeds, and render the pages.

    Args:
        share: of these runs, as `share_of` reads it.
    """
    from repro.data import default_protocol
    from repro.experiments.rows import share_of
    from repro.experiments.tiers import tier_named

    tier = tier_named(tier_name)
    check_seeds(seeds)
    dataset = dataset or tier.datasets[0]
    protocol = protocol or default_protocol(dataset)
    configs = share_of(runs_of(tier, dataset, protocol, rows, seeds or tier.seeds), share)
    if not configs:
        raise ConfigError("share", repr(share), "at most as many shares as there are runs", "ask for fewer")
    if publish:
        output.require_clean_tree()

    # Imports torch: only once the request is known to be sound.
    from repro.pipeline import Workshop, is_first_process

    workshop = Workshop(data_dir)
    runs = []
    for config in configs:
        trained = workshop.num_trained
        runs.append(workshop.run(config))
        if is_first_process() and (workshop.num_trained > trained or config is configs[-1]):
            output.render(*pages)
    if not is_first_process():
        return
    if publish:
        output.publish_runs(runs)
        output.render(*pages, own=False)
    output.say_rendered(pages)
