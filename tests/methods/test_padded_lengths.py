"""Batches for the compiled path: few padded lengths, nothing lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from prompt_cases import film_like, make_data, make_items

from repro.data import TEST, TRAIN, VALIDATION
from repro.experiments.table1 import KS
from repro.experiments.tiers import paper_tier
from repro.methods import sum_batches
from repro.methods.dti import dti_tuned
from repro.methods.method import BatchSizes
from repro.methods.sliding_window import sliding_window
from repro.methods.sum_batches import (
    BUCKET_MULTIPLE,
    NUM_LENGTHS,
    SAMPLED_EPOCHS,
    SumBatches,
    batches_of,
)
from repro.prompts.batching import EVALUATION_STEPS
from repro.training.task import CompiledBatches

SIZES = BatchSizes(max_tokens=600, text_multiple=BUCKET_MULTIPLE, sum_multiple=8)


@pytest.fixture(autouse=True)
def as_on_cuda(monkeypatch) -> None:
    monkeypatch.setattr(SumBatches, "has_few_lengths", lambda self, device: True)


def batches(method, split=TRAIN) -> SumBatches:
    data = make_data([60, 45, 80, 20, 7], seed=1)
    return batches_of(data, make_items(longest=9), method, split, 30, 1, SIZES)


@pytest.mark.parametrize("method", [sliding_window(6), dti_tuned(6, 5), dti_tuned(6, 40)])
@pytest.mark.parametrize("split", [TRAIN, VALIDATION])
def test_lengths_are_few_and_warmed_up(method, split) -> None:
    chosen = batches(method, split)
    assert isinstance(chosen, CompiledBatches)
    lengths: set[int] = set()
    epochs = [chosen.epoch(0, number) for number in range(SAMPLED_EPOCHS)]
    for keys in epochs if split == TRAIN else [chosen.in_order()]:
        targets = []
        for part in (part for key in keys for part in chosen.split(key)):
            batch = chosen.load(part, "cpu")
            assert batch.num_tokens <= batch.num_padded_tokens == len(batch.plan.intervals.order)
            lengths.add(batch.num_padded_tokens)
            targets += batch.target_row.tolist()
    assert len(lengths) <= (NUM_LENGTHS if split == TRAIN else 1)
    assert all(length % BUCKET_MULTIPLE == 0 for length in lengths)
    warm = {chosen.load(part, "cpu").num_padded_tokens for part in chosen.warm_up("cpu")}
    assert warm == lengths
    assert sorted(targets) == sorted(np.unique(targets)) and len(targets) == chosen.num_targets


@pytest.mark.parametrize("max_tokens", [600, 8192])
def test_validation_and_test_share_one_length_that_is_little_longer_than_needed(max_tokens) -> None:
    """At 8,192 each of the two splits is a single micro-batch that does not fill it."""
    data, sizes = make_data([60, 45, 80, 20, 7], seed=1), dataclasses.replace(SIZES, max_tokens=max_tokens)
    lengths = []
    for split in (VALIDATION, TEST):
        chosen = batches_of(data, make_items(longest=9), dti_tuned(6, 5), split, 30, 1, sizes)
        (warm,) = chosen.warm_up("cpu")
        parts = [part for key in chosen.in_order() for part in chosen.split(key)]
        needed = max(chosen.places(part, chosen._num_sums()) for part in parts)
        (length,) = {chosen.load(part, "cpu").num_padded_tokens for part in parts}
        assert chosen.load(warm, "cpu").num_padded_tokens == length
        assert needed <= length < needed + max(needed // EVALUATION_STEPS, BUCKET_MULTIPLE)
        lengths.append(length)
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("k", [1, *KS])
def test_the_paper_tiers_training_fits_80_gb(k) -> None:
    """12,800 places at most do; no row length of MovieLens takes a micro-batch beyond them."""
    data, items = film_like()
    tier, method = paper_tier(), sliding_window(20) if k == 1 else dti_tuned(20, k)
    chosen = batches_of(data, items, method, TRAIN, tier.training.batch_targets, 4, tier.sizes)
    of_other_seeds = [part for seed in (1, 2) for key in chosen.epoch(seed, 0) for part in chosen.split(key)]
    lengths = {chosen._padded_length(part) for part in [*chosen.warm_up("cpu"), *of_other_seeds]}
    assert 10_240 < max(lengths) <= 12_800


def test_equal_micro_batches_need_less_padding_than_full_ones_and_a_rest(monkeypatch) -> None:
    """At k = 50 in the `paper` tier, where a step is some 26,000 tokens and a micro-batch holds 10,240."""
    data, items = film_like()
    tier = paper_tier()

    def padding() -> float:
        chosen = batches_of(data, items, dti_tuned(20, 50), TRAIN, tier.training.batch_targets, 4, tier.sizes)
        parts = [part for key in chosen.epoch(1, 0) for part in chosen.split(key)]
        padded = sum(chosen._padded_length(part) for part in parts)
        return padded / sum(int(chosen._row_tokens[part].sum()) + chosen.count(part) for part in parts) - 1

    ours = padding()
    monkeypatch.setattr(
        sum_batches, "even_parts", lambda lengths, most, more: (np.cumsum(lengths) - lengths) // most
    )
    assert ours < 0.75 * padding()


@pytest.mark.parametrize("k", [None, 5, 40])
def test_other_seeds_keep_to_the_lengths(k) -> None:
    """Lengths come from one seed's epochs; what is longer in another seed's is cut once more."""
    chosen = batches(sliding_window(6) if k is None else dti_tuned(6, k))
    known = {chosen._padded_length(part) for part in chosen.warm_up("cpu")}
    parts = [part for seed in range(1, 6) for key in chosen.epoch(seed, 9) for part in chosen.split(key)]
    assert all(chosen._padded_length(part) in known for part in parts)
    assert {chosen._rounded(chosen.count(part)) <= chosen._num_sums() for part in parts} == {True}


@pytest.mark.parametrize("k", [None, 5])
def test_what_is_longer_than_every_length_is_cut_until_it_fits(k) -> None:
    chosen = batches(sliding_window(6) if k is None else dti_tuned(6, k))
    chosen.warm_up("cpu")
    longest = chosen._lengths[-1] - BUCKET_MULTIPLE
    chosen._lengths = np.array([longest])
    assert any(chosen._needed(part) > longest for part in chosen._sample())
    for key in chosen.epoch(3, 1):
        parts = chosen.split(key)
        assert np.array_equal(np.concatenate(parts), key)
        assert all(chosen._needed(part) <= longest for part in parts)


def test_a_batch_longer_than_every_bucket_is_still_whole() -> None:
    chosen = batches(dti_tuned(6, 5))
    everything = np.arange(len(chosen.rows))
    batch = chosen.load(everything, "cpu")
    assert batch.num_targets == chosen.num_targets
    assert batch.num_padded_tokens % BUCKET_MULTIPLE == 0


def shapes(value) -> tuple:
    """Of all tensors of a batch, which a graph of the step would read."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape),)
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return sum(map(shapes, value), ()) if isinstance(value, list | tuple) else ()


@pytest.mark.parametrize("k", [1, 5, 40])
def test_shapes_recur_so_that_recorded_steps_can_be_replayed(k) -> None:
    """The next epoch's batches have, most of them, the shapes of the warm-up's."""
    chosen = batches(sliding_window(6) if k == 1 else dti_tuned(6, k))
    recorded = {shapes(chosen.load(part, "cpu")) for part in chosen.warm_up("cpu")}
    assert len(recorded) <= NUM_LENGTHS
    found = [shapes(chosen.load(part, "cpu")) for key in chosen.epoch(0, 1) for part in chosen.split(key)]
    assert np.mean([shape in recorded for shape in found]) > 0.6
