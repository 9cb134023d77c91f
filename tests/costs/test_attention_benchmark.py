"""The counting part of the benchmark; its times are for people."""

from dataclasses import asdict

from prompt_cases import make_items

from repro.costs.attention_benchmark import (
    CONTEXT,
    NUM_TARGETS,
    TARGETS_PER_PROMPT,
    benchmark_batches,
    benchmark_data,
    count_pairs,
)
from repro.data import TRAIN


def test_pairs_per_target_are_bounded_while_a_dense_mask_grows_with_k() -> None:
    data = benchmark_data()
    assert len(data.targets(TRAIN)) == NUM_TARGETS
    items = make_items(len(data.items), longest=20)
    counts = {}
    for k in TARGETS_PER_PROMPT:
        batches = benchmark_batches(data, items, k)
        assert batches.num_targets == NUM_TARGETS
        assert batches.rows.num_targets.tolist() == [k] * (NUM_TARGETS // k)
        assert (batches.rows.start - batches.rows.first == CONTEXT).all()
        counts[k] = count_pairs(batches)
        assert counts[k].visible < counts[k].computed
    few, some, many = (asdict(counts[k]) for k in TARGETS_PER_PROMPT)
    for name in ("tokens", "visible", "computed"):
        assert many[name] < some[name] * 1.05 < few[name] * 1.1
    assert many["dense"] > 2 * some["dense"] > 3 * few["dense"]
    assert many["dense"] > 10 * many["computed"]
