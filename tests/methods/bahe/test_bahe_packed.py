"""Packed batches, which compiled layers read on a GPU: models, numbers and targets of padded rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bahe_cases import N, backbone, batches

from repro.backbones.packed_layers import packed_rows
from repro.methods.bahe.batches import NUM_LENGTHS, SAMPLED_EPOCHS, BaheBatches, layout_of
from repro.methods.bahe.llm_ctr import LlmCtrModel
from repro.methods.bahe.model import BaheModel
from repro.methods.bahe.sequences import packed
from repro.methods.bahe.settings import BaheMethod, bahe, llm_ctr
from repro.methods.method import BatchSizes

LONG = BaheMethod("bahe", N, feature_parallel=False)
TEXTS = BaheMethod("bahe", N, cached=False)
METHODS = (bahe(N), LONG, TEXTS, llm_ctr(N))
IDS = ("side by side", "back to back", "not cached", "llm-ctr")
PACKED = {"packed": True, "multiple": 8, "target_multiple": 4, "max_places": 60}


def model_of(method: BaheMethod) -> torch.nn.Module:
    torch.manual_seed(0)
    return (LlmCtrModel if method.name == "llm-ctr" else BaheModel)(backbone(), method)


def outcome(model: torch.nn.Module, found: BaheBatches, key: np.ndarray):
    """Loss, scores by target, gradients and batches of one batch."""
    model.zero_grad(set_to_none=True)
    total, scores, loaded = 0.0, {}, [found.load(part, "cpu") for part in found.split(key)]
    for batch in loaded:
        output = model(batch)
        output.loss_sum.backward()
        total += float(output.loss_sum.detach())
        scores |= dict(zip(batch.target_row.tolist(), output.score.tolist(), strict=False))
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return total, scores, gradients, loaded


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_losses_scores_and_gradients_are_those_of_padded_rows(method) -> None:
    model = model_of(method)
    plain, other = batches(method, batch_targets=14), batches(method, batch_targets=14, **PACKED)
    key = plain.targets[:14]
    loss, scores, gradients, rows = outcome(model, plain, key)
    loss_p, scores_p, gradients_p, parts = outcome(model, other, key)
    assert len(parts) > 1 and all(len(part.value) % 8 == 0 for part in parts)
    assert any(part.num_padded_tokens > part.num_tokens for part in parts), "some places are padding"
    assert any(bool(part.is_empty[: part.num_targets].any()) for part in parts), "some sequences are empty"
    assert loss == pytest.approx(loss_p, rel=1e-5)
    assert scores.keys() == scores_p.keys()
    assert all(scores[row] == pytest.approx(scores_p[row], abs=1e-5) for row in scores)
    assert gradients.keys() == gradients_p.keys() and len(gradients) > 10
    for name, gradient in gradients.items():
        scale = max(1e-3, float(gradient.abs().max()))
        assert torch.allclose(gradient, gradients_p[name], atol=1e-4 * scale), name
    if method.cached:  # texts that are encoded in each part are counted there
        assert sum(part.num_tokens for part in parts) == sum(part.num_tokens for part in rows)


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_padding_of_places_and_targets_does_not_matter(method) -> None:
    model = model_of(method).eval()
    few, many = (batches(method, **(PACKED | {"max_places": 10**6, "multiple": m})) for m in (1, 512))
    key = few.epoch(0, 0)[0]
    with torch.no_grad():
        a, b = (model(each.load(key, "cpu")).score[: len(key)] for each in (few, many))
    assert torch.allclose(a, b, atol=1e-6)


def test_the_item_stands_behind_its_targets_sequences() -> None:
    found = batches(bahe(N))
    sequences = found.source.cut(found.in_order()[0])
    together = packed(sequences)
    ends = np.cumsum(together.length.sum(1)) - 1
    assert np.array_equal(together.value[ends], sequences.item)
    assert np.array_equal(together.length[:, :-1], sequences.member.sum(2).T)
    assert (together.length[:, -1] == 1).all()


@pytest.mark.parametrize("kind", ["side-by-side", "back-to-back", "written-out"])
def test_the_gpu_tiers_batches_have_few_shapes_and_hardly_any_padding(kind) -> None:
    """A compiled model is compiled for each shape, so there must be few, and nearly none may come later."""
    method = {"side-by-side": bahe(N), "back-to-back": LONG, "written-out": llm_ctr(N)}[kind]
    layout = layout_of(kind, BatchSizes(max_tokens=400, text_multiple=16), packed=True)
    found = batches(method, batch_targets=30, **vars(layout))

    def shapes(parts) -> list[tuple[int, int]]:
        loaded = [found.load(part, "cpu") for part in parts]
        return [(len(part.value), len(part.label)) for part in loaded]

    def parts_of(epoch: int) -> list[np.ndarray]:
        return [part for key in found.epoch(0, epoch) for part in found.split(key)]

    warm = shapes(found.warm_up("cuda"))
    assert len(warm) == len(set(warm)) <= NUM_LENGTHS
    later = [each for epoch in range(SAMPLED_EPOCHS, 3 * SAMPLED_EPOCHS) for each in shapes(parts_of(epoch))]
    assert sum(shape not in warm for shape in later) <= 0.02 * len(later)
    parts = [found.load(part, "cpu") for part in parts_of(9)]
    places = sum(len(part.value) for part in parts)
    assert places <= 1.2 * sum(part.num_tokens for part in parts)
    sizes = [part.num_tokens for part in parts]
    assert max(sizes) <= layout.max_places + 120, "as many places as the device has room for"
    assert batches(method).warm_up("cuda") == []


def test_evaluation_is_warmed_up_for_the_batches_that_it_reads() -> None:
    """Its batches come in order of time, so users' first ones, which are short, stand together."""
    found = batches(bahe(N), batch_targets=10, **(PACKED | {"max_places": 10**6}))
    given = (found.source, found.behaviours, found.vectors, found.label, found.targets, 10, found.layout)
    shapes = {}
    for shuffled in (True, False):
        each = BaheBatches(*given, shuffled=shuffled)
        read = [part for key in each.in_order() for part in each.split(key)]
        warm = {len(each.load(part, "cpu").value) for part in each.warm_up("cuda")}
        shapes[shuffled] = warm, {len(each.load(part, "cpu").value) for part in read}
    assert shapes[False][0] == shapes[False][1] and len(shapes[False][0]) == 1
    assert shapes[True][0] != shapes[False][0], "training's batches have other shapes"


def test_behaviours_of_packed_batches_are_padded_to_one_number() -> None:
    """Recorded steps are found by their shapes; what stands at each place is the same."""
    plain, fixed = batches(bahe(N)), batches(bahe(N), **(PACKED | {"max_places": 10**6}))
    keys = [key for epoch in (0, 1) for key in plain.epoch(0, epoch)]
    pairs = [(plain.load(key, "cpu"), fixed.load(key, "cpu")) for key in keys]
    assert len({len(batch.behaviours.vectors) for _, batch in pairs}) == 1
    assert len({len(batch.behaviours.vectors) for batch, _ in pairs}) > 1, "batches differ"
    model = model_of(bahe(N)).eval()
    with torch.no_grad():
        for ours, theirs in pairs:
            assert torch.allclose(model(ours).score, model(theirs).score[: ours.num_targets], atol=1e-6)


def test_rows_that_are_not_alike_are_refused_where_attention_would_take_them_for_it() -> None:
    device = torch.device("cpu")
    assert packed_rows(np.array([4, 4]), 8, device, alike=True).alike == 2
    assert packed_rows(np.array([4, 4]), 8, device).alike is None
    for lengths, total in (([4, 3], 7), ([4, 4], 9)):
        with pytest.raises(AssertionError, match="one length"):
            packed_rows(np.array(lengths), total, device, alike=True)
