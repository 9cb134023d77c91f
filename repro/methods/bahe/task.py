"""BAHE, LLM-CTR and DTI over BAHE as the training loop wants them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from repro.backbones.loading import Backbone, group_of
from repro.behaviours.drift import DriftingItems
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import BehaviourTable
from repro.behaviours.texts import Behaviours, behaviours_of
from repro.data.interactions import TEST, TRAIN, VALIDATION, PreparedData
from repro.errors import ConfigError
from repro.methods.bahe.batches import BaheBatches, layout_of
from repro.methods.bahe.filled_table import filled_table
from repro.methods.bahe.llm_ctr import LlmCtrModel
from repro.methods.bahe.model import BaheModel
from repro.methods.bahe.sequences import SequenceSource
from repro.methods.bahe.settings import BAHE, DTI_BAHE, LLM_CTR, BaheMethod
from repro.methods.bahe.streaming import (
    StreamingBaheModel,
    StreamingBatches,
    batches_of_rows,
    streaming_batches,
)
from repro.methods.bahe.vectors import BehaviourVectors, TableVectors, TextVectors
from repro.methods.method import BatchSizes
from repro.prompts.rows import rows_of
from repro.prompts.templates import Template
from repro.training.seeds import seed_everything
from repro.training.settings import TrainingSettings
from repro.training.task import Batches, Task

MODELS: dict[str, type[BaheModel | LlmCtrModel | StreamingBaheModel]] = {
    LLM_CTR: LlmCtrModel,
    DTI_BAHE: StreamingBaheModel,
}


def bahe_task(
    method: BaheMethod,
    data: PreparedData,
    backbone: Backbone,
    template: Template,
    training: TrainingSettings,
    sizes: BatchSizes,
    compiled: bool,
    seed: int,
    device: torch.device,
    tables: Path | None,
) -> Task:
    """The method on these targets; a behaviour table is opened, and filled where vectors are missing.

    Args:
        method: which one. data: its targets.
        backbone: with adapters, on the CPU; a copy of it is trained.
        template: the words around an item's text.
        training: numbers of targets per batch, and the precision, which the table's vectors share.
        sizes: how batches are cut for the machine. compiled: compile the layers.
        seed: draws the head's weights. device: of the model.
        tables: folder for behaviour tables, one inside for each fingerprint; None: in memory.

    Raises:
        ConfigError: no layer would be lower or upper; a sequence that the data does not have.
        TableError, StorageError: the table is damaged or cannot be written.
    """
    backbone = copy.deepcopy(backbone)
    backbone.model.to(device)
    drift = method.drift
    drifting = None if drift is None else DriftingItems(data.items, len(data.interactions), drift)
    items = data.items if drifting is None else drifting.items
    behaviours = behaviours_of(items, backbone.tokenizer, template, (backbone.yes_id, backbone.no_id))
    vectors, behaviour_s = _vectors(method, behaviours, backbone, training.precision, tables)
    encoded = _encoded(method, drifting, behaviours)
    served = None if drifting is None else drifting.served
    source = SequenceSource(data, behaviours, method.sequences, method.n, served)
    seed_everything(seed)
    model: nn.Module = MODELS.get(method.name, BaheModel)(backbone, method, compiled)

    def batches(split: int, targets: int) -> Batches:
        if method.name == DTI_BAHE:
            assert vectors is not None
            group = group_of(backbone)
            return streaming_batches(data, behaviours, vectors, method, split, targets, group, sizes)
        layout = layout_of(_layout_kind(method), sizes, packed=compiled and device.type == "cuda")
        label, rows = data.interactions.label, data.targets(split)
        return BaheBatches(source, behaviours, vectors, label, rows, targets, layout, shuffled=split == TRAIN)

    return Task(
        model=model.to(device),
        train=batches(TRAIN, training.batch_targets),
        validation=batches(VALIDATION, training.eval_batch_targets),
        test=batches(TEST, training.eval_batch_targets),
        label=data.interactions.label,
        group=data.interactions.user,
        table_build_s=None if encoded is None or behaviour_s is None else behaviour_s * encoded,
        behaviours_encoded=encoded,
    )


def scoring_batches(
    method: BaheMethod,
    data: PreparedData,
    rows: np.ndarray,
    behaviours: Behaviours,
    table: BehaviourTable,
    encoder: BehaviourEncoder | None = None,
    batch_targets: int = 64,
    max_places: int = 4096,
    group: int | None = None,
) -> BaheBatches | StreamingBatches:
    """Targets that a trained model of `bahe` or `dti-bahe` is to score, from a table that is not filled.

    `Trainer.scores` and `repro.training.scoring.score_targets` take them. They may be of items that training
    never saw; all items of `data` need a vector, in the table or by the encoder.

    Args:
        method: `bahe` or `dti-bahe`, cached, as it was trained.
        data: the targets among their users' interactions. rows: (B,) of the targets in it; no score
            depends on their labels.
        behaviours: of the data's items, in the template of training.
        table: that of training, or another one of its encoder.
        encoder: the table's; encodes on the fly what the table lacks. None: that is an error.
        batch_targets: targets per batch. max_places: vectors per forward pass, about.
        group: query heads per key-value head of the backbone (`group_of`); only `dti-bahe` needs it, whose
            targets come one to a row, as in its test.

    Raises:
        ConfigError: another method; no group where one is needed; behaviours of another template than the
            encoder's.
        TableError: a behaviour is missing and there is no encoder; the encoder is not the table's.
    """
    if method.name not in (BAHE, DTI_BAHE) or not method.cached or method.drift is not None:
        found = f"{method.name}, cached={method.cached}, drift={method.drift}"
        expected = "bahe or dti-bahe, cached, without drift"
        raise ConfigError("method to score with", found, expected, "choose such a one")
    vectors, sizes = TableVectors(table, behaviours, encoder), BatchSizes(max_tokens=max_places)
    if method.name == DTI_BAHE:
        if group is None:
            fix = "pass group=group_of(backbone)"
            raise ConfigError("group", "None", "query heads per key-value head of the backbone", fix)
        chosen = np.zeros(len(data.interactions), dtype=bool)
        chosen[rows] = True
        cut = rows_of(data, chosen, method.n)
        return batches_of_rows(cut, data, behaviours, vectors, batch_targets, group, sizes, shuffled=False)
    source = SequenceSource(data, behaviours, method.sequences, method.n)
    layout = layout_of(_layout_kind(method), sizes, packed=False)
    label = data.interactions.label
    return BaheBatches(source, behaviours, vectors, label, rows, batch_targets, layout, shuffled=False)


def _encoded(method: BaheMethod, drifting: DriftingItems | None, behaviours: Behaviours) -> int | None:
    """How many behaviours of the data set its table's build and refreshes encode; None without a table."""
    if method.name == LLM_CTR or not method.cached:
        return None
    return len(behaviours) if drifting is None else drifting.encoded(behaviours)


def _layout_kind(method: BaheMethod) -> str:
    if method.name == LLM_CTR:
        return "written-out"
    return "side-by-side" if method.feature_parallel else "back-to-back"


def _vectors(
    method: BaheMethod, behaviours: Behaviours, backbone: Backbone, precision: str, tables: Path | None
) -> tuple[BehaviourVectors | None, float | None]:
    """Where vectors come from, and the seconds to encode a behaviour; None for what does not apply."""
    if method.name == LLM_CTR:
        return None, None
    num_lower = method.num_lower(backbone.num_layers)
    if not method.cached:
        return TextVectors(behaviours), None
    if method.drift is not None and tables is not None:
        # A folder of its own: versions of other lengths would change what a behaviour of the data set costs.
        tables = tables / "drifting"
    encoder = BehaviourEncoder(backbone, num_lower, method.pooling, precision, template=behaviours.template)
    table, behaviour_s = filled_table(tables, behaviours, encoder)
    return TableVectors(table, behaviours), behaviour_s
