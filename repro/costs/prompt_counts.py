"""Tokens and visible (query, key) pairs of all training prompts of a data set, without packing them.

A row's interactions have known lengths, so its counts are sums over interactions: an interaction of l tokens
that sees c tokens before it has l c + l (l + 1) / 2 pairs. Costs 16 numbers per interaction of a prompt, cut
into chunks; the whole of ML-1M's sliding-window prompts (n = 20) takes seconds and no gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from repro.backbones.plan import MAX_SUM_BLOCK, TEXT_BLOCK
from repro.backbones.visibility import query_blocks
from repro.costs.closed_form import SumCounts
from repro.errors import ConfigError
from repro.methods.sum_batches import NUM_LENGTHS, SumBatches
from repro.prompts.batching import length_buckets
from repro.prompts.packing import PackedBatch, PromptSource, pack_rows
from repro.prompts.rows import Rows

CHUNK = 20_000  # rows at a time
SAMPLED_PASSES = 12  # forward passes in which computed pairs are counted


@dataclass(frozen=True)
class PromptCounts:
    """One epoch of a method's training prompts.

    Attributes:
        targets, prompts: in the split. interactions: in all prompts together.
        forward_passes: batches and their parts, as the trainer cuts them.
        instruction: tokens of it that are processed: it stands once in each forward pass.
        counts: of all forward passes together.
        raw: tokens of the bare item texts in the prompts. templated: with the words around them, answers,
            one instruction per prompt and the [SUM]s: the prompts as they read.
        padded: what is processed (instruction once per forward pass) with text and [SUM]s rounded up to the
            batches' multiples. bucketed: rounded up to one of a few lengths, as on CUDA.
        longest: text tokens of the longest prompt with its instruction, and [SUM].
        computed_pairs: pairs that the banded attention computes per target and layer, in a sample.
    """

    targets: int
    prompts: int
    interactions: int
    forward_passes: int
    instruction: int
    counts: SumCounts
    raw: int
    templated: int
    padded: int
    bucketed: int
    longest: int
    computed_pairs: float

    @property
    def processed(self) -> int:
        """Tokens that are processed and are not padding."""
        return self.counts.text + self.counts.sums


def visible_pairs(batch: PackedBatch) -> tuple[int, int]:
    """(text, [SUM]) pairs that the queries of a batch may see in one layer, padding queries left out.

    Every query sees the text keys [lo, hi), with its own among them for a text query; a [SUM] sees itself
    besides; queries outside the instruction see the instruction where it is visible.
    """
    padded_text, prefix = len(batch.tokens), batch.num_prefix * batch.prefix_visible
    seen = batch.hi - batch.lo + batch.sum_hi - batch.sum_lo
    text = int(seen[: batch.num_text].sum()) + prefix * (batch.num_text - batch.num_prefix)
    sums = int(seen[padded_text : padded_text + batch.num_sums].sum()) + (1 + prefix) * batch.num_sums
    return text, sums


def sum_counts(batches: SumBatches, parts: Iterable[np.ndarray]) -> SumCounts:
    """Tokens and visible pairs of some forward passes, by packing each: any prompt format, a few batches.

    Args:
        parts: row numbers of each forward pass.
    """
    text = sums = text_pairs = sum_pairs = 0
    for part in parts:
        packed = pack_rows(batches.source, batches.rows, part)
        of_text, of_sums = visible_pairs(packed)
        text, sums = text + packed.num_text, sums + packed.num_sums
        text_pairs, sum_pairs = text_pairs + of_text, sum_pairs + of_sums
    return SumCounts(text, sums, text_pairs, sum_pairs)


def count_prompts(batches: SumBatches, raw_lengths: np.ndarray) -> PromptCounts:
    """Count an epoch.

    Args:
        batches: of the training split, with the sizes that the trainer has.
        raw_lengths: (items,) tokens of the bare item texts.

    Raises:
        ConfigError: a token window or visible [SUM]s, whose pairs do not follow from interaction lengths.
    """
    source, rows = batches.source, batches.rows
    settings, prefix = source.settings, len(source.items.instruction)
    if settings.window != "interactions" or settings.sum_layout == "inline-visible":
        found = f"window={settings.window!r}, sum_layout={settings.sum_layout!r}"
        expected = "windows of interactions and [SUM]s that nothing attends to"
        raise ConfigError("prompt format to count", found, expected, "choose another format")
    visible = prefix if settings.instruction == "visible" else 0
    row_tokens = np.zeros(len(rows), dtype=np.int64)
    text_pairs = sum_pairs = raw = 0
    for chunk, row, length, context, text_length, is_target, item in _interactions(source, rows):
        row_tokens[chunk] = np.bincount(row, weights=length, minlength=len(chunk)).astype(np.int64)
        text_pairs += int((length * (context + visible) + length * (length + 1) // 2).sum())
        sum_pairs += int((context + text_length + 1 + visible)[is_target].sum())
        raw += int(raw_lengths[item].sum())
    passes = [part for chosen in batches.epoch(0, 0) for part in batches.split(chosen)]
    padded, bucketed = _padded(batches, passes, row_tokens)
    text, sums = int(row_tokens.sum()), batches.num_targets
    counts = SumCounts(
        text=text + prefix * len(passes),
        sums=sums,
        text_pairs=text_pairs + prefix * (prefix + 1) // 2 * len(passes),
        sum_pairs=sum_pairs,
    )
    return PromptCounts(
        targets=sums,
        prompts=len(rows),
        interactions=int((rows.stop - rows.first).sum()),
        forward_passes=len(passes),
        instruction=prefix * len(passes),
        counts=counts,
        raw=raw,
        templated=text + prefix * len(rows) + sums,
        padded=padded,
        bucketed=bucketed,
        longest=prefix + int(row_tokens.max(initial=0)) + 1,
        computed_pairs=_computed_pairs(batches, passes[:SAMPLED_PASSES]),
    )


def _interactions(source: PromptSource, rows: Rows) -> Iterator[tuple[np.ndarray, ...]]:
    """For the rows in chunks: row numbers, then per interaction its row in the chunk, tokens, tokens of its
    window before it, tokens without the answer, whether it is a target, and its item."""
    answers = source.settings.answers_in_context
    for start in range(0, len(rows), CHUNK):
        chunk = np.arange(start, min(start + CHUNK, len(rows)))
        lengths = (rows.stop - rows.first)[chunk]
        row = np.repeat(np.arange(len(chunk)), lengths)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        number = np.arange(len(row))
        along = number - first + rows.first[chunk][row]
        item = source.data.interactions.item[source.data.user_rows[along]]
        text = source.items.lengths[item]
        is_last = along == rows.stop[chunk][row] - 1
        length = text + (answers & ~is_last)
        begin = np.cumsum(length) - length
        context = begin - begin[np.maximum(first, number - rows.n)]
        is_target = rows.target[along] & (along >= rows.start[chunk][row])
        yield chunk, row, length, context, text, is_target, item


def _padded(batches: SumBatches, passes: list[np.ndarray], row_tokens: np.ndarray) -> tuple[int, int]:
    """Tokens of all forward passes, rounded up to multiples, and to the few lengths of CUDA batches."""
    sizes, prefix = batches.sizes, len(batches.source.items.instruction)
    text = np.array([prefix + row_tokens[part].sum() for part in passes])
    sums = np.array([batches.rows.num_targets[part].sum() for part in passes])
    sums += -sums % sizes.sum_multiple
    together = text + sums + -(text + sums) % sizes.text_multiple
    buckets = length_buckets(together, NUM_LENGTHS)
    bucketed = buckets[np.searchsorted(buckets, together)]
    return int((text + -text % sizes.text_multiple + sums).sum()), int(bucketed.sum())


def _computed_pairs(batches: SumBatches, passes: list[np.ndarray]) -> float:
    """Pairs in the query blocks of the banded attention, per target and layer."""
    pairs = targets = 0
    for part in passes:
        packed = pack_rows(
            batches.source, batches.rows, part, batches.sizes.text_multiple, batches.sizes.sum_multiple
        )
        targets += packed.num_sums
        for of_sums, block in ((False, TEXT_BLOCK), (True, min(MAX_SUM_BLOCK, batches.rows.k))):
            pairs += query_blocks(packed, of_sums, block).visible.numel()
    return pairs / targets
