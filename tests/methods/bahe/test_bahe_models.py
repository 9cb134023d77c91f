"""BAHE and LLM-CTR against transformers' own forward pass, one target and one sequence at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bahe_cases import N, backbone, batches, behaviours, data, own_states, table

from repro.backbones.loading import Backbone
from repro.behaviours.table import MemoryTable, look_up
from repro.errors import TableError
from repro.methods.bahe.llm_ctr import LlmCtrModel
from repro.methods.bahe.model import BaheModel
from repro.methods.bahe.settings import BaheMethod, bahe, llm_ctr
from repro.methods.bahe.vectors import TableVectors

TOLERANCE = 1e-5
LONG = BaheMethod("bahe", N, feature_parallel=False)


def naive_bahe(model: BaheModel, whole: Backbone, method: BaheMethod, row: int) -> float:
    """Score of one target, from the documented rule."""
    num_lower = method.num_lower(whole.num_layers)
    full, history = table(num_lower, method.pooling), data().history(row)[-method.n :]
    vectors = full.vectors()[torch.from_numpy(full.rows(behaviours().text))]
    item, label = data().interactions.item[history], data().interactions.label[history]
    number = torch.from_numpy(behaviours().answered[item, label])
    sequences = [number[label == 1], number[label == 0], number]
    if method.feature_parallel:
        states = [own_states(whole, vectors[each], num_lower) if len(each) else None for each in sequences]
    else:
        together = own_states(whole, vectors[torch.cat(sequences)], num_lower)
        lengths = [len(each) for each in sequences]
        states = [part if len(part) else None for part in together.split(lengths)]
    pooled = [model.head.empty[place] if part is None else part.mean(0) for place, part in enumerate(states)]
    alone = vectors[int(behaviours().alone[data().interactions.item[row]])]
    return naive_head(model, [*pooled, own_states(whole, alone[None], num_lower)[0]])


def naive_head(model, pooled: list[torch.Tensor]) -> float:
    head = model.head
    joined = torch.cat([head.norm(each) for each in pooled])
    return torch.sigmoid(head.second(torch.nn.functional.gelu(head.first(joined)))).item()


@pytest.mark.parametrize("method", [bahe(N), LONG, replace(bahe(N), layer_cut=0.25, pooling="mean")])
def test_bahe_is_the_upper_layers_over_each_sequence(method) -> None:
    whole = backbone()
    torch.manual_seed(0)
    model = BaheModel(backbone(), method)
    found = batches(method, split=0, batch_targets=100, multiple=3)
    batch = found.load(found.in_order()[0], "cpu")
    assert batch.is_empty.any(), "some sequence is empty"
    scores = model(batch).score.tolist()
    for row, score in zip(batch.target_row.tolist()[:25], scores, strict=False):
        assert score == pytest.approx(naive_bahe(model, whole, method, row), abs=TOLERANCE)


def test_llm_ctr_is_all_layers_over_the_text() -> None:
    whole = backbone()
    torch.manual_seed(0)
    model = LlmCtrModel(backbone(), llm_ctr(N))
    found = batches(llm_ctr(N), batch_targets=12, multiple=32)
    batch = found.load(found.in_order()[0], "cpu")
    scores = model(batch).score.tolist()
    for row, score in zip(batch.target_row.tolist(), scores, strict=True):
        history = data().history(row)[-N:]
        item, label = data().interactions.item[history], data().interactions.label[history]
        number = behaviours().answered[item, label]
        target = behaviours().alone[[data().interactions.item[row]]]
        segments = [number[label == 1], number[label == 0], number, target]
        pieces = [np.concatenate([*behaviours().tokens_of(each), np.zeros(0, int)]) for each in segments]
        text = torch.from_numpy(np.concatenate(pieces).astype(np.int64))
        states = own_states(whole, whole.embed_tokens(text), 0).split([len(each) for each in pieces])
        pooled = [part.mean(0) if len(part) else model.head.empty[place] for place, part in enumerate(states)]
        assert score == pytest.approx(naive_head(model, pooled), abs=TOLERANCE)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("parallel", [True, False])
def test_cached_and_uncached_give_the_same_scores_and_gradients(pooling, parallel) -> None:
    results = []
    for cached in (True, False):
        method = BaheMethod("bahe", N, pooling=pooling, cached=cached, feature_parallel=parallel)
        torch.manual_seed(0)
        model = BaheModel(backbone(), method)
        found = batches(method, batch_targets=20)
        output = model(found.load(found.in_order()[0], "cpu"))
        output.loss_sum.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((output.score, gradients))
    (scores, gradients), (other, other_gradients) = results
    assert torch.allclose(scores, other, atol=1e-6)
    assert gradients.keys() == other_gradients.keys() and len(gradients) > 10
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, other_gradients[name], atol=1e-5), name


def trained_layers(method: BaheMethod) -> set[str]:
    model = BaheModel(backbone(), method)
    found = batches(method, batch_targets=20)
    model(found.load(found.in_order()[0], "cpu")).loss_sum.backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {n for n, p in model.named_parameters() if p.requires_grad}, "all that may move does"
    assert all("lora_" in name or name.startswith("head.") for name in moved)
    return {name.split(".")[0] for name in moved}


def test_only_adapters_and_head_are_trained_and_lower_ones_where_asked() -> None:
    assert trained_layers(bahe(N)) == {"upper", "head"}
    assert trained_layers(BaheMethod("bahe", N, cached=False)) == {"upper", "head"}
    assert trained_layers(BaheMethod("bahe", N, cached=False, lower="trained")) == {"lower", "upper", "head"}


def test_cached_models_hold_no_lower_layer_and_no_vocabulary() -> None:
    whole, model = backbone(), BaheModel(backbone(), bahe(N))
    assert len(model.upper) == whole.num_layers - bahe(N).num_lower(whole.num_layers)
    assert not any(p.shape == whole.embed_tokens.weight.shape for p in model.parameters())


@pytest.mark.parametrize("method", [bahe(N), llm_ctr(N), BaheMethod("bahe", N, cached=False)])
def test_padding_at_places_does_not_matter(method) -> None:
    torch.manual_seed(0)
    model = (LlmCtrModel if method.name == "llm-ctr" else BaheModel)(backbone(), method)
    plain, padded = batches(method), batches(method, multiple=7)
    key = plain.in_order()[0]
    one, other = model(plain.load(key, "cpu")), model(padded.load(key, "cpu"))
    assert torch.allclose(one.score, other.score, atol=1e-6)
    assert torch.allclose(one.loss_sum, other.loss_sum, rtol=1e-5)


def test_a_batch_gets_the_vectors_of_its_behaviours_and_a_missing_one_is_an_error() -> None:
    full, wanted = table(2), np.array([0, len(behaviours()) - 1, 3])
    found = TableVectors(full, behaviours()).load(wanted, "cpu").vectors
    assert found is not None
    assert np.array_equal(found.numpy(), look_up(full, behaviours(), wanted))
    part = MemoryTable(full.fingerprint, full.width)
    part.add(behaviours().text[:-2], look_up(full, behaviours(), np.arange(len(behaviours()) - 2)))
    with pytest.raises(TableError, match=rf"2 of {len(behaviours())} behaviours are missing"):
        TableVectors(part, behaviours())


@pytest.mark.parametrize("method", [bahe(N), llm_ctr(N), BaheMethod("bahe", N, cached=False)])
def test_half_precision_weights_give_about_the_same_scores(method) -> None:
    """As in the paper tier, whose backbone is stored in bfloat16; its adapters stay in float32."""
    found = batches(method, batch_targets=20)
    batch, results = found.load(found.in_order()[0], "cpu"), []
    for half in (False, True):
        whole = backbone()
        if half:
            for name, parameter in whole.model.named_parameters():
                if "lora_" not in name:
                    parameter.data = parameter.data.bfloat16()
        torch.manual_seed(0)
        model = (LlmCtrModel if method.name == "llm-ctr" else BaheModel)(whole, method)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = model(batch)
            output.loss_sum.backward()
        assert output.score.dtype == output.loss_sum.dtype == torch.float32
        results.append(output.score)
    assert torch.allclose(*results, atol=0.02)
