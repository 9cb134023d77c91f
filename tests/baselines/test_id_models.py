"""What holds for every deep ID-based model: padding, batches of one, no look-ahead, learning, determinism."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from id_cases import SETTINGS, TINY, build, cut, histories, logit_and_gradients, make_id_data

from baselines.method import IdMethod
from baselines.registry import MODELS, id_task
from baselines.search import SearchSettings
from repro.data.interactions import Interactions
from repro.training.loop import Trainer
from repro.training.settings import TrainingSettings

every_model = pytest.mark.parametrize("name", SETTINGS)
DATA = make_id_data([9, 9, 9, 7, 1], seed=3)
ROWS = np.arange(len(DATA.interactions))


def rows_at(low: int, high: int) -> np.ndarray:
    """Rows with `low` to `high` earlier interactions."""
    return ROWS[(DATA.position >= low) & (DATA.position <= high)]


def test_every_registered_model_is_tested_here() -> None:
    assert {type(settings) for settings in SETTINGS.values()} == set(MODELS)


@every_model
@pytest.mark.parametrize("shortest", [5, 0])
def test_padding_changes_neither_values_nor_gradients(name, shortest) -> None:
    """In training mode; histories of 5 to 8 (then of 0 to 8) interactions, cut to 8 and to 12."""
    model = build(name, DATA, n=12).train()
    rows = rows_at(shortest, 8)
    short, long = cut(name, DATA, rows, 8), cut(name, DATA, rows, 12)
    assert (short.past_item == 0).any() and (long.past_item[:, :4] == 0).all()
    logit, gradients = logit_and_gradients(model, short)
    padded_logit, padded_gradients = logit_and_gradients(model, long)
    torch.testing.assert_close(padded_logit, logit, rtol=0, atol=1e-12)
    for key, gradient in gradients.items():
        torch.testing.assert_close(padded_gradients[key], gradient, rtol=0, atol=1e-11, msg=key)


@every_model
def test_moving_averages_do_not_see_padding_either(name) -> None:
    states = []
    for n in (8, 12):
        model = build(name, DATA, n=12).train()
        model.logit(cut(name, DATA, rows_at(5, 8), n))
        states.append(dict(model.named_buffers()))
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=0, atol=1e-12, msg=key)


@every_model
def test_what_stands_in_padding_is_never_read(name) -> None:
    model = build(name, DATA, n=12).train()
    batch = cut(name, DATA, rows_at(0, 8), 12)
    before, gradients = logit_and_gradients(model, batch)
    tables = {key: each for key, each in model.named_modules() if getattr(each, "padding_idx", None) == 0}
    for key, table in tables.items():
        assert not gradients[f"{key}.weight"][0].any()
        if not key.endswith("category"):  # there, row 0 is part of every mean over an item's categories
            table.weight.data[0] = 1e3
    torch.testing.assert_close(model.logit(batch), before, rtol=0, atol=1e-9)


@every_model
@pytest.mark.parametrize("position", [0, 1, 8])
def test_a_batch_of_one_trains(name, position) -> None:
    model = build(name, DATA, n=8).train()
    logit, gradients = logit_and_gradients(model, cut(name, DATA, rows_at(position, position)[:1], 8))
    assert logit.shape == (1,) and torch.isfinite(logit).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@every_model
def test_a_score_does_not_depend_on_the_other_targets_of_its_batch(name) -> None:
    model = build(name, DATA, n=8).eval()
    together = model.logit(cut(name, DATA, ROWS, 8))
    alone = torch.cat([model.logit(cut(name, DATA, [row], 8)) for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@every_model
def test_nothing_is_seen_of_the_future_nor_of_the_own_answer(name) -> None:
    rows = DATA.interactions
    model = build(name, DATA, n=8).eval()
    for row in rows_at(4, 6):
        label, item = rows.label.copy(), rows.item.copy()
        label[row:] = 1 - label[row:]
        item[row + 1 :] = (item[row + 1 :] + 1) % len(DATA.items)
        changed = replace(DATA, interactions=Interactions(rows.user, item, label, rows.timestamp))
        logits = [model.logit(cut(name, data, [row], 8)) for data in (DATA, changed)]
        torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0)


@every_model
@pytest.mark.parametrize("part", ["item", "label"])
def test_the_past_is_seen(name, part) -> None:
    """Otherwise the test before this one would hold for a model that reads nothing."""
    rows, row = DATA.interactions, int(rows_at(6, 6)[0])
    columns = {"item": rows.item.copy(), "label": rows.label.copy()}
    past = DATA.history(row)
    columns[part][past] = (columns[part][past] + 1) % (len(DATA.items) if part == "item" else 2)
    changed = replace(
        DATA, interactions=Interactions(rows.user, columns["item"], columns["label"], rows.timestamp)
    )
    model = build(name, DATA, n=8).eval()
    before, after = (model.logit(cut(name, data, [row], 8)) for data in (DATA, changed))
    assert (before - after).detach().abs().item() > 1e-6


@every_model
def test_learns_a_few_targets_by_heart(name) -> None:
    model = build(name, DATA, n=8).train()
    batch = cut(name, DATA, rows_at(2, 8), 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(batch).loss_sum / batch.num_targets
        loss.backward()
        optimizer.step()
    assert loss.detach().item() < 0.05


@every_model
def test_loss_and_scores_are_those_of_the_logits(name) -> None:
    model = build(name, DATA, n=8).eval()
    batch = cut(name, DATA, ROWS, 8)
    output, score = model(batch), torch.sigmoid(model.logit(batch))
    likelihood = torch.where(batch.label == 1, score, 1 - score)
    torch.testing.assert_close(output.loss_sum.double(), -likelihood.log().sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(output.score.double(), score, rtol=1e-5, atol=0)


@every_model
def test_nothing_waits_for_the_device(name) -> None:
    """Tensors on the meta device have no values; asking for one, or for a shape made of them, fails."""
    model = build(name, DATA, n=8).to("meta").train()
    batch = histories(name, DATA).batch(ROWS, 8, "meta")
    output = model(batch)
    output.loss_sum.backward()
    assert output.score.shape == (len(ROWS),) and output.score.device.type == "meta"
    with pytest.raises(RuntimeError):
        output.loss_sum.detach().item()


@pytest.mark.parametrize("name", ["din", "sasrec", "dcnv2", "sim", "gru4rec"])
def test_a_seed_decides_everything(name) -> None:
    settings = replace(SETTINGS[name], dropout=0.2)
    training = TrainingSettings(learning_rate=1e-2, max_epochs=2, batch_targets=16, precision="fp32")
    data = make_id_data([40, 40, 40], seed=1)

    def scores(seed: int) -> np.ndarray:
        task = id_task(IdMethod(name, 8, settings, training), data, seed, "cpu")
        trainer = Trainer(task, training, seed, None, name)
        trainer.train()
        return trainer.scores(task.test)[1]

    first, again, other = scores(1), scores(1), scores(2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_search_settings_reach_the_batches_of_sim_alone() -> None:
    data = make_id_data([9, 9], seed=1)
    settings = replace(SETTINGS["sim"], search=SearchSettings(limit=5, keep=3))
    task = id_task(IdMethod("sim", 4, settings, TrainingSettings()), data, 0, "cpu")
    batch = task.train.load(task.train.in_order()[0], "cpu")
    assert batch.searched.item.shape == (batch.num_targets, 3)
    assert batch.searched.age.max() <= 5
    assert histories("din", data).batch(np.array([0]), 4, "cpu").searched is None


def test_sizes_of_the_tests_are_not_the_defaults() -> None:
    """Dropout is off here and on in every default."""
    assert TINY["dropout"] == 0.0
    assert all(type(settings)().dropout > 0 for settings in SETTINGS.values())
