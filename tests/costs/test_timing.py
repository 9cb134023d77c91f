"""The timing harness on a CPU: what it measures, and the file and page it leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from prompt_cases import film_like

from repro.backbones.fix_settings import POSITIONS
from repro.backbones.spec import BackboneSpec
from repro.costs import timing
from repro.costs.counted_models import SumModelCounter
from repro.costs.full_batches import FullBatches
from repro.costs.prompt_counts import sum_counts
from repro.costs.timing import Plan, measure, method_of, shape_of, step_cost, timing_file
from repro.costs.timing_variants import AS_TRAINED, OURS, measure_variants, variants
from repro.data import TRAIN
from repro.errors import ConfigError
from repro.experiments.tiers import gpu_tier, paper_tier, tier_named
from repro.methods.method import BatchSizes
from repro.methods.sum_batches import BUCKET_MULTIPLE, batches_of
from repro.methods.sum_model import SumModel
from repro.pipeline import Workshop
from repro.prompts.settings import INSTRUCTIONS, SUM_LAYOUTS, WINDOWS
from repro.records.environment import environment
from repro.records.measurements import read_measurement

PLAN = Plan(ks=(1, 4), n=4, length=768, steps=2, repeats=2, warm=1)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        made = Workshop(device=torch.device("cpu"))
        made.load(tier_named("test"), "synthetic", "rella")
    return made


def test_rows_say_what_was_measured_and_the_file_can_be_read(workshop, tmp_path) -> None:
    tier, said = tier_named("test"), []
    measured = list(measure(workshop, tier, "synthetic", "rella", said.append, PLAN))
    rows = [row for rows in measured for row in rows]
    assert [(row["method"], row["k"], row["repeat"]) for row in rows] == [
        ("sw", 1, 0), ("sw", 1, 1), ("dti", 4, 0), ("dti", 4, 1), ("sw", 1, 2), ("sw", 1, 3),
    ]  # fmt: skip
    for row in rows:
        seconds = row["step_ms"] / 1e3
        tokens_per_step, targets_per_step = row["tokens_per_s"] * seconds, row["targets_per_s"] * seconds
        assert 0.5 * PLAN.length < tokens_per_step <= PLAN.length
        assert row["batch"] <= targets_per_step + 1 <= row["k"] * row["batch"] + 2
        assert row["compile_s"] is None and row["mfu"] is None, "nothing compiled; no known peak"
        assert "layers" not in row, "the whole model"
    assert len(said) == 3
    made_from = {"commit": "a" * 40}
    file = timing_file(tmp_path, tier, "synthetic", rows[0]["device"], made_from)
    file.put(measured[0])
    assert read_measurement(file.path).rows == measured[0], "there as soon as they are measured"
    assert read_measurement(file.path).environment == environment() | made_from
    file.put(measured[1])
    file.put(measured[2])
    assert read_measurement(file.finish()).rows == rows
    again = timing_file(tmp_path, tier, "synthetic", rows[0]["device"], made_from)
    again.put(measured[0])
    assert read_measurement(again.path).rows == rows, "a sweep that is cut off replaces nothing"
    assert read_measurement(again.finish()).rows == measured[0]


def test_variants_are_measured_beside_our_recipe_in_a_file_of_their_own(workshop, tmp_path) -> None:
    tier, said = tier_named("test"), []
    plan = replace(PLAN, steps=1, repeats=1)
    measured = measure_variants(workshop, tier, "synthetic", "rella", said.append, plan)
    rows = [row for rows in measured for row in rows]
    titles = [row["variant"] for row in rows]
    assert titles[0] == OURS and titles[-1] == AS_TRAINED and len(set(titles)) == len(titles) == len(said)
    assert [row["k"] for row in rows] == [4] * (len(rows) - 2) + [1, 4] and all(
        row["tokens_per_s"] > 0 for row in rows
    )
    full, trained = (row["tokens_per_s"] * row["step_ms"] / 1e3 for row in (rows[0], rows[-1]))
    assert 0.5 * PLAN.length < full <= PLAN.length and trained != pytest.approx(full, rel=0.01)
    targets = rows[-1]["targets_per_s"] * rows[-1]["step_ms"] / 1e3
    assert targets == pytest.approx(tier.training.batch_targets, abs=4), "a training run's step"
    file = timing_file(tmp_path, tier, "synthetic", rows[0]["device"], {}, variants=True)
    file.put(rows)
    path = file.finish()
    assert path.stem.endswith("-variants") and read_measurement(path).rows == rows


def test_variants_are_every_layout_window_and_fix() -> None:
    found = variants(20, 50, window_tokens=350)
    prompts, fixes = [each.prompt for each in found.values()], [each.fixes for each in found.values()]
    assert {each.sum_layout for each in prompts} == set(SUM_LAYOUTS)
    assert {each.window for each in prompts} == set(WINDOWS)
    assert {each.instruction for each in prompts} == set(INSTRUCTIONS)
    assert {each.position for each in fixes} == set(POSITIONS)
    resets = {(each.reset.layers, each.reset.mixing) for each in fixes if each.reset is not None}
    assert resets >= {("last", "projected"), ("all", "projected"), ("last", "hidden")}
    assert {(each.k, each.n) for each in prompts} == {(50, 20)}


def test_out_of_memory_is_a_result(workshop, monkeypatch) -> None:
    def forward(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SumModel, "forward", forward)
    (rows,) = measure(workshop, tier_named("test"), "synthetic", "rella", str, replace(PLAN, ks=(1,)))
    assert [row["tokens_per_s"] for row in rows] == ["out_of_memory"]


def full_batches(workshop, k: int, length: int) -> FullBatches:
    tier = tier_named("test")
    backbone = timing.load_backbone(tier.backbone)
    data = workshop.load(tier, "synthetic", "rella").data
    answers = (backbone.yes_id, backbone.no_id)
    items = timing.tokenise_items(data.items, backbone.tokenizer, timing.template_for("synthetic"), answers)
    loaded = timing.Loaded(data, items, backbone, workshop.device)
    return timing._task(tier, method_of(4, k), loaded, replace(PLAN, length=length)).train


@pytest.mark.parametrize("k", [1, 6])
@pytest.mark.parametrize("length", [512, 900])
def test_batches_are_as_full_as_rows_allow(workshop, k, length) -> None:
    batches = full_batches(workshop, k, length)
    order = np.concatenate(batches.epoch(0, 0))
    assert len(np.unique(order)) == len(order)
    for key, following in zip(batches.epoch(0, 0)[:-1], batches.epoch(0, 0)[1:], strict=True):
        if len(key) > 1:
            assert batches.places(key) <= length
        assert not batches.fits(np.append(key, following[0])), "another row would have fitted"


@pytest.mark.parametrize("k", [1, 6])
def test_a_batch_that_rows_ran_out_for_is_dropped(workshop, k) -> None:
    batches = full_batches(workshop, k, 900)
    batches.number = 10_000
    every = batches.epoch(0, 0)
    left = np.setdiff1d(np.arange(len(batches.rows)), np.concatenate(every))
    assert 0 < len(left) < len(batches.rows) / 2, "rows of the batch that was dropped"
    assert min(len(key) for key in every) > 1
    assert all(not batches.fits(np.append(key, left[0])) for key in every)
    batches = full_batches(workshop, k, 10**9)
    assert [len(key) for key in batches.epoch(0, 0)] == [len(batches.rows)], "unless it is alone"


def test_on_cuda_every_batch_of_every_k_has_the_one_length(workshop, monkeypatch) -> None:
    monkeypatch.setattr(FullBatches, "has_few_lengths", lambda self, device: True)
    for k in (1, 3, 6):
        batches = full_batches(workshop, k, 1024)
        batches.sizes, batches.number = BatchSizes(text_multiple=BUCKET_MULTIPLE), 10_000
        loaded = [batches.load(key, "cpu") for key in batches.epoch(0, 0)]
        assert {batch.num_padded_tokens for batch in loaded} == {1024}
        assert len({len(batch.plan.label) for batch in loaded}) == 1
        assert min(batch.num_tokens for batch in loaded) > 0.7 * 1024
        assert len(batches.warm_up("cpu")) == 1


@pytest.mark.parametrize("length", [timing.LARGE_MODEL_LENGTH, gpu_tier().sizes.max_tokens])
def test_batches_of_long_rows_are_as_full_as_those_of_short_ones(length, monkeypatch) -> None:
    """Else part of the ratio of their speeds would be padding."""
    monkeypatch.setattr(FullBatches, "has_few_lengths", lambda self, device: True)
    (data, items), tier, filled = film_like(), gpu_tier(), []
    for k in (1, 50):
        of_split = batches_of(data, items, method_of(20, k), TRAIN, 1024, 3, tier.sizes)
        full = FullBatches(of_split.source, of_split.rows, of_split.fixes, tier.sizes, 1, 3)
        full.length, full.number = length, 12
        loaded = [full.load(key, "cpu") for key in full.epoch(0, 0)]
        assert len(loaded) > 5 and {batch.num_padded_tokens for batch in loaded} == {length}
        filled.append(np.mean([batch.num_tokens / length for batch in loaded]))
    assert min(filled) > 0.97 and abs(filled[0] - filled[1]) < 0.005


def test_steps_of_large_models_have_a_length_of_their_own() -> None:
    lengths = [timing.plan_for(*given).length for given in ((paper_tier(),), (paper_tier(), "tensorwise"))]
    assert lengths == [12_288] * 2 and timing.plan_for(gpu_tier()).length == 65_536


def test_without_a_gpu_every_k_is_measured_but_in_the_tests_tier() -> None:
    ours, small = timing.plan_for(tier_named("cpu")), timing.plan_for(tier_named("test"))
    assert (ours.ks, ours.length, ours.n) == (timing.KS, 4096, 10)
    assert (small.ks, small.length, small.steps) == ((1, 5), 1024, 2)


def test_rows_say_how_many_layers_a_cut_model_has(workshop) -> None:
    tier, plan = tier_named("test"), replace(PLAN, ks=(1,), steps=1, repeats=1)
    tier = replace(tier, backbone=replace(tier.backbone, layers=2))
    ((row,),) = measure(workshop, tier, "synthetic", "rella", str, plan)
    assert (row["backbone"], row["layers"]) == ("random:tiny-llama", 2)


def test_a_missing_data_set_is_refused_before_the_model_is_built(monkeypatch) -> None:
    monkeypatch.setattr(timing, "load_backbone", lambda *given: pytest.fail("a model was built"))
    with pytest.raises(ConfigError, match="ml-1m: no folder"):
        timing.load(Workshop(device=torch.device("cpu")), paper_tier(), "ml-1m", "rella")


@pytest.mark.parametrize("backbone", [{}, {"train_embeddings": False}, {"tuning": "lora", "lora_rank": 2}])
@pytest.mark.parametrize("k", [1, 6])
def test_a_steps_flops_are_those_that_are_counted(workshop, backbone, k) -> None:
    """FLOPs that MFU is a share by: PyTorch's counter on the same model and batches."""
    tier = tier_named("test")
    tier = replace(tier, backbone=replace(tier.backbone, **backbone))
    batches, method = full_batches(workshop, k, 512), method_of(4, k)
    keys = batches.epoch(0, 0)[:2]
    cost = step_cost(tier, method, timing.load_backbone(tier.backbone), batches, keys)
    counted = SumModelCounter(tier.backbone, tier.loss).count(sum_counts(batches, keys), method.fixes)
    assert (cost.forward, cost.train) == (counted.torch_forward, counted.torch_train)
    assert sum_counts(batches, keys).sums == sum(batches.count(key) for key in keys)


def test_mfu_is_the_closed_form_over_the_peak(workshop, monkeypatch) -> None:
    """On a device with a peak, MFU times peak and time is the FLOPs of the measured batches."""
    seen: list[float] = []
    monkeypatch.setattr(timing, "mfu", lambda flops, name, count: seen.append(flops) or 0.5)
    tier = tier_named("test")
    ((row,),) = measure(workshop, tier, "synthetic", "rella", str, replace(PLAN, ks=(4,), repeats=1))
    batches = full_batches(workshop, 4, PLAN.length)
    keys = (batches.epoch(0, 0) * 3)[PLAN.warm : PLAN.warm + PLAN.steps]
    backbone = timing.load_backbone(tier.backbone)
    cost = step_cost(tier, method_of(4, 4), backbone, batches, keys)
    assert seen[0] * row["step_ms"] / 1e3 * PLAN.steps == pytest.approx(cost.train) and row["mfu"] == 0.5


@pytest.mark.parametrize(
    ("seconds", "stretches"), [([5, 3, 2, 1.99], 4), ([1, 1.02], 2), ([9, 8, 7, 6, 5, 4, 3, 2], 5)]
)
def test_stretches_go_on_until_two_take_the_same_time(seconds, stretches) -> None:
    asked = iter(seconds)
    timing.settle(lambda: next(asked), most=5)
    assert len(seconds) - len(list(asked)) == stretches


def test_known_shapes_take_the_place_of_weights() -> None:
    assert shape_of(gpu_tier().backbone).name == "random:smollm2-135m"
    paper = shape_of(paper_tier().backbone)
    assert (paper.name, paper.tuning, paper.dtype) == ("random:llama-3.1-8b", "lora", "bfloat16")
    assert shape_of(BackboneSpec("some/other-model")).name == "some/other-model"
