"""reports/bahe.md: AUC and cost of BAHE, LLM-CTR and DTI over BAHE beside SW, DTI and DIN."""

from __future__ import annotations

from collections.abc import Sequence

from repro.evaluation.intervals import (
    NO_LOSS_MARGIN,
    no_loss,
    smallest_detectable_difference,
)
from repro.reporting.bahe_quality_rows import FAMILY_TITLES, LLM_CTR, Group, Pair, Row, groups, pairs
from repro.reporting.bahe_variants import TABLE_COST
from repro.reporting.cells import Cell, comparable_times
from repro.reporting.claims import ALPHA, ALPHA_TEXT, LEVEL_TEXT, MIN_SEEDS, NO_LOSS_DATASETS, POWER
from repro.reporting.floor import LEGEND, floor_section
from repro.reporting.formatting import (
    ABSENT,
    bounds,
    compact,
    duration,
    listed,
    p_value,
    page,
    plural,
    ratio,
    score,
    signed,
    table,
)
from repro.reporting.inputs import COMMITTED, ORIGINS, YOURS, Inputs
from repro.reporting.lines import auc_text, seeds_text
from repro.reporting.methods import FLOOR
from repro.reporting.provenance import provenance, runs_table
from repro.reporting.scores import auc_interval
from repro.reporting.trials import trials_section

INTERVAL = f"{LEVEL_TEXT} interval"
NOT_SEARCHED = (
    f"Learning rates not searched: {listed(list(FAMILY_TITLES.values()))} have one common learning rate that "
    "nobody chose on this data set. Differences to rows with a chosen one may be the rate's."
)


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    found = groups(inputs)
    blocks = [_legend()]
    if not found:
        blocks.append("All rows: not run.")
    for group in found:
        blocks.append(f"## {group.title}")
        if f"{group.tier}-{group.dataset}" not in inputs.bahe_trials:
            blocks.append(NOT_SEARCHED)
        for origin in ORIGINS:
            if any(row.slot[0] in FAMILY_TITLES for row in group.rows[origin]):
                blocks += [f"### {origin.capitalize()}"] if group.rows[YOURS] else []
                blocks += _blocks(group, group.rows[origin], group.floor[origin])
    blocks.append(trials_section(inputs.bahe_trials))
    shown = [row.cell for group in found for origin in ORIGINS for row in group.rows[origin]]
    blocks.append(provenance([run for cell in shown for run in (*cell.runs, *cell.superseded)]))
    return {"bahe.md": page("Quality and total cost of BAHE", "bahe", blocks)}


def state(inputs: Inputs) -> str:
    """How many rows of the family have records, for the index."""
    parts = []
    for group in groups(inputs):
        number = sum(row.slot[0] in FAMILY_TITLES for row in group.rows[COMMITTED])
        parts += [f"{group.title}: {plural(number, 'row')}"] if number else []
    return "; ".join(parts) or "not run"


def _legend() -> str:
    explained = {
        "BAHE": "layers below the cut are frozen and encode each behaviour (an item's text with its answer) "
        "once, into a table; the upper layers, with LoRA, read vectors from it, each user sequence (liked, "
        "disliked, recent) apart. Every sequence is drawn from the n interactions that SW, DTI and DIN see.",
        "LLM-CTR": "BAHE's comparison partner: the same LLM, LoRA and head over the text of the same "
        "sequences, in one pass through all layers. With these three, every context interaction stands in "
        "*recent* and in *liked* or *disliked*: its text is read twice (by BAHE its vector), by SW and DTI "
        "once.",
        "DTI over BAHE": "DTI's streaming rows (k targets per row) of behaviour vectors. Nobody has "
        "published it; the readings are ours.",
        "Targets": "the same for every row of a section.",
        "AUC": f"mean over seeds ± standard deviation between seeds; {INTERVAL}: bootstrap over users and "
        "seeds together.",
        "Tokens or vectors per target": "what the layers of a training step read, per training target, "
        "padding left out: tokens for SW, DTI and LLM-CTR, behaviour vectors for BAHE and DTI over BAHE.",
        "Table": f"{TABLE_COST}. Total: training and the table, as if this run alone had to pay for it; "
        "compilation and evaluation are left out and stand under *Runs*.",
        "Epochs": "as trained; whether more of them would change the order of the rows is not measured here.",
        "Peak memory": "with weights, optimiser and a micro-batch; on a GPU, LLM-CTR's hold three quarters "
        "of the places of the others'.",
        "LLM-CTR / row": "total of LLM-CTR over that of the row; only where device, precision, compile state "
        "and batch sizes are the same on both sides.",
        "Floor": LEGEND + " See [baselines](baselines.md).",
    }
    return "\n".join(f"- *{name}*: {text}" for name, text in explained.items())


def _blocks(group: Group, rows: Sequence[Row], floor: Sequence[Cell]) -> list[str]:
    trained = [(row.label, row.cell) for row in rows if row.slot[0] != FLOOR]
    compared = pairs(rows)
    return [
        _configuration([row.cell for row in rows if row.slot[0] in FAMILY_TITLES]),
        _scores(rows),
        "**Differences of AUC**, paired over users:",
        _differences(group, compared),
        _told_apart(compared),
        "**Cost of training:**",
        _costs(rows),
        *_versions(rows),
        "**Above the floor:**",
        floor_section(trained, floor),
        "<details><summary>Runs</summary>",
        runs_table([(row.label, row.cell) for row in rows]),
        "</details>",
    ]


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


def _differences(group: Group, compared: Sequence[Pair]) -> str:
    if not compared:
        return "Not run: BAHE or DTI over BAHE and a row to compare it with are needed."
    with_no_loss = group.dataset in NO_LOSS_DATASETS
    lines = []
    for pair in compared:
        d = pair.difference
        line = [f"{pair.first.label} − {pair.second.label}", signed(d.mean), bounds(d.low, d.high, "+.4f")]
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
        name = f"{pair.first.label} against {pair.second.label}"
        found[side if pair.holm_p < ALPHA else "not told apart"].append(name)
    parts = [f"- {side}: {'; '.join(names)}." for side, names in found.items() if names]
    few = {
        row.label for pair in compared for row in (pair.first, pair.second) if len(row.cell.ok) < MIN_SEEDS
    }
    note = f"Rows with fewer than {MIN_SEEDS} seeds: {compact(sorted(few))}. What is said of them is said of "
    note += "these runs, not of the methods."
    head = f"By AUC, after Holm's adjustment at {ALPHA_TEXT}:"
    return "\n\n".join([head, "\n".join(parts), *([note] if few else [])])


def _costs(rows: Sequence[Row]) -> str:
    partners = [row.cell for row in rows if row.slot[0] == LLM_CTR and row.cell.ok]
    lines = []
    for row in rows:
        if row.slot[0] == FLOOR or not row.cell.ok:
            continue
        cell, data = row.cell, row.cell.runs[0].record["data"]
        tokens, train_s = cell.mean("data", "tokens_raw"), cell.mean("time", "train_s")
        epochs = sorted({run.record["time"]["epochs"] for run in cell.ok})
        peak = cell.mean("memory", "peak_gib")
        lines.append(
            [
                row.label,
                f"{tokens / data['train_targets']:,.1f}" if tokens else ABSENT,
                " to ".join(str(each) for each in sorted({epochs[0], epochs[-1]})),
                duration(train_s),
                duration(_build_s(cell)),
                duration(total_s(cell)),
                _ratio(cell, partners),
                ABSENT if peak is None else f"{peak:.2f} GiB",
            ]
        )
    headers = ["row", "tokens or vectors per target", "epochs", "training", "table", "total"]
    return table([*headers, "LLM-CTR / row", "peak memory"], lines)


def _versions(rows: Sequence[Row]) -> list[str]:
    """Which rows were trained by which code, where it is not the same for all."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for commit in sorted({run.record["git"]["sha"] or "no git" for run in row.cell.ok}):
            if row.slot[0] != FLOOR:
                found.setdefault(commit[:10], []).append(row.label)
    if len(found) < 2:
        return []
    said = "; ".join(f"`{commit}`: {listed(labels)}" for commit, labels in found.items())
    return [f"Times are of several versions of the code, by commit: {said}."]


def _build_s(cell: Cell) -> float | None:
    return cell.mean("time", "table_build_s")


def total_s(cell: Cell) -> float | None:
    """Seconds of training and, where there is one, of the behaviour table; mean over seeds.

    None where a table's cost is unknown.
    """
    train_s, has_table = cell.mean("time", "train_s"), (cell.config.get("behaviours") or {}).get("cached")
    build_s = _build_s(cell) if has_table else 0.0
    return None if train_s is None or build_s is None else train_s + build_s


def _ratio(cell: Cell, partners: Sequence[Cell]) -> str:
    """Total of LLM-CTR over this row's, where one of its cells has comparable times."""
    own = total_s(cell)
    for partner in partners:
        total = total_s(partner)
        if own and total and cell is not partner and comparable_times(cell, partner):
            return ratio(total / own)
    return ABSENT
