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
ONE_SEQUENCE = "bahe-one-sequence"  # as in records: BAHE without feature parallel


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page, its figure and the plotted numbers."""
    sweeps = length_sweeps(inputs)
    blocks = [
        *figure_text(NAME, "Training FLOPs against text length"),
        "One sample is a user's text of so many tokens. LLM-CTR: the whole text through all layers, LoRA "
        "of rank 64 on all of them. BAHE: one vector per behaviour from a table, each of the user's "
        "sequences alone through the upper layers with LoRA of rank 64. Encoding the table is not in "
        "BAHE's training FLOPs: the last columns say what it costs per behaviour, and what is left of the "
        "ratio where every behaviour of a sample is encoded for it alone. Readings: "
        "[docs/costs.md](../docs/costs.md).",
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
    elif text := one_sequence_text(inputs):
        blocks += [
            "## Feature parallel",
            "BAHE reads each of a user's sequences alone, in place of one long sequence whose attention is "
            "over all behaviours together; what is pooled for the head is the same, and so is all but "
            f"attention. {text} That is what is saved in work. That sequences can be read at the same time "
            "saves none, and is in no count. What it does to AUC and to measured time in "
            "quality runs: [bahe_ablation](bahe_ablation.md).",
        ]
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


def one_sequence_text(inputs: Inputs) -> str:
    """What BAHE costs without feature parallel over BAHE, at the ends of every model's lengths; or nothing.

    Of the first sweep that has such rows: the committed one, where there is one.
    """
    for sweep in length_sweeps(inputs):
        said = []
        for backbone, _ in sweep.backbones:
            found = {
                tokens: value for tokens, value, _ in _one_sequence(sweep, backbone) if value is not None
            }
            if found:
                shown = [f"{found[tokens]:.3f} × at {count(tokens)}" for tokens in (min(found), max(found))]
                said.append(f"{' and '.join(dict.fromkeys(shown))} text tokens ({backbone})")
        if said:
            return f"With one long sequence, a training step takes {'; '.join(said)} the FLOPs of BAHE's."
    return ""


def _one_sequence(sweep: Sweep, backbone: str) -> list[tuple[int, float | None, dict[str, Row]]]:
    """Per length: text tokens, training FLOPs with one long sequence over BAHE's, all rows."""
    found = []
    for tokens, methods in rows_by_length(sweep, backbone).items():
        one, train = methods.get(ONE_SEQUENCE), "train_flops_per_target"
        found.append((tokens, one[train] / methods["bahe"][train] if one else None, methods))
    return found


def _table(sweep: Sweep, backbone: str) -> str:
    headers = (
        "text tokens", "behaviours", "LLM-CTR, training GFLOPs", "BAHE, training GFLOPs", "LLM-CTR / BAHE",
        "BAHE, one long sequence / BAHE", "table, GFLOPs per behaviour",
        "LLM-CTR / BAHE with every behaviour encoded anew",
    )  # fmt: skip
    lines = []
    for tokens, longer, methods in _one_sequence(sweep, backbone):
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
                ABSENT if longer is None else f"{longer:.3f} ×",
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
