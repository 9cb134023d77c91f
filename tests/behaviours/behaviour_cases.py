"""A few items with their behaviours under a tiny backbone."""

from __future__ import annotations

import numpy as np

from repro.backbones.loading import Backbone, load_backbone
from repro.backbones.spec import BackboneSpec
from repro.behaviours.texts import Behaviours, behaviours_of
from repro.data.interactions import Items
from repro.prompts.templates import Template

TITLES = ("Alien", "A longer title than the others, Drama", "Up", "Alien")
TEMPLATE = Template(instruction="Will the user like it?")
WIDTH = 48


def tiny(**fields) -> Backbone:
    return load_backbone(BackboneSpec("random:tiny-llama", **fields))


def make_behaviours(backbone: Backbone, titles=TITLES, template: Template = TEMPLATE) -> Behaviours:
    items = Items(tuple(map(str, range(len(titles)))), tuple(titles), ((),) * len(titles))
    return behaviours_of(items, backbone.tokenizer, template, (backbone.yes_id, backbone.no_id))


def many(backbone: Backbone, count: int = 60) -> Behaviours:
    """Texts of many lengths."""
    words = np.random.default_rng(0).integers(1, 12, size=count)
    return make_behaviours(backbone, [f"title {i} " + "word " * w for i, w in enumerate(words)])


def random_rows(count: int, first: int = 0, width: int = WIDTH) -> tuple[list[str], np.ndarray]:
    """Texts number `first` and on, with random vectors."""
    vectors = np.random.default_rng(first).standard_normal((count, width), dtype=np.float32)
    return [f"\ntext {i}: yes" for i in range(first, first + count)], vectors
