"""A behaviour table that holds all behaviours of a data set, and what encoding one of them costs."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from repro.behaviours.build import fill_in_parallel as fill
from repro.behaviours.build import processes
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import BehaviourTable, keeps_tables, open_table
from repro.behaviours.texts import Behaviours
from repro.errors import RecordError
from repro.records.atomic import json_bytes, write_file
from repro.records.environment import device_name
from repro.records.schema import NonNegative, Positive, Section, parse_json, validate

NAME_DIGITS = 16  # of a fingerprint, in folder names
COSTS = "fillings.json"  # in a table's folder, and deleted with it


class Filling(Section):
    """What one filling added to a table, and at what cost."""

    behaviours: Positive
    seconds: NonNegative
    device: str
    processes: Positive  # that shared the work, each on such a device


class Fillings(Section):
    """Those of a table, oldest first. One that was killed is not among them."""

    fillings: list[Filling]


def tables_folder(root: Path) -> Path | None:
    """Where tables go below `root`; None (in memory) where none are kept."""
    return root / "behaviours" if keeps_tables() else None


def _folder(tables: Path | None, encoder: BehaviourEncoder) -> Path | None:
    return None if tables is None else tables / f"{encoder.fingerprint[:NAME_DIGITS]}.lance"


def table_of(tables: Path | None, encoder: BehaviourEncoder) -> BehaviourTable:
    """The encoder's table as it is; created empty where there is none.

    Args:
        tables: as in `filled_table`.

    Raises:
        TableError: damaged. StorageError: cannot be written.
    """
    return open_table(_folder(tables, encoder), encoder.fingerprint, encoder.width)


def filled_table(
    tables: Path | None, behaviours: Behaviours, encoder: BehaviourEncoder
) -> tuple[BehaviourTable, float | None]:
    """The encoder's table, filled where behaviours are missing, and the seconds that a behaviour costs.

    Under `accelerate launch` all processes call this together and share the encoding.

    A table on disk was often filled by other runs, for other data sets or on other devices. What every
    filling took stands in the table's folder. The cost of a behaviour is the mean over the fillings made on
    this device by as many processes; None where none is known.

    Args:
        tables: folder of the tables, each named after its fingerprint; None: in memory.

    Raises:
        TableError, RecordError: damaged. StorageError: cannot be written.
    """
    folder, table, state = _folder(tables, encoder), table_of(tables, encoder), processes()
    device = device_name(str(encoder.device) if encoder.device.type == "cuda" else None)
    state.wait_for_everyone()  # all have opened the table: nobody waits for the lock that is taken now
    # Who finds the behaviours there finds their cost too: it is written before the lock is let go.
    with table.exclusive() if state.is_main_process else nullcontext():
        if folder is not None and state.is_main_process and not len(table):
            (folder / COSTS).unlink(missing_ok=True)  # of a table that was deleted
        begin = time.perf_counter()
        added = fill(table, behaviours, encoder)
        spent = {"behaviours": added, "seconds": time.perf_counter() - begin}
        made = [spent | {"device": device, "processes": state.num_processes}] if added else []
        if folder is not None and state.is_main_process and made:
            write_file(folder / COSTS, json_bytes({"fillings": fillings_of(folder) + made}))
    state.wait_for_everyone()
    known = made if folder is None else fillings_of(folder)
    own = [each for each in known if (each["device"], each["processes"]) == (device, state.num_processes)]
    encoded = sum(each["behaviours"] for each in own)
    return table, sum(each["seconds"] for each in own) / encoded if own else None


def fillings_of(folder: Path) -> list[dict[str, Any]]:
    """Fillings of a table (`Filling`), oldest first; none where the file was lost.

    Args:
        folder: of the table.

    Raises:
        RecordError: the file is damaged.
    """
    path = folder / COSTS
    if not path.exists():
        return []
    try:
        content = parse_json(path.read_bytes(), path)
        validate(Fillings, content, path)
    except RecordError as error:
        fix = "delete this file: what earlier fillings cost is then unknown, and the table stays as it is"
        raise RecordError(error.where, error.found, error.expected, fix) from error
    return list(content["fillings"])
