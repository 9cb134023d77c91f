"""FLOPs of a sample in the BAHE and LLM-CTR models, in closed form (conventions: `closed_form.py`).

A product at fp32 counts as one at bf16. A sample's texts and sequences count without padding.
"""

from __future__ import annotations

from collections.abc import Sequence

from repro.costs.architecture import Architecture
from repro.costs.closed_form import Cost, Training, Work, linear, stack_cost
from repro.costs.text_samples import SEQUENCES, sequence_lengths
from repro.methods.bahe.head import HIDDEN


def llm_ctr_cost(arch: Architecture, text_tokens: int, rank: int) -> Cost:
    """One sample: its text, item included, through all layers; the mean of each segment; the head."""
    training = Training("lora", rank, train_embeddings=False)
    layers = stack_cost(arch, [text_tokens], training, range(arch.layers))
    # Each of the segments' means is a product with weights over the whole text.
    return Cost(layers.works + _top(arch, [text_tokens] * (SEQUENCES + 1)))


def bahe_cost(arch: Architecture, behaviours: int, frozen: int, rank: int) -> Cost:
    """One sample: each sequence's vectors alone through the upper layers, the item's as a sequence of one."""
    training = Training("lora", rank, train_embeddings=False, frozen_layers=frozen)
    lengths = sequence_lengths(behaviours)
    layers = stack_cost(arch, [*lengths, 1], training, range(frozen, arch.layers))
    return Cost(layers.works + _top(arch, lengths))


def _top(arch: Architecture, pooled: Sequence[int]) -> tuple[Work, ...]:
    """The means over `pooled` vectors each, whose weights are fixed, and the head's two linear layers."""
    mean = 2 * sum(pooled) * arch.hidden
    first = linear(1, (SEQUENCES + 1) * arch.hidden, HIDDEN, trained=True, input_grad=True)
    second = linear(1, HIDDEN, 1, trained=True, input_grad=True)
    works = [Work("CTR head", each.forward, each.backward) for each in (*first, *second)]
    return (Work("CTR head", mean, mean), *works)
