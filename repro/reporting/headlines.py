"""The report's main results in a few lines, for the index: from committed records, with what was claimed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repro.costs.closed_form import token_limit
from repro.reporting import bahe_quality_rows, timing
from repro.reporting.bahe_quality import total_s
from repro.reporting.bahe_sweeps import efficiency_sweeps
from repro.reporting.cells import Cell, comparable_times
from repro.reporting.formatting import count, listed, plural, ratio, score
from repro.reporting.inputs import COMMITTED, YOURS, Inputs
from repro.reporting.methods import FLOOR
from repro.reporting.table3 import OURS, PAPERS, SW, blocks

K = 50  # targets per prompt of the paper's main results
BAHE, LLM_CTR = bahe_quality_rows.BAHE, bahe_quality_rows.LLM_CTR


def headlines(inputs: Inputs) -> list[str]:
    """Sentences, each with its page: speed and quality of DTI, then of BAHE; none without records."""
    committed: dict[str, Any] = {
        name: {COMMITTED: getattr(inputs, name)[COMMITTED], YOURS: []} for name in ("runs", "timing", "bahe")
    }
    only = replace(inputs, **committed)
    return [*_speed(only), *_convergence(only), *_efficiency(only), *_quality(only)]


def _speed(inputs: Inputs) -> list[str]:
    said = []
    for sweep in timing.sweeps(inputs):
        found = sweep.speed_up(K)
        if found is not None and sweep.fp8 is None:
            limit = token_limit(sweep.rows[0]["n"], K)
            said.append(
                f"DTI at k = {K} trains targets {ratio(found)} as fast as the sliding window (token limit "
                f"{ratio(limit)}); {sweep.title}. [timing](timing.md)"
            )
    return said


def _convergence(inputs: Inputs) -> list[str]:
    said = []
    for block in blocks(inputs):
        found = [
            f"{ratio(block.reduction(row))} with AUC {score(block.auc(row))} ({recipe} recipe)"
            for recipe, row in (("the paper's", (PAPERS, K)), ("our", (OURS, K)))
            if block.reduction(row) is not None
        ]
        if found:
            others = f"SW has AUC {score(block.auc(SW))}"
            if block.floor is not None:
                others += f", the like rates {score(block.floor.mean('metrics', 'auc'))}"
            said.append(
                f"Time to the best epoch, SW's over DTI's at k = {K}: {listed(found)}; {others}; "
                f"{block.title}. [table3](table3.md)"
            )
    return said


def _efficiency(inputs: Inputs) -> list[str]:
    """Sweeps that have all lengths of the claim."""
    said, claims = [], inputs.bahe_claims
    for sweep in efficiency_sweeps(inputs):
        ratios = {
            tokens: [sweep.ratio(key, tokens) for key in ("step_ms", "peak_gib")]
            for tokens in claims.text_tokens
        }
        if all(None not in each for each in ratios.values()):
            found = [
                f"{ratio(time)} less time and {ratio(memory)} less memory at {count(tokens)} tokens"
                for tokens, (time, memory) in ratios.items()
            ]
            said.append(
                f"BAHE trains in {listed(found)} than LLM-CTR (claimed: {claims.time:g} × and "
                f"{claims.memory:g} ×); {sweep.title}. [bahe_efficiency](bahe_efficiency.md)"
            )
    return said


def _quality(inputs: Inputs) -> list[str]:
    said = []
    for group in bahe_quality_rows.groups(inputs):
        cells = {row.slot[0]: row.cell for row in group.rows[COMMITTED] if row.cell.ok}
        if BAHE not in cells:
            continue
        ours, partner = cells[BAHE], cells.get(LLM_CTR)
        parts = [f"BAHE's AUC is {_auc(ours)}"]
        if partner is not None:
            parts.append(f"LLM-CTR's {_auc(partner)}")
        if FLOOR in cells:
            parts.append(f"the like rates' {score(cells[FLOOR].mean('metrics', 'auc'))}")
        sentence = ", ".join(parts)
        if partner is not None and comparable_times(ours, partner):
            cost, partners_cost = total_s(ours), total_s(partner)
            if cost and partners_cost:
                saved = ratio(partners_cost / cost)
                sentence += f"; it trains in {saved} less time than LLM-CTR, its table included"
        said.append(f"{sentence}; {group.title}. [bahe](bahe.md)")
    return said


def _auc(cell: Cell) -> str:
    return f"{score(cell.mean('metrics', 'auc'))} ({plural(len(cell.ok), 'seed')})"
