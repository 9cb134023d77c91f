"""From equation 3 to a counted ratio, one change at a time."""

from __future__ import annotations

from collections.abc import Callable

from repro.costs.closed_form import equation_3, token_limit
from repro.reporting.flops_rows import Row, Sweep

STEP_HEADERS = ("what counts", "ratio", "change", "why")
PARTS = (
    ("linear layers", "linear layers, forward", "the last layer runs its query, output projection and MLP at "
     "[SUM]s only; with the reset it projects keys and values twice"),
    ("LoRA", "+ LoRA adapters", "they cost what the layers cost, token by token"),
    ("attention", "+ attention, visible pairs", "tokens late in a streaming prompt see a full window, those "
     "of a sliding-window prompt see half of one on average; SW also sees the instruction"),
    ("LM head", "+ LM head at [SUM]s: forward FLOPs", "the same for every target in either method"),
)  # fmt: skip


def steps(sweep: Sweep, backbone: str, method: str, n: int, k: int) -> list[tuple[str, str, str, str]]:
    """(what counts, ratio, change to the line before, why); the last ratio is that of the records.

    Args:
        sweep: rows of a data set with SW and `method` at this n and k.
    """
    sw, row = sweep.one("sw", n, 1, backbone), sweep.one(method, n, k, backbone)
    assert sw is not None and row is not None, (backbone, method, n, k)

    def ratio(value: Callable[[Row], float]) -> float:
        return value(sw) / value(row)

    def up_to(number: int) -> float:
        return ratio(lambda r: sum(r["prompt"]["forward_parts"][name] for name, _, _ in PARTS[: number + 1]))

    text, instruction = "tokens_text", "tokens_instruction"
    lines: list[tuple[str, float, str]] = [
        ("equation 3: k N / (N + K)", equation_3(n, k), "the paper's approximation"),
        (
            "token limit: (n + 1) k / (n + k)",
            token_limit(n, k),
            "a sliding-window prompt also holds its target",
        ),
        (
            "interactions of the real prompts",
            ratio(lambda r: r["prompt"]["interactions"]),
            "users with fewer than k targets left (short last rows), targets with short histories",
        ),
        (
            "their tokens",
            ratio(lambda r: r["prompt"][text]),
            "texts of different lengths; a prompt's last answer is left out",
        ),
        (
            "+ instruction",
            ratio(lambda r: r["prompt"][text] + r["prompt"][instruction]),
            "once per forward pass, and a pass over DTI rows holds more targets",
        ),
        (
            "+ [SUM]",
            ratio(lambda r: r["prompt"][text] + r["prompt"][instruction] + 1),
            "one per target in either method",
        ),
        *((title, up_to(number), why) for number, (_, title, why) in enumerate(PARTS)),
        (
            "training FLOPs",
            ratio(lambda r: r["train_flops_per_target"]),
            "the backward pass weighs parts differently where matrices are frozen",
        ),
    ]
    result, before = [], None
    for title, value, why in lines:
        change = "" if before is None else f"{value - before:+.3f}"
        result.append((title, f"{value:.3f}", change, why))
        before = value
    return result
