"""reports/bahe_ablation.md: what each part of BAHE is worth, one change at a time."""

from __future__ import annotations

from repro.experiments.bahe_variants import ABLATIONS, FULL
from repro.reporting.bahe_variants import (
    TABLE_COST,
    Group,
    caveats,
    full_method,
    not_run,
    runs_details,
    settings_of,
    told_apart,
    variant_groups,
    variant_table,
)
from repro.reporting.cells import NOT_RUN, Cell
from repro.reporting.flops_vs_length import one_sequence_text
from repro.reporting.formatting import page, plural, summary
from repro.reporting.inputs import Inputs
from repro.reporting.provenance import provenance

NAME = "bahe_ablation"
TITLES = {name: each.title for name, each in ABLATIONS.items()}
LEGEND = (
    "Each row changes one thing of the first. The targets, the trainer and the adapters of the trained "
    "layers are the same. All rows have the learning rate that was chosen for the first, so part of a "
    "difference may be the rate's, above all where seeds differ widely. *Training time* is that of all "
    "steps, without validation and without the table's build, which has a column of its own; *step* is "
    "training time over the number of steps. Without caching the lower layers read the texts of "
    f"a batch's behaviours in every step, each text once. *Table build*: {TABLE_COST}. "
    "Peak memory is that of the GPU; on a CPU it is that of the process since it started, earlier rows "
    "included, and compares rows only if each ran in a process of its own (`-- --rows NAME`)."
)


def groups(inputs: Inputs) -> list[Group]:
    """Groups with any row of this page; BAHE alone is no ablation."""
    found = variant_groups(inputs, list(ABLATIONS), _name_of)
    return [group for group in found if set(group.cells) != {FULL}]


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    found, blocks = groups(inputs), [LEGEND]
    for group in found:
        blocks += [
            f"## {group.title}",
            variant_table(group, TITLES, FULL),
            told_apart(group, TITLES, FULL),
            *caveats(group, TITLES),
            *runs_details(group, TITLES),
        ]
    if found and (text := one_sequence_text(inputs)):
        blocks.append(
            "## Feature parallel against text length\n\n"
            "The rows above have one length, n; as the text grows, feature parallel saves more. "
            f"{text} Counted in closed form, with the sequences of "
            "[docs/costs.md](../docs/costs.md): [flops_vs_length](flops_vs_length.md)."
        )
    if not found:
        blocks.append(not_run(list(TITLES.values())))
    blocks.append(provenance([run for group in found for run in group.runs]))
    return {f"{NAME}.md": page("BAHE: what each part is worth", NAME, blocks)}


def state(inputs: Inputs) -> str:
    """How many rows have records, for the index."""
    cells = [cell for group in groups(inputs) for cell in group.cells.values()]
    names, devices = (cell.config["dataset"] for cell in cells), (cell.device for cell in cells)
    return summary(plural(len(cells), "row"), names, device=devices) if cells else NOT_RUN


def _name_of(cell: Cell) -> str | None:
    own = settings_of(cell)
    for name, ablation in ABLATIONS.items():
        if settings_of(ablation.change(full_method())) == own:
            return name
    return None
