"""BAHE on a table of another domain: a shop's searches, clicks and purchases, from a CSV made here."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from repro.behaviours.texts import Behaviours
from repro.data import TRAIN, PreparedData, load_prepared
from repro.errors import ConfigError
from repro.experiments.bahe import bahe_runs
from repro.experiments.run_config import Subset
from repro.experiments.tiers import tier_named
from repro.methods.bahe.sequences import SequenceSource
from repro.pipeline import Workshop
from repro.prompts.templates import Template
from repro.records.store import RunStore

KINDS = ("click", "purchase", "search")
PRODUCTS = (
    "red running shoes, size 42",
    "kettle, 1.7 l",
    "phone case",
    "desk lamp, LED",
    "garden hose, 20 m",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """12 users with 15 events each; whether one ends in a purchase does not follow from its kind."""
    path = tmp_path_factory.mktemp("shop") / "events.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(("user", "item", "text", "label", "timestamp", "sequence", "price"))
        for event in range(180):
            user, product = event % 12, (event * 7 + event // 12) % len(PRODUCTS)
            kind = KINDS[(event // 12 + user) % 3]
            label = (event * 13 // 7) % 2
            rows.writerow((f"u{user}", f"p{product}", PRODUCTS[product], label, event, kind, "9.99"))
    return path


@pytest.fixture(scope="module")
def data(shop, tmp_path_factory) -> PreparedData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return load_prepared("table", data_dir=shop)


def numbered(data: PreparedData) -> Behaviours:
    """Item i is behaviour 2i with the answer no, 2i + 1 with yes, and -i alone: no tokens are needed."""
    items, empty = np.arange(len(data.items)), np.zeros(0, dtype=np.int32)
    answered = np.stack([2 * items, 2 * items + 1], axis=1)
    return Behaviours((), empty, empty, answered, -items, Template(""))


def test_sequences_are_those_of_the_column_within_the_last_n(data) -> None:
    found = SequenceSource(data, numbered(data), KINDS, 6)
    rows = data.targets(TRAIN)
    cut = found.cut(rows)
    for place, row in enumerate(rows.tolist()):
        context = data.history(row)[-6:]
        for number, kind in enumerate(KINDS):
            expected = [
                2 * data.interactions.item[each] + data.interactions.label[each]
                for each in context
                if data.sequences[data.interactions.sequence[each]] == kind
            ]
            assert cut.behaviour[place][cut.member[number, place]].tolist() == expected
    assert not cut.member.all(0).any(), "an event is in one sequence"


def test_what_a_target_was_is_not_read(data) -> None:
    """Changing the kind and the answer of the targets themselves moves nothing of their own sequences."""
    rows = np.array([data.history(row)[-1] for row in data.targets(TRAIN)[:1]])
    last = data.user_rows[data.user_offsets[1:] - 1]  # nobody's history
    interactions = data.interactions
    sequence, label = interactions.sequence.copy(), interactions.label.copy()
    sequence[last], label[last] = (sequence[last] + 1) % 3, 1 - label[last]
    changed = replace(data, interactions=replace(interactions, sequence=sequence, label=label))
    before, after = (SequenceSource(each, numbered(data), KINDS, 6).cut(last) for each in (data, changed))
    assert np.array_equal(before.behaviour, after.behaviour) and np.array_equal(before.member, after.member)
    own = SequenceSource(changed, numbered(data), KINDS, 6).cut(rows)
    assert np.array_equal(own.item, -interactions.item[rows])


def test_a_sequence_that_the_table_does_not_name_is_refused(data) -> None:
    with pytest.raises(ConfigError, match="'basket'") as caught:
        SequenceSource(data, numbered(data), ("click", "basket"), 6)
    assert "click, purchase, search" in str(caught.value)


def test_a_run_takes_the_table_s_sequences_and_leaves_a_record(shop, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    tier = replace(tier_named("test"), subset=Subset(train_targets=32))
    workshop = Workshop(shop, RunStore(tmp_path / "runs", tmp_path / "runs" / "targets"))
    for row in ("bahe", "llm-ctr"):
        (config,) = bahe_runs(tier, "table", "dti", row, 1)
        run = workshop.run(config)
        assert run.status == "ok" and run.record["config"]["behaviours"]["sequences"] == list(KINDS)
        assert np.isfinite(run.scores()).all() and run.record["data"]["test_targets"] > 0
    assert workshop.run(config).run_id == run.run_id, "found again under the same name"


def test_data_without_sequences_of_its_own_keeps_the_usual_ones() -> None:
    (config,) = bahe_runs(tier_named("test"), "ml-100k", "dti", "bahe", 1)
    assert config.with_sequences_of(()) is config
    own = replace(config, method=replace(config.method, sequences=("recent",)))
    assert own.with_sequences_of(KINDS) is own, "what a method names for itself stays"
