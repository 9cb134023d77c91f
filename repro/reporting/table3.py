"""reports/table3.md: training time until convergence beside DTI's Table 3."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from repro.costs.closed_form import token_limit
from repro.records.store import Run
from repro.reporting.cells import NOT_RUN, Cell, build_cells
from repro.reporting.formatting import ABSENT, count, duration, page, plural, ratio, score, table
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.methods import FLOOR
from repro.reporting.provenance import provenance
from repro.reporting.references import PAPER_DATASETS, paper_dataset

NAME = "table3"
SW, PAPERS, OURS = ("SW", 1), "DTI", "DTI, our recipe"
RULE = (
    "Rule: at most 10 epochs, stopped after 2 without a better validation AUC. *To the best epoch* is "
    "training time up to its end, *until stopped* all of it; validation and compilation have clocks of "
    "their own. Reduction is SW's time to the best epoch over the row's, on the same device; that of one "
    "epoch leaves out how many epochs each took. Tokens/s are those of the whole training loop, without "
    "padding. Where rows have several seeds, times and AUC are their means. The paper's hours are of "
    "Llama-3.1-8B, so only the reductions compare; its AUC stands in its Table 1 and is of that model too."
)


@dataclass(frozen=True)
class Block:
    """Runs of one tier, data set, model and device, by row: (title, k)."""

    title: str
    dataset: str
    rows: dict[tuple[str, int], list[Run]]
    floor: Cell | None  # the like rates on the same targets

    def ok(self, row: tuple[str, int]) -> list[Run]:
        """The row's runs that ended well."""
        return [run for run in self.rows.get(row, ()) if run.status == "ok"]

    def time(self, row: tuple[str, int], field: str) -> float | None:
        """Mean seconds over the row's runs; None where one has none."""
        values = [run.record["time"][field] for run in self.ok(row)]
        return mean(values) if values and None not in values else None

    def auc(self, row: tuple[str, int]) -> float | None:
        """Mean test AUC over the row's runs."""
        good = self.ok(row)
        return mean(run.record["metrics"]["auc"] for run in good) if good else None

    def reduction(self, row: tuple[str, int]) -> float | None:
        """SW's time to the best epoch over the row's."""
        ours, sw = self.time(row, "train_to_best_s"), self.time(SW, "train_to_best_s")
        return sw / ours if ours and sw else None

    def epoch(self, row: tuple[str, int]) -> float | None:
        """Mean training time of one epoch."""
        good = self.ok(row)
        return mean(map(_epoch_s, good)) if good else None

    def reduction_of_epoch(self, row: tuple[str, int]) -> float | None:
        """SW's time of an epoch over the row's: without luck in the number of epochs."""
        ours, sw = self.epoch(row), self.epoch(SW)
        return sw / ours if ours and sw else None


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    found = blocks(inputs)
    parts = [RULE]
    for block in found:
        parts += [f"## {block.title}", _table(block, inputs)]
    if not found:
        parts.append("Not run.")
    parts += ["## The paper", _paper(inputs)]
    runs = [run for block in found for row in block.rows.values() for run in row]
    parts.append(provenance(runs))
    return {f"{NAME}.md": page("DTI, Table 3: training time until convergence", NAME, parts)}


def state(inputs: Inputs) -> str:
    """Which blocks there are, for the index."""
    found = [(each.title, sum(map(len, each.rows.values()))) for each in blocks(inputs)]
    return "; ".join(f"{title}: {plural(number, 'run')}" for title, number in found) or "not run"


def blocks(inputs: Inputs) -> list[Block]:
    """Control runs of SW and DTI, each origin, tier, data set, model and device apart."""
    found: dict[tuple[str, ...], dict[tuple[str, int], list[Run]]] = defaultdict(lambda: defaultdict(list))
    for origin in ORIGINS:
        for run in inputs.runs[origin]:
            config = run.record["config"]
            if config["recipe"] != "control" or config["method"] not in ("sw", "dti"):
                continue
            model = config["backbone_settings"]["title"]
            device = run.record["device"]["name"]
            key = (config["tier"], config["dataset"], model, config["tuning"], device, origin)
            found[key][_row(config)].append(run)
    floors = [
        cell
        for origin in ORIGINS
        for cell in build_cells(inputs.runs[origin])
        if cell.method == FLOOR and cell.ok
    ]
    made = []
    for place, rows in sorted(found.items()):
        tier, dataset, model, tuning, device, origin = place
        tested = next(run.record["data"] for each in rows.values() for run in each)
        same = ("sha256", "test_targets")
        floor = next(
            (cell for cell in floors if all(cell.runs[0].record["data"][k] == tested[k] for k in same)), None
        )
        title = f"{dataset}, tier {tier}, {model}, {tuning}, {device}"
        made.append(Block(title + (f" ({origin})" if origin == YOURS else ""), dataset, dict(rows), floor))
    return made


def _row(config: dict[str, Any]) -> tuple[str, int]:
    """Title and k: DTI without fixes is our recipe."""
    if config["method"] == "sw":
        return SW
    plain = config["fixes"]["reset"] is None and config["fixes"]["position"] == "rope"
    return (OURS if plain else PAPERS), config["k"]


def _table(block: Block, inputs: Inputs) -> str:
    paper, source = paper_dataset(block.dataset)
    headers = (
        "method", "k", "to the best epoch", "reduction", "one epoch", "reduction of it", "token limit",
        "tokens/s", "until stopped", "best of epochs", "validation and test", "compilation", "AUC",
        f"AUC ({source})", "runs", f"paper's reduction, {PAPER_DATASETS[paper]}",
    )  # fmt: skip
    auc = NOT_RUN if block.floor is None else score(block.floor.mean("metrics", "auc"))
    lines = [("Like rates, the floor", *[ABSENT] * 11, auc, ABSENT, ABSENT, ABSENT)]
    for row in sorted(block.rows, key=lambda row: (row[0] != "SW", row)):
        runs = block.rows[row]
        good = block.ok(row)
        title, k = row
        config = runs[0].record["config"]
        lines.append(
            (
                title,
                str(k),
                duration(block.time(row, "train_to_best_s")),
                ratio(block.reduction(row)),
                duration(block.epoch(row)),
                ratio(block.reduction_of_epoch(row)),
                ratio(token_limit(config["n"], k)),
                _tokens_per_s(good),
                duration(block.time(row, "train_s")),
                _epochs(good),
                duration(block.time(row, "eval_s")),
                duration(block.time(row, "compile_s")),
                score(block.auc(row)),
                score(_published_auc(inputs, paper, row)),
                ", ".join([str(len(good)), *(run.status for run in runs if run.status != "ok")]),
                ratio(_published(inputs, paper, k)) if title == PAPERS else ABSENT,
            )
        )
    return table(headers, lines)


def _epoch_s(run: Run) -> float:
    return run.record["time"]["train_s"] / run.record["time"]["epochs"]


def _tokens_per_s(runs: Sequence[Run]) -> str:
    """Of the training loop; padding does not count."""
    speeds = [run.record["data"]["tokens_raw"] / _epoch_s(run) for run in runs]
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


def _published_auc(inputs: Inputs, dataset: str, row: tuple[str, int]) -> float | None:
    """Of the paper's Table 1; None for our recipe, which the paper does not have."""
    title, k = row
    found = inputs.paper_scores.get((dataset, {SW[0]: "sw", PAPERS: "dti"}.get(title, ""), k))
    return found.auc if found else None


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
