"""Committed FLOP files: a sample of their rows counted again, by the functions that counted them.

All rows of DIN and SASRec; of one n and k on real prompts, the closed form of SW, DTI and DTI- and SW by both
counters; of one text length, LLM-CTR and BAHE three ways. The other rows are checked by schema alone:
counting all of them takes minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baselines.histories import Catalogue
from repro.costs.id_models import id_rows
from repro.costs.sweeps import k_sweep, length_sweep
from repro.data.registry import load_prepared
from repro.errors import ReproError
from repro.experiments.flops import HISTORIES
from repro.records.measurements import read_measurement
from repro.regression.committed import folder_for, why_not_here
from repro.regression.findings import Finding, Verdict, exact

RELATIVE = 1e-9  # sums of whole numbers, divided once: other versions may round the last digit
SAMPLE_K: dict[str, Any] = {
    "contexts": (10,), "targets": (5,), "backbones": (("smollm2-135m", "full"),)
}  # fmt: skip
SAMPLE_LENGTH: dict[str, Any] = {"lengths": (512,), "backbones": ("smollm2-135m",)}
PLACE = ("backbone", "tuning", "method", "k", "n", "counter")  # and the text length: these name a row


def check_flops(results: Path, data_dir: Path | None) -> Iterator[Finding]:
    """One line per file of `results/flops`.

    Args:
        results: folder of committed results.
        data_dir: source files of data that no package carries; without them, DIN and SASRec alone are
            counted again there, for which the data does not matter.
    """
    for path in sorted((results / "flops").glob("*.json")):
        metric = f"FLOPs, {path.stem}"
        try:
            stated = read_measurement(path).rows
            counted = count_again(path.stem, stated, data_dir)
        except ReproError as error:
            yield Finding(metric, Verdict.NOT_RUN, note=str(error))
            continue
        yield exact(metric, f"{len(counted)} of {len(stated)} rows", row_problems(stated, counted))


def count_again(name: str, stated: list[dict[str, Any]], data_dir: Path | None) -> list[dict[str, Any]]:
    """The sample of a file's rows, of whose columns those that were counted.

    Raises:
        ReproError: data is damaged, or missing in the folder that was named.
    """
    if name == "length":
        return length_sweep(**SAMPLE_LENGTH)
    dataset = str(stated[0]["dataset"])
    protocol = name.removeprefix(f"k-{dataset}-")
    if why_not_here(dataset, data_dir) is None:
        return k_sweep(dataset, protocol, folder_for(dataset, data_dir), **SAMPLE_K)
    any_catalogue = Catalogue.of(load_prepared("synthetic"))  # looking a vector up is no FLOP
    common = {"backbone": "none", "tuning": None, "dataset": dataset, "k": None}
    return [common | row for row in id_rows(any_catalogue, HISTORIES)]


def row_problems(stated: list[dict[str, Any]], counted: list[dict[str, Any]]) -> list[str]:
    """Where stated rows are not what was counted; empty if nowhere."""
    by_place = {_place(row): row for row in stated}
    problems = []
    for row in counted:
        place = _place(row)
        found = by_place.get(place)
        words = ", ".join(str(part) for part in place if part is not None)
        if found is None:
            problems.append(f"no row {words}")
            continue
        problems += [
            f"{words}: {column} is {found.get(column)}, counted again {value}"
            for column, value in row.items()
            if not _same(found.get(column), value)
        ]
    return problems


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return (*(row[name] for name in PLACE), (row.get("length") or {}).get("text_tokens"))


def _same(stated: Any, counted: Any) -> bool:
    if isinstance(counted, dict):
        return isinstance(stated, dict) and all(_same(stated.get(key), counted[key]) for key in counted)
    if isinstance(counted, (int, float)) and isinstance(stated, (int, float)):
        return math.isclose(stated, counted, rel_tol=RELATIVE)
    return bool(stated == counted)
