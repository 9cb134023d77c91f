"""A behaviour table that holds all behaviours of a data set, and what it cost to build."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

from repro.behaviours.build import fill_in_parallel as fill
from repro.behaviours.build import processes
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import BehaviourTable, open_table
from repro.behaviours.texts import Behaviours
from repro.records.atomic import json_bytes, write_file
from repro.records.schema import parse_json

NAME_DIGITS = 16  # of a fingerprint, in folder names


def tables_folder(root: Path) -> Path | None:
    """Where tables go below `root`; None (in memory) where Lance is not installed."""
    return root / "behaviours" if importlib.util.find_spec("lance") is not None else None


def filled_table(
    tables: Path | None, behaviours: Behaviours, encoder: BehaviourEncoder
) -> tuple[BehaviourTable, float]:
    """The encoder's table, filled where behaviours are missing, and the seconds that all its filling took.

    Under `accelerate launch` all processes call this together and share the encoding.

    A table on disk was often built by another run. What every filling took stands in a file beside it, so
    that each run that reads the table can state its cost. A filling that was killed is not in it.

    Args:
        tables: folder of the tables, each named after its fingerprint; None: in memory.

    Raises:
        TableError: damaged. StorageError: cannot be written.
    """
    folder = None if tables is None else tables / f"{encoder.fingerprint[:NAME_DIGITS]}.lance"
    begin = time.perf_counter()
    table = open_table(folder, encoder.fingerprint, encoder.width)
    added = fill(table, behaviours, encoder)
    seconds = time.perf_counter() - begin
    if folder is None:
        return table, seconds
    cost = folder.with_suffix(".json")
    spent = parse_json(cost.read_bytes(), cost)["seconds"] if cost.exists() else 0.0
    if added:
        if processes().is_main_process:
            write_file(cost, json_bytes({"behaviours": len(table), "seconds": spent + seconds}))
        return table, spent + seconds
    return table, spent
