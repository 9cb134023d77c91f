"""reports/bahe.md: AUC and cost of BAHE, LLM-CTR and DTI over BAHE beside SW, DTI and DIN."""

from __future__ import annotations

from collections.abc import Sequence

from repro.evaluation.intervals import (
    NO_LOSS_MARGIN,
    no_loss,
    smallest_detectable_difference,
)
from repro.reporting import leakage
from repro.reporting.bahe_costs import costs_table, larger_k_text
from repro.reporting.bahe_figures import quality_panels
from repro.reporting.bahe_quality_rows import (
    DTI_BAHE,
    FAMILY_TITLES,
    LLMS,
    METHOD_PAIRS,
    STRONGEST,
    Group,
    Pair,
    Row,
    groups,
    is_usual,
    pairs,
    title,
)
from repro.reporting.bahe_rates import rates_text, selection_k
from repro.reporting.bahe_variants import TABLE_COST
from repro.reporting.cells import NOT_RUN, Cell
from repro.reporting.claims import ALPHA, ALPHA_TEXT, LEVEL_TEXT, MIN_SEEDS, NO_LOSS_DATASETS, POWER
from repro.reporting.figures import figure_files, figure_text
from repro.reporting.floor import SHORT_LEGEND, floor_sections
from repro.reporting.formatting import (
    ABSENT,
    bounds,
    compact,
    count,
    folded,
    listed,
    p_value,
    page,
    plural,
    score,
    signed,
    summary,
    table,
)
from repro.reporting.inputs import ORIGINS, YOURS, Inputs, data_line
from repro.reporting.lines import auc_text, seeds_text
from repro.reporting.methods import FLOOR
from repro.reporting.provenance import provenance, runs_table, versions_of_code
from repro.reporting.scores import auc_interval
from repro.reporting.trials import trials_section

NAME = "bahe"
_FIGURE = (
    "AUC above the floor, with its interval, against what training and table cost; joined: the same method, "
    "trained longer"
)
TITLES = listed(list(FAMILY_TITLES.values()))
INTERVAL = f"{LEVEL_TEXT} interval"


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    found = groups(inputs)
    blocks = [*figure_text(NAME, _FIGURE), _legend(leakage.quality_line(inputs))]
    if not found:
        blocks.append("All rows: not run.")
    for group in found:
        runs = [run for origin in ORIGINS for run in group.runs(origin)]
        blocks += [f"## {group.title}", data_line(inputs, runs)]
        for origin in ORIGINS:
            if any(row.slot[0] in FAMILY_TITLES for row in group.rows[origin]):
                blocks += [f"### {origin.capitalize()}"] if group.rows[YOURS] else []
                blocks.append(rates_text(inputs, group, group.rows[origin]))
                blocks += _blocks(group, origin)
    note = (
        f"{FAMILY_TITLES[DTI_BAHE]} was tried at k = {selection_k()}. Trials of the other rows are listed on "
        "[table1](table1.md) and [baselines](baselines.md)."
    )
    blocks.append(trials_section(inputs.bahe_trials, of=f" for {TITLES}", note=note))
    shown = [row.cell for group in found for origin in ORIGINS for row in group.rows[origin]]
    blocks.append(provenance([run for cell in shown for run in (*cell.runs, *cell.superseded)]))
    figure = figure_files(NAME, quality_panels(found))
    return {**figure, f"{NAME}.md": page("Quality and total cost of BAHE", NAME, blocks)}


def state(inputs: Inputs) -> str:
    """How many rows of the family have records, for the index."""
    found = groups(inputs)
    rows = [row for group in found for origin in ORIGINS for row in group.rows[origin]]
    number = plural(sum(row.slot[0] in FAMILY_TITLES for row in rows), "row")
    return summary(number, (g.dataset for g in found), device=(g.device for g in found)) if found else NOT_RUN


def _legend(leaks: str) -> str:
    explained = {
        "BAHE": "layers below the cut are frozen and encode each behaviour (an item's text with its answer) "
        "once, into a table; the upper layers, with LoRA, read vectors from it, each user sequence (liked, "
        "disliked, recent; on groceries by department) apart. Every sequence is drawn from the n "
        "interactions that SW, DTI and DIN see.",
        "LLM-CTR": "BAHE's comparison partner: the same LLM, LoRA and head over the text of the same "
        "sequences, in one pass through all layers. With MovieLens' three, every context interaction stands "
        "in *recent* and in *liked* or *disliked*: its text is read twice (by BAHE its vector), by SW and "
        "DTI once.",
        "DTI over BAHE": "DTI's streaming rows (k targets per row) of behaviour vectors. Nobody has "
        "published it; the readings are ours.",
        **({"Leakage": leaks} if leaks else {}),
        "Targets": "the same for every row of a section. A section is of one device; a row of another one, "
        "for want of one made here, says so.",
        "Strongest ID-based model": "by validation AUC, of those on [baselines](baselines.md) with this "
        "history, where it is not DIN. SIM searches all of a user's history, not the last n interactions.",
        "AUC": f"mean over seeds ± standard deviation between seeds; {INTERVAL}: bootstrap over users and "
        "seeds together.",
        "Tokens or vectors per target": "what the layers of a training step read, per training target, "
        "padding left out: tokens for SW, DTI and LLM-CTR, behaviour vectors for BAHE and DTI over BAHE.",
        "Table": f"{TABLE_COST}. Total: training and the table, as if this run alone had to pay for it; "
        "compilation and evaluation are left out and stand under *Runs*.",
        "Best of epochs": "the epoch that was best by validation AUC, and how many were trained; the time is "
        "that of all. Rows of *up to* so many stop by table 3's rule or at that number, and are compared "
        "with rows of as many where there are such ([table3](table3.md) has those of SW and DTI), else with "
        "others as they are.",
        "Peak memory": "with weights, optimiser and a micro-batch; on a GPU, LLM-CTR's hold three quarters "
        "of the places of the others'.",
        "LLM-CTR / row, SW / row": "total of LLM-CTR or SW, of as many epochs where there is such a row, "
        "over that of the row, else of the epochs in brackets; only where device, precision, compile state "
        "and batch sizes are the same on both sides. Where *tuning* differs, the ratio holds that too. "
        "ID-based models have no times here: several of their runs shared a device.",
        "Floor": SHORT_LEGEND,
    }
    return "\n".join(f"- *{name}*: {text}" for name, text in explained.items())


def _blocks(group: Group, origin: str) -> list[str]:
    rows = group.rows[origin]
    compared = pairs(rows)
    return [
        _configuration([row.cell for row in rows if row.slot[0] in FAMILY_TITLES]),
        _scores(rows),
        _missing(rows),
        "**Differences of AUC**, paired over users:",
        _differences(group, compared),
        _told_apart(compared),
        "**Cost of training:**",
        costs_table(rows),
        *versions_of_code([(row.label, row.cell) for row in rows if row.slot[0] in LLMS]),
        *larger_k_text(rows),
        "**Above the floor:**",
        floor_sections(group.trained(origin), group.floor[origin]),
        _not_judged(group, rows),
        *folded("Runs", runs_table([(row.label, row.cell) for row in rows])),
    ]


def _not_judged(group: Group, rows: Sequence[Row]) -> str:
    """Which rows the floor's table leaves out; empty where all are of the section's device."""
    labels = [row.label for row in rows if row.slot[0] != FLOOR and row.cell.device != group.device]
    if not labels:
        return ""
    return (
        f"Not compared with the floor here, as made on another device: {compact(labels)}. See that device's "
        "section, [baselines](baselines.md) or [table1](table1.md)."
    )


def _configuration(cells: Sequence[Cell]) -> str:
    """What BAHE's family shares in this section; a setting with several values names them all."""
    if not cells:
        return ""
    words = {
        "backbone": lambda config: config["backbone_settings"]["title"],
        "context": lambda config: f"n = {config['n']}",
        "LoRA rank": lambda config: str(config["backbone_settings"]["lora_rank"]),
        "share of layers frozen": lambda config: _plain(config["behaviours"]["layer_cut"]),
        "vector of a behaviour": lambda config: config["behaviours"]["pooling"],
        "targets per step": lambda config: str(config["training"]["batch_targets"]),
        "epochs at most": lambda config: str(config["training"]["max_epochs"]),
        "precision": lambda config: config["training"]["precision"],
    }
    parts = []
    for name, value in words.items():
        found = sorted({text for cell in cells if (text := value(cell.config)) is not None})
        parts += [f"{name}: {listed(found)}"] if found else []
    return f"The family's settings: {'; '.join(parts)}."


def _plain(share: float | None) -> str | None:
    return None if share is None else f"{share:g}"


def _scores(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        cell, auc = row.cell, auc_interval(row.cell.ok) if row.cell.ok else None
        rate = (cell.config["training"] or {}).get("learning_rate")
        lines.append(
            [
                *(row.label, seeds_text(cell), auc_text(cell)),
                bounds(auc.low, auc.high) if auc else ABSENT,
                *(score(cell.mean("metrics", name)) for name in ("log_loss", "f1", "gauc")),
                *(cell.config["tuning"] or ABSENT, ABSENT if rate is None else f"{rate:g}", cell.device),
            ]
        )
    headers = ["row", "seeds", "AUC", INTERVAL, "log loss", "F1", "GAUC", "tuning", "learning rate", "device"]
    return table(headers, lines)


def _missing(rows: Sequence[Row]) -> str:
    """Which of the rows to compare nobody ran here in their usual form; failed ones stand in the table."""
    here = {row.slot for row in rows if is_usual(row)}
    wanted = dict.fromkeys(slot for pair in METHOD_PAIRS for slot in pair if slot[0] != STRONGEST)
    names = [title(slot) for slot in wanted if slot not in here]
    return f"Not run here: {compact(names)}." if names else ""


def _differences(group: Group, compared: Sequence[Pair]) -> str:
    if not compared:
        return "Not run: BAHE or DTI over BAHE and a row to compare it with are needed."
    with_no_loss = group.dataset in NO_LOSS_DATASETS
    lines = []
    for pair in compared:
        d = pair.difference
        line = [" − ".join(pair.names), signed(d.mean), bounds(d.low, d.high, "+.4f")]
        line += [score(d.se), p_value(d.p_value), p_value(pair.holm_p)]
        line += [score(smallest_detectable_difference(d.se, alpha=ALPHA, power=POWER))]
        lines.append([*line, _no_loss(pair)] if with_no_loss else line)
    headers = ["rows", "difference", INTERVAL, "SE", "p", "p (Holm)", "smallest detectable"]
    text = table([*headers, "no loss"] if with_no_loss else headers, lines)
    if with_no_loss:
        text += f"\n\nNo loss: the one-sided {LEVEL_TEXT} bound lies above {-NO_LOSS_MARGIN}."
    return text


def _no_loss(pair: Pair) -> str:
    if pair.difference.num_seeds < MIN_SEEDS:
        return f"needs {MIN_SEEDS} seeds"
    return "yes" if no_loss(pair.difference) else "not shown"


def _told_apart(compared: Sequence[Pair]) -> str:
    """What the differences show, in a sentence per direction."""
    if not compared:
        return ""
    found: dict[str, list[str]] = {"higher": [], "lower": [], "not told apart": []}
    for pair in compared:
        side = "higher" if pair.difference.mean > 0 else "lower"
        name = " against ".join(pair.names)
        found[side if pair.holm_p < ALPHA else "not told apart"].append(name)
    parts = [f"- {side}: {'; '.join(names)}." for side, names in found.items() if names]
    few = {
        row.label for pair in compared for row in (pair.first, pair.second) if len(row.cell.ok) < MIN_SEEDS
    }
    note = f"Rows with fewer than {MIN_SEEDS} seeds: {compact(sorted(few))}. What is said of them is said of "
    note += "these runs, not of the methods."
    head = f"By AUC, after Holm's adjustment at {ALPHA_TEXT}:"
    draws = compared[0].difference.num_draws
    if len(compared) * 2 / (draws + 1) >= ALPHA:
        head = f"{count(draws)} draws are too few to tell {len(compared)} pairs apart. {head}"
    return "\n\n".join([head, "\n".join(parts), *([note] if few else [])])
