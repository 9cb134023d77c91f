"""Rows of `results/flops` as pages want them: by data set, method, n, k and counter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from repro.records.measurements import Measurement
from repro.reporting.formatting import ABSENT, table
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.provenance import versions

Row = dict[str, Any]
TITLES = {
    "sw": "SW", "dti": "DTI", "dti-minus": "DTI-", "din": "DIN", "sasrec": "SASRec", "llm-ctr": "LLM-CTR",
    "bahe": "BAHE", "bahe-one-sequence": "BAHE, one long sequence",
}  # fmt: skip
CLOSED, FVCORE, TORCH = "closed_form", "fvcore", "torch"


@dataclass(frozen=True)
class Sweep:
    """The rows of one file.

    Attributes:
        title: what it is of, with "(yours)" where it is a user's own.
    """

    title: str
    origin: str
    file: Measurement

    @property
    def rows(self) -> list[Row]:
        """All of them."""
        return self.file.rows

    @property
    def backbones(self) -> list[tuple[str, str]]:
        """(backbone, tuning) of the language models, in file order."""
        found = [(row["backbone"], row["tuning"]) for row in self.rows if row["tuning"] is not None]
        return list(dict.fromkeys(found))

    def one(
        self,
        method: str,
        n: int,
        k: int | None,
        backbone: str | None = None,
        counter: str = CLOSED,
        tuning: str | None = None,
    ) -> Row | None:
        """The row, or None; without a backbone or tuning the first one's, for what these do not change."""
        wanted = {"method": method, "n": n, "k": k, "counter": counter}
        if backbone is not None:
            wanted["backbone"] = backbone
        if tuning is not None:
            wanted["tuning"] = tuning
        return next((row for row in self.rows if all(row[key] == wanted[key] for key in wanted)), None)

    def values(self, key: str, method: str | None = None) -> list[int]:
        """Distinct values of n or k, ascending."""
        return sorted(
            {row[key] for row in self.rows if row[key] is not None and method in (None, row["method"])}
        )


def prompt_sweeps(inputs: Inputs) -> list[Sweep]:
    """Files with rows on a data set's prompts."""
    return _sweeps(inputs, lambda rows: any(row["dataset"] is not None for row in rows))


def length_sweeps(inputs: Inputs) -> list[Sweep]:
    """Files with rows at set text lengths."""
    return _sweeps(inputs, lambda rows: any(row.get("length") for row in rows))


def processed_tokens(row: Row) -> float:
    """Tokens per target that a forward pass reads: text, the instruction's share and a [SUM]."""
    prompt = row["prompt"]
    return float(prompt["tokens_text"] + prompt["tokens_instruction"] + 1)


def timing_rows(inputs: Inputs) -> list[Row]:
    """Rows of the sweeps over k of all timing files, without those in fp8 or of a cut model: as projected."""
    rows = (row for origin in ORIGINS for file in inputs.timing[origin] for row in file.rows)
    return [row for row in rows if all(row.get(key) is None for key in ("fp8", "variant", "layers"))]


def _sweeps(inputs: Inputs, wanted: Any) -> list[Sweep]:
    found = []
    for origin in ORIGINS:
        for file in inputs.flops[origin]:
            if wanted(file.rows):
                name = next((row["dataset"] for row in file.rows if row["dataset"]), file.path.stem)
                found.append(Sweep(name + (" (yours)" if origin == YOURS else ""), origin, file))
    return found


def agreement(rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Per backbone and counter: rows compared with the closed form, and the largest relative difference."""
    keys = ("backbone", "tuning", "dataset", "method", "k", "n")

    def key(row: Row) -> tuple[Any, ...]:
        length = row.get("length") or {}
        return (*(row[name] for name in keys), length.get("text_tokens"))

    closed = {key(row): row for row in rows if row["counter"] == CLOSED}
    worst: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["counter"] == CLOSED or key(row) not in closed:
            continue
        for name in ("forward_flops_per_target", "train_flops_per_target"):
            if row[name] is not None:
                expected = closed[key(row)][name]
                found = worst.setdefault((row["backbone"], row["counter"]), [])
                found.append(abs(row[name] / expected - 1))
    return [
        (
            backbone if backbone != "none" else "DIN, SASRec",
            counter,
            str(len(differences)),
            f"{max(differences):.1e}",
        )
        for (backbone, counter), differences in worst.items()
    ]


AGREEMENT_HEADERS = (
    "model",
    "counter",
    "figures compared with the closed form",
    "largest relative difference",
)


def provenance(sweeps: Iterable[Sweep]) -> str:
    """The closing section: files and versions. FLOPs depend on no device."""
    lines = [
        (each.file.path.name, each.origin, str(len(each.rows)), versions(each.file.environment))
        for each in sweeps
    ]
    return "## Provenance\n\n" + (
        table(("file", "origin", "rows", "versions"), lines) if lines else "No records."
    )


def giga(value: float | None) -> str:
    """FLOPs in 10^9, four significant digits."""
    return ABSENT if value is None else f"{value / 1e9:,.4g}"
