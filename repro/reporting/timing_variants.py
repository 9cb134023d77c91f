"""The part of the timing page about DTI's variants: what each reading of the paper costs."""

from __future__ import annotations

from statistics import mean
from typing import Any

from repro.records.measurements import Measurement
from repro.reporting.formatting import ABSENT, mean_of, plural, table
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.provenance import versions

AS_TRAINED = "steps of a training run"  # how the title of such a row ends
LAUNCHED = "launched kernel by kernel"
Row = dict[str, Any]


def variant_blocks(inputs: Inputs) -> list[str]:
    """A heading, a sentence and a table for every file with variants."""
    blocks = []
    for title, _, rows in _files(inputs):
        blocks += [
            f"## Variants of DTI, {title}",
            f"k = {rows[0]['k']}, but for the sliding window, which is there for the ratio. Each row "
            "changes what it names of the first, our recipe, and nothing else; the paper's recipe is "
            "several changes together. *Extra time* is of a target, over the first row's. *Steps of a "
            "training run* have a set number of targets, where the others fill the same length: a training "
            "run's tokens/s compare with them. Compilation depends on the order of the rows: what an earlier "
            f"one compiled is there already.{_graphs(rows)}",
            _table(rows),
            _as_trained(rows),
        ]
    return blocks


def variant_sources(inputs: Inputs) -> list[str]:
    """Lines of the page's provenance."""
    return [source for _, source, _ in _files(inputs)]


def _files(inputs: Inputs) -> list[tuple[str, str, list[Row]]]:
    found = []
    for origin in ORIGINS:
        for file in inputs.timing[origin]:
            rows = [row for row in file.rows if row.get("variant")]
            if rows:
                first = rows[0]
                title = f"{shape(first)}, {first['tuning']}, {first['device']}"
                title += f" ({origin})" if origin == YOURS else ""
                found.append((title, source_line(file), rows))
    return found


def shape(row: Row) -> str:
    """What a row's model is, e.g. "smollm2-135m shape, 4 layers" where it was cut to its first 4."""
    layers = row.get("layers")
    size = "" if layers is None else f", {plural(layers, 'layer')}"
    return f"{row['backbone'].removeprefix('random:')} shape{size}"


def source_line(file: Measurement) -> str:
    """A file's line of the page's provenance; older files hold no commit."""
    return f"- `timing/{file.path.name}`: {versions(file.environment)}"


def _graphs(rows: list[Row]) -> str:
    """Which rows' steps were replayed as CUDA graphs, and which were not."""
    measured = {row["variant"]: row.get("cuda_graph") for row in rows if not isinstance(row["step_ms"], str)}
    launched = [title for title, replayed in measured.items() if not replayed]
    if len(launched) == len(measured):
        return f" All steps were {LAUNCHED}." if measured else ""
    if not launched:
        return " All steps were replayed as CUDA graphs."
    return f" Steps were replayed as CUDA graphs; those of *{'*, *'.join(launched)}* were {LAUNCHED}."


def _as_trained(rows: list[Row]) -> str:
    """What it means for a training run that its steps ran out of memory; empty where they did not.

    Which micro-batches a file was measured with is not in its rows, so nothing is said of the present ones.
    """
    failed = {row["variant"] for row in rows if row["step_ms"] == "out_of_memory"}
    steps = [title for title in failed if title.endswith(AS_TRAINED)]
    if not steps:
        return ""
    return (
        f"*{steps[0]}*, out of memory: a training run on this device, with the micro-batches that the tier "
        "had when this was measured, would have run out as well. How fast such a run trains is not known "
        "from this file; what became of the micro-batches since: "
        "[docs/performance.md](../docs/performance.md#aims-and-results)."
    )


def _table(rows: list[Row]) -> str:
    headers = (
        "variant", "extra time", "targets/s", "tokens/s", "lowest to highest", "step, ms", "peak, GiB",
        "compilation, s",
    )  # fmt: skip
    titles = list(dict.fromkeys(row["variant"] for row in rows))
    ours = _values(rows, titles[0], "targets_per_s")
    lines = []
    for title in titles:
        targets, tokens = (_values(rows, title, key) for key in ("targets_per_s", "tokens_per_s"))
        failed = next(row["step_ms"] for row in rows if row["variant"] == title)
        extra = failed.replace("_", " ") if isinstance(failed, str) else ABSENT
        if ours and targets and title != titles[0]:
            extra = f"{mean(ours) / mean(targets) - 1:+.1%}"
        lines.append(
            (
                title,
                extra,
                mean_of(targets, ",.0f"),
                mean_of(tokens, ",.0f"),
                f"{min(tokens):,.0f} to {max(tokens):,.0f}" if tokens else ABSENT,
                mean_of(_values(rows, title, "step_ms"), ",.1f"),
                mean_of(_values(rows, title, "peak_gib"), ".2f"),
                mean_of(_values(rows, title, "compile_s"), ".0f"),
            )
        )
    return table(headers, lines)


def _values(rows: list[Row], title: str, key: str) -> list[float]:
    found = [row[key] for row in rows if row["variant"] == title]
    return [value for value in found if isinstance(value, int | float)]
