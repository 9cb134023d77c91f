"""The sweeps on small models: rows that validate, agree, and refuse bad sizes."""

from __future__ import annotations

import pytest

from repro.costs.architecture import architecture_of
from repro.costs.closed_form import Cost, Training, stack_cost
from repro.costs.sweeps import k_sweep, length_sweep
from repro.errors import ConfigError
from repro.experiments.flops import BAHE_RANK, LENGTH_SAMPLES, ONE_SEQUENCE
from repro.records.measurements import write_measurement
from repro.reporting import flops_vs_length
from repro.reporting.flops_rows import agreement

TINY = (("tiny-llama", "full"), ("tiny-qwen", "lora"))


@pytest.fixture(scope="module")
def rows():
    return k_sweep("ml-100k", None, None, contexts=(3,), targets=(1, 50), backbones=TINY)


def test_rows_are_valid_and_agree(rows, tmp_path):
    write_measurement(tmp_path, "flops", "k", {"python": "3", "torch": None, "transformers": None}, rows)
    found = agreement(rows)
    assert {name for name, *_ in found} == {"tiny-llama", "tiny-qwen", "DIN, SASRec"}
    assert all(float(worst) < 1e-12 for *_, worst in found)


def test_every_method_and_counter_is_there(rows):
    llm = [row for row in rows if row["tuning"] == "full" and row["counter"] == "closed_form"]
    assert [(row["method"], row["k"]) for row in llm] == [
        ("sw", 1), ("dti", 1), ("dti-minus", 1), ("dti", 50), ("dti-minus", 50),
    ]  # fmt: skip
    assert {row["counter"] for row in rows if row["method"] == "sw"} == {"closed_form", "fvcore", "torch"}
    assert {(row["method"], row["counter"]) for row in rows if row["tuning"] is None} == {
        (method, counter) for method in ("din", "sasrec") for counter in ("closed_form", "fvcore", "torch")
    }


def test_ratios_are_costs_over_the_sliding_windows(rows):
    for row in rows:
        if row["tuning"] is None:
            assert row["ratio_to_sw"] is None
            continue
        name = "forward_flops_per_target" if row["counter"] == "fvcore" else "train_flops_per_target"
        keys = ("backbone", "n", "counter")
        sw = next(r for r in rows if r["method"] == "sw" and all(r[key] == row[key] for key in keys))
        assert row["ratio_to_sw"] == row[name] / sw[name]
        assert row["k"] == 1 or row["ratio_to_sw"] < 0.6


def test_parts_make_up_the_whole_and_tokens_grow_from_raw_to_bucketed(rows):
    for row in rows:
        if prompt := row.get("prompt"):
            assert sum(prompt["forward_parts"].values()) == pytest.approx(row["forward_flops_per_target"])
            assert sum(prompt["train_parts"].values()) == pytest.approx(row["train_flops_per_target"])
            processed = prompt["tokens_text"] + prompt["tokens_instruction"] + 1
            assert prompt["tokens_raw"] < prompt["tokens_text"] < processed < prompt["tokens_padded"]
            assert processed < prompt["tokens_bucketed"] and processed < prompt["tokens_templated"]
            assert prompt["visible_pairs"] < prompt["computed_pairs"]


@pytest.mark.parametrize(("n", "k"), [(0, 1), (3, 0)])
def test_sizes_below_one_are_refused(n, k):
    with pytest.raises(ConfigError, match="at least 1"):
        k_sweep("ml-100k", None, None, contexts=(n,), targets=(k,), backbones=TINY)


def test_prompts_beyond_the_positions_are_refused():
    with pytest.raises(ConfigError, match=r"tokens[\s\S]*8,192, the model's positions"):
        k_sweep("ml-100k", None, None, contexts=(3,), targets=(700,), backbones=TINY)


def test_lengths(tmp_path):
    rows = length_sweep((512, 16_384), ("tiny-llama",))
    write_measurement(tmp_path, "flops", "length", {"python": "3", "torch": None, "transformers": None}, rows)
    assert all(float(worst) < 1e-12 for *_, worst in agreement(rows))
    found = {(row["method"], row["length"]["text_tokens"]) for row in rows}
    assert found == {("llm-ctr", 512)} | {
        (method, tokens) for method in ("bahe", ONE_SEQUENCE) for tokens in (512, 16_384)
    }, "8,192 positions"
    with pytest.raises(ConfigError, match="positions"):
        length_sweep((16_384,), ("tiny-llama",))


def test_one_long_sequence_adds_attention_between_a_users_sequences_and_nothing_else():
    arch = architecture_of("random:tiny-llama")
    training = Training("lora", BAHE_RANK, train_embeddings=False, frozen_layers=2)
    found = {
        row["method"]: row["train_flops_per_target"]
        for row in length_sweep((512,), ("tiny-llama",))
        if row["counter"] == "closed_form"
    }
    one, four = (
        stack_cost(arch, sequences * LENGTH_SAMPLES, training, range(2, 4)) for sequences in ([32], [8] * 4)
    )
    assert flops_vs_length.ONE_SEQUENCE == ONE_SEQUENCE, "its name in records"
    assert found[ONE_SEQUENCE] - found["bahe"] == (one.train - four.train) / LENGTH_SAMPLES > 0
    attention = (one.part("attention"), four.part("attention"))
    assert one.train - attention_of(one) == four.train - attention_of(four)
    # Pairs of a causal sequence: 32 * 33 / 2 against four times 8 * 9 / 2.
    assert attention[0].forward / attention[1].forward == 528 / 144


def attention_of(cost: Cost) -> int:
    work = cost.part("attention")
    return work.forward + work.recomputed + work.backward
