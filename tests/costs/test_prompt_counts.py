"""Counts from interaction lengths against packed batches and the naive visibility matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_cases import make_data, make_items

from repro.backbones.fix_settings import Fixes
from repro.backbones.visibility import dense_visibility
from repro.costs.architecture import architecture_of
from repro.costs.closed_form import Training, sum_model_cost
from repro.costs.projection import uniform_counts
from repro.costs.prompt_counts import count_prompts, sum_counts, visible_pairs
from repro.data import TRAIN
from repro.errors import ConfigError
from repro.methods.method import BatchSizes
from repro.methods.sum_batches import SumBatches
from repro.prompts.packing import PromptSource, pack_rows
from repro.prompts.rows import build_rows
from repro.prompts.settings import PromptSettings
from repro.prompts.tokenise import TokenisedItems

RAW = np.arange(7) + 1
SIZES = BatchSizes(max_tokens=40, text_multiple=8, sum_multiple=4)


def make_batches(prompt: PromptSettings, seed: int, lengths: list[int]) -> SumBatches:
    data = make_data(lengths, seed, share_of_targets=0.7)
    source = PromptSource(data, make_items(seed=seed), prompt)
    return SumBatches(source, build_rows(data, TRAIN, prompt.n, prompt.k), Fixes(), SIZES, 6, 1)


@settings(max_examples=30, derandomize=True, deadline=None)  # the same examples in every run
@given(
    n=st.integers(1, 5),
    k=st.integers(1, 6),
    instruction=st.sampled_from(["visible", "hidden"]),
    layout=st.sampled_from(["deferred", "inline-positions"]),
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=5),
)
def test_an_epoch_is_counted_as_it_is_packed(n, k, instruction, layout, seed, lengths):
    batches = make_batches(PromptSettings(n, k, layout, instruction=instruction), seed, lengths)
    if not batches.num_targets:
        return
    found = count_prompts(batches, RAW)
    passes = [part for chosen in batches.epoch(0, 0) for part in batches.split(chosen)]
    text = sums = text_pairs = sum_pairs = padded = 0
    for part in passes:
        plain, sized = (pack_rows(batches.source, batches.rows, part, *m) for m in ((1, 1), (8, 4)))
        visible = dense_visibility(plain)
        text, sums, padded = text + plain.num_text, sums + plain.num_sums, padded + len(sized.position)
        text_pairs += int(visible[: plain.num_text].sum())
        sum_pairs += int(visible[plain.num_text :].sum())
        assert visible_pairs(plain) == visible_pairs(sized)
        assert sum(visible_pairs(plain)) == visible.sum()
    assert (found.counts.text, found.counts.sums) == (text, sums)
    assert (found.counts.text_pairs, found.counts.sum_pairs) == (text_pairs, sum_pairs)
    assert sum_counts(batches, passes) == found.counts
    assert (found.forward_passes, found.prompts, found.targets) == (len(passes), len(batches.rows), sums)
    assert found.padded == padded
    assert found.bucketed >= found.processed == text + sums
    prefix = len(batches.source.items.instruction)
    assert found.templated == text + sums + prefix * (len(batches.rows) - len(passes))
    rows, item = batches.rows, batches.source.data.interactions.item[batches.source.data.user_rows]
    assert found.raw == sum(RAW[item[a:b]].sum() for a, b in zip(rows.first, rows.stop, strict=True))
    assert found.computed_pairs * sums >= text_pairs + sum_pairs or len(passes) > 12


@pytest.mark.parametrize(
    "prompt",
    [PromptSettings(2, 2, window="tokens", window_tokens=4), PromptSettings(2, 2, "inline-visible")],
)
def test_formats_whose_pairs_do_not_follow_from_lengths_are_refused(prompt):
    with pytest.raises(ConfigError, match="prompt format"):
        count_prompts(make_batches(prompt, 0, [9]), RAW)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 1), (3, 2), (2, 6)])
def test_uniform_prompts_are_counted_as_they_are_packed(n, k):
    """One user whose first target has n interactions before it, items of 4 tokens and an answer."""
    data = make_data([n + k], min_context=n, train_only=True)
    items = TokenisedItems(
        np.arange(28, dtype=np.int32), np.arange(8) * 4, np.arange(3, dtype=np.int32), 1, 2
    )
    source, rows = PromptSource(data, items, PromptSettings(n, k)), build_rows(data, TRAIN, n, k)
    packed = pack_rows(source, rows, np.arange(1))
    found = uniform_counts(n, k, 5, 3, targets=k)
    assert (found.text, found.sums) == (packed.num_text, packed.num_sums) == (packed.num_text, k)
    assert (found.text_pairs, found.sum_pairs) == visible_pairs(packed)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 1, 5, 3, 10), "n "),
        ((1, 0, 5, 3, 10), "k "),
        ((1, 1, 1, 3, 10), "tokens per"),
        ((1, 1, 5, 3, 0), "targets"),
    ],
)
def test_bad_sizes_are_refused(arguments, match):
    with pytest.raises(ConfigError, match=match):
        uniform_counts(*arguments)


def test_the_reduction_tends_to_the_token_limit_for_long_equal_texts_without_attention():
    """What is left out of the limit vanishes: instruction, [SUM], LM head, attention."""
    arch = architecture_of("random:llama-3.1-8b")
    costs = [sum_model_cost(arch, uniform_counts(20, k, 400, 0, 5000), Training("lora")) for k in (1, 50)]
    linear = [cost.part("linear layers").forward for cost in costs]
    assert linear[0] / linear[1] == pytest.approx(15.0, rel=3e-3)
