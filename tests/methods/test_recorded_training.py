"""Training with steps replayed as CUDA graphs against training without: the same parameters."""

from __future__ import annotations

import pytest
import torch
from prompt_cases import make_data, make_items
from tiny_backbones import tiny_backbone

from repro.data import TEST, TRAIN, VALIDATION
from repro.methods.dti import dti_tuned
from repro.methods.method import BatchSizes, SumMethod
from repro.methods.sliding_window import sliding_window
from repro.methods.sum_batches import BUCKET_MULTIPLE, batches_of
from repro.methods.sum_model import SumModel
from repro.training.loop import Trainer
from repro.training.recorded import RecordedSteps
from repro.training.settings import TrainingSettings
from repro.training.task import Task

SIZES = BatchSizes(max_tokens=600, text_multiple=BUCKET_MULTIPLE, sum_multiple=8)


def trained(method: SumMethod, device: str) -> tuple[torch.Tensor, Trainer]:
    """All parameters after an epoch of several micro-batches a step."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 48, "head_dim": 16}
    made = tiny_backbone("llama", num_hidden_layers=3, **heads)
    data, items = make_data([60, 45, 80, 20, 7], seed=1), make_items(longest=9)
    splits = [batches_of(data, items, method, split, 30, 3, SIZES) for split in (TRAIN, VALIDATION, TEST)]
    model = SumModel(made).to(device)
    task = Task(model, *splits, data.interactions.label, data.interactions.user)
    trainer = Trainer(task, TrainingSettings(learning_rate=1e-3, batch_targets=30), 0, None, "recorded")
    trainer.train()
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters() if p.requires_grad]), trainer


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", [sliding_window(6), dti_tuned(6, 5), dti_tuned(6, 40)])
def test_replayed_steps_train_the_same_parameters(method, monkeypatch) -> None:
    replayed, trainer = trained(method, "cuda")
    assert trainer.replays and trainer._recorded.replayed > trainer._recorded.missed
    monkeypatch.setattr(RecordedSteps, "run", lambda self, batch, weight: None)
    launched, _ = trained(method, "cuda")
    assert (replayed - launched).norm() < 1e-4 * launched.norm()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the trainer takes the CUDA device")
def test_nothing_is_recorded_on_a_cpu() -> None:
    _, trainer = trained(dti_tuned(6, 5), "cpu")
    assert not trainer.replays and trainer.progress.step == trainer.total_steps
