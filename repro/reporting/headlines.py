"""The report's main results in a few lines, for the index: from committed records, with what was claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from repro.costs.closed_form import token_limit
from repro.reporting import bahe_quality_rows, timing
from repro.reporting.bahe_costs import total_ratio, total_s
from repro.reporting.bahe_quality_rows import (
    BAHE,
    DTI_BAHE,
    DTI_K,
    LLM_CTR,
    Row,
    Slot,
    as_long,
    is_usual,
    reads_fewer,
    trains_longer,
)
from repro.reporting.bahe_sweeps import efficiency_sweeps
from repro.reporting.cells import Cell, comparable_times
from repro.reporting.claims import LEVEL_TEXT
from repro.reporting.formatting import bounds, count, duration, listed, plural, ratio, score, signed
from repro.reporting.inputs import COMMITTED, YOURS, Inputs
from repro.reporting.methods import FLOOR
from repro.reporting.scores import difference
from repro.reporting.sections import DTI, SW
from repro.reporting.table3 import OURS, PAPERS, blocks
from repro.reporting.table3 import SW as SW_ROW

K = 50  # targets per prompt of the paper's main results
READ_TWICE = {"liked", "disliked", "recent"}  # every interaction is in the last and in one of the others
TWICE = " (which reads the text of each context interaction twice)"


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
            others = f"SW has AUC {score(block.auc(SW_ROW))}"
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
        if sweep.no_verdict is None and all(None not in each for each in ratios.values()):
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
        rows = [row for row in group.rows[COMMITTED] if row.cell.ok]
        cells = {row.slot: row.cell for row in reversed(rows) if is_usual(row)}
        longer = {row.slot: row for row in reversed(rows) if trains_longer(row) and not reads_fewer(row)}
        ours, streaming = cells.get((BAHE, None)), cells.get((DTI_BAHE, DTI_K))
        if ours is not None:
            text = _bahe(ours, cells, rows) + _longer(longer.get((BAHE, None)), rows)
            said.append(f"{text}; {group.title}. [bahe](bahe.md)")
        if streaming is not None:
            text = _streaming(streaming, cells) + _longer(longer.get((DTI_BAHE, DTI_K)), rows)
            said.append(f"{text}; {group.title}. [bahe](bahe.md)")
    return said


def _longer(row: Row | None, rows: Sequence[Row]) -> str:
    """The same with more epochs, beside DTI with as many where there is such a row; empty without one."""
    if row is None:
        return ""
    said = f"; trained for {_epochs(row.cell)} it has AUC {_auc(row.cell)}{_in_time(row.cell)}"
    others = as_long(row, (DTI, DTI_K), rows)
    return f"{said}, {_against(row.cell, 'DTI', others[0].cell, epochs=True)}" if others else said


def _epochs(cell: Cell) -> str:
    return f"{'up to ' if cell.most_epochs > 1 else ''}{plural(cell.most_epochs, 'epoch')}"


def _in_time(cell: Cell) -> str:
    seconds = total_s(cell)
    return "" if seconds is None else f" in {duration(seconds)}"


def _against(ours: Cell, name: str, other: Cell, epochs: bool = False) -> str:
    """Another row's AUC, the difference to it and what that says; with `epochs`, its epochs and time too."""
    found = difference(ours.ok, other.ok)
    verdict = "it loses" if found.high < 0 else "it wins" if found.low > 0 else "not told apart"
    told = f" of {_epochs(other)}{_in_time(other) * comparable_times(ours, other)}" if epochs else ""
    return (
        f"against {name}'s {_auc(other)}{told}: {signed(found.mean)}, {LEVEL_TEXT} interval "
        f"{bounds(found.low, found.high, '+.4f')}, {verdict}"
    )


def _bahe(ours: Cell, cells: Mapping[Slot, Cell], rows: Sequence[Row]) -> str:
    """AUC of BAHE beside its partner's and the floor's, and what it takes beside the partner and SW."""
    partner, floor = cells.get((LLM_CTR, None)), cells.get((FLOOR, None))
    parts = [f"BAHE's AUC is {_auc(ours)}"]
    if partner is not None:
        parts.append(f"LLM-CTR's {_auc(partner)}")
    if floor is not None:
        parts.append(f"the like rates' {score(floor.mean('metrics', 'auc'))}")
    against, usual = [], [row for row in rows if row.cell is cells.get(row.slot)]
    if (saved := total_ratio(usual, LLM_CTR, ours)) is not None and partner is not None:
        read = TWICE if set(partner.config["behaviours"]["sequences"]) >= READ_TWICE else ""
        against.append(f"{ratio(saved)} less time than LLM-CTR{read}")
    if (saved := total_ratio(usual, SW, ours)) is not None:
        against.append(f"{ratio(saved)} less than SW")
    times = f"; it trains in {' and '.join(against)}, its table included" if against else ""
    return ", ".join(parts) + times


def _streaming(ours: Cell, cells: Mapping[Slot, Cell]) -> str:
    """DTI over BAHE beside BAHE and DTI: AUC, whether the interval tells them apart, and times."""
    said, times = [f"DTI over BAHE at k = {DTI_K} has AUC {_auc(ours)}"], []
    own_s = total_s(ours)
    for name, slot in (("BAHE", (BAHE, None)), ("DTI", (DTI, DTI_K))):
        other = cells.get(slot)
        if other is None:
            continue
        said.append(_against(ours, name, other))
        other_s = total_s(other)
        if own_s is not None and other_s is not None and comparable_times(ours, other):
            times.append(f"{name} in {duration(other_s)}")
    if times:
        said.append(f"it trains in {duration(own_s)}, {listed(times)}, tables included")
    return "; ".join(said)


def _auc(cell: Cell) -> str:
    return f"{score(cell.mean('metrics', 'auc'))} ({plural(len(cell.ok), 'seed')})"
