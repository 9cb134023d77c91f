"""reports/table3.md: training time until convergence beside DTI's Table 3, and what it costs in quality."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from repro.costs.closed_form import token_limit
from repro.records.store import Run
from repro.reporting.cells import NOT_RUN
from repro.reporting.formatting import ABSENT, count, duration, page, plural, ratio, score, summary, table
from repro.reporting.inputs import Inputs
from repro.reporting.provenance import provenance
from repro.reporting.references import PAPER_DATASETS, paper_dataset
from repro.reporting.table3_blocks import OURS, PAPERS, SW, Block, blocks, epoch_s
from repro.reporting.table3_quality import difference_to_sw, quality_blocks, verdict, verdict_blocks

__all__ = ["OURS", "PAPERS", "SW", "blocks", "difference_to_sw", "render", "state", "verdict"]

NAME = "table3"


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    found = blocks(inputs)
    parts = [_legend()]
    for block in found:
        parts += [f"## {block.title}", *verdict_blocks(block)]
        parts += ["### Time until convergence", _times(block, inputs)]
        parts += ["### Speed of an epoch", _speed(block), *quality_blocks(block, inputs)]
    if not found:
        parts.append("Not run.")
    parts += ["## The paper", _paper(inputs)]
    runs = [run for block in found for cell in block.rows.values() for run in (*cell.runs, *cell.superseded)]
    parts.append(provenance(runs))
    return {f"{NAME}.md": page("DTI, Table 3: training time until convergence", NAME, parts)}


def state(inputs: Inputs) -> str:
    """How many runs there are, for the index."""
    found = blocks(inputs)
    number = plural(sum(len(cell.runs) for each in found for cell in each.rows.values()), "run")
    return summary(number, (b.dataset for b in found), device=(b.device for b in found)) if found else NOT_RUN


def _legend() -> str:
    explained = {
        "Rule": "at most 10 epochs, stopped after 2 without a better validation AUC; the weights of the best "
        "epoch are tested.",
        "To the best epoch, until stopped": "training time up to the end of the best epoch, and all of it; "
        "validation and test, and compilation, have clocks of their own.",
        "Until SW's validation AUC": "training time up to the end of the first epoch with the lowest of SW's "
        "seeds' best validation AUCs, which all of SW's seeds reach: mean over the seeds that reach it, with "
        "their number. The best epoch comes early where a method peaks at a lower level; this AUC it then "
        "never reaches.",
        "All clocks": "training, validation and test, and compilation, as recorded. Compilation is shorter "
        "where an earlier run left its code behind.",
        "Reduction": "SW's time over the row's, on the same device, of the column before it; of the time "
        "until SW's validation AUC only where all seeds of the row reach it. That of one epoch leaves out "
        "how many epochs each took.",
        "Tokens/s": "of the whole training loop, without padding.",
        "Seeds": "where rows have several, times and scores are their means.",
        "The paper": "its hours are of Llama-3.1-8B, so only the reductions compare; its AUC stands in its "
        "Table 1 and is of that model too.",
    }
    return "\n".join(f"- *{name}*: {text}" for name, text in explained.items())


def _times(block: Block, inputs: Inputs) -> str:
    paper, _ = paper_dataset(block.dataset)
    headers = (
        "method", "k", "to the best epoch", "reduction", "until SW's validation AUC", "reduction of it",
        "best of epochs", "until stopped", "validation and test", "compilation", "all clocks",
        "reduction of all clocks", "AUC", "runs", f"paper's reduction, {PAPER_DATASETS[paper]}",
    )  # fmt: skip
    auc = NOT_RUN if block.floor is None else score(block.floor.mean("metrics", "auc"))
    lines = [("Like rates, the floor", *[ABSENT] * 11, auc, ABSENT, ABSENT)]
    for row, cell in block.rows.items():
        title, k = row
        reached = block.reached(row)
        lines.append(
            (
                title,
                str(k),
                duration(block.time(row, "train_to_best_s")),
                ratio(block.reduction(row)),
                reached.text if reached else ABSENT,
                ratio(block.reduction_of_reached(row)),
                _epochs(cell.ok),
                duration(block.time(row, "train_s")),
                duration(block.time(row, "eval_s")),
                duration(block.time(row, "compile_s")),
                duration(block.all_clocks(row)),
                ratio(block.reduction_of_all_clocks(row)),
                score(block.auc(row)),
                ", ".join([str(len(cell.ok)), *(run.status for run in cell.runs if run.status != "ok")]),
                ratio(_published(inputs, paper, k)) if title == PAPERS else ABSENT,
            )
        )
    sw = block.sw_validation_auc
    note = "" if sw is None else f"\n\nSW's validation AUC, the lowest of its seeds' best: {score(sw)}."
    return table(headers, lines) + note


def _speed(block: Block) -> str:
    headers = ("method", "k", "one epoch", "reduction of it", "token limit", "tokens/s")
    lines = [
        (
            row[0],
            str(row[1]),
            duration(block.epoch(row)),
            ratio(block.reduction_of_epoch(row)),
            ratio(token_limit(block.n, row[1])),
            _tokens_per_s(cell.ok),
        )
        for row, cell in block.rows.items()
    ]
    return table(headers, lines)


def _tokens_per_s(runs: Sequence[Run]) -> str:
    """Of the training loop; padding does not count."""
    speeds = [run.record["data"]["tokens_raw"] / epoch_s(run) for run in runs]
    return count(round(mean(speeds))) if speeds else ABSENT


def _epochs(runs: Sequence[Run]) -> str:
    """Best epoch (from 1) and how many were trained, of every run."""
    times = [run.record["time"] for run in runs]
    return ", ".join(f"{time['best_epoch'] + 1} of {time['epochs']}" for time in times) or ABSENT


def _published(inputs: Inputs, dataset: str, k: int) -> float | None:
    hours = inputs.paper_hours
    if (dataset, "dti", k) not in hours:
        return None
    return hours[dataset, "sw", 1] / hours[dataset, "dti", k]


def _paper(inputs: Inputs) -> str:
    lines = [
        (
            PAPER_DATASETS[dataset],
            method.upper(),
            str(k),
            f"{hours:.2f}",
            ratio(_published(inputs, dataset, k)),
        )
        for (dataset, method, k), hours in inputs.paper_hours.items()
    ]
    return table(("data set", "method", "k", "hours", "reduction"), lines)
