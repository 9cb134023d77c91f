"""What training runs reach beside a sweep of reports/timing.md: their steps are of equal targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repro.reporting.formatting import ratio
from repro.reporting.table3_blocks import SW, Block, Key, label

EQUAL_TOKENS = (
    "So steps are of equal tokens, and DTI's have more targets than the sliding window's. In a training run "
    "steps are of equal targets, DTI's of fewer tokens, and validation, test and compilation come on top: "
    "what runs until convergence reach ([table3](table3.md)) stands below the sweep of their model and "
    "device."
)


def trained_text(first: Mapping[str, Any], blocks: Sequence[Block]) -> str:
    """Reductions of the blocks that share the sweep's device, model, tuning and n; or that there are none.

    Args:
        first: a row of the sweep. Nothing is said of one in fp8: no run trains so.
    """
    if first.get("fp8") is not None:
        return ""
    said = []
    for block in _alike(first, blocks):
        found = [text for row in block.rows if row != SW and (text := _reductions(block, row))]
        if found:
            said.append(
                f"Training runs until convergence, {block.title}, with steps of equal targets: SW's time is "
                f"{'; '.join(found)}. [table3](table3.md)"
            )
    return "\n\n".join(said) or "No run until convergence of this model on this device has records."


def _alike(first: Mapping[str, Any], blocks: Sequence[Block]) -> list[Block]:
    """Blocks of the sweep's device, model, tuning and n; of a cut model none."""
    if first.get("fp8") is not None or first.get("layers") is not None or first["device_count"] != 1:
        return []
    shape, same = first["backbone"].removeprefix("random:"), (first["device"], first["tuning"], first["n"])
    return [
        block
        for block in blocks
        if (block.device, block.tuning, block.n) == same and shape in block.backbone.lower()
        if "layers" not in block.backbone  # nor blocks of one
    ]


def _reductions(block: Block, row: Key) -> str:
    epoch, whole = block.reduction_of_epoch(row), block.reduction_of_all_clocks(row)
    if epoch is None or whole is None:
        return ""
    return f"{ratio(epoch)} (an epoch) and {ratio(whole)} (the whole run, all clocks) that of {label(row)}"
