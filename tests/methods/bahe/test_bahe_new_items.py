"""A trained BAHE model scores targets with items that came after its table was filled."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from bahe_cases import TEMPLATE, N, backbone, behaviours, data, table

from repro.backbones.loading import group_of
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import MemoryTable, fill, keeps_tables
from repro.behaviours.texts import Behaviours, behaviours_of
from repro.data import TEST, Interactions, Items, PreparedData
from repro.errors import ConfigError, TableError
from repro.methods.bahe.filled_table import filled_table, table_of
from repro.methods.bahe.settings import bahe, dti_bahe, llm_ctr
from repro.methods.bahe.task import bahe_task, scoring_batches
from repro.methods.method import BatchSizes
from repro.training.loop import Trainer
from repro.training.settings import TrainingSettings

NEW_TEXT = "A film of next year, Drama"
ADDED = 2  # rows: the new item as a target, and then as history of a target of an old item
METHODS = {"bahe": bahe(N), "dti-bahe": dti_bahe(N, 5)}
both = pytest.mark.parametrize("name", METHODS)


@functools.cache
def later_data() -> PreparedData:
    """The data, and then one user's answers to a new item and to an old one."""
    old, past = data(), data().interactions
    user = past.user[-1]
    new = Interactions(
        user=np.append(past.user, [user, user]).astype(np.int32),
        item=np.append(past.item, [len(old.items), 0]).astype(np.int32),
        label=np.append(past.label, [1, 0]).astype(np.int8),
        timestamp=np.append(past.timestamp, past.timestamp[-1] + [1, 2]),
    )
    items = Items((*old.items.key, "new"), (*old.items.text, NEW_TEXT), (*old.items.categories, ()))
    return PreparedData.build(
        name=old.name,
        protocol=old.protocol,
        min_context=old.min_context,
        interactions=new,
        items=items,
        split=np.append(old.split, [TEST] * ADDED).astype(np.int8),
        is_target=np.append(old.is_target, [True] * ADDED),
        source_sha256=old.source_sha256,
        counts=old.counts,
    )


@functools.cache
def later_behaviours() -> Behaviours:
    whole = backbone()
    return behaviours_of(later_data().items, whole.tokenizer, TEMPLATE, (whole.yes_id, whole.no_id))


@functools.cache
def encoder() -> BehaviourEncoder:
    whole = backbone()
    return BehaviourEncoder(whole, bahe(N).num_lower(whole.num_layers), template=TEMPLATE)


def full_table() -> MemoryTable:
    found = MemoryTable(encoder().fingerprint, encoder().width)
    fill(found, later_behaviours(), encoder())
    return found


@functools.cache
def trainer(name: str) -> Trainer:
    """Of a model that was trained for an epoch on the data without the new item."""
    training = TrainingSettings(learning_rate=3e-3, batch_targets=8)
    task = bahe_task(
        *(METHODS[name], data(), backbone(), TEMPLATE, training, BatchSizes(), False, 0),
        device=torch.device("cpu"),
        tables=None,
    )
    found = Trainer(task, training, 0, None, name)
    assert len(found.train().history) == 1
    return found


def rows() -> np.ndarray:
    """The added targets, and some that were there before."""
    size = len(data().interactions)
    return np.append(data().targets(TEST)[:5], np.arange(size, size + ADDED))


def scores(name, own_table, own_encoder=None, texts=None, **settings) -> np.ndarray:
    asked = (later_data(), rows(), texts or later_behaviours(), own_table, own_encoder)
    found = scoring_batches(METHODS[name], *asked, group=group_of(backbone()), **settings)
    assert found.num_targets == len(rows())
    row, score = trainer(name).scores(found)
    assert np.array_equal(row, np.sort(rows()))
    return score


@both
def test_a_new_item_is_an_error_without_permission(name) -> None:
    message = rf"3 of {len(later_behaviours())} behaviours are missing, '[^']*{NEW_TEXT[:10]}"
    with pytest.raises(TableError, match=message) as error:
        scores(name, table(2))
    assert "build-table" in error.value.fix and "pass the table's encoder" in error.value.fix


@both
@pytest.mark.parametrize("place", ["in memory", "on disk"])
def test_with_permission_its_score_is_that_of_a_table_that_has_it(tmp_path, place, name, monkeypatch) -> None:
    if place == "on disk" and not keeps_tables():
        pytest.skip("pylance is not installed")
    tables = None if place == "in memory" else tmp_path / "tables"
    own, _ = filled_table(tables, behaviours(), encoder())
    if tables is not None:
        own = table_of(tables, encoder())
    full, before = full_table(), (len(own), own.version)
    asked, encode = [], encoder().encode
    monkeypatch.setattr(encoder(), "encode", lambda tokens: asked.append(len(tokens)) or encode(tokens))
    found = scores(name, own, encoder(), batch_targets=2)  # several batches
    assert np.array_equal(found, scores(name, full, batch_targets=2)), "bit by bit"
    assert np.allclose(found, scores(name, full, max_places=8), atol=1e-6)
    assert asked == [3], "with no, with yes and alone: each once"
    assert (len(own), own.version) == before and (own.rows(later_behaviours().text) < 0).sum() == 3
    assert np.array_equal(scores(name, full, encoder()), scores(name, full))
    assert asked == [3], "nothing was missing"


@both
def test_the_new_item_s_text_decides_its_score(name) -> None:
    """As a target, and in the history of the next one."""
    other = replace(later_data().items, text=(*data().items.text, "Something else, Horror, a longer title"))
    whole = backbone()
    renamed = behaviours_of(other, whole.tokenizer, TEMPLATE, (whole.yes_id, whole.no_id))
    plain, changed = scores(name, table(2), encoder()), scores(name, table(2), encoder(), renamed)
    assert np.array_equal(plain[:-ADDED], changed[:-ADDED])
    assert (np.abs(plain - changed)[-ADDED:] > 1e-6).all()


@both
def test_the_scores_of_known_targets_are_those_of_the_test(name) -> None:
    row, score = trainer(name).scores(trainer(name).task.test)
    found = scores(name, table(2), encoder())[:-ADDED]
    assert np.allclose(found, score[np.isin(row, rows())], atol=1e-6)


@both
def test_an_empty_table_and_one_of_another_encoder(name) -> None:
    empty = MemoryTable(encoder().fingerprint, encoder().width)
    assert np.array_equal(scores(name, empty, encoder()), scores(name, full_table()))
    with pytest.raises(TableError, match="vectors of another encoder"):
        scores(name, MemoryTable("f" * 64, encoder().width), encoder())


def test_no_label_reaches_a_score_of_its_own_target() -> None:
    """Of targets that come one to a row, whatever k is in training."""
    old = later_data()
    label = old.interactions.label.copy()
    label[-1] = 1 - label[-1]  # the last row is nobody's history
    turned = replace(old, interactions=replace(old.interactions, label=label))
    asked = (rows(), later_behaviours(), full_table())
    group = group_of(backbone())
    found = [
        trainer("dti-bahe").scores(scoring_batches(METHODS["dti-bahe"], own, *asked, group=group))[1]
        for own in (old, turned)
    ]
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    "method",
    [llm_ctr(N), *(replace(method, cached=False) for method in METHODS.values())],
    ids=lambda method: method.name,
)
def test_methods_without_such_batches_are_refused(method) -> None:
    with pytest.raises(ConfigError, match="bahe or dti-bahe, cached"):
        scoring_batches(method, later_data(), rows(), later_behaviours(), full_table())


def test_streaming_rows_without_the_shape_of_attention_are_refused() -> None:
    with pytest.raises(ConfigError, match="group: None") as error:
        scoring_batches(METHODS["dti-bahe"], later_data(), rows(), later_behaviours(), full_table())
    assert "group_of" in error.value.fix
