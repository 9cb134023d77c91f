"""The report's main results on speed in a few lines, for the index: committed records, and what was claimed.

Those on quality are a table: `headline_scores.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from repro.costs.closed_form import token_limit
from repro.reporting import timing
from repro.reporting.bahe_sweeps import efficiency_sweeps
from repro.reporting.claims import MIN_SEEDS
from repro.reporting.formatting import bounds, count, listed, ratio, score, signed
from repro.reporting.inputs import COMMITTED, YOURS, Inputs
from repro.reporting.table3 import OURS, PAPERS, blocks, difference_to_sw, verdict
from repro.reporting.table3 import SW as SW_ROW
from repro.reporting.table3_blocks import Block, Key
from repro.reporting.timing_trained import reductions_of_epoch

K = 50  # targets per prompt of the paper's main results


def headlines(inputs: Inputs) -> list[str]:
    """Sentences, each with its page: speed of DTI, then of BAHE; none without records."""
    committed: dict[str, Any] = {
        name: {COMMITTED: getattr(inputs, name)[COMMITTED], YOURS: []} for name in ("runs", "timing", "bahe")
    }
    only = replace(inputs, **committed)
    return [*_speed(only), *_convergence(only), *_efficiency(only)]


def _speed(inputs: Inputs) -> list[str]:
    said, found = [], blocks(inputs)
    for sweep in timing.sweeps(inputs):
        up = sweep.speed_up(K)
        if up is not None and sweep.fp8 is None:
            first = sweep.rows[0]
            trained = listed(reductions_of_epoch(first, found, K))
            said.append(
                f"DTI at k = {K} trains targets {ratio(up)} as fast as the sliding window at equal tokens "
                f"per step (token limit {ratio(token_limit(first['n'], K))})"
                f"{f'; in training runs of equal targets per step {trained} per epoch' if trained else ''}; "
                f"{sweep.title}. [timing](timing.md)"
            )
    return said


def _convergence(inputs: Inputs) -> list[str]:
    """Time and what becomes of AUC, with a verdict on methods from as many seeds as that takes."""
    said = []
    for block in blocks(inputs):
        found = [
            f"{ratio(block.reduction(row))} in {recipe} recipe ({_auc(block, row)})"
            for recipe, row in (("the paper's", (PAPERS, K)), ("our", (OURS, K)))
            if block.reduction(row) is not None
        ]
        if found:
            others = f"SW has AUC {score(block.auc(SW_ROW))}"
            if block.floor is not None:
                others += f", the like rates {score(block.floor.mean('metrics', 'auc'))}"
            said.append(
                f"Time to the best epoch, SW's over DTI's at k = {K}: {listed(found)}; {others}; "
                f"{block.title}. [table3](table3.md)"
            )
    return said


def _auc(block: Block, row: Key) -> str:
    """A row's AUC, its difference to SW's and what that says after Holm's adjustment."""
    text, line = f"AUC {score(block.auc(row))}", difference_to_sw(block, row)
    if line is None or line.to_sw is None:
        return text
    d, told = line.to_sw.difference, verdict(line)
    few = min(len(block.ok(row)), len(block.ok(SW_ROW))) < MIN_SEEDS and told != "not told apart"
    told = told if told == "not told apart" else f"it {told}{' in these runs' if few else ''}"
    return f"{text}, minus SW's {signed(d.mean)} {bounds(d.low, d.high, '+.4f')}: {told}"


def _efficiency(inputs: Inputs) -> list[str]:
    """Sweeps that have all lengths of the claim."""
    said, claims = [], inputs.bahe_claims
    for sweep in efficiency_sweeps(inputs):
        ratios = {
            tokens: [sweep.ratio(key, tokens) for key in ("step_ms", "peak_gib")]
            for tokens in claims.text_tokens
        }
        if sweep.no_verdict is None and all(None not in each for each in ratios.values()):
            found = [
                f"{ratio(time)} less time and {ratio(memory)} less memory at {count(tokens)} tokens"
                for tokens, (time, memory) in ratios.items()
            ]
            anew = [value for tokens in ratios if (value := sweep.anew_ratio(tokens)) is not None]
            said.append(
                f"BAHE trains in {listed(found)} than LLM-CTR (claimed: {claims.time:g} × and "
                f"{claims.memory:g} ×), its table apart{_all_new(anew)}; {sweep.title}. "
                "[bahe_efficiency](bahe_efficiency.md)"
            )
    return said


def _all_new(ratios: Sequence[float]) -> str:
    """What is left of the time where no behaviour comes twice; empty where it was not measured."""
    return f" ({listed(list(map(ratio, ratios)))} in time if every behaviour were new)" if ratios else ""
