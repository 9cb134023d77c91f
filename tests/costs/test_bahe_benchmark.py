"""The efficiency benchmark on a CPU: equal texts on both sides, the models of training, what it writes."""

from __future__ import annotations

import contextlib
import functools
import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from repro.backbones import loading
from repro.costs import bahe_benchmark
from repro.costs.bahe_benchmark import BAHE, LLM_CTR, measure, run_benchmark
from repro.costs.bahe_flops import bahe_cost, llm_ctr_cost
from repro.costs.text_samples import (
    SEQUENCES,
    TextSamples,
    behaviours_per_sample,
    random_behaviours,
    sequence_lengths,
)
from repro.costs.training_step import TrainingStep
from repro.errors import ConfigError
from repro.experiments.bahe_efficiency import PLANS, plan_named
from repro.methods.bahe.sequences import side_by_side, written_out
from repro.records.environment import device_name
from repro.records.measurements import read_measurement
from repro.training.clocks import Clocks
from repro.training.settings import TrainingSettings

CPU = torch.device("cpu")
PLAN = PLANS["test"]()
(SPEC,) = PLAN.backbones
ROW = dict.fromkeys(("samples_per_s", "peak_gib", "train_flops_per_sample", "table_build_s"), 1.0) | {
    "device": device_name(), "device_count": 1, "backbone": SPEC.name, "layer_cut": 0.5, "cuda_graph": False
}  # fmt: skip


@pytest.fixture(scope="module")
def sides() -> dict[str, bahe_benchmark.Side]:
    return {method: bahe_benchmark._built(PLAN, SPEC, method, CPU) for method in (BAHE, LLM_CTR)}


@pytest.mark.parametrize(("tokens", "size"), [(64, 16), (64, 8), (128, 16)])
def test_both_sides_read_the_same_behaviours(tokens, size) -> None:
    """Every token that LLM-CTR reads is of a behaviour whose vector BAHE reads, in the same order."""
    behaviours = random_behaviours(64, size, 300)
    per_sample = behaviours_per_sample(tokens, size)
    source = TextSamples(per_sample, 64)
    assert source.lengths(np.arange(3), behaviours).tolist() == [tokens] * 3
    assert source.lengths(np.arange(3)).tolist() == [per_sample] * 3
    sequences = source.cut(np.arange(3))
    texts = written_out(sequences, behaviours, 1)
    assert texts.value.shape == (3, tokens), "the text has the length that was set, and no padding"
    vectors = side_by_side(sequences, 1)
    rows = vectors.value.reshape(SEQUENCES, 3, -1)
    lengths = vectors.length.reshape(SEQUENCES, 3)
    for sample in range(3):
        read = [number for s in range(SEQUENCES) for number in rows[s, sample, : lengths[s, sample]]]
        read.append(sequences.item[sample])
        assert len(read) == len(set(read)) == per_sample
        expected = np.concatenate(behaviours.tokens_of(np.array(read)))
        np.testing.assert_array_equal(texts.value[sample], expected)
    assert lengths[:, 0].tolist() == sequence_lengths(per_sample)


def test_batches_of_a_length_have_the_same_shapes(sides) -> None:
    """A graph is captured once: padded places must not add a behaviour to some batches and not to others."""
    for method, side in sides.items():
        for tokens, size in ((64, 16), (64, 8), (128, 16)):
            batches, keys = bahe_benchmark._batches(PLAN, side, tokens, size, CPU)
            loaded = [batches.load(key, "cpu") for key in keys]
            step = TrainingStep(side.model, loaded[0], PLAN.training, 10, CPU)
            for batch in loaded:
                step(batch)
            read = [batch.value if method == LLM_CTR else batch.behaviours.vectors for batch in loaded]
            assert not torch.equal(read[0], read[1]), "the batches differ"
            assert np.isfinite(float(step.loss))


def test_what_bahe_does_not_need_is_gone(monkeypatch) -> None:
    """While BAHE trains, the frozen layers and the token embeddings take no memory."""
    seen = []

    def spy(spec, device):
        backbone = loading.load_backbone(spec, device)
        lower = backbone.layers[: backbone.num_layers // 2]
        parts = [p for module in (*lower, backbone.embed_tokens) for p in module.parameters()]
        seen.extend(weakref.ref(part) for part in parts)
        return backbone

    monkeypatch.setattr(bahe_benchmark, "load_backbone", spy)
    side = bahe_benchmark._built(PLAN, SPEC, BAHE, CPU)
    gc.collect()
    assert len(seen) > 10 and all(part() is None for part in seen)
    assert side.frozen == 2 and len(side.model.upper) == 2


@pytest.mark.parametrize("method", [BAHE, LLM_CTR])
def test_flops_are_those_that_are_counted(sides, method) -> None:
    """PyTorch's counter on a step of the real model; it counts no attention on a CPU, nor do we here.

    160 tokens are 10 behaviours: three sequences of 3, and the item; so nothing that is counted is padding.
    """
    side, tokens = sides[method], 160
    batches, keys = bahe_benchmark._batches(PLAN, side, tokens, 16, CPU)
    batch = batches.load(keys[0], "cpu")
    with FlopCounterMode(display=False) as counter:
        side.model(batch).loss_sum.backward()
    side.model.zero_grad(set_to_none=True)
    rank = SPEC.lora_rank
    cost = (
        bahe_cost(side.arch, 10, side.frozen, rank) if method == BAHE else llm_ctr_cost(side.arch, 160, rank)
    )
    attention = cost.part("attention")
    expected = PLAN.batch * (cost.train - attention.forward - attention.backward)
    rotary = counter.get_total_flops() - expected  # transformers multiplies positions by frequencies
    assert 0 <= rotary <= 2 * side.arch.head_dim * (tokens + 1)
    assert attention.forward > 0


def test_rows_say_what_was_measured() -> None:
    said: list[str] = []
    keys = ("method", "text_tokens", "behaviour_tokens", "repeat")
    lists = list(measure(PLAN, SPEC, CPU, said.append))
    assert [[tuple(row[key] for key in keys) for row in rows] for rows in lists] == [
        [(BAHE, 64, 16, 0), (BAHE, 64, 16, 1), (BAHE, 64, 8, 0), (BAHE, 64, 8, 1)],
        [(BAHE, 128, 16, 0), (BAHE, 128, 16, 1)],
        [(LLM_CTR, 64, 16, 0), (LLM_CTR, 64, 16, 1)],
        [(LLM_CTR, 128, 16, 0), (LLM_CTR, 128, 16, 1)],
    ]  # fmt: skip
    for row in (row for rows in lists for row in rows):
        assert row["samples_per_s"] == pytest.approx(PLAN.batch / row["step_ms"] * 1e3)
        assert row["behaviours"] == row["text_tokens"] // row["behaviour_tokens"]
        assert (row["cuda_graph"], row["reserved_gib"], row["mfu"]) == (False, None, None)
        ours = row["method"] == BAHE
        assert row["layer_cut"] == (0.5 if ours else 0.0)
        assert (row["table_build_s"] is not None) == (row["table_behaviours"] == 128) == ours
    peak = {(row["method"], row["text_tokens"]): row["peak_gib"] for rows in lists for row in rows}
    assert peak[LLM_CTR, 128] > peak[LLM_CTR, 64] > peak[BAHE, 64] > 0
    assert len(said) == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_on_a_gpu_both_sides_are_compiled_and_captured() -> None:
    plan = replace(PLAN, compiled=True, training=replace(PLAN.training, precision="bf16"))
    rows = [row for rows in measure(plan, SPEC, torch.device("cuda"), print) for row in rows]
    assert len(rows) == 10 and all(row["cuda_graph"] and row["compile"] for row in rows)
    assert all(row["reserved_gib"] >= row["peak_gib"] > 0 for row in rows)


def test_out_of_memory_is_a_result_and_the_next_length_is_measured(monkeypatch) -> None:
    real = bahe_benchmark._steps

    def steps(plan, model, batches, keys, device):
        if batches.load(keys[0], "cpu").value.shape[1] == 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(plan, model, batches, keys, device)

    monkeypatch.setattr(bahe_benchmark, "_steps", steps)
    rows = [row for rows in measure(PLAN, SPEC, CPU, str) for row in rows if row["method"] == LLM_CTR]
    assert [(row["text_tokens"], row["step_ms"] == "out_of_memory") for row in rows] == [
        (64, True), (128, False), (128, False),
    ]  # fmt: skip
    assert rows[0]["peak_gib"] == rows[0]["samples_per_s"] == "out_of_memory" and "repeat" not in rows[0]


@pytest.fixture
def stub(monkeypatch) -> dict[str, int]:
    """Rows without a measurement: of a real one, with the number of a run as its step time."""
    state = {"run": 0, "left": 99}
    monkeypatch.setattr(bahe_benchmark, "_built", lambda plan, spec, method, device: method)

    def measured(plan, spec, method, tokens, size, device):
        if not state["left"]:
            raise KeyboardInterrupt
        state["left"] -= 1
        settings = {
            "batch": plan.batch,
            "dtype": bahe_benchmark._dtype(plan, spec),
            "compile": bahe_benchmark._compiled(plan, CPU),
        }
        settings |= {"device": device_name(str(device)), "cuda_graph": plan.graphs and device.type == "cuda"}
        lengths = {"text_tokens": tokens, "behaviour_tokens": size, "method": method}
        return [ROW | settings | lengths | {"step_ms": float(state["run"])}]

    monkeypatch.setattr(bahe_benchmark, "_measured", measured)
    return state


def run_stub(stub, plan, tmp_path, left: int = 99) -> list[tuple[str, int, int, float]]:
    """Run so many measurements; cells of the file with the number of the run that measured them."""
    stub["run"] += 1
    stub["left"] = left
    with contextlib.suppress(KeyboardInterrupt):
        run_benchmark(plan, "test", tmp_path, str)
    (path,) = (tmp_path / "bahe").glob("*.json")
    keys = ("method", "text_tokens", "behaviour_tokens", "step_ms")
    return sorted(tuple(row[key] for key in keys) for row in read_measurement(path).rows)


def test_rows_stay_until_they_are_measured_again(stub, tmp_path) -> None:
    """A run that is cut off loses nothing, whichever lengths it was asked for."""
    assert [cell[:3] for cell in run_stub(stub, PLAN, tmp_path, left=4)] == [
        (BAHE, 64, 8), (BAHE, 64, 16), (BAHE, 128, 16), (LLM_CTR, 64, 16),
    ]  # fmt: skip
    run_stub(stub, PLAN, tmp_path)
    cut_off = run_stub(stub, PLAN, tmp_path, left=2)
    assert [run for *_, run in cut_off] == [3.0, 3.0, 2.0, 2.0, 2.0]
    one_length = run_stub(stub, replace(PLAN, text_tokens=(128,)), tmp_path)
    assert [run for *_, run in one_length] == [3.0, 3.0, 4.0, 2.0, 4.0]


@pytest.mark.parametrize("change", [{"batch": 2}, {"training": TrainingSettings(precision="bf16")}], ids=str)
def test_rows_of_other_settings_make_way_once_all_is_measured(stub, tmp_path, change) -> None:
    run_stub(stub, PLAN, tmp_path)
    other = replace(PLAN, text_tokens=(64,), **change)
    assert {run for *_, run in run_stub(stub, other, tmp_path, left=2)} == {1.0}
    assert [run for *_, run in run_stub(stub, other, tmp_path)] == [3.0, 3.0, 3.0]


def test_a_plan_that_compiles_on_a_gpu_takes_its_own_rows_up_where_there_is_none(
    stub, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    compiled = replace(PLAN, compiled=True)
    run_stub(stub, compiled, tmp_path)
    assert [run for *_, run in run_stub(stub, compiled, tmp_path, left=2)] == [2.0, 2.0, 1.0, 1.0, 1.0]


def test_rows_of_other_behaviours_or_other_graphs_do_not_stay(stub, tmp_path, monkeypatch) -> None:
    run_stub(stub, PLAN, tmp_path)
    narrow = replace(PLAN, text_tokens=(128,), other_sizes=())
    assert [cell[1:] for cell in run_stub(stub, narrow, tmp_path)] == [
        (64, 16, 1.0), (128, 16, 2.0), (64, 16, 1.0), (128, 16, 2.0),
    ]  # fmt: skip
    on_cuda = functools.partial(bahe_benchmark._agrees, PLAN, SPEC, torch.device("cuda"))
    monkeypatch.setattr(bahe_benchmark, "device_name", lambda device: "GPU")
    base = {"dtype": "float32 weights", "compile": False, "batch": PLAN.batch, "behaviour_tokens": 16}
    full = ROW | base | {"device": "GPU", "method": LLM_CTR}
    captured = full | {"cuda_graph": True}
    assert on_cuda(captured, [captured]) and on_cuda(full, [full, captured]), "one that fills the device"
    assert not on_cuda(full, [full])
    assert not on_cuda(captured | {"behaviour_tokens": 8}, [captured]), "of LLM-CTR, one size is measured"


def test_the_tables_build_is_timed_apart(sides) -> None:
    table, seconds = sides[BAHE].tables[16]
    assert len(table) == PLAN.table_behaviours and seconds > 0
    clocks = Clocks(CPU)
    with clocks.run("build"):
        bahe_benchmark._built(PLAN, SPEC, BAHE, CPU)
    assert seconds < clocks["build"]


@pytest.mark.parametrize("tier", PLANS)
def test_every_plan_can_be_measured(tier) -> None:
    name, plan = plan_named(tier)
    assert name == tier and plan.batch in (4, 16) and plan.layer_cut == 0.5
    if tier == "gpu":
        assert sorted(plan.text_tokens) == [512, 1024, 2048, 4096, 8192] and plan.repeats == 3
        assert {spec.lora_rank for spec in plan.backbones} == {64}


def test_the_command_line_narrows_the_plan() -> None:
    assert plan_named("gpu")[1].graphs
    _, plan = plan_named("gpu", "qwen2.5-1.5b", "4096,512", 32, graphs=False)
    assert not plan.graphs
    assert [spec.name for spec in plan.backbones] == ["random:qwen2.5-1.5b"]
    assert (plan.text_tokens, plan.sizes_at(4096)) == ((4096, 512), [32])


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("gpu", "gpt-2"), "'gpt-2'"),
        (("gpu", None, "1024,many"), "'1024,many'"),
        (("gpu", None, "1000"), "62.5 behaviours"),
        (("gpu", None, "16384", 32), "random:smollm2-135m"),
        (("gpu", None, "8192", 8), "16,384 behaviours"),
        (("gpu", None, "1024", 0), "0"),
        (("test", None, "48"), "3 behaviours"),
    ],
)
def test_a_choice_that_cannot_be_measured_is_refused(arguments, found) -> None:
    with pytest.raises(ConfigError, match=found):
        plan_named(*arguments)
