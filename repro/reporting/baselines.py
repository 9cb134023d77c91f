"""reports/baselines.md: the floor and the ID-based models, beside published values and each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baselines import PUBLISHED_HISTORY
from repro.evaluation.intervals import LEVEL
from repro.reporting.baseline_speed import speed_section
from repro.reporting.baseline_trials import trials_section
from repro.reporting.cells import NOT_RUN, Cell, build_cells, plain
from repro.reporting.claims import MIN_SEEDS
from repro.reporting.floor import LEGEND, floor_sections
from repro.reporting.formatting import (
    ABSENT,
    bounds,
    count,
    folded,
    listed,
    page,
    plural,
    score,
    signed,
    summary,
    table,
)
from repro.reporting.inputs import ORIGINS, YOURS, Inputs, data_line
from repro.reporting.lines import auc_text, seeds_text
from repro.reporting.methods import ID_TITLES, MODEL_TITLES, family, id_title, is_floor
from repro.reporting.order import place
from repro.reporting.provenance import provenance, runs_table
from repro.reporting.references import PublishedScore
from repro.reporting.scores import auc_interval

SHARED = "several shared a device: their times are no measure of speed"
MARGIN = 0.003  # of a reproduction, in AUC; stated before the runs


@dataclass(frozen=True)
class Group:
    """Cells tested on the same targets of one data set, by origin."""

    title: str
    dataset: str
    protocol: str
    cells: dict[str, list[Cell]]


def title_of(method: str, n: int | None) -> str:
    """Row name, e.g. "DIN, n = 30" or "Like rates of the last 20"."""
    return id_title(method, n) + (f", n = {n}" if n and method in MODEL_TITLES else "")


def is_baseline(method: str) -> bool:
    """Whether a method belongs on this page."""
    return family(method) in ID_TITLES


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    blocks = [_legend()]
    found = groups(inputs)
    if not found:
        blocks.append("All rows: not run.")
    for group in found:
        runs = [run for origin in ORIGINS for cell in group.cells[origin] for run in cell.runs]
        blocks += [f"## {group.title}", data_line(inputs, runs)]
        for origin in ORIGINS:
            if group.cells[origin]:
                blocks += [f"### {origin.capitalize()}"] if group.cells[YOURS] else []
                blocks += _blocks(group, group.cells[origin], inputs.published_baselines)
    blocks += ["## Training speed", *_speed(inputs), trials_section(inputs.baseline_trials)]
    used = [run for g in found for o in ORIGINS for c in g.cells[o] for run in (*c.runs, *c.superseded)]
    blocks.append(provenance(used))
    return {"baselines.md": page("ID-based models and the floor", "baselines", blocks)}


def _speed(inputs: Inputs) -> list[str]:
    """DIN's speed beside other libraries', one block per measured file."""
    found = [(origin, each) for origin in ORIGINS for each in inputs.baseline_speed[origin]]
    if not found:
        return ["Not run (`nox -s bench_baselines`)."]
    return [
        f"DIN beside the DIN of two libraries, measured side by side in one run{own}. "
        f"{speed_section(each.environment, each.rows)}"
        for origin, each in found
        for own in (" (yours)" if origin == YOURS else "",)
    ]


def state(inputs: Inputs) -> str:
    """How many rows have records, and of what, for the index."""
    found = groups(inputs)
    number = sum(len(_lines(group.cells[origin])) for group in found for origin in ORIGINS)
    return summary(plural(number, "row"), [group.dataset for group in found]) if found else NOT_RUN


def groups(inputs: Inputs) -> list[Group]:
    """Baselines by tier, data set, protocol and targets, each in the order of ID_TITLES."""
    found: dict[tuple[str, ...], dict[str, list[Cell]]] = {}
    for origin in ORIGINS:
        for cell in build_cells(
            run for run in inputs.runs[origin] if is_baseline(run.record["config"]["method"])
        ):
            config, data = cell.config, cell.runs[0].record["data"]
            key = (
                *(config[name] for name in ("dataset", "protocol", "tier")),
                *(data["sha256"], f"{data['train_targets']:>12}", f"{data['test_targets']:>12}"),
            )
            found.setdefault(key, {each: [] for each in ORIGINS})[origin].append(cell)
    result = []
    for key, cells in sorted(found.items(), key=lambda item: (place(item[0][0], int(item[0][4])), item[0])):
        dataset, protocol, tier, _, train, test = key
        title = f"{dataset}, protocol {protocol}, tier {tier} ({count(int(train))} training, "
        ordered = {origin: sorted(each, key=_order) for origin, each in cells.items()}
        result.append(Group(f"{title}{count(int(test))} test targets)", dataset, protocol, ordered))
    return result


def _order(cell: Cell) -> tuple[int, int, str]:
    return list(ID_TITLES).index(family(cell.method)), cell.config["n"] or 0, str(cell.settings)


def _legend() -> str:
    explained = {
        "Targets": "the same for every method of a section, and the same as those of the LLM rows of that "
        "tier, data set and protocol.",
        "Like rates": "logistic regression on three numbers known before the target: the user's smoothed "
        "share of likes among the last 20 interactions and among all earlier ones, the item's among the "
        "training targets (leave-one-out). The floor: what does not beat it clearly has learned little.",
        "Inputs of the models": "item id, genres or categories, past answers; no text, no demographics.",
        "n": "past interactions that are read.",
        "Best epochs": "of each seed, by AUC on the validation split; its weights were tested.",
        "Floor": LEGEND,
        "Published": "other authors' values with demographics among the inputs; reproduced: not more than "
        f"{MARGIN} below, or better.",
    }
    return "\n".join(f"- *{name}*: {text}" for name, text in explained.items())


def _blocks(
    group: Group, cells: Sequence[Cell], published: Mapping[tuple[str, str, str], PublishedScore]
) -> list[str]:
    of_dataset = {k[2]: v for k, v in published.items() if k[:2] == (group.dataset, group.protocol)}
    labelled = [(_label(cell, cells), cell) for cell in cells]
    lines, rows = _lines(cells), []
    for same in lines:
        cell, label = same[0], _label(same[0], [each[0] for each in lines])
        auc = auc_interval(cell.ok) if cell.ok else None
        row = [label, seeds_text(cell), auc_text(cell), bounds(auc.low, auc.high) if auc else ABSENT]
        row += [score(cell.mean("metrics", name)) for name in ("log_loss", "f1", "gauc")]
        row += [*_published(cell, of_dataset)] if of_dataset else []
        rows.append([*row, _epochs(cell), listed([each.device for each in same])])
    headers = ["row", "seeds", "AUC", f"{100 * LEVEL:.0f} % interval", "log loss", "F1", "GAUC"]
    headers += ["published AUC", "ours − published", "reproduced"] if of_dataset else []
    headers += ["best epochs", "device"]
    return [
        table(headers, rows),
        floor_sections([(label, cell) for label, cell in labelled if cell.config["training"]], cells),
        *folded(f"Runs ({SHARED})", runs_table(labelled)),
    ]


def _lines(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of each line: one, or those of the floor that say the same on several devices.

    Nothing in the floor is random, and no device has a part in it but by rounding.
    """
    found: dict[object, list[Cell]] = {}
    for cell in cells:
        numbers = [score(cell.mean("metrics", name)) for name in ("auc", "log_loss", "f1", "gauc")]
        same = (cell.method, cell.config["n"], str(cell.settings), cell.stale, *numbers)
        found.setdefault(same if is_floor(cell.method) and cell.ok else id(cell), []).append(cell)
    return list(found.values())


def _label(cell: Cell, cells: Sequence[Cell]) -> str:
    """Row name; where several cells share it, whatever differs between them."""
    config = cell.config
    label = title_of(cell.method, config["n"])
    twins = [other for other in cells if (other.method, other.config["n"]) == (cell.method, config["n"])]
    names = sorted({name for each in twins for name in each.settings})
    varying = [name for name in names if len({each.settings.get(name) for each in twins}) > 1]
    parts = [f"{name} = {plain(cell.settings.get(name, 'null'))}" for name in varying]
    if len({each.device for each in twins}) > 1:
        parts.append(f"on {cell.device}")
    return ", ".join([label, *parts])


def _epochs(cell: Cell) -> str:
    best = [run.record["time"]["best_epoch"] for run in cell.ok]
    if not best or None in best:
        return ABSENT
    return ", ".join(str(each + 1) for each in best)


def _published(cell: Cell, published: Mapping[str, PublishedScore]) -> tuple[str, str, str]:
    """Published AUC, ours minus it, and whether it is reproduced; only at the published history length."""
    auc = cell.mean("metrics", "auc")
    found = published.get(cell.method)
    if found is None or cell.config["n"] != PUBLISHED_HISTORY or auc is None:
        return (ABSENT, ABSENT, ABSENT)
    if len(cell.ok) < MIN_SEEDS:
        return score(found.auc), signed(auc - found.auc), f"needs {MIN_SEEDS} seeds"
    return score(found.auc), signed(auc - found.auc), "yes" if auc >= found.auc - MARGIN else "no"
