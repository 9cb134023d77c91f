"""reports/table1.md: DTI's Table 1, ours beside the paper's, with intervals and what they allow to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from repro.evaluation.intervals import NUM_DRAWS
from repro.evaluation.metrics import F1_THRESHOLD
from repro.reporting.baselines import SHARED
from repro.reporting.cells import NOT_RUN
from repro.reporting.claims import claims
from repro.reporting.floor import SHORT_LEGEND, floor_sections
from repro.reporting.formatting import (
    ABSENT,
    bounds,
    count,
    duration,
    folded,
    listed,
    page,
    percent,
    plural,
    ratio,
    score,
    summary,
    table,
)
from repro.reporting.inputs import COMMITTED, YOURS, Inputs, data_line
from repro.reporting.lines import Line, auc_text, section_lines, seeds_text
from repro.reporting.methods import MODEL_TITLES
from repro.reporting.provenance import provenance, runs_table
from repro.reporting.references import paper_dataset
from repro.reporting.sections import METHOD_TITLES, Row, Section, Slot, build_sections
from repro.reporting.sw_differences import INTERVAL, differences_table
from repro.reporting.trials import trials_section
from repro.reporting.words import configuration, differences

PaperColumn = Callable[[Slot, str], str]  # row and field of `PaperScore` -> text


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    sections = build_sections(inputs)
    blocks = [_legend()]
    if not sections:
        blocks.append("All rows: not run. No record of SW, DTI- or DTI is there.")
    for section in sections:
        blocks += _section_blocks(section, inputs)
    blocks.append(trials_section(inputs.trials))
    used = [run for s in sections for o in s.origins for run in _runs(s, o)]
    blocks.append(provenance(list({run.path: run for run in used}.values())))
    return {"table1.md": page("DTI, Table 1: AUC, log loss and F1 of SW, DTI- and DTI", "table1", blocks)}


def state(inputs: Inputs) -> str:
    """How many of all sections' rows have results, for the index."""
    rows, done, names = set(), set(), []
    for section in build_sections(inputs):
        for origin in section.origins:
            own = [row for row in section.rows(origin) if row.slot[0] in METHOD_TITLES]
            place = (section.title, origin)
            rows |= {(*place, row.slot) for row in own}
            done |= {(*place, row.slot) for row in own if row.cell is not None and row.cell.ok}
            names.append(section.key.dataset)
    return summary(f"{count(len(done))} of {plural(len(rows), 'row')}", names) if rows else NOT_RUN


def _legend() -> str:
    explained = {
        "Cell": "the seeds of one configuration on one device, and nothing else; a section per data set, "
        "protocol, tier and recipe that has records. A recipe without an SW of its own has that of the other "
        "recipe. Runs until convergence, SW's and DTI's alike, stand on [table3](table3.md), not here.",
        "AUC": "mean over seeds ± standard deviation between seeds; a single run says n = 1.",
        INTERVAL: f"bootstrap over users and seeds together, {count(NUM_DRAWS)} draws.",
        "Relative AUC": "100 × (AUC / AUC of SW − 1), as the paper has it.",
        "Log loss, F1, GAUC": f"in nats; of likes, at threshold {F1_THRESHOLD}; AUC per user, weighted by "
        "the user's number of targets.",
        "SW time / time": "training time of SW over that of the row, all epochs trained; only where device, "
        "precision, compile state and batch sizes are the same on both sides.",
        "Differences to SW": "paired over users; p two-sided, and Holm-adjusted over DTI- and DTI on one "
        "device; DeLong's test, which takes targets as independent, stands beside them for the first seed of "
        "both.",
        "Floor": SHORT_LEGEND,
        "Columns with 8B": "the paper's, for Llama-3.1-8B-Instruct; it states neither seeds nor intervals.",
    }
    return "\n".join(f"- *{name}*: {text}" for name, text in explained.items())


def _section_blocks(section: Section, inputs: Inputs) -> list[str]:
    dataset, source = paper_dataset(section.key.dataset)
    paper, runs = inputs.paper_scores, [run for cell in section.all_cells for run in cell.runs]

    def column(slot: Slot, name: str) -> str:
        found = paper.get((dataset, slot[0], slot[1])) if slot[1] is not None else None
        value = getattr(found, name) if found else None
        return percent(value) if name == "relative_percent" else score(value)

    blocks = [f"## {section.title}", data_line(inputs, runs), configuration(section), differences(section)]
    if YOURS in section.origins:
        blocks += ["### Committed beside yours", _beside(section)]
    for origin in section.origins:
        lines = section_lines(section, origin)
        suffix = f", {origin}" if YOURS in section.origins else ""
        blocks += [f"### Scores{suffix}", _scores(lines, column, source)]
        blocks += [f"### Differences to SW{suffix}", differences_table(section.key.dataset, lines)]
        blocks += [f"### Above the floor{suffix}", _floor(section, origin, lines)]
        blocks.append(claims(section.key.dataset, lines))
        cells = [(line.row.label, line.row.cell) for line in lines if line.row.cell is not None]
        blocks += [f"### Runs{suffix}", *folded("All runs", runs_table(cells))]
    return blocks


def _beside(section: Section) -> str:
    """AUC of the two origins, row by row; never pooled."""
    rows = {origin: section.rows(origin) for origin in (COMMITTED, YOURS)}
    references = [row for row in rows[COMMITTED] + rows[YOURS] if row.slot[0] not in METHOD_TITLES]
    lines = []
    for slot in dict.fromkeys([*(row.slot for row in references), *section.slots()]):
        of_slot = {origin: [row for row in rows[origin] if row.slot == slot] for origin in rows}
        everywhere = of_slot[COMMITTED] + of_slot[YOURS]
        run = [row for row in everywhere if row.cell is not None]
        for label in dict.fromkeys(row.label for row in run or everywhere):
            lines.append((label, *(_auc_on_device(label, of_slot[origin]) for origin in rows)))
    return table(("row", "AUC, committed", "AUC, yours"), lines)


def _auc_on_device(label: str, rows: Sequence[Row]) -> str:
    cell = next((row.cell for row in rows if row.label == label), None)
    return auc_text(cell) + (f" on {cell.device}" if cell else "")


def _scores(lines: Sequence[Line], paper: PaperColumn, source: str) -> str:
    headers = ["row", "seeds", "AUC", INTERVAL, "relative AUC", f"AUC ({source})", f"relative AUC ({source})"]
    headers += ["log loss", f"log loss ({source})", "F1", f"F1 ({source})", "GAUC", "training time"]
    headers += ["SW time / time"]
    rows = []
    for line in lines:
        cell, slot = line.row.cell, line.row.slot
        mean = {
            name: score(cell.mean("metrics", name) if cell else None) for name in ("log_loss", "f1", "gauc")
        }
        rows.append(
            (
                line.row.label,
                seeds_text(cell),
                auc_text(cell),
                bounds(line.auc.low, line.auc.high) if line.auc else ABSENT,
                percent(line.relative_percent),
                paper(slot, "auc"),
                paper(slot, "relative_percent"),
                mean["log_loss"],
                paper(slot, "log_loss"),
                mean["f1"],
                paper(slot, "f1"),
                mean["gauc"],
                _time(line),
                ratio(line.time_ratio),
            )
        )
    return table(headers, rows) + _shared(lines)


def _shared(lines: Sequence[Line]) -> str:
    """Whose times are no measure of speed; empty where no such row shows one."""
    timed = dict.fromkeys(line.row.slot[0] for line in lines if _time(line) != ABSENT)
    names = listed([MODEL_TITLES[method] for method in timed if method in MODEL_TITLES])
    if not names:
        return ""
    return f"\n\nOf the runs of {names}, {SHARED}; speed of DIN: [baselines](baselines.md)."


def _time(line: Line) -> str:
    """Mean training time over seeds, with the epochs that it covers."""
    cell = line.row.cell
    if cell is None or not cell.ok:
        return ABSENT
    train_s = cell.mean("time", "train_s")
    epochs = sorted({run.record["time"]["epochs"] for run in cell.ok})
    if train_s is None or epochs == [0]:
        return ABSENT
    covered = f"{epochs[0]} to {epochs[-1]} epochs" if len(epochs) > 1 else plural(epochs[0], "epoch")
    return f"{duration(train_s)} ({covered})"


def _floor(section: Section, origin: str, lines: Sequence[Line]) -> str:
    rows = [(line.row.label, line.row.cell) for line in lines if line.own and line.row.cell is not None]
    return floor_sections(rows, section.floor[origin])


def _runs(section: Section, origin: str) -> list:
    cells = section.cells[origin] + section.references[origin]
    return [run for cell in cells for run in (*cell.runs, *cell.superseded)]
