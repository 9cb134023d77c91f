"""Every baseline by name: its settings, and how its model and its batches are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from baselines.dcnv2 import DCNv2, Dcnv2Settings
from baselines.din import DIN, DinSettings
from baselines.gru4rec import GRU4Rec, Gru4RecSettings
from baselines.histories import Catalogue, Histories, IdBatches
from baselines.method import IdMethod
from baselines.rates import Rates, RatesSettings
from baselines.sasrec import SASRec, SasRecSettings
from baselines.sim import SIM, SimSettings
from repro.data.interactions import TEST, TRAIN, VALIDATION, PreparedData
from repro.training.seeds import seed_everything
from repro.training.task import Task

MODELS: dict[type, Callable[..., nn.Module]] = {
    DinSettings: DIN,
    SasRecSettings: SASRec,
    Dcnv2Settings: DCNv2,
    SimSettings: SIM,
    Gru4RecSettings: GRU4Rec,
}
EVAL_BATCH_TARGETS = 4096


def id_task(method: IdMethod, data: PreparedData, seed: int, device: torch.device | str) -> Task:
    """The baseline on these targets, as the training loop wants it; the seed draws the model's weights."""
    seed_everything(seed)
    search = method.model.search if isinstance(method.model, SimSettings) else None
    histories, n = Histories(data, search), method.n or 0

    def batches(split: int, batch_targets: int) -> IdBatches:
        return IdBatches(histories, data.targets(split), n, batch_targets)

    training = method.training
    batch_targets = training.batch_targets if training else EVAL_BATCH_TARGETS
    eval_targets = training.eval_batch_targets if training else EVAL_BATCH_TARGETS
    return Task(
        model=build_model(method, data).to(device),
        train=batches(TRAIN, batch_targets),
        validation=batches(VALIDATION, eval_targets),
        test=batches(TEST, eval_targets),
        label=data.interactions.label,
        group=data.interactions.user,
    )


def build_model(method: IdMethod, data: PreparedData) -> nn.Module:
    """A new model, or a fitted one where the method is fitted in closed form."""
    settings: Any = method.model
    if isinstance(settings, RatesSettings):
        return Rates(data, settings)
    return MODELS[type(settings)](Catalogue.of(data), method.n, settings)
