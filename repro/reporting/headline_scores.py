"""The report's main results on quality, for the index: a table of committed rows, from reports/bahe.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from repro.reporting.bahe_costs import total_s
from repro.reporting.bahe_quality_rows import (
    DIN,
    DTI_BAHE,
    DTI_K,
    LLMS,
    STRONGEST,
    Group,
    Pair,
    Row,
    groups,
    pairs,
    reads_fewer,
)
from repro.reporting.claims import ALPHA, ALPHA_TEXT, MIN_SEEDS
from repro.reporting.floor import gains
from repro.reporting.formatting import ABSENT, count, duration, score, signed, table
from repro.reporting.inputs import COMMITTED, YOURS, Inputs
from repro.reporting.sections import DTI

HEADERS = (
    "data set and device", "row", "epochs at most", "seeds", "AUC", "AUC − DTI's", "clearly above the floor",
    "training and table",
)  # fmt: skip
LEGEND = (
    "AUC on test, mean over seeds; rows of BAHE's page at the largest tier, DTI in our recipe. *AUC − "
    f"DTI's*: paired with DTI at k = {DTI_K} of as many epochs, else of one; lower or higher after Holm's "
    f"adjustment at {ALPHA_TEXT} over all pairs of that section, *in these runs* where a side has fewer than "
    f"{MIN_SEEDS} seeds. *Clearly above the floor*: in AUC and in GAUC. The ID-based model is the best by "
    "validation AUC; SIM searches all of a user's history. *Training and table*: without compilation and "
    "evaluation; SW and DTI are fully fine-tuned, LLM-CTR, BAHE and DTI over BAHE have LoRA; of ID-based "
    "models several runs shared a device, so they have none. Groceries are of disputed nature, see "
    "[data](../docs/data.md#groceries). More: [bahe](bahe.md), [baselines](baselines.md), "
    "[table1](table1.md), [table3](table3.md)."
)


def headline_scores(inputs: Inputs) -> str:
    """Legend and table of the largest size of each data set; empty without committed rows of the family."""
    found = groups(replace(inputs, runs={COMMITTED: inputs.runs[COMMITTED], YOURS: []}))
    most: dict[str, int] = {}
    for group in found:
        most[group.dataset] = max(group.train_targets, most.get(group.dataset, 0))
    largest = (group for group in found if group.train_targets == most[group.dataset])
    lines = [line for group in largest for line in _lines(group)]
    return f"{LEGEND}\n\n{table(HEADERS, lines)}" if lines else ""


def _lines(group: Group) -> list[tuple[str, ...]]:
    every = [row for row in group.rows[COMMITTED] if row.cell.ok]
    against = {pair.first.label: pair for pair in pairs(every) if pair.second.slot == (DTI, DTI_K)}
    found = gains(group.trained(COMMITTED), group.floor[COMMITTED])
    above = {gain.label: gain.verdict for gain in found}
    return [
        (
            f"{group.dataset}, tier {group.tier}, {group.device}",
            _name(row),
            count(row.cell.most_epochs) if row.slot[0] in LLMS else ABSENT,
            count(len(row.cell.ok)),
            score(row.cell.mean("metrics", "auc")),
            _difference(against.get(row.label)),
            above.get(row.label, ABSENT),
            duration(total_s(row.cell)) if row.slot[0] in LLMS else ABSENT,
        )
        for row in _shown(every)
    ]


def _shown(rows: Sequence[Row]) -> list[Row]:
    """The like rates, the strongest ID-based model, and LLMs at k = 50 whose sequences are the usual ones."""
    strongest = any(row.slot[0] == STRONGEST for row in rows)
    return [
        row
        for row in rows
        if not (row.slot[0] == DIN and strongest)
        and not (row.slot[0] == DTI_BAHE and row.slot[1] != DTI_K)
        and not reads_fewer(row)
    ]


def _name(row: Row) -> str:
    """Without the epochs, which have a column of their own."""
    return row.label.partition(" (up to ")[0]


def _difference(pair: Pair | None) -> str:
    if pair is None:
        return ABSENT
    text = signed(pair.difference.mean)
    if pair.holm_p >= ALPHA:
        return f"{text}, not told apart"
    few = min(len(row.cell.ok) for row in (pair.first, pair.second)) < MIN_SEEDS
    side = "higher" if pair.difference.mean > 0 else "lower"
    return f"{text}, {side}{' in these runs' if few else ''}"
