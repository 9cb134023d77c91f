"""Rows of `results/bahe` as the efficiency page wants them: by model and device, method and text length."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import mean
from typing import Any

from repro.costs.architecture import architecture_of
from repro.reporting.cells import STATUS_WORDS
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.provenance import versions

LLM_CTR, BAHE = "llm_ctr", "bahe"
OUT_OF_MEMORY = "out_of_memory"
OOM = STATUS_WORDS[OUT_OF_MEMORY]
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """The repetitions of one method at one length of text and of behaviours; none: not run."""

    rows: list[Row]

    def values(self, key: str) -> list[float]:
        """A number of every repetition; empty where it failed or was not measured."""
        return [row[key] for row in self.rows if isinstance(row.get(key), int | float)]

    def mean(self, key: str) -> float | None:
        """Over the repetitions."""
        found = self.values(key)
        return mean(found) if found else None

    @property
    def out_of_memory(self) -> bool:
        """A step did not fit the device."""
        return any(row["step_ms"] == OUT_OF_MEMORY for row in self.rows)


@dataclass(frozen=True)
class Sweep:
    """One model on one device, from one file."""

    title: str
    model: str
    source: str
    versions: str
    rows: list[Row]

    @property
    def no_verdict(self) -> str | None:
        """Why the claim is not judged by these rows; None if it is: the whole shape, on an accelerator."""
        on_cpu = re.search(r", \d+ cores?$", self.rows[0]["device"]) is not None
        total, layers = known_layers(self.rows[0]["backbone"]), self.rows[0].get("layers")
        reduced = total is not None and layers is not None and layers < total
        if not on_cpu and not reduced:
            return None
        return f"{'a reduced' if reduced else 'the whole'} shape{' on a CPU' if on_cpu else ''}"

    @property
    def lengths(self) -> list[int]:
        """Text tokens per sample, ascending."""
        return sorted({row["text_tokens"] for row in self.rows})

    @property
    def behaviour_sizes(self) -> list[int]:
        """Tokens per behaviour that BAHE was measured at, ascending."""
        return sorted({row["behaviour_tokens"] for row in self.rows if row["method"] == BAHE})

    @property
    def usual_size(self) -> int:
        """Tokens per behaviour of the page's main table: those of LLM-CTR's rows, or the first measured."""
        sizes = [row["behaviour_tokens"] for row in self.rows if row["method"] == LLM_CTR]
        return int((sizes or [row["behaviour_tokens"] for row in self.rows])[0])

    def cell(self, method: str, text_tokens: int, behaviour_tokens: int | None = None) -> Cell:
        """One cell; LLM-CTR's does not depend on the size of a behaviour."""
        wanted = {"method": method, "text_tokens": text_tokens}
        if method == BAHE:
            wanted["behaviour_tokens"] = behaviour_tokens or self.usual_size
        return Cell([row for row in self.rows if all(row[key] == wanted[key] for key in wanted)])

    def ratio(self, key: str, text_tokens: int, behaviour_tokens: int | None = None) -> float | None:
        """LLM-CTR's number over BAHE's; None where one is missing."""
        partner = self.cell(LLM_CTR, text_tokens).mean(key)
        ours = self.cell(BAHE, text_tokens, behaviour_tokens).mean(key)
        return partner / ours if partner is not None and ours else None

    def ratios(self, key: str, behaviour_tokens: int | None = None) -> list[list[float]]:
        """[text tokens, ratio] wherever there is one."""
        found = [(length, self.ratio(key, length, behaviour_tokens)) for length in self.lengths]
        return [[length, value] for length, value in found if value is not None]

    def anew_ratio(self, text_tokens: int, behaviour_tokens: int | None = None) -> float | None:
        """LLM-CTR's time over that of BAHE's steps and of encoding every behaviour that they read."""
        theirs = self.cell(LLM_CTR, text_tokens).mean("step_ms")
        ours = self.cell(BAHE, text_tokens, behaviour_tokens)
        own, build = ours.mean("step_ms"), ours.mean("table_build_s")
        number = next(iter(ours.values("table_behaviours")), None)
        if theirs is None or own is None or build is None or not number:
            return None
        return theirs / (own + 1e3 * build / number * ours.rows[0]["behaviours"] * ours.rows[0]["batch"])

    def points(self, method: str, key: str) -> list[list[float]]:
        """[text tokens, mean] wherever it was measured."""
        found = [(length, self.cell(method, length).mean(key)) for length in self.lengths]
        return [[length, value] for length, value in found if value is not None]


def efficiency_sweeps(inputs: Inputs) -> list[Sweep]:
    """Every model and device of every file of `results/bahe` (and a user's own), in file order.

    Those that no verdict rests on come last.
    """
    found = []
    for origin in ORIGINS:
        for file in inputs.bahe[origin]:
            keys = [(row["backbone"], row.get("layers"), row["device"]) for row in file.rows]
            for key in dict.fromkeys(keys):
                rows = [row for row, own in zip(file.rows, keys, strict=True) if own == key]
                backbone, layers, device = key
                size = "" if layers is None else f", {layers} layers"
                title = f"{backbone.removeprefix('random:')} shape{size}, {device}"
                title += f" ({origin})" if origin == YOURS else ""
                model = title.partition(",")[0]
                found.append(Sweep(title, model, f"bahe/{file.path.name}", versions(file.environment), rows))
    return sorted(found, key=lambda sweep: sweep.no_verdict is not None)


def known_layers(backbone: str) -> int | None:
    """Layers of a whole backbone; None where its configuration would have to be fetched."""
    known = backbone.startswith("random:") or backbone == "smollm2-135m"
    return architecture_of(backbone).layers if known else None
