"""The pages of the report. To add one: a module with `render` and `state`, and a line in PAGES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from repro.reporting import (
    bahe_ablation,
    bahe_efficiency,
    bahe_open,
    bahe_quality,
    baselines,
    figure2,
    flops_vs_k,
    flops_vs_length,
    projection,
    table1,
    table2,
    table3,
    timing,
)
from repro.reporting.formatting import table
from repro.reporting.headline_groups import main_groups
from repro.reporting.headline_losses import losses_table
from repro.reporting.headline_scores import headline_scores
from repro.reporting.headlines import savings_table
from repro.reporting.inputs import COMMITTED, YOURS, Inputs, only

INDEX = "README.md"
TERMS = (
    "Of committed records. *SW*, sliding window: a prompt per target. *DTI*: one streaming prompt trains k "
    "targets; the *paper's recipe* has its two fixes, *our recipe* needs none "
    "([methods](../docs/methods.md)). *BAHE*: frozen layers encode each behaviour once, into a table; "
    "*LLM-CTR*, its partner, is the same LLM over the full text; *DTI over BAHE* joins both "
    "([bahe](../docs/bahe.md)). *Like rates*: the floor, a logistic regression on three rates known before "
    "the target ([baselines](../docs/baselines.md))."
)


@dataclass(frozen=True)
class Page:
    """A page, named after its Nox session; `<name>.md` is its text.

    Attributes:
        title: one line for the index.
        render: file name -> content of the page and of what belongs to it.
        state: how many records there are, and of what, for the index.
    """

    title: str
    render: Callable[[Inputs], dict[str, bytes]]
    state: Callable[[Inputs], str]


PAGES: dict[str, Page] = {
    "baselines": Page("ID-based models and the floor", baselines.render, baselines.state),
    "bahe": Page("Quality and total cost of BAHE", bahe_quality.render, bahe_quality.state),
    "table1": Page("AUC, log loss and F1 of SW, DTI- and DTI (DTI, Table 1)", table1.render, table1.state),
    "table2": Page("Statistics of the data sets (DTI, Table 2)", table2.render, table2.state),
    "table3": Page("Training time until convergence (DTI, Table 3)", table3.render, table3.state),
    "figure2": Page("AUC against k (DTI, Figure 2)", figure2.render, figure2.state),
    "flops_vs_k": Page("FLOPs per target against k (DTI, equation 3)", flops_vs_k.render, flops_vs_k.state),
    "flops_vs_length": Page(
        "FLOPs of LLM-CTR and BAHE against text length", flops_vs_length.render, flops_vs_length.state
    ),
    "bahe_efficiency": Page(
        "Training time and memory of LLM-CTR and BAHE against text length",
        bahe_efficiency.render,
        bahe_efficiency.state,
    ),
    "bahe_ablation": Page("BAHE: what each part is worth", bahe_ablation.render, bahe_ablation.state),
    "bahe_open": Page("BAHE: open questions", bahe_open.render, bahe_open.state),
    "projection": Page(
        "Projected GPU-hours, price and memory (DTI, Table 3; BAHE)", projection.render, projection.state
    ),
    "timing": Page("Training speed and memory against k", timing.render, timing.state),
}


def render_index(inputs: Inputs) -> dict[str, bytes]:
    """reports/README.md: the main results, and every page in a line, with what it has records of."""
    headers = ("page", "what it shows", "command", "records")
    lines = [
        (f"[{name}]({name}.md)", each.title, f"`nox -s {name}`", _records(each, inputs))
        for name, each in PAGES.items()
    ]
    intro = (
        "Reproduce: `nox -s report`\n\nRendered from the records in `results/` (and your own in `runs/`); "
        "`nox -s report -- --check` fails if a page here is not what `results/` alone gives. Published "
        "values are in [reference](reference/README.md)."
    )
    parts = ["# Reports", intro, *_main_results(inputs), "## Pages", table(headers, lines)]
    return {INDEX: ("\n\n".join(parts) + "\n").encode()}


def _main_results(inputs: Inputs) -> list[str]:
    """What is saved, what is lost for it, and the scores behind it; nothing without committed records."""
    groups = main_groups(inputs)
    found = {
        "What is saved": savings_table(inputs),
        "What is lost": losses_table(groups),
        "Scores and costs": headline_scores(groups),
    }
    parts = [f"### {name}\n\n{text}" for name, text in found.items() if text]
    return ["## Main results", TERMS, *parts] if parts else []


def _records(each: Page, inputs: Inputs) -> str:
    """What is committed, then what is a user's own."""
    own = each.state(only(inputs, YOURS))
    yours = "" if own == each.state(only(inputs)) else f"; yours: {own}"
    return each.state(only(inputs, COMMITTED)) + yours
