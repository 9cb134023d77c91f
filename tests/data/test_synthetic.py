import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from repro.data import TEST, TRAIN, SyntheticSettings, apply_protocol, load_prepared
from repro.data.synthetic import SIGNALS, generate, planted_auc
from repro.errors import ConfigError


def recent_labels(prepared, split, num):
    """(T, num) last labels before each target, newest first, and the targets' own labels."""
    targets = prepared.targets(split)
    recent = np.array(
        [prepared.interactions.label[prepared.history(row)[: -num - 1 : -1]] for row in targets]
    )
    return recent, prepared.interactions.label[targets]


@pytest.mark.parametrize("signal", ["inside", "beyond"])
def test_planted_signal_lies_where_it_should(signal):
    window = 10
    plan = SyntheticSettings(num_interactions=60_000, signal=signal, window=window, num_items=500)
    prepared = load_prepared("synthetic", min_context=20, synthetic=plan)
    train, train_label = recent_labels(prepared, TRAIN, 20)
    test, test_label = recent_labels(prepared, TEST, 20)
    assert (plan.num_genres <= window) == (signal == "inside")
    assert roc_auc_score(test_label, test[:, plan.num_genres - 1]) == pytest.approx(0.9, abs=0.015)
    for visible in (window, 20):
        model = LogisticRegression().fit(train[:, :visible], train_label)
        auc = roc_auc_score(test_label, model.decision_function(test[:, :visible]))
        assert auc == pytest.approx(planted_auc(plan, visible), abs=0.03)


def test_genre_of_the_item_that_tells_is_the_genre_of_the_target():
    plan = SyntheticSettings(num_interactions=5_000, signal="beyond", window=5, num_items=100)
    prepared = apply_protocol(generate(plan), "rella", plan.num_genres)
    categories = np.array([levels[0] for levels in prepared.items.categories])[prepared.interactions.item]
    for row in prepared.targets(TEST)[:200]:
        recent = categories[prepared.history(row)[::-1][: plan.num_genres]]
        assert recent[-1] == categories[row]
        assert categories[row] not in recent[:-1]


def test_preferences_are_the_users_own():
    prepared = load_prepared("synthetic", "per-user", synthetic=SyntheticSettings(num_interactions=50_000))
    genres = np.unique([levels[0] for levels in prepared.items.categories], return_inverse=True)[1]
    genre = genres[prepared.interactions.item].astype(np.int64)
    cell = prepared.interactions.user.astype(np.int64) * 16 + genre
    train, test = prepared.targets(TRAIN), prepared.targets(TEST)
    seen = np.bincount(cell[train], minlength=cell.max() + 1)
    liked = np.bincount(cell[train], weights=prepared.interactions.label[train], minlength=cell.max() + 1)
    label = prepared.interactions.label[test]
    assert roc_auc_score(label, ((liked + 1) / (seen + 2))[cell[test]]) > 0.65
    of_others = np.roll(((liked + 1) / (seen + 2)).reshape(-1, 16), 1, axis=0).ravel()
    assert roc_auc_score(label, of_others[cell[test]]) < 0.55


@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(100, 3_000),
    mean=st.integers(5, 90),
    signal=st.sampled_from(SIGNALS),
    window=st.integers(1, 30),
    seed=st.integers(0, 5),
)
def test_size_is_exact_and_users_follow_each_other(num, mean, signal, window, seed):
    plan = SyntheticSettings(num, mean, 300, signal, window, seed=seed)
    source = generate(plan)
    user = source.interactions.user
    assert len(user) == num
    assert (np.diff(user) >= 0).all()
    assert np.bincount(user).min() >= mean // 5
    same = np.diff(user) == 0
    assert (np.diff(source.interactions.timestamp)[same] >= 0).all()
    assert source.interactions.item.max() < 300
    again = generate(plan)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(vars(source.interactions).values(), vars(again.interactions).values(), strict=True)
    )


def test_other_settings_give_another_checksum():
    plans = [SyntheticSettings(), SyntheticSettings(seed=1), SyntheticSettings(signal="beyond")]
    assert len({plan.sha256 for plan in plans}) == 3
    prepared = [load_prepared("synthetic", synthetic=plan) for plan in plans]
    assert len({data.sha256 for data in prepared}) == 3


def test_titles_differ_and_carry_no_item_number():
    source = generate(SyntheticSettings(num_interactions=1_000, num_items=5_000))
    assert len(set(source.items.text)) == 5_000
    assert source.items.text[:2] == ("Amber Bridge, Action", "Amber Bridge, Adventure")


def test_memory_grows_linearly():
    peaks = []
    for num in (200_000, 400_000):
        tracemalloc.start()
        apply_protocol(generate(SyntheticSettings(num_interactions=num, signal="beyond")), "rella")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2.1 * peaks[0]
    assert peaks[1] / 400_000 < 150  # bytes per interaction


def test_documented_benchmark_command_runs():
    command = [sys.executable, "-m", "repro.data.synthetic_benchmark", "20_000"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[0].startswith("interactions")
    assert output.splitlines()[1].split()[0] == "20,000"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("signal", "none"),
        ("interactions_per_user", 4),
        ("num_interactions", 99),
        ("agreement", 0.4),
        ("agreement", 1.1),
        ("window", 0),
        ("window", 60),
        ("num_items", 3),
    ],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(ConfigError, match=setting):
        SyntheticSettings(**{"signal": "beyond", setting: value})


def test_planted_auc_of_preferences_is_not_known():
    with pytest.raises(ConfigError, match="preference"):
        planted_auc(SyntheticSettings(), 5)
