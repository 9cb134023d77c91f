"""What a training step of DTI costs in every reading of the paper, on the harness of `timing`.

All rows but two are of one k, and all but one fill the same length. The sliding window is there for the
ratio; the last row takes the steps of a training run, with a set number of targets: it tells what small steps
cost from what the training loop adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from repro.backbones.fix_settings import Fixes, Reset
from repro.costs.timing import Loaded, Plan, load, measure_method, plan_for
from repro.experiments.run_config import Tier
from repro.methods.dti import PAPER_FIXES, dti, dti_tuned
from repro.methods.method import SumMethod
from repro.methods.sliding_window import sliding_window
from repro.pipeline import Workshop

OURS, AS_TRAINED = "our recipe", "our recipe, steps of a training run"
SLIDING = "sliding window, k = 1"


def variants(n: int, k: int, window_tokens: int) -> dict[str, SumMethod]:
    """Methods by title, ours first: every `sum_layout`, `window`, position and reset.

    Args:
        window_tokens: of the fixed-token window (DTI's appendix).
    """
    ours, slope = dti_tuned(n, k), PAPER_FIXES.alibi_slope

    def prompt(**changes: Any) -> SumMethod:
        return replace(ours, prompt=replace(ours.prompt, **changes))

    def fixed(fixes: Fixes) -> SumMethod:
        return replace(ours, fixes=fixes)

    return {
        OURS: ours,
        "reset of the last layer": fixed(Fixes(reset=Reset())),
        "reset of all layers": fixed(Fixes(reset=Reset(layers="all"))),
        "reset of the last layer, hidden states mixed": fixed(Fixes(reset=Reset(mixing="hidden"))),
        "ALiBi, rotated keys": fixed(Fixes(position="alibi-rotated-keys", alibi_slope=slope)),
        "ALiBi, un-rotated keys": fixed(Fixes(position="alibi-plain-keys", alibi_slope=slope)),
        "hidden instruction": prompt(instruction="hidden"),
        "the paper's recipe: reset, ALiBi, hidden instruction": dti(n, k),
        "the same with un-rotated keys": dti(n, k, replace(PAPER_FIXES, position="alibi-plain-keys")),
        "[SUM]s inline, with positions": prompt(sum_layout="inline-positions"),
        "[SUM]s inline, visible": prompt(sum_layout="inline-visible"),
        f"window of {window_tokens} tokens": prompt(window="tokens", window_tokens=window_tokens),
    }


def measure_variants(
    workshop: Workshop,
    tier: Tier,
    dataset: str,
    protocol: str,
    say: Callable[[str], None],
    plan: Plan | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Rows of a timing file, variant by variant, `plan.repeats` of each: k = 50, or the plan's largest below.

    The fixed-token window holds as many tokens as n interactions and a target have on average.
    """
    plan, loaded = plan or plan_for(tier), load(workshop, tier, dataset, protocol)
    k = max(each for each in plan.ks if each <= 50)
    methods = variants(plan.n, k, _window_tokens(loaded, plan.n))
    beside = {SLIDING: sliding_window(plan.n), AS_TRAINED: methods[OURS]}
    for title, method in (methods | beside).items():
        found = measure_method(tier, method, loaded, plan, as_trained=title == AS_TRAINED)
        step = found[-1]["step_ms"]
        say(f"{title}: {step if isinstance(step, str) else f'{step:,.1f} ms'}")
        yield [{"device": workshop.device_name, **row, "variant": title} for row in found]


def _window_tokens(loaded: Loaded, n: int) -> int:
    lengths = loaded.items.lengths[loaded.data.interactions.item] + 1  # with the answer
    return round(float(lengths.mean()) * (n + 1))
