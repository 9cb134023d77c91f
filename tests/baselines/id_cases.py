"""Small data sets with categories, and every deep ID-based model in a tiny size without dropout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from prompt_cases import make_data

from baselines.dcnv2 import DCNv2, Dcnv2Settings
from baselines.din import DIN, DinSettings
from baselines.gru4rec import GRU4Rec, Gru4RecSettings
from baselines.histories import Catalogue, Histories, IdBatch
from baselines.layers import IdModel
from baselines.sasrec import SASRec, SasRecSettings
from baselines.search import SearchSettings
from baselines.sim import SIM, SimSettings
from repro.data.interactions import Items, PreparedData

SEARCH = SearchSettings(limit=9, keep=4)
TINY = {"item_dim": 6, "category_dim": 2, "hidden": (8, 4), "dropout": 0.0, "init_std": 0.5}
SETTINGS: dict[str, Any] = {
    "din": DinSettings(attention_units=(6, 3), **TINY),
    "din-softmax": DinSettings(attention_units=(6, 3), softmax=True, **TINY),
    "sasrec": SasRecSettings(heads=2, **TINY),
    "dcnv2": Dcnv2Settings(**TINY),
    "dcnv2-stacked-low-rank": Dcnv2Settings(rank=3, stacked=True, **TINY),
    "sim": SimSettings(search=SEARCH, heads=2, head_dim=3, attention_units=(6, 3), **TINY),
    "gru4rec": Gru4RecSettings(units=7, **TINY),
    "gru4rec-two-layers": Gru4RecSettings(units=7, layers=2, **TINY),
}
CLASSES = {
    DinSettings: DIN,
    SasRecSettings: SASRec,
    Dcnv2Settings: DCNv2,
    SimSettings: SIM,
    Gru4RecSettings: GRU4Rec,
}


def make_id_data(lengths: list[int], seed: int = 0, num_categories: int = 4, **options) -> PreparedData:
    """As `make_data`; every item has none to three categories."""
    data = make_data(lengths, seed=seed, **options)
    rng = np.random.default_rng(seed + 1)
    names = np.array([f"genre {i}" for i in range(num_categories)])
    most = min(3, num_categories)
    categories = tuple(
        tuple(rng.choice(names, size=rng.integers(most + 1), replace=False).tolist()) for _ in data.items.key
    )
    return replace(data, items=Items(data.items.key, data.items.text, categories))


def build(name: str, data: PreparedData, n: int, seed: int = 0) -> IdModel:
    """The model in double precision, so that equal means equal to 1e-12."""
    torch.manual_seed(seed)
    settings = SETTINGS[name]
    return CLASSES[type(settings)](Catalogue.of(data), n, settings).double()


def histories(name: str, data: PreparedData) -> Histories:
    """Histories as the model wants them."""
    return Histories(data, getattr(SETTINGS[name], "search", None))


def cut(name: str, data: PreparedData, rows: list[int] | np.ndarray, n: int) -> IdBatch:
    """One batch on the CPU."""
    batch = histories(name, data).batch(np.asarray(rows), n, "cpu")
    return replace(batch, label=batch.label.double())


def logit_and_gradients(model: IdModel, batch: IdBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(B,) logits and every parameter's gradient of a loss that weighs the targets differently."""
    model.zero_grad(set_to_none=True)
    logit = model.logit(batch)
    (logit * torch.linspace(1, 2, len(logit), dtype=logit.dtype)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    missing = [name for name, gradient in gradients.items() if gradient is None]
    assert not missing, f"no gradient reaches {missing}"
    return logit.detach(), gradients
