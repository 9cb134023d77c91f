"""DTI over BAHE: equal to one target at a time where it must be, and blind to answers and to the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bahe_cases import N, backbone, behaviours, data, own_states, table, vectors_for, with_labels

from repro.data import TEST, TRAIN, VALIDATION, PreparedData
from repro.methods.bahe.settings import BaheMethod, dti_bahe
from repro.methods.bahe.streaming import StreamingBaheModel, StreamingBatches, streaming_batches
from repro.methods.method import BatchSizes
from repro.methods.sum_batches import BUCKET_MULTIPLE, SumBatches
from repro.prompts.rows import build_rows

TOLERANCE = 1e-5
GROUP = 3  # query heads per key-value head of the tiny model


def make(
    method: BaheMethod,
    split: int = TRAIN,
    targets: int = 12,
    own: PreparedData | None = None,
    sizes: BatchSizes | None = None,
) -> StreamingBatches:
    small = sizes or BatchSizes(10**6, 1, 1)
    return streaming_batches(
        own or data(), behaviours(), vectors_for(method), method, split, targets, GROUP, small
    )


def model_of(method: BaheMethod) -> StreamingBaheModel:
    torch.manual_seed(0)
    whole = backbone()
    assert whole.config.num_attention_heads // whole.config.num_key_value_heads == GROUP
    return StreamingBaheModel(whole, method)


def scores(model: StreamingBaheModel, found: StreamingBatches) -> dict[int, float]:
    result: dict[int, float] = {}
    with torch.no_grad():
        for key in found.in_order():
            for part in found.split(key):
                batch = found.load(part, "cpu")
                result |= dict(zip(batch.target_row.tolist(), model(batch).score.tolist(), strict=False))
    return result


def test_one_target_per_row_is_a_plain_sequence_with_its_query_last() -> None:
    """k = 1 against transformers' own layers: n context vectors, then the item without an answer."""
    method = dti_bahe(N, 1)
    model, whole = model_of(method), backbone()
    found = scores(model, make(method, TEST))
    num_lower = method.num_lower(whole.num_layers)
    full = table(num_lower)
    vectors = full.vectors()[torch.from_numpy(full.rows(behaviours().text))]
    for row, score in found.items():
        history = data().history(row)[-N:]
        item, label = data().interactions.item[history], data().interactions.label[history]
        context = behaviours().answered[item, label]
        sequence = vectors[[*context, behaviours().alone[data().interactions.item[row]]]]
        state = own_states(whole, sequence, num_lower)[-1]
        logit = model.head.second(torch.nn.functional.gelu(model.head.first(model.head.norm(state))))
        assert score == pytest.approx(torch.sigmoid(logit).item(), abs=TOLERANCE)


@pytest.mark.parametrize("k", [2, 5, 10])
def test_the_first_full_context_target_of_every_row_equals_one_at_a_time(k) -> None:
    method = dti_bahe(N, k)
    model, rows = model_of(method), build_rows(data(), TRAIN, N, k)
    first = data().user_rows[rows.start[rows.start - rows.first == N]]
    assert len(first) > 2
    single, streamed = scores(model, make(dti_bahe(N, 1))), scores(model, make(method))
    assert single.keys() == streamed.keys()
    assert all(single[row] == pytest.approx(streamed[row], abs=TOLERANCE) for row in first)
    assert any(abs(single[row] - streamed[row]) > TOLERANCE for row in single), "later ones hear more"


@pytest.mark.parametrize("k", [1, 5, 50])
def test_a_target_hears_neither_its_own_answer_nor_what_comes_later(k) -> None:
    """A planted leak: the answers of a target and of everything after it are turned round."""
    method = dti_bahe(N, k)
    model, user = model_of(method), data().interactions.user
    plain = scores(model, make(method))
    row = int(data().targets(TRAIN)[len(plain) // 2])
    later = (user == user[row]) & (np.arange(len(user)) >= row)
    label = data().interactions.label
    turned = scores(model, make(method, own=with_labels(np.where(later, 1 - label, label))))
    until = [r for r in plain if user[r] != user[row] or r <= row]
    after = [r for r in plain if user[r] == user[row] and r > row]
    assert all(plain[r] == pytest.approx(turned[r], abs=1e-6) for r in until)
    assert any(abs(plain[r] - turned[r]) > 1e-4 for r in after), "later targets do read the answer"


@pytest.mark.parametrize("split", [TRAIN, VALIDATION, TEST])
@pytest.mark.parametrize("k", [1, 5, 50])
def test_every_target_comes_once_and_others_than_training_come_alone(split, k) -> None:
    found = make(dti_bahe(N, k), split)
    expected = data().targets(split).tolist()
    for keys in (found.epoch(1, 0), found.epoch(1, 1), found.in_order()):
        loaded = [found.load(part, "cpu") for key in keys for part in found.split(key)]
        assert sorted(np.concatenate([b.target_row for b in loaded]).tolist()) == expected
        assert sum(found.count(key) for key in keys) == found.num_targets == len(expected)
    if split != TRAIN:
        single = make(dti_bahe(N, 1), split)
        assert all(np.array_equal(a, b) for a, b in zip(found.in_order(), single.in_order(), strict=True))


def test_an_interaction_is_one_vector_and_a_target_one_query() -> None:
    rows = build_rows(data(), TRAIN, N, 50)
    found = make(dti_bahe(N, 50), sizes=BatchSizes(10**6, 16, 8))
    loaded = [found.load(key, "cpu") for key in found.epoch(0, 0)]
    interactions = int((rows.stop - rows.first).sum()) - len(rows)  # nobody sees a row's last answer
    assert sum(batch.num_tokens for batch in loaded) == interactions + len(data().targets(TRAIN))
    for batch in loaded:
        assert len(batch.vector) % 16 == 0 and len(batch.query) % 8 == 0
        assert batch.num_padded_tokens == len(batch.vector) + len(batch.query)
        # Answers as the packed rows know them: 1 for yes, 0 for no or padding.
        liked = np.isin(behaviour_of(batch), behaviours().answered[:, 1])
        real = batch.num_tokens - batch.num_targets
        assert np.array_equal(liked[:real], batch.plan.tokens.numpy()[:real] == 1)


def behaviour_of(batch) -> np.ndarray:
    """Behaviours by their vectors: each vector of the table is one behaviour's."""
    full = table(2)
    row = {tuple(vector): place for place, vector in enumerate(full.vectors().numpy().round(4).tolist())}
    place = np.array([row[tuple(v)] for v in batch.behaviours.vectors.numpy().round(4).tolist()])
    return np.argsort(full.rows(behaviours().text))[place][batch.vector.numpy()]


@pytest.mark.parametrize("lower", ["frozen", "trained"])
def test_without_a_table_it_gives_the_same_scores(lower) -> None:
    """Trained lower layers start as the frozen ones, once their adapters add nothing."""
    cached, uncached = dti_bahe(N, 5), replace(dti_bahe(N, 5), cached=False, lower=lower)
    model = model_of(uncached)
    with torch.no_grad():
        for name, parameter in model.lower.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    plain, other = scores(model_of(cached), make(cached)), scores(model, make(uncached))
    assert all(plain[row] == pytest.approx(other[row], abs=1e-6) for row in plain)
    batch = make(uncached).load(make(uncached).in_order()[0], "cpu")
    model(batch).loss_sum.backward()
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert moved == ({"upper", "head"} if lower == "frozen" else {"lower", "upper", "head"})


def test_the_kernel_of_gpus_gives_the_same_scores(monkeypatch) -> None:
    """Attention by the kernels' tables, which runs on a CPU too: rows without instruction."""
    method, sizes = replace(dti_bahe(N, 5), layer_cut=0.25), BatchSizes(10**6, BUCKET_MULTIPLE, 8)
    model = model_of(method)
    plain = scores(model, make(method, sizes=sizes))
    monkeypatch.setattr(SumBatches, "has_few_lengths", lambda self, device: True)
    found = make(method, sizes=sizes)
    assert found.load(found.in_order()[0], "cpu").plan.intervals is not None
    fast = scores(model, found)
    assert plain.keys() == fast.keys()
    assert all(plain[row] == pytest.approx(fast[row], abs=TOLERANCE) for row in plain)


def test_behaviours_of_compiled_batches_are_padded_to_one_number(monkeypatch) -> None:
    """Recorded steps are found by their shapes; the padding changes no score."""
    method, sizes = replace(dti_bahe(N, 5), layer_cut=0.25), BatchSizes(10**6, BUCKET_MULTIPLE, 8)
    model = model_of(method)
    plain = scores(model, make(method, sizes=sizes))
    monkeypatch.setattr(SumBatches, "has_few_lengths", lambda self, device: True)
    found = make(method, sizes=sizes)
    loaded = [found.load(key, "cpu") for epoch in (0, 1) for key in found.epoch(0, epoch)]
    assert len({len(batch.behaviours.vectors) for batch in loaded}) == 1
    assert len({len(np.unique(batch.vector)) for batch in loaded}) > 1, "batches differ"
    assert scores(model, found) == pytest.approx(plain, abs=TOLERANCE)
