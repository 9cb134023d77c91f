"""Batches: identical targets, counts, padding and micro-batches that add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bahe_cases import N, backbone, batches, behaviours, data

from repro.data import TEST, TRAIN, VALIDATION
from repro.methods.bahe.batches import TEXT_MULTIPLE, layout_of
from repro.methods.bahe.llm_ctr import LlmCtrModel
from repro.methods.bahe.model import BaheModel
from repro.methods.bahe.settings import BaheMethod, bahe, llm_ctr
from repro.methods.method import BatchSizes

LONG = BaheMethod("bahe", N, feature_parallel=False)
TEXTS = BaheMethod("bahe", N, cached=False)
METHODS = (bahe(N), LONG, TEXTS, llm_ctr(N))
IDS = ("side by side", "back to back", "not cached", "llm-ctr")


def model_of(method: BaheMethod) -> torch.nn.Module:
    torch.manual_seed(0)
    return (LlmCtrModel if method.name == "llm-ctr" else BaheModel)(backbone(), method)


@pytest.mark.parametrize("method", METHODS, ids=IDS)
@pytest.mark.parametrize("split", [TRAIN, VALIDATION, TEST])
def test_every_target_comes_once(method, split) -> None:
    found = batches(method, split)
    expected = data().targets(split).tolist()
    assert len(expected) > 8 or split != TRAIN
    for keys in (found.epoch(1, 0), found.epoch(1, 1), found.in_order()):
        loaded = [found.load(part, "cpu") for key in keys for part in found.split(key)]
        rows = np.concatenate([batch.target_row for batch in loaded])
        assert sorted(rows.tolist()) == expected
        assert sum(found.count(key) for key in keys) == found.num_targets == len(expected)


def test_epochs_have_an_order_of_their_own() -> None:
    found = batches(bahe(N))
    first, again, second = found.epoch(3, 0), found.epoch(3, 0), found.epoch(3, 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_counts_are_what_is_read_without_and_with_padding(method) -> None:
    found = batches(method, multiple=5, batch_targets=6)
    rows = found.epoch(0, 0)[0]
    batch, sequences = found.load(rows, "cpu"), found.source.cut(rows)
    assert len(batch.label) == batch.num_targets == 6 and batch.value.shape[1] % 5 == 0
    vectors = int(sequences.member.sum()) + 6
    if method.name == "llm-ctr":
        lengths = behaviours().lengths
        real = int((lengths[sequences.behaviour] * sequences.member.sum(0)).sum())
        assert batch.num_tokens == real + int(lengths[sequences.item].sum())
        assert batch.num_padded_tokens == batch.value.numel()
    else:
        texts = 0 if method.cached else int(sum(each.lengths.sum() for each in batch.behaviours.texts))
        assert batch.num_tokens == vectors + texts and (texts > 0) == (not method.cached)
        padding = sum(each.tokens.numel() for each in batch.behaviours.texts)
        assert batch.num_padded_tokens == batch.value.numel() + 6 + padding


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_micro_batches_and_padding_change_nothing(method) -> None:
    model = model_of(method)
    whole = batches(method, batch_targets=12)
    small = batches(method, batch_targets=12, multiple=3, max_places=40)

    def run(found) -> tuple[float, dict[int, float], dict[str, torch.Tensor], int]:
        model.zero_grad(set_to_none=True)
        key, total, scores = found.epoch(0, 0)[0], 0.0, {}
        parts = found.split(key)
        for part in parts:
            batch = found.load(part, "cpu")
            output = model(batch)
            output.loss_sum.backward()
            total += float(output.loss_sum.detach())
            scores |= dict(zip(batch.target_row.tolist(), output.score.tolist(), strict=False))
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return total, scores, gradients, len(parts)

    loss_a, scores_a, gradients_a, parts_a = run(whole)
    loss_b, scores_b, gradients_b, parts_b = run(small)
    assert parts_a == (1 if method.name != "llm-ctr" else parts_a) < parts_b
    assert loss_a == pytest.approx(loss_b, rel=1e-5)
    assert scores_a.keys() == scores_b.keys()
    assert all(scores_a[row] == pytest.approx(scores_b[row], abs=1e-5) for row in scores_a)
    assert gradients_a.keys() == gradients_b.keys() and len(gradients_a) > 10
    for name, gradient in gradients_a.items():
        scale = max(1e-3, float(gradient.abs().max()))
        assert torch.allclose(gradient, gradients_b[name], atol=1e-4 * scale), name


def test_llm_ctr_reads_every_interaction_twice_with_the_usual_sequences() -> None:
    once = batches(BaheMethod("llm-ctr", N, sequences=("recent",)))
    twice = batches(llm_ctr(N))
    for key in twice.in_order():
        items = behaviours().alone[data().interactions.item[key]]
        item_tokens = int(behaviours().lengths[items].sum())
        own, usual = (each.load(key, "cpu").num_tokens - item_tokens for each in (once, twice))
        assert own > 0 and usual == 2 * own


def test_llm_ctr_texts_of_one_padded_length_stand_together() -> None:
    found = batches(llm_ctr(N), batch_targets=30, multiple=16)
    key = found.in_order()[0]
    parts = found.split(key)
    widths = [found.load(part, "cpu").value.shape[1] for part in parts]
    assert len(widths) == len(set(widths)) > 1
    assert sorted(np.concatenate(parts).tolist()) == sorted(key.tolist())


def test_texts_of_the_cpu_tier_share_rows_with_texts_of_their_padded_length() -> None:
    assert layout_of("written-out", BatchSizes(), packed=False).multiple == BatchSizes().text_multiple
    assert layout_of("side-by-side", BatchSizes(), packed=False).multiple == 1
    assert layout_of("written-out", BatchSizes(text_multiple=10**4), packed=False).multiple == TEXT_MULTIPLE
