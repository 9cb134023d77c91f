"""Which runs make up Table 3."""

from __future__ import annotations

from repro.experiments.table3 import MAX_EPOCHS, PATIENCE, table3_runs
from repro.experiments.tiers import gpu_tier


def test_sw_and_k_50_have_every_seed_and_all_end_by_the_same_rule() -> None:
    runs = table3_runs(gpu_tier(), "ml-100k", "dti", None, 3)
    rows = [(run.method.name, run.method.prompt.k, run.method.prompt.instruction, run.seed) for run in runs]
    assert [row[:2] for row in rows] == [("sw", 1)] * 3 + [("dti", 50)] * 6 + [("dti", 30), ("dti", 10)]
    assert {row[2] for row in rows[3:6]} == {"hidden"} and {row[2] for row in rows[6:9]} == {"visible"}
    assert [row[3] for row in rows] == [0, 1, 2] * 3 + [0, 0]
    assert {(run.training.max_epochs, run.training.patience) for run in runs} == {(MAX_EPOCHS, PATIENCE)}
    assert {run.recipe for run in runs} == {"control"}, "one-epoch tables leave them out"


def test_a_selection_is_taken_as_it_is() -> None:
    runs = table3_runs(gpu_tier(), "ml-100k", "dti", "dti-10", 2)
    assert [(run.method.prompt.k, run.seed) for run in runs] == [(10, 0), (10, 1)]
