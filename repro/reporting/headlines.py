"""The index's table of what each method saves: committed records, beside what was claimed or is possible.

What is lost for it is `headline_losses.py`, scores are `headline_scores.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.costs.closed_form import token_limit
from repro.reporting import timing
from repro.reporting.bahe_sweeps import efficiency_sweeps
from repro.reporting.claims import MIN_SEEDS
from repro.reporting.formatting import ABSENT, bounds, count, listed, ratio, signed, table
from repro.reporting.inputs import COMMITTED, Inputs, only
from repro.reporting.references import PAPER_DATASETS, paper_dataset
from repro.reporting.table3 import OURS, PAPERS, blocks, difference_to_sw, verdict
from repro.reporting.table3 import SW as SW_ROW
from repro.reporting.table3_blocks import Block, Key

K = 50  # targets per prompt of the paper's main results
NAMES = {PAPERS: "DTI, paper's recipe", OURS: "DTI, our recipe"}
SAVED = (
    "A ratio above 1 is a saving. Steps of equal tokens hold more targets with DTI than with SW; in training "
    "runs, steps hold equal targets and DTI's fewer tokens. *Limit*: what the number of tokens allows, "
    "and where it is counted, what the training FLOPs of the real prompts allow. A "
    "difference of AUC has its 95 % interval and the verdict after Holm's adjustment. *Table apart*: BAHE's "
    "table is built before; *all new*: every behaviour is encoded when it is read. *Shape*: random weights "
    "in the shape of that model. —: no record of this kind; training times of runs of one epoch are on "
    "[bahe](bahe.md)."
)


@dataclass(frozen=True)
class Saving:
    """One measured ratio, or several of one kind.

    Attributes:
        row: method, what is compared, model and data, and the claim or limit; what is measured on several
            devices is one line.
    """

    row: tuple[str, str, str, str]
    device: str
    measured: str
    page: str


def savings_table(inputs: Inputs) -> str:
    """Legend and table with a column per device; empty without records."""
    found = savings(inputs)
    devices = sorted({each.device for each in found})
    lines = []
    for row in dict.fromkeys(each.row for each in found):
        own = [each for each in found if each.row == row]
        measured = ["; ".join(e.measured for e in own if e.device == device) or ABSENT for device in devices]
        lines.append((*row, *measured, f"[{own[0].page}]({own[0].page}.md)"))
    headers = ("method", "what is compared", "model and data", "claim or limit", *devices, "page")
    return f"{SAVED}\n\n{table(headers, lines)}" if lines else ""


def savings(inputs: Inputs) -> list[Saving]:
    """Of committed records: DTI until convergence, an epoch and a step of it, then BAHE's time and memory."""
    inputs = only(inputs, COMMITTED)
    found = blocks(inputs)
    epochs = [each for block in found for each in _epochs(block)]
    best = [each for block in found for each in _convergence(block, inputs)]
    return [*best, *epochs, *_speed(inputs), *_efficiency(inputs)]


def _speed(inputs: Inputs) -> list[Saving]:
    said = []
    for sweep in timing.sweeps(inputs):
        up, first = sweep.speed_up(K), sweep.rows[0]
        if up is not None and sweep.fp8 is None and not sweep.cut:
            compared = "targets per second, DTI / SW, steps of equal tokens"
            where = _without(sweep.title, first["device"])
            limit = f"limit {ratio(token_limit(first['n'], K))}"
            if K in sweep.bounds:
                limit += f"; {ratio(sweep.bounds[K].flops)} by FLOPs of these prompts"
            row = (f"{NAMES[OURS]}, k = {K}", compared, where, limit)
            said.append(Saving(row, first["device"], ratio(up), timing.NAME))
    return said


def _epochs(block: Block) -> list[Saving]:
    """Time of an epoch: it leaves out how many of them each method took."""
    limit, compared = f"limit {ratio(token_limit(block.n, K))}", "time of a training epoch, SW / DTI"
    return [
        Saving((f"{name}, k = {K}", compared, _where(block), limit), block.device, ratio(value), "table3")
        for title, name in NAMES.items()
        if (value := block.reduction_of_epoch((title, K))) is not None
    ]


def _convergence(block: Block, inputs: Inputs) -> list[Saving]:
    """Time and what becomes of AUC, with a verdict on methods from as many seeds as that takes."""
    said, (paper, _), hours = [], paper_dataset(block.dataset), inputs.paper_hours
    claimed = hours[paper, "sw", 1] / hours[paper, "dti", K] if (paper, "dti", K) in hours else None
    for title, name in NAMES.items():
        value = block.reduction((title, K))
        if value is not None:
            theirs = title == PAPERS and claimed is not None
            claim = f"{ratio(claimed)} ({PAPER_DATASETS[paper]}, 8B)" if theirs else ABSENT
            row = (f"{name}, k = {K}", "training time to the best epoch, SW / DTI", _where(block), claim)
            measured = f"{ratio(value)}{_auc(block, (title, K))}"
            said.append(Saving(row, block.device, measured, "table3"))
    return said


def _auc(block: Block, row: Key) -> str:
    """The row's AUC minus SW's, and what that says after Holm's adjustment."""
    line = difference_to_sw(block, row)
    if line is None or line.to_sw is None:
        return ""
    d, told = line.to_sw.difference, verdict(line)
    few = min(len(block.ok(row)), len(block.ok(SW_ROW))) < MIN_SEEDS and told != "not told apart"
    told = f"{told}{' in these runs' if few else ''}"
    reached = block.reached(row)
    told += f", {reached.claim}" if reached else ""
    return f"; AUC − SW's {signed(d.mean)} {bounds(d.low, d.high, '+.4f')}: {told}"


def _efficiency(inputs: Inputs) -> list[Saving]:
    """Sweeps that have all lengths of the claim."""
    said, claims = [], inputs.bahe_claims
    lengths = f"at {listed([count(tokens) for tokens in claims.text_tokens])} tokens"
    for sweep in efficiency_sweeps(inputs):
        time, memory = (
            [sweep.ratio(key, tokens) for tokens in claims.text_tokens] for key in ("step_ms", "peak_gib")
        )
        if sweep.no_verdict is not None or None in (*time, *memory):
            continue
        device = sweep.rows[0]["device"]
        anew = [sweep.anew_ratio(tokens) for tokens in claims.text_tokens]
        rows = [
            (f"time of a step, LLM-CTR / BAHE, table apart, {lengths}", f"{claims.time:g} ×", time),
            (f"time of a step, LLM-CTR / BAHE, all new, {lengths}", ABSENT, anew),
            (f"peak memory, LLM-CTR / BAHE, table apart, {lengths}", f"{claims.memory:g} ×", memory),
        ]
        for compared, claim, values in rows:
            if None not in values:
                row = ("BAHE", compared, _without(sweep.title, device), claim)
                said.append(Saving(row, device, _ratios(values), "bahe_efficiency"))
    return said


def _ratios(values: Sequence[float | None]) -> str:
    return listed([ratio(value) for value in values])


def _where(block: Block) -> str:
    return _without(block.title, block.device)


def _without(title: str, device: str) -> str:
    """A title whose device has a column of its own."""
    return title.replace(f", {device}", "")
