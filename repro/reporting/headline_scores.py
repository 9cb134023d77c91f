"""The index's tables of scores and costs, one for each data set: committed rows, from reports/bahe.md."""

from __future__ import annotations

from collections.abc import Sequence

from repro.reporting.bahe_costs import total_s
from repro.reporting.bahe_quality_rows import DIN, DTI_BAHE, DTI_K, LLMS, STRONGEST, Row, order, reads_fewer
from repro.reporting.formatting import ABSENT, count, duration, score, table
from repro.reporting.headline_groups import MainGroup
from repro.reporting.headline_losses import difference_text
from repro.reporting.methods import FLOOR
from repro.reporting.sections import DTI

HEADERS = (
    "row", "epochs at most", "device", "seeds", "AUC", "AUC − DTI's", "clearly above the floor",
    "training and table",
)  # fmt: skip
SCORES = (
    "AUC on test, mean over seeds; rows of [bahe](bahe.md) at the largest tier. *AUC − DTI's*: paired with "
    f"DTI at k = {DTI_K} of as many epochs where there is such a row. *Training and table*: without "
    "compilation and evaluation; SW and DTI are fully fine-tuned, LLM-CTR, BAHE and DTI over BAHE have LoRA; "
    "of ID-based models several runs shared a device, so they have none. The ID-based model is the best by "
    "validation AUC; SIM searches all of a user's history. Groceries are of disputed nature, see "
    "[data](../docs/data.md#groceries)."
)


def headline_scores(found: Sequence[MainGroup]) -> str:
    """Legend and a table for each data set; empty without committed rows of the family."""
    by_title: dict[str, list[MainGroup]] = {}
    for each in found:
        by_title.setdefault(each.title, []).append(each)
    parts = [f"**{title}**\n\n{table(HEADERS, _lines(own))}" for title, own in by_title.items()]
    return "\n\n".join([SCORES, *parts]) if parts else ""


def _lines(found: Sequence[MainGroup]) -> list[tuple[str, ...]]:
    """Rows of all devices, those of one method beside each other; what several devices share once."""
    devices = {each.group.device for each in found}
    lines: dict[tuple[str, ...], tuple[int, int, int, str]] = {}
    for each in found:
        against = {pair.first.label: pair for pair in each.pairs if pair.second.slot == (DTI, DTI_K)}
        for row in _shown(each.rows):
            floor, llm, device = row.slot[0] == FLOOR, row.slot[0] in LLMS, row.cell.device
            if device != each.group.device and device in devices and not floor:
                continue  # stands among the rows of its own device
            line = (
                _name(row),
                count(row.cell.most_epochs) if llm else ABSENT,
                ABSENT if floor else device,
                count(len(row.cell.ok)),
                score(row.cell.mean("metrics", "auc")),
                difference_text(against[row.label], device) if row.label in against else ABSENT,
                each.above_floor.get(row.label, ABSENT),
                duration(total_s(row.cell)) if llm else ABSENT,
            )
            lines[line] = (*order(row)[:2], row.cell.most_epochs, line[2])
    return sorted(lines, key=lambda line: lines[line])


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
    """Without epochs and device, which have columns of their own."""
    return row.label.partition(" (up to ")[0].removesuffix(f", on {row.cell.device}")
