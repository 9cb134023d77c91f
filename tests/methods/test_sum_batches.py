"""Batches of a method: identical targets for all methods and k, counts, micro-batches, losses and scores."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from prompt_cases import NO, YES, make_data, make_items
from tiny_backbones import tiny_backbone

from repro.backbones.fix_settings import Fixes, Reset
from repro.data.interactions import TEST, TRAIN, VALIDATION, PreparedData
from repro.methods.dti import PAPER_FIXES, dti, dti_minus, dti_tuned
from repro.methods.method import BatchSizes, SumMethod
from repro.methods.sliding_window import sliding_window, zero_shot
from repro.methods.sum_batches import SumBatches, batches_of
from repro.methods.sum_model import SumModel
from repro.prompts.settings import PromptSettings

N = 3
DATA = make_data([14, 11, 9, 4], seed=5, min_context=1, share_of_targets=0.8)
ITEMS = make_items()
K = (1, 2, 5, 50)
SIZES = BatchSizes()
METHODS = [sliding_window(N), *(make(N, k) for k in K for make in (dti_minus, dti, dti_tuned))]


@functools.cache
def backbone():
    return replace_answers(tiny_backbone("llama", num_hidden_layers=2))


def replace_answers(backbone_):
    """The answers of `prompt_cases`, so that labels and answer tokens agree."""
    backbone_.yes_id, backbone_.no_id = YES, NO
    return backbone_


def make(
    method: SumMethod, split: int = TRAIN, batch_targets: int = 8, sizes: BatchSizes = SIZES
) -> SumBatches:
    return batches_of(DATA, ITEMS, method, split, batch_targets, 2, sizes)


@pytest.mark.parametrize("split", [TRAIN, VALIDATION, TEST])
def test_every_method_has_the_identical_targets(split) -> None:
    expected = DATA.targets(split).tolist()
    assert len(expected) >= 3
    for method in METHODS:
        batches = make(method, split)
        for keys in (batches.epoch(seed=1, epoch=0), batches.epoch(seed=1, epoch=1), batches.in_order()):
            loaded = [batches.load(part, "cpu") for key in keys for part in batches.split(key)]
            found = np.concatenate([batch.target_row for batch in loaded])
            assert sorted(found.tolist()) == expected
            assert sum(batch.num_targets for batch in loaded) == batches.num_targets == len(expected)
            assert sum(batches.count(key) for key in keys) == len(expected)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{m.prompt.k}-{m.prompt.instruction}")
def test_validation_and_test_prompts_are_those_of_the_sliding_window(method) -> None:
    """The same arrays for every method; only the position fix is as trained, and the reset is gone."""
    sliding = make(sliding_window(N), TEST)
    batches = make(method, TEST)
    assert batches.rows.k == 1 and batches.source.settings == sliding.source.settings
    assert (batches.fixes.position, batches.fixes.reset) == (method.fixes.position, None)
    for ours, theirs in zip(batches.in_order(), sliding.in_order(), strict=True):
        a, b = batches.load(ours, "cpu"), sliding.load(theirs, "cpu")
        assert torch.equal(a.plan.tokens, b.plan.tokens)
        assert np.array_equal(a.target_row, b.target_row)


def test_the_recipes_are_the_documented_ones() -> None:
    assert sliding_window(N) == SumMethod("sw", PromptSettings(n=N, k=1))
    assert zero_shot(N).trains is False and zero_shot(N).prompt == sliding_window(N).prompt
    inline = PromptSettings(n=N, k=5, sum_layout="inline-positions", instruction="hidden")
    assert dti_minus(N, 5) == SumMethod("dti-minus", inline, Fixes())
    assert dti(N, 5) == SumMethod("dti", PromptSettings(n=N, k=5, instruction="hidden"), PAPER_FIXES)
    assert PAPER_FIXES.reset == Reset() and PAPER_FIXES.position == "alibi-rotated-keys"
    assert dti_tuned(N, 5) == SumMethod("dti", PromptSettings(n=N, k=5), Fixes())
    assert dti_tuned(N, 1).prompt == sliding_window(N).prompt


@pytest.mark.parametrize("k", K)
def test_counts_are_tokens_without_and_with_padding(k) -> None:
    batches = make(dti_tuned(N, k), sizes=BatchSizes(text_multiple=32, sum_multiple=8))
    for key in batches.epoch(0, 0):
        batch = batches.load(key, "cpu")
        num_text, num_sums = len(batch.plan.tokens), len(batch.plan.label)
        assert num_text % 32 == 0 and num_sums % 8 == 0
        assert batch.num_padded_tokens == num_text + num_sums
        assert batch.num_targets == int((batch.plan.label >= 0).sum()) == len(batch.target_row)
        padding = int((batch.plan.tokens == 0).sum())  # no real token of these items is 0
        assert batch.num_tokens == num_text - padding + batch.num_targets


@pytest.mark.parametrize("method", [sliding_window(N), dti_minus(N, 5), dti(N, 5)], ids=lambda m: m.name)
@pytest.mark.parametrize("loss", ["vocabulary", "answers"])
def test_micro_batches_add_up_to_their_batch(method, loss) -> None:
    """Loss and gradients of a batch do not depend on how it is cut, nor on its padding."""
    model = SumModel(backbone(), loss=loss)
    whole = make(
        method, batch_targets=20, sizes=BatchSizes(max_tokens=10**6, text_multiple=1, sum_multiple=1)
    )
    small = make(method, batch_targets=20, sizes=BatchSizes(max_tokens=40, text_multiple=16, sum_multiple=8))

    def run(batches: SumBatches) -> tuple[float, dict[int, float], torch.Tensor, int]:
        model.zero_grad(set_to_none=True)
        key, total, scores = batches.epoch(0, 0)[0], 0.0, {}
        parts = batches.split(key)
        for part in parts:
            batch = batches.load(part, "cpu")
            output = model(batch)
            output.loss_sum.backward()
            total += float(output.loss_sum.detach())
            values = output.score[: batch.num_targets].tolist()
            scores |= dict(zip(batch.target_row.tolist(), values, strict=True))
        return total, scores, model.sum_token.weight.grad.clone(), len(parts)

    loss_a, scores_a, grad_a, parts_a = run(whole)
    loss_b, scores_b, grad_b, parts_b = run(small)
    assert parts_a == 1 < parts_b
    assert loss_a == pytest.approx(loss_b, rel=1e-5)
    assert scores_a.keys() == scores_b.keys()
    assert all(scores_a[row] == pytest.approx(scores_b[row], abs=1e-5) for row in scores_a)
    assert torch.allclose(grad_a, grad_b, atol=1e-5 * float(grad_a.abs().max()))


def test_scores_and_losses_are_those_of_the_answer_logits() -> None:
    batches = make(dti_tuned(N, 5), sizes=BatchSizes(sum_multiple=16))
    batch = batches.load(batches.epoch(0, 0)[0], "cpu")
    real = batch.plan.label >= 0
    assert not real.all(), "there is padding"
    for loss in ("vocabulary", "answers"):
        model = SumModel(backbone(), loss=loss)
        logits = (model.hidden_states(batch.plan) @ backbone().lm_head_weight.T)[real].detach().double()
        output, label = model(batch), batch.plan.label[real]
        no, yes = logits[:, NO], logits[:, YES]
        assert torch.allclose(output.score[real].double(), torch.sigmoid(yes - no), atol=1e-6)
        answer = torch.where(label == 1, yes, no)
        among = logits if loss == "vocabulary" else torch.stack([no, yes], 1)
        assert float(output.loss_sum.detach()) == pytest.approx(
            float((among.logsumexp(1) - answer).sum()), rel=1e-5
        )
        assert np.array_equal(label.numpy(), DATA.interactions.label[batch.target_row])


def test_the_answer_of_a_target_reaches_later_targets_only() -> None:
    """End to end: one label flipped moves no score of that target or an earlier one (DTI section 3.3)."""
    data = make_data([14, 6], seed=5, min_context=1, train_only=True)
    flipped = int(data.user_rows[5])
    later = {int(row) for row in data.user_rows[6:14]}
    label = data.interactions.label.copy()
    label[flipped] ^= 1
    other = replace(data, interactions=replace(data.interactions, label=label))
    model = SumModel(backbone())

    def scores(of: PreparedData, method: SumMethod) -> dict[int, float]:
        batches = batches_of(of, ITEMS, method, TRAIN, 1000, 2, BatchSizes())
        batch = batches.load(batches.in_order()[0], "cpu")
        with torch.no_grad():
            values = model(batch).score[: batch.num_targets].tolist()
        return dict(zip(batch.target_row.tolist(), values, strict=True))

    for method in (sliding_window(N), dti_minus(N, 50), dti(N, 50), dti_tuned(N, 50)):
        before, after = scores(data, method), scores(other, method)
        moved = {row for row in before if before[row] != after[row]}
        window = {int(row) for row in data.user_rows[6 : 6 + N]}
        assert window <= moved <= later
        assert (moved == window) == (method.name == "sw"), (
            "states of the context leak on in streaming prompts"
        )
