"""One prompt as text, with the window of every target marked: for debugging and papers."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro.data.interactions import TRAIN, PreparedData
from repro.errors import ConfigError
from repro.prompts.packing import PackedBatch, PromptSource, pack_rows
from repro.prompts.rows import build_rows
from repro.prompts.settings import PromptSettings
from repro.prompts.templates import SUM_TOKEN
from repro.prompts.tokenise import TokenisedItems


def show_row(
    data: PreparedData, items: TokenisedItems, settings: PromptSettings, row: int, tokenizer: Any
) -> str:
    """A training prompt, one line per interaction, and one line per [SUM] with what it sees.

    Columns: number of the interaction, first position id, text (with the answer in it), and for a target the
    interactions, tokens and [SUM]s its [SUM] sees. The tokens come from the packed arrays that models read.

    Raises:
        ConfigError: no such row.
    """
    rows = build_rows(data, TRAIN, settings.n, settings.k)
    if not 0 <= row < len(rows):
        raise ConfigError("row", str(row), f"0 to {len(rows) - 1}", "choose another prompt")
    batch = pack_rows(PromptSource(data, items, settings), rows, np.array([row]))
    num_text, prefix = batch.num_text, batch.num_prefix
    target_of = {int(batch.ordinal[num_text + s]): s for s in range(batch.num_sums)}
    lines = [
        f"row {row}: {batch.num_sums} targets, {batch.num_tokens} tokens; sum_layout={settings.sum_layout}, "
        f"window={settings.window}, instruction={settings.instruction}, n={settings.n}, k={settings.k}",
        f"  instruction @0: {tokenizer.decode(batch.tokens[:prefix])!r}",
    ]
    for number in range(int(batch.ordinal[:num_text].max()) + 1):
        place = np.flatnonzero(batch.ordinal[:num_text] == number)
        text = tokenizer.decode(batch.tokens[place]).strip("\n")
        mark = "target " if number in target_of else "context"
        lines.append(f"  {mark} {number:3d} @{batch.position[place[0]]}: {text}")
        if number in target_of:
            lines.append(f"      {_seen(batch, target_of[number])}")
    return "\n".join(lines)


def _seen(batch: PackedBatch, number: int) -> str:
    query = batch.num_text + number
    low, high = int(batch.lo[query]), int(batch.hi[query])
    seen = f"text tokens {low}..{high - 1} (interactions {batch.ordinal[low]}..{batch.ordinal[high - 1]})"
    if batch.prefix_visible:
        seen = f"instruction, {seen}"
    if batch.sum_hi[query] > batch.sum_lo[query]:
        seen += f", {SUM_TOKEN} {batch.sum_lo[query]}..{batch.sum_hi[query] - 1}"
    answer = "yes" if batch.label[number] == 1 else "no"
    return f"{SUM_TOKEN} {number} @{batch.position[query]} sees {seen}, itself; learns {answer!r}"
