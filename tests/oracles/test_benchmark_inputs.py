"""The libraries of the speed comparison are given the histories that our model is given."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.histories import Histories
from repro.costs import baseline_peers
from repro.costs.baseline_programs import Setup, measure, programs
from repro.data import TRAIN, load_prepared, take_subset

pytest.importorskip("fuxictr", reason="FuxiCTR is not installed: nox -s oracles")
pytest.importorskip("deepctr_torch.models", reason="DeepCTR-Torch is not installed: nox -s oracles")

SETUP = Setup("ml-100k", "dti", None, targets=300, threads=1, n=30, batch_targets=100)


@pytest.fixture(scope="module")
def data():
    return take_subset(load_prepared("ml-100k", "dti"), 300, 100)


@pytest.fixture(scope="module")
def expected(data):
    """Our batch: (targets, histories with padding on the left, answers from 1)."""
    return Histories(data).batch(data.targets(TRAIN), SETUP.n, "cpu")


def test_histories_are_long_and_short(expected):
    real = (expected.past_item > 0).sum(dim=1)
    assert real.min() < SETUP.n == real.max()


def test_fuxictr_reads_our_histories(data, expected, tmp_path):
    _, loader = baseline_peers.fuxictr_loader(data, SETUP, tmp_path)
    batch, items, mask = loader.collate_fn([loader.dataset[row] for row in range(len(loader.dataset))])
    item = items["item"].view(-1, SETUP.n + 1)
    answer = items["answer"].view(-1, SETUP.n + 1)
    assert np.array_equal(item[:, :-1], expected.past_item)
    assert np.array_equal(item[:, -1], expected.item)
    real = expected.past_item > 0
    assert np.array_equal(mask.bool(), real)
    assert np.array_equal((answer[:, :-1] - 1) * real, expected.past_answer)
    assert (answer[:, -1] == baseline_peers.UNKNOWN).all()
    assert np.array_equal(batch["label"], expected.label)


def test_deepctr_reads_our_histories(data, expected):
    inputs = baseline_peers.deepctr_inputs(data, SETUP)
    assert np.array_equal(inputs["item"], expected.item)
    for row, length in enumerate(inputs["seq_length"]):
        ours = expected.past_item[row, SETUP.n - length :], expected.past_answer[row, SETUP.n - length :]
        assert np.array_equal(inputs["hist_item"][row, :length], ours[0])
        assert np.array_equal(inputs["hist_answer"][row, :length] - 1, ours[1])
        assert not inputs["hist_item"][row, length:].any()
    assert np.array_equal(inputs["seq_length"], (expected.past_item > 0).sum(dim=1))


@pytest.mark.parametrize("name", ["ours", "fuxictr", "fuxictr-batches-ready", "deepctr-torch"])
def test_every_program_trains_an_epoch(name):
    measured = measure(programs()[name], SETUP)
    assert measured["targets"] == SETUP.targets
    assert measured["targets_per_s"] == pytest.approx(SETUP.targets / measured["train_s"])
    assert 0 < measured["loaded_gib"] <= measured["peak_gib"]
