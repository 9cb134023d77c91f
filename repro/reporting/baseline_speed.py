"""Rows of results/baseline_speed -> table of DIN's training speed beside that of other libraries."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from repro.reporting.formatting import ABSENT, count, duration, ratio, table

TITLES = {
    "ours": "this suite",
    "fuxictr": "FuxiCTR {fuxictr}",
    "fuxictr-batches-ready": "FuxiCTR {fuxictr}, its batches made beforehand",
    "deepctr-torch": "DeepCTR-Torch {deepctr-torch}",
}
HEADERS = (
    "program",
    "targets/s, median",
    "smallest to largest",
    "repeats",
    "this suite's speed over it",
    "data preparation",
    "memory for training, GiB",
    "memory in all, GiB",
)


def speed_lines(environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One line per program that was measured, as `HEADERS` names the columns.

    Memory for training is what the process's peak adds to having loaded Python, torch and the data set.
    """
    repeated = [row for row in rows if not row["whole_epoch"]]
    medians = {
        program: statistics.median(row["targets_per_s"] for row in repeated if row["program"] == program)
        for program in dict.fromkeys(row["program"] for row in repeated)
    }
    lines: list[tuple[str, ...]] = []
    for program in (name for name in TITLES if name in medians):
        own = [row for row in repeated if row["program"] == program]
        speed = [row["targets_per_s"] for row in own]
        lines.append(
            (
                TITLES[program].format_map(environment),
                count(round(medians[program])),
                f"{count(round(min(speed)))} to {count(round(max(speed)))}",
                str(len(own)),
                ratio(medians["ours"] / medians[program]) if "ours" in medians else ABSENT,
                duration(max(row["prepare_s"] for row in own)),
                f"{max(row['peak_gib'] - row['loaded_gib'] for row in own):.2f}",
                f"{max(row['peak_gib'] for row in own):.2f}",
            )
        )
    return lines


def whole_epoch_line(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What one whole epoch of ours took, or None where it was not measured."""
    whole = next((row for row in rows if row["whole_epoch"]), None)
    if whole is None:
        return None
    return (
        f"One whole epoch of this suite's DIN: {count(whole['targets'])} targets in "
        f"{duration(whole['train_s'])} ({count(round(whole['targets_per_s']))} targets/s), "
        f"peak memory {whole['peak_gib']:.2f} GiB."
    )


def speed_section(environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Heading line with everything that was held equal, the table, and the whole epoch; Markdown."""
    one = rows[0]
    per_repeat = next((row["targets"] for row in rows if not row["whole_epoch"]), one["targets"])
    parts = [
        f"{one['dataset']} ({one['protocol']}), {count(per_repeat)} training targets per repetition, history "
        f"{one['n']}, batches of {count(one['batch'])}, {one['threads']} threads, {one['device']}, torch "
        f"{environment['torch']}. Forward, backward, optimiser and the making of batches are timed; data "
        "preparation is apart.",
        table(HEADERS, speed_lines(environment, rows)),
        whole_epoch_line(rows),
    ]
    return "\n\n".join(part for part in parts if part)
