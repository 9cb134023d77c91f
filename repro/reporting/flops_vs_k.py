"""reports/flops_vs_k.*: what DTI saves against k, by equation 3, by tokens, and counted."""

from __future__ import annotations

from typing import Any

from repro.costs.closed_form import equation_3, token_limit
from repro.reporting.cells import NOT_RUN
from repro.reporting.figures import figure_files, figure_text
from repro.reporting.flops_rows import (
    AGREEMENT_HEADERS,
    CLOSED,
    TITLES,
    Row,
    Sweep,
    agreement,
    giga,
    processed_tokens,
    prompt_sweeps,
    provenance,
)
from repro.reporting.flops_steps import STEP_HEADERS, steps
from repro.reporting.formatting import ABSENT, count, page, plural, summary, table
from repro.reporting.inputs import Inputs

NAME = "flops_vs_k"
EXPECTED = ("ml-100k", "ml-1m")
EXPLAINED = (20, 50)  # n and k of the ratio that is taken apart
TUNINGS = {"full": "full fine-tuning", "lora": "LoRA r = 16"}


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page, its figure and the plotted numbers."""
    sweeps = prompt_sweeps(inputs)
    panels = [_panel(sweep, n) for sweep in sweeps for n in sweep.values("n", "sw")]
    blocks = [
        *figure_text(NAME, "Reduction of training FLOPs against k"),
        "Reduction = training FLOPs per target of the sliding window over those of DTI, on the real "
        "prompts of the training split (SmolLM2's tokenizer for every backbone; Llama 3's is not freely "
        "available). Only matrix products count, one multiply-add is 2 FLOPs, attention counts the "
        "(query, key) pairs that a query may see, and padding is left out (it stands in a table of its "
        "own). The instruction is processed once per forward pass, as the trainer does it. Derivations: "
        "[docs/costs.md](../docs/costs.md).",
    ]
    for sweep in sweeps:
        blocks += _section(sweep)
    there = {sweep.file.rows[0]["dataset"] for sweep in sweeps}
    for dataset in EXPECTED:
        if dataset not in there:
            blocks.append(f"## {dataset}\n\nNot run.")
    blocks.append(provenance(sweeps))
    return {**figure_files(NAME, panels), f"{NAME}.md": page("FLOPs against k", NAME, blocks)}


def state(inputs: Inputs) -> str:
    """Which data sets have rows, for the index."""
    rows = [row for sweep in prompt_sweeps(inputs) for row in sweep.rows]
    return summary(plural(len(rows), "row"), (row["dataset"] for row in rows)) if rows else NOT_RUN


def _panel(sweep: Sweep, n: int) -> dict[str, Any]:
    ks = sweep.values("k", "dti")
    lines = [
        {"name": "equation 3 (paper)", "style": "dashed", "points": [[k, equation_3(n, k)] for k in ks]},
        {"name": "token limit", "style": "dashed", "points": [[k, token_limit(n, k)] for k in ks]},
    ]
    for backbone, tuning in sweep.backbones:
        points = [[k, _reduction(sweep.one("dti", n, k, backbone))] for k in ks]
        lines.append({"name": f"DTI counted, {backbone}, {tuning}", "style": "line", "points": points})
    return {
        "title": f"{sweep.title}, n = {n}", "x": "k, targets per streaming prompt",
        "y": "reduction against SW", "log": False, "lines": lines,
    }  # fmt: skip


def _reduction(row: Row | None) -> float:
    assert row is not None and row["ratio_to_sw"], "a sweep holds every n and k, with SW beside"
    return 1 / row["ratio_to_sw"]


def _section(sweep: Sweep) -> list[str]:
    n, k = EXPLAINED
    blocks = [f"## {sweep.title}", "### Reduction of training FLOPs", _reductions(sweep)]
    blocks += ["### FLOPs per target", _flops(sweep, n)]
    if sweep.one("sw", n, 1) and sweep.one("dti", n, k):
        blocks += [
            f"### From equation 3 to the counted ratio, n = {n}, k = {k}",
            "Each line changes one thing; the last is the counted ratio of the table above.",
        ]
        for backbone, tuning in sweep.backbones:
            for method in ("dti-minus", "dti"):
                found = steps(sweep, backbone, method, n, k)
                blocks.append(f"{TITLES[method]}, {backbone}, {TUNINGS[tuning]}:")
                blocks.append(table(STEP_HEADERS, found))
    blocks += ["### Tokens per target", _tokens(sweep), "### Agreement of the three counts"]
    blocks.append(table(AGREEMENT_HEADERS, agreement(sweep.rows)))
    return blocks


def _reductions(sweep: Sweep) -> str:
    headers = ["n", "k", "equation 3", "token limit"]
    headers += [f"{TITLES[m]}, {b}, {t}" for b, t in sweep.backbones for m in ("dti", "dti-minus")]
    lines = []
    for n in sweep.values("n", "sw"):
        for k in sweep.values("k", "dti"):
            found = [sweep.one(m, n, k, b) for b, _ in sweep.backbones for m in ("dti", "dti-minus")]
            cells = [f"{_reduction(row):.2f}" if row else ABSENT for row in found]
            lines.append((str(n), str(k), f"{equation_3(n, k):.2f}", f"{token_limit(n, k):.2f}", *cells))
    return table(headers, lines)


def _flops(sweep: Sweep, n: int) -> str:
    """GFLOPs at one n, with the models that read ids beside."""
    lines = []
    for backbone, tuning in sweep.backbones:
        for method, k in [("sw", 1), *(("dti", k) for k in sweep.values("k", "dti"))]:
            row = sweep.one(method, n, k, backbone)
            if row:
                lines.append((TITLES[method], str(k), backbone, TUNINGS[tuning], *_costs(row)))
    for row in sweep.rows:
        if row["tuning"] is None and row["counter"] == CLOSED:
            name = f"{TITLES[row['method']]}, history of {row['n']}"
            lines.append((name, ABSENT, ABSENT, "everything", *_costs(row)))
    headers = (
        "method",
        "k",
        "backbone",
        "trained",
        "forward, GFLOPs",
        "training, GFLOPs",
        "training / forward",
    )
    return table(headers, lines)


def _costs(row: Row) -> tuple[str, str, str]:
    forward, train = row["forward_flops_per_target"], row["train_flops_per_target"]
    return giga(forward), giga(train), f"{train / forward:.3f}"


def _tokens(sweep: Sweep) -> str:
    headers = (
        "method", "n", "k", "prompts", "raw", "templated", "processed", "padded", "bucketed",
        "visible pairs per layer", "computed pairs per layer", "longest prompt",
    )  # fmt: skip
    lines = []
    for n in sweep.values("n", "sw"):
        for method, k in [("sw", 1), *(("dti", k) for k in sweep.values("k", "dti"))]:
            row = sweep.one(method, n, k)
            if row is None:
                continue
            p = row["prompt"]
            columns = (
                p["tokens_raw"],
                p["tokens_templated"],
                processed_tokens(row),
                p["tokens_padded"],
                p["tokens_bucketed"],
            )
            lines.append(
                (
                    TITLES[method], str(n), str(k), f"{p['prompts']:.4f}",
                    *(f"{value:,.2f}" for value in columns),
                    f"{p['visible_pairs']:,.0f}", f"{p['computed_pairs']:,.0f}", count(p["longest_prompt"]),
                )
            )  # fmt: skip
    text = (
        "Raw: bare item texts of the prompts. Templated: with the words around them, answers, [SUM] and "
        "one instruction per prompt. Processed: instruction once per forward pass; this is what the FLOPs "
        "above count. Padded: text and [SUM]s rounded up to the multiples of tier `gpu`. Bucketed: "
        "rounded up to one of a few lengths, as its CUDA batches are. Visible pairs: what queries may "
        "see. Computed pairs: what the banded attention on the CPU computes, in a sample of batches."
    )
    return text + "\n\n" + table(headers, lines)
