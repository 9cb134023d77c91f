"""Three counts of the same step agree exactly, on the project's own modules, in every way of training."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from prompt_cases import make_items
from rich.console import Console
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from baselines.din import DIN, DinSettings
from baselines.histories import Catalogue
from baselines.sasrec import SASRec, SasRecSettings
from repro import cli
from repro.backbones.fix_settings import Fixes, Reset
from repro.backbones.loading import load_backbone
from repro.backbones.plan import MAX_SUM_BLOCK
from repro.backbones.shapes import SHAPES, TINY_VOCAB
from repro.backbones.spec import BackboneSpec
from repro.costs import counters, sweeps
from repro.costs.architecture import architecture_of
from repro.costs.attention_benchmark import benchmark_data
from repro.costs.closed_form import SumCounts, Training, stack_cost, sum_model_cost
from repro.costs.counted_models import StackCounter, SumModelCounter
from repro.costs.counters import Handlers, fvcore_forward, torch_counter
from repro.costs.id_models import BATCH, count_id_model, din_cost, sasrec_cost, sasrec_pairs
from repro.data import TRAIN
from repro.errors import CountError
from repro.methods.dti import PAPER_FIXES, dti_tuned
from repro.methods.method import BatchSizes
from repro.methods.sum_batches import SumBatches, batches_of
from repro.methods.sum_model import SumModel

COUNTS = SumCounts(text=1000, sums=37, text_pairs=43_210, sum_pairs=777)
TINY = ("tiny-llama", "tiny-qwen")  # tied and untied head, without and with biases
CATALOGUE = Catalogue(torch.tensor([[0, 0], [1, 0], [2, 1], [1, 3]]), 3)


def fixes(reset: str | None) -> Fixes:
    return Fixes() if reset is None else replace(PAPER_FIXES, reset=Reset(layers=reset))


def agree(cost, counted, scale: int = 1) -> None:
    assert counted.fvcore_forward == counted.torch_forward == cost.forward * scale
    assert counted.torch_train == cost.train * scale


@pytest.mark.parametrize("shape", TINY)
@pytest.mark.parametrize("reset", [None, "last", "all"])
@pytest.mark.parametrize(("tuning", "train_embeddings"), [("full", True), ("full", False), ("lora", False)])
def test_sum_models_agree_exactly(shape, reset, tuning, train_embeddings):
    spec = BackboneSpec(f"random:{shape}", tuning=tuning, train_embeddings=train_embeddings)
    training = Training(tuning, spec.lora_rank, train_embeddings)
    cost = sum_model_cost(architecture_of(spec.name), COUNTS, training, reset)
    agree(cost, SumModelCounter(spec).count(COUNTS, fixes(reset)))


@pytest.mark.parametrize("shape", TINY)
def test_the_loss_over_two_answers_agrees_exactly(shape):
    spec = BackboneSpec(f"random:{shape}")
    cost = sum_model_cost(architecture_of(spec.name), COUNTS, Training(), loss="answers")
    agree(cost, SumModelCounter(spec, loss="answers").count(COUNTS, Fixes()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "tuning", "dtype"), [("smollm2-135m", "full", "float32"), ("llama-3.1-8b", "lora", "bfloat16")]
)
def test_real_shapes_agree_exactly_without_any_weight(shape, tuning, dtype):
    """An epoch's tokens at once: a meta tensor has a length and no content."""
    counts = SumCounts(text=300_000_000, sums=776_007, text_pairs=60_000_000_000, sum_pairs=280_000_000)
    spec = BackboneSpec(f"random:{shape}", tuning=tuning, dtype=dtype)
    cost = sum_model_cost(architecture_of(spec.name), counts, Training(tuning), "last")
    agree(cost, SumModelCounter(spec).count(counts, PAPER_FIXES))


STACKS = [
    *(Training("full", train_embeddings=each) for each in (True, False)),
    *(Training("full", train_embeddings=False, frozen_layers=each) for each in (2, 3)),
    Training("full", train_embeddings=True, frozen_layers=2),  # a gradient passes through frozen layers
    *(Training("lora", 8, False, frozen_layers=each) for each in (0, 2, 3)),
]


@pytest.mark.parametrize("shape", TINY)
@pytest.mark.parametrize("training", STACKS, ids=str)
@pytest.mark.parametrize("checkpointing", ["none", "early stop", "whole layers"])
def test_llm_ctr_agrees_with_frozen_layers_and_checkpointing(shape, training, checkpointing):
    training = replace(
        training, checkpointing=checkpointing != "none", early_stop=checkpointing == "early stop"
    )
    arch, sequences = architecture_of(f"random:{shape}"), [11, 7, 30]
    cost = stack_cost(arch, sequences, training, range(arch.layers), (3, arch.hidden))
    agree(cost, StackCounter(SHAPES[shape], training, 1).count(sequences, 3))
    if checkpointing == "whole layers":  # one more forward pass of every layer with a gradient, nothing else
        plain = stack_cost(
            arch, sequences, replace(training, checkpointing=False), range(arch.layers), (3, arch.hidden)
        )
        lowest = 0 if training.tuning == "full" and training.train_embeddings else training.frozen_layers
        passed = stack_cost(arch, sequences, training, range(lowest, arch.layers))
        assert cost.train == plain.train + passed.forward


@pytest.mark.parametrize("shape", TINY)
@pytest.mark.parametrize("encode", [False, True])
def test_bahe_agrees_with_and_without_encoding(shape, encode):
    training = Training("lora", 8, False, frozen_layers=2)
    arch, sequences, behaviours = architecture_of(f"random:{shape}"), [9, 4, 4], [5, 6, 7, 3]
    upper = stack_cost(arch, sequences, training, range(2, arch.layers), (1, 4 * arch.hidden))
    lower = stack_cost(arch, behaviours if encode else [], training, range(2))
    assert lower.train == lower.forward, "frozen layers have no backward pass"
    counter = StackCounter(SHAPES[shape], training, 4, bahe=True)
    counted = counter.count(sequences, 1, behaviours if encode else ())
    assert counted.fvcore_forward == counted.torch_forward == upper.forward + lower.forward
    assert counted.torch_train == upper.train + lower.train


@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize("softmax", [False, True])
def test_din_agrees_exactly(n, softmax):
    settings = replace(DinSettings(), softmax=softmax)
    agree(din_cost(settings, n), count_id_model(DIN(CATALOGUE, n, settings), n), BATCH)


@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize("blocks", [1, 3])
def test_sasrec_agrees_exactly(n, blocks):
    settings = replace(SasRecSettings(), blocks=blocks)
    counted = count_id_model(SASRec(CATALOGUE, n, settings), n, sasrec_pairs(settings, n))
    agree(sasrec_cost(settings, n), counted, BATCH)


# --- the operator stands for real products --------------------------------------------------------


@pytest.mark.parametrize("reset", [None, "last", "all"])
def test_attention_as_it_is_computed_costs_the_same_per_pair(reset):
    """Without the operator: real weights, attention as plain products over whole blocks."""
    spec = BackboneSpec("random:tiny-llama")
    backbone = load_backbone(spec)
    data = benchmark_data()
    method = replace(dti_tuned(10, 10), fixes=fixes(reset))
    items = make_items(len(data.items), longest=4)
    items = replace(items, tokens=items.tokens % TINY_VOCAB)
    batches: SumBatches = batches_of(
        data, items, method, TRAIN, 20, 3, BatchSizes(text_multiple=1, sum_multiple=1)
    )
    batch = batches.load(batches.in_order()[0], "cpu")
    model, plan = SumModel(backbone).train(), batch.plan
    with sdpa_kernel(SDPBackend.MATH), torch_counter() as counted:
        loss = model(batch).loss_sum
        forward = counted.total
        loss.backward()
    assert plan.text is not None and plan.sums.visible.shape[1] == min(MAX_SUM_BLOCK, 10)
    computed = SumCounts(
        len(plan.tokens), len(plan.label), plan.text.visible.numel(), plan.sums.visible.numel()
    )
    cost = sum_model_cost(architecture_of(spec.name), computed, Training(), reset)
    assert (forward, counted.total) == (cost.forward, cost.train)


# --- nothing is free by accident ------------------------------------------------------------------


@pytest.mark.parametrize("missing", [Handlers(forward=None), Handlers(backward=None)])
def test_without_its_handler_attention_is_an_error(missing, monkeypatch):
    counter = SumModelCounter(BackboneSpec("random:tiny-llama"))
    monkeypatch.setattr(counters, "HANDLERS", missing)
    with pytest.raises(CountError, match=r"repro\.attention"):
        counter.count(COUNTS, Fixes())


def test_fvcore_alone_refuses_too(monkeypatch):
    monkeypatch.setattr(counters, "HANDLERS", Handlers(forward=None))
    model = SASRec(CATALOGUE, 4, SasRecSettings())
    monkeypatch.setattr("repro.costs.counted_models.torch_counter", NoCounter)
    with pytest.raises(CountError, match="fvcore: no handler for repro::attention"):
        count_id_model(model, 4, sasrec_pairs(SasRecSettings(), 4))


class NoCounter:
    total = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def test_the_session_fails_without_a_handler(monkeypatch, tmp_path):
    """The command ends with exit code 2 and writes nothing."""
    monkeypatch.setenv("REPRO_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("REPRO_REPORTS_DIR", str(tmp_path / "reports"))
    small = partial(sweeps.k_sweep, contexts=(2,), targets=(2,), backbones=(("tiny-llama", "full"),))
    monkeypatch.setattr(sweeps, "k_sweep", small)
    monkeypatch.setattr(counters, "HANDLERS", Handlers(forward=None))
    monkeypatch.setattr("sys.argv", ["repro", "flops-vs-k"])
    errors = io.StringIO()
    monkeypatch.setattr(cli, "error_console", Console(file=errors))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "repro.attention" in errors.getvalue()
    assert not (tmp_path / "runs").exists() and not (tmp_path / "reports").exists()


class Unknown(nn.Module):
    """Something with a product that no handler knows."""

    def __init__(self, what):
        super().__init__()
        self.what, self.weight = what, nn.Parameter(torch.eye(4))

    def forward(self, x):
        return self.what(x, self.weight)


UNKNOWN = {
    "attention of PyTorch": lambda x, w: F.scaled_dot_product_attention(x @ w, x, x),
    "a matrix inverse": lambda x, w: x + torch.linalg.inv(w),
    "a triangular solve": lambda x, w: torch.linalg.solve_triangular(w, x @ w, upper=True),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_other_attention_and_products_are_errors(what):
    x = torch.rand(
        2, 1, 4, 4
    )  # on the CPU: there a fused kernel runs, which FlopCounterMode counts as nothing
    with pytest.raises(CountError, match="no handler for"), torch_counter():
        Unknown(UNKNOWN[what])(x)
    with pytest.raises(CountError, match="no handler for"):
        fvcore_forward(Unknown(UNKNOWN[what]), x)


def test_plain_products_are_counted_by_both():
    x = torch.ones(3, 4, 4)
    model = Unknown(lambda x, w: torch.bmm(F.linear(x, w) @ w, x))
    with torch_counter() as count:
        model(x)
    assert count.total == fvcore_forward(model, x) == 3 * 2 * 3 * 4 * 4 * 4
