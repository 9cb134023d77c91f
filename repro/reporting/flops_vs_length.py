"""reports/flops_vs_length.*: LLM-CTR against BAHE as the text of a user grows."""

from __future__ import annotations

from typing import Any

from repro.reporting.figures import figure_files, figure_text
from repro.reporting.flops_rows import (
    AGREEMENT_HEADERS,
    CLOSED,
    Row,
    Sweep,
    agreement,
    giga,
    length_sweeps,
    provenance,
)
from repro.reporting.formatting import ABSENT, count, page, plural, ratio, table
from repro.reporting.inputs import Inputs

NAME = "flops_vs_length"


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page, its figure and the plotted numbers."""
    sweeps = length_sweeps(inputs)
    blocks = [
        *figure_text(NAME, "Training FLOPs against text length"),
        "One sample is a user's text of so many tokens. LLM-CTR: the whole text through all layers, LoRA "
        "of rank 64 on all of them. BAHE: one vector per behaviour from a table, each of the user's "
        "sequences alone through the upper layers with LoRA of rank 64. Encoding the table is not in "
        "BAHE's training FLOPs: the last columns say what it costs per behaviour, and after how many "
        "samples it has paid for itself when every sample brings behaviours that are all new (never, "
        "where it costs more than it saves). Readings: [docs/costs.md](../docs/costs.md).",
    ]
    panels = []
    for sweep in sweeps:
        for backbone, _ in sweep.backbones:
            blocks += [
                f"## {backbone}{', yours' if sweep.origin != 'committed' else ''}",
                _table(sweep, backbone),
            ]
            panels.append(_panel(sweep, backbone))
        blocks += ["### Agreement of the three counts", table(AGREEMENT_HEADERS, agreement(sweep.rows))]
    if not sweeps:
        blocks.append("Not run.")
    blocks.append(provenance(sweeps))
    return {
        **figure_files(NAME, panels),
        f"{NAME}.md": page("FLOPs against text length: LLM-CTR and BAHE", NAME, blocks),
    }


def state(inputs: Inputs) -> str:
    """How many rows there are, for the index."""
    return "; ".join(plural(len(each.rows), "row") for each in length_sweeps(inputs)) or "not run"


def rows_by_length(sweep: Sweep, backbone: str) -> dict[int, dict[str, Row]]:
    """Text tokens -> method -> closed-form row."""
    found: dict[int, dict[str, Row]] = {}
    for row in sweep.rows:
        if row["backbone"] == backbone and row["counter"] == CLOSED:
            found.setdefault(row["length"]["text_tokens"], {})[row["method"]] = row
    return dict(sorted(found.items()))


def _table(sweep: Sweep, backbone: str) -> str:
    headers = (
        "text tokens", "behaviours", "LLM-CTR, training GFLOPs", "BAHE, training GFLOPs", "LLM-CTR / BAHE",
        "table, GFLOPs per behaviour", "LLM-CTR / BAHE with every behaviour encoded anew",
    )  # fmt: skip
    lines = []
    for tokens, methods in rows_by_length(sweep, backbone).items():
        bahe, partner = methods["bahe"], methods.get("llm-ctr")
        detail, train = bahe["length"], "train_flops_per_target"
        fresh = bahe[train] + detail["behaviours"] * detail["table_flops_per_behaviour"]
        lines.append(
            (
                count(tokens),
                count(detail["behaviours"]),
                giga(partner[train]) if partner else "beyond the model's positions",
                giga(bahe[train]),
                ratio(partner[train] / bahe[train]) if partner else ABSENT,
                giga(detail["table_flops_per_behaviour"]),
                ratio(partner[train] / fresh) if partner else ABSENT,
            )
        )
    return table(headers, lines)


def _panel(sweep: Sweep, backbone: str) -> dict[str, Any]:
    lengths = rows_by_length(sweep, backbone)
    lines = []
    for method, title in (("bahe", "BAHE"), ("llm-ctr", "LLM-CTR")):
        points = [
            [tokens, methods[method]["train_flops_per_target"] / 1e9]
            for tokens, methods in lengths.items()
            if method in methods
        ]
        lines.append({"name": title, "style": "line", "points": points})
    return {
        "title": backbone, "x": "text tokens per sample", "y": "training GFLOPs per sample", "log": True,
        "lines": [line for line in lines if line["points"]],
    }  # fmt: skip
