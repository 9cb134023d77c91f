"""A small data set with behaviours, and a tiny backbone whose adapters say something."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import numpy as np
import torch

from repro.backbones.loading import Backbone, load_backbone
from repro.backbones.spec import BackboneSpec
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import MemoryTable, fill
from repro.behaviours.texts import Behaviours, behaviours_of
from repro.data import PreparedData, SyntheticSettings, load_prepared
from repro.methods.bahe.batches import BaheBatches, Layout
from repro.methods.bahe.sequences import SequenceSource
from repro.methods.bahe.settings import BaheMethod
from repro.methods.bahe.vectors import BehaviourVectors, TableVectors, TextVectors
from repro.prompts.templates import Template

N = 4
TEMPLATE = Template(instruction="", max_item_tokens=12)


@functools.cache
def data() -> PreparedData:
    size = SyntheticSettings(num_interactions=120, interactions_per_user=20, num_items=16)
    return load_prepared("synthetic", protocol="rella", synthetic=size, min_context=1)


@functools.cache
def _backbone() -> Backbone:
    """Upper layers' adapters are drawn too: at the start they would add zero."""
    found = load_backbone(BackboneSpec("random:tiny-llama", tuning="lora", lora_rank=4))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in found.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return found


def backbone() -> Backbone:
    """A copy: models take the layers as their own."""
    return copy.deepcopy(_backbone())


@functools.cache
def behaviours() -> Behaviours:
    b = _backbone()
    return behaviours_of(data().items, b.tokenizer, TEMPLATE, (b.yes_id, b.no_id))


@functools.cache
def table(num_lower: int, pooling: str = "last") -> MemoryTable:
    encoder = BehaviourEncoder(_backbone(), num_lower, pooling, template=TEMPLATE)
    found = MemoryTable(encoder.fingerprint, encoder.width)
    fill(found, behaviours(), encoder)
    return found


def vectors_for(method: BaheMethod) -> BehaviourVectors | None:
    if method.name == "llm-ctr":
        return None
    if not method.cached:
        return TextVectors(behaviours())
    return TableVectors(table(method.num_lower(_backbone().num_layers), method.pooling), behaviours())


def batches(
    method: BaheMethod,
    split: int = 0,
    batch_targets: int = 8,
    own_data: PreparedData | None = None,
    **layout: int,
) -> BaheBatches:
    chosen = own_data or data()
    kind = "side-by-side" if method.feature_parallel else "back-to-back"
    kind = "written-out" if method.name == "llm-ctr" else kind
    source = SequenceSource(chosen, behaviours(), method.sequences, method.n)
    settings = replace(Layout(kind, 1, 1, 10**6), **layout)
    label, targets = chosen.interactions.label, chosen.targets(split)
    return BaheBatches(source, behaviours(), vectors_for(method), label, targets, batch_targets, settings)


def with_labels(label: np.ndarray) -> PreparedData:
    """The data with other answers."""
    old = data()
    return replace(old, interactions=replace(old.interactions, label=label.astype(np.int8)))


def own_states(whole: Backbone, vectors: torch.Tensor, skipped: int) -> torch.Tensor:
    """(L, E) states after the final norm, by transformers, of a sequence that skips the first layers."""
    decoder = copy.copy(whole.decoder)
    decoder.config = copy.copy(decoder.config)
    decoder._modules = dict(decoder._modules) | {"layers": whole.layers[skipped:]}
    decoder.config.num_hidden_layers = len(decoder.layers)
    return decoder(inputs_embeds=vectors[None], use_cache=False).last_hidden_state[0]
