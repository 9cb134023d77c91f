"""What reports/table3.md says of quality: scores beside the time, and whether DTI loses AUC to SW."""

from __future__ import annotations

from collections.abc import Sequence

from repro.reporting.cells import Cell
from repro.reporting.claims import ALPHA, ALPHA_TEXT, claims
from repro.reporting.formatting import (
    ABSENT,
    bounds,
    compact,
    count,
    listed,
    plural,
    score,
    signed,
    table,
)
from repro.reporting.inputs import Inputs
from repro.reporting.lines import Line, auc_text, seeds_text
from repro.reporting.methods import FLOOR
from repro.reporting.references import paper_dataset
from repro.reporting.sw_differences import INTERVAL, differences_table
from repro.reporting.table3_blocks import OURS, PAPERS, SW, Block, Key, key_of, label

TRIAL_FAMILIES = {SW[0]: "sw", PAPERS: "dti", OURS: "dti-tuned"}  # as results/selection names them


def difference_to_sw(block: Block, row: Key) -> Line | None:
    """The row with its paired difference of AUC to SW (`to_sw.difference`) and `holm_p`; None without a pair.

    Holm adjusts over the DTI rows of the block.
    """
    line = block.lines.get(row)
    return line if line is not None and line.to_sw is not None and line.holm_p is not None else None


def verdict(line: Line) -> str:
    """ "loses", "wins" or "not told apart", by the adjusted p-value."""
    assert line.to_sw is not None and line.holm_p is not None
    if line.holm_p >= ALPHA:
        return "not told apart"
    return "wins" if line.to_sw.difference.mean > 0 else "loses"


def verdict_blocks(block: Block) -> list[str]:
    """What becomes of quality, in sentences."""
    return [_verdict_text(block), _log_loss_text(block)]


def quality_blocks(block: Block, inputs: Inputs) -> list[str]:
    """Heading, rates, scores, differences and what they allow to say."""
    lines = list(block.lines.values())
    return [
        "### Quality",
        rates_text(block, inputs),
        _scores(block, inputs),
        "### Differences to SW",
        differences_table(block.dataset, lines),
        claims(block.dataset, lines),
    ]


def _verdict_text(block: Block) -> str:
    """Of every DTI row: its difference to SW, and whether it ever has SW's validation AUC."""
    said = []
    for row in block.rows:
        line, reached = difference_to_sw(block, row), block.reached(row)
        if line is not None and line.to_sw is not None and reached is not None:
            d, seeds = line.to_sw.difference, plural(reached.num_runs, "seed")
            said.append(
                f"- {label(row)} ({seeds}): {signed(d.mean)} {bounds(d.low, d.high, '+.4f')}, "
                f"**{verdict(line)}**; {reached.claim}."
            )
    if not said:
        return ""
    head = (
        f"AUC minus SW's ({plural(len(block.ok(SW)), 'seed')}), trained by the same rule, with {INTERVAL}, "
        f"and the verdict after Holm's adjustment at {ALPHA_TEXT}:"
    )
    return "\n".join([head, "", *said])


def _log_loss_text(block: Block) -> str:
    """Which rows have a log loss above that of the floor, which knows nothing but like rates."""
    if block.floor is None:
        return ""
    floor = block.floor.mean("metrics", "log_loss")
    losses = {row: cell.mean("metrics", "log_loss") for row, cell in block.rows.items() if cell.ok}
    worse = [row for row, loss in losses.items() if loss is not None and floor is not None and loss > floor]
    start = f"By log loss, the like rates ({score(floor)}) are better than"
    if not worse:
        return f"{start} no row."
    return f"{start} {listed([f'{label(row)} ({score(losses[row])})' for row in worse])}."


def rates_text(block: Block, inputs: Inputs) -> str:
    """Targets per step, and how the learning rates were chosen: among how many trials of how many epochs."""
    names = [name for name in inputs.trials if name.startswith(f"{block.tier}-")]
    if not names:
        return f"{_steps(block)} No trials of learning rates are recorded for this tier."
    name = next((each for each in names if each == f"{block.tier}-{block.dataset}"), names[0])
    chosen: list[str] = []
    others: list[str] = []
    numbers = set()
    for row, cell in block.rows.items():
        family = TRIAL_FAMILIES[key_of(cell.config)[0]]
        trials = [trial for trial in inputs.trials[name]["rows"] if trial["family"] == family]
        if _best_rate(trials) == _rate(cell):
            chosen.append(label(row))
            numbers.add(len(trials))
        else:
            others.append(label(row))
    said = [_steps(block)]
    if chosen:
        epochs = inputs.trials[name].get("settings", {}).get("training", {}).get("max_epochs")
        length = "of unknown length" if epochs is None else f"of {plural(epochs, 'epoch')}"
        said.append(
            f"Learning rates of {compact(chosen)} are the best, by validation AUC, of "
            f"{listed([str(each) for each in sorted(numbers)])} trials per recipe, {length} each, on "
            f"{name.removeprefix(f'{block.tier}-')}{_at_k(block)} ([table1](table1.md)). The runs here train "
            "until convergence, for which another rate may be better."
        )
    if others:
        said.append(f"Rates of {compact(others)} are the best of no recorded trials.")
    return " ".join(said)


def _steps(block: Block) -> str:
    sizes = sorted({cell.config["training"]["batch_targets"] for cell in block.rows.values()})
    if len(sizes) > 1:
        return f"Steps of {listed([count(each) for each in sizes])} targets."
    return f"Steps of {count(sizes[0])} targets for every method, so of fewer tokens for DTI."


def _at_k(block: Block) -> str:
    """At which k DTI's rates were tried, where the block has others."""
    from repro.experiments.selection import SELECTION_K  # here: importing reports imports nothing that trains

    others = {k for title, k in block.rows if title != SW[0]} - {SELECTION_K}
    return f", DTI's at k = {SELECTION_K} only" if others else ""


def _best_rate(trials: Sequence[dict]) -> float | None:
    scored = [trial for trial in trials if trial["validation_auc"] is not None]
    return max(scored, key=lambda trial: trial["validation_auc"])["learning_rate"] if scored else None


def _rate(cell: Cell) -> float:
    return cell.config["training"]["learning_rate"]


def _scores(block: Block, inputs: Inputs) -> str:
    paper, source = paper_dataset(block.dataset)
    headers = ["method", "k", "learning rate", "seeds", "AUC", INTERVAL, "log loss", "F1", "GAUC"]
    rows = []
    for (title, k), line in block.lines.items():
        cell = line.row.cell
        assert cell is not None
        is_floor = title == FLOOR
        published = inputs.paper_scores.get((paper, {SW[0]: "sw", PAPERS: "dti"}.get(title, ""), k))
        rows.append(
            (
                "Like rates, the floor" if is_floor else title,
                ABSENT if is_floor else str(k),
                ABSENT if is_floor else f"{_rate(cell):g}",
                seeds_text(cell),
                auc_text(cell),
                bounds(line.auc.low, line.auc.high) if line.auc else ABSENT,
                *(score(cell.mean("metrics", name)) for name in ("log_loss", "f1", "gauc")),
                score(published.auc if published else None),
            )
        )
    return table([*headers, f"AUC ({source})"], rows)
