"""reports/table2.md: statistics of the data sets beside DTI's Table 2."""

from __future__ import annotations

from typing import Any

from repro.reporting.cells import NOT_RUN
from repro.reporting.formatting import ABSENT, count, listed, page, score, table
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.provenance import versions
from repro.reporting.references import PAPER_DATASETS, PaperStatistics

FIELDS = ("users", "items", "samples")


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    blocks = [
        "Users, items and samples of the source as it comes, before any pruning. Sparsity is "
        "1 − samples / (users × items), the paper's definition.",
        "## Sources",
        _sources(inputs),
        _against_paper(inputs),
        "## Protocols",
        _protocols(inputs),
        "## Provenance",
        _provenance(inputs),
    ]
    return {"table2.md": page("DTI, Table 2: statistics of the data sets", "table2", blocks)}


def state(inputs: Inputs) -> str:
    """Which data sets have statistics, for the index."""
    names = [f"{row['dataset']} ({row['protocol']})" for _, row in _rows(inputs)]
    return listed(sorted(set(names))) or NOT_RUN


def _rows(inputs: Inputs) -> list[tuple[str, dict[str, Any]]]:
    return [(origin, row) for origin in ORIGINS for row in inputs.statistics[origin]]


def _sources(inputs: Inputs) -> str:
    """One line per different set of numbers of a data set, then the paper's data sets that were not run."""
    names = ("users", "items", "samples", "sparsity")
    headers = ["data set", *names, *(f"{name} (paper)" for name in names)]
    lines: list[tuple[str, ...]] = []
    for origin, row in _rows(inputs):
        title = row["title"] + (" (yours)" if origin == YOURS else "")
        own = (*(count(row[name]) for name in FIELDS), score(row["sparsity"]))
        line = (title, *own, *_paper_columns(inputs.paper_statistics.get(row["dataset"])))
        if line not in lines:
            lines.append(line)
    present = {row["dataset"] for _, row in _rows(inputs)}
    for dataset, statistics in sorted(inputs.paper_statistics.items()):
        if dataset not in present:
            lines.append((PAPER_DATASETS[dataset], "not run", *[ABSENT] * 3, *_paper_columns(statistics)))
    return table(headers, lines)


def _paper_columns(statistics: PaperStatistics | None) -> tuple[str, ...]:
    if statistics is None:
        return (ABSENT,) * 4
    return (*(count(getattr(statistics, name)) for name in FIELDS), score(statistics.sparsity))


def _against_paper(inputs: Inputs) -> str:
    """Sentences on what agrees with the paper's numbers, and which stage of pruning they count."""
    sentences = []
    for _, row in _rows(inputs):
        paper = inputs.paper_statistics.get(row["dataset"])
        if paper is None:
            continue
        name = PAPER_DATASETS[row["dataset"]]
        different = [field for field in FIELDS if row[field] != getattr(paper, field)]
        if different:
            sentences.append(f"{name}: {listed(different)} differ from the paper's.")
        left = count(row["items_pruned"])
        if row["items"] == paper.items and row["items_pruned"] < row["items"]:
            sentences.append(
                f"{name}: the paper prunes rare items, yet the {count(paper.items)} items of its Table 2 "
                f"are the unpruned number: the source holds {count(row['items'])}, and {left} remain after "
                "pruning."
            )
        elif row["items_pruned"] == paper.items and row["items_pruned"] < row["items"]:
            sentences.append(
                f"{name}: the {count(paper.items)} items of the paper's Table 2 are those that remain after "
                f"pruning, of {count(row['items'])}."
            )
    return " ".join(dict.fromkeys(sentences))


def _protocols(inputs: Inputs) -> str:
    headers = ["data set", "protocol", "items after pruning", "training targets", "validation targets"]
    headers += ["test targets"]
    lines = [
        (
            row["title"] + (" (yours)" if origin == YOURS else ""),
            row["protocol"],
            *(
                count(row[key])
                for key in ("items_pruned", "train_targets", "validation_targets", "test_targets")
            ),
        )
        for origin, row in _rows(inputs)
    ]
    return table(headers, lines) if lines else "Not run."


def _provenance(inputs: Inputs) -> str:
    lines = [
        (
            f"{row['dataset']}, protocol {row['protocol']}",
            origin,
            f"`{row['sha256']}`",
            versions(row["environment"]),
        )
        for origin, row in _rows(inputs)
    ]
    return table(("data set", "origin", "data sha256", "versions"), lines) if lines else "No records."
