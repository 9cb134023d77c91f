"""What BAHE's family reads before it is trained: which behaviours, their vectors, and what its head is given.

The checksums change with a text, a token, and with which behaviours stand for a target: a candidate that
carries its answer is seen at once. The vectors change with pooling, layer cut, tokens and weights; what the
head reads changes with them and with upper layers, positions, visibility and the pooling of sequences. The
adapters begin as no change and the head is left out, so nothing here depends on a seed.

Shapes: B vectors, K vectors per target, E hidden size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.backbones.loading import Backbone, group_of
from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.texts import Behaviours, behaviours_of
from repro.data import SPLIT_NAMES, TEST, TRAIN, PreparedData, take_subset
from repro.experiments.run_config import RunConfig, Tier
from repro.methods.bahe.batches import BaheBatch, BaheBatches, layout_of
from repro.methods.bahe.model import BaheModel
from repro.methods.bahe.sequences import SequenceSource
from repro.methods.bahe.settings import DTI_BAHE, LLM_CTR, BaheMethod
from repro.methods.bahe.streaming import StreamingBatch, StreamingBatches, streaming_batches
from repro.methods.bahe.task import MODELS
from repro.methods.bahe.vectors import BehaviourVectors, LoadedBehaviours
from repro.pipeline import Workshop
from repro.prompts.templates import template_for
from repro.regression.committed import prepare_again
from repro.regression.findings import Finding, Verdict, exact

NUM_BEHAVIOURS = 20
NUM_TARGETS = 8  # of a batch, and of a split for which is kept what the head reads; a streaming row has its k
PARTS = 4  # of a vector; the mean of each is kept
VALUE_TOLERANCE = 1e-4  # of the root mean square of the values it is among
REPAIR = "If meant, raise numerics and run with --update"


@dataclass(frozen=True)
class BehaviourProbe:
    """Which data, model and methods are looked at.

    Attributes:
        tier: backbone, its number of layers, targets.
        methods: by name; they share a backbone, so adapters have one rank.
    """

    tier: Tier
    dataset: str
    protocol: str
    methods: dict[str, BaheMethod]


class NumbersAsVectors:
    """In place of a table: a behaviour's vector is its number, exact in float32 up to 2**24."""

    def load(self, behaviours: np.ndarray, device: torch.device | str) -> LoadedBehaviours:
        """As in `BehaviourVectors`: (D, 1)."""
        return LoadedBehaviours(torch.from_numpy(behaviours).float()[:, None].to(device))


@dataclass(frozen=True)
class EncodedVectors:
    """In place of a table: the encoder's vectors, made anew for every batch. A table may be of yesterday."""

    behaviours: Behaviours
    encoder: BehaviourEncoder

    def load(self, behaviours: np.ndarray, device: torch.device | str) -> LoadedBehaviours:
        """As in `BehaviourVectors`: (D, E)."""
        vectors = self.encoder.encode(self.behaviours.tokens_of(behaviours))
        return LoadedBehaviours(torch.from_numpy(vectors).to(device))


def behaviour_state(probe: BehaviourProbe, workshop: Workshop) -> dict[str, dict[str, Any]]:
    """{"checksums": name -> sha256, "values": group -> behaviour or target -> means of parts of its vectors}.

    Raises:
        ReproError: data or weights are missing or damaged; no layer would be lower or upper.
    """
    subset = probe.tier.subset
    whole = prepare_again(probe.dataset, probe.protocol, probe.tier.min_context, None)
    data = take_subset(whole, subset.train_targets, subset.validation_targets, subset.test_targets)
    first = next(iter(probe.methods.values()))
    config = RunConfig(first, "tuned", probe.tier, probe.dataset, probe.protocol, seed=0)
    backbone = workshop.backbone(config.with_backbone)
    answers = (backbone.yes_id, backbone.no_id)
    behaviours = behaviours_of(data.items, backbone.tokenizer, template_for(probe.dataset), answers)
    checksums = {"behaviours of all items": behaviours_sha256(behaviours)}
    values: dict[str, dict[str, list[float]]] = {}
    for name, method in probe.methods.items():
        num_lower = method.num_lower(backbone.num_layers)
        encoder = BehaviourEncoder(backbone, num_lower, method.pooling, template=behaviours.template)
        if method.name != LLM_CTR:
            group = f"vectors, m = {num_lower} of {backbone.num_layers}, {method.pooling}"
            values[group] = _vector_parts(behaviours, encoder)
        for split in (TRAIN, TEST):
            label = f"{name}, {SPLIT_NAMES[split]} targets"
            parts = (method, data, behaviours, split, probe.tier, backbone)
            checksums[label] = reads_sha256(_batches(NumbersAsVectors(), *parts))
            encoded = _batches(EncodedVectors(behaviours, encoder), *parts)
            values[f"head of {label}"] = head_parts(backbone, method, encoded)
    return {"checksums": checksums, "values": values}


def compare_behaviours(reference: dict[str, Any], new: dict[str, Any]) -> list[Finding]:
    """One line for the checksums, one for each group of values."""
    old, now = reference["checksums"], new["checksums"]
    changed = sorted(name for name in {*old, *now} if old.get(name) != now.get(name))
    problems = [f"{name}: changed. {REPAIR}" for name in changed]
    lines = [exact("checksums of behaviours and who reads them", f"{len(old)} checksums", problems)]
    for group in sorted({*reference["values"], *new["values"]}):
        lines.append(_compare_group(group, *(state["values"].get(group, {}) for state in (reference, new))))
    return lines


def _compare_group(group: str, old: dict[str, list[float]], new: dict[str, list[float]]) -> Finding:
    metric, slip = f"untrained, {group}", f"{VALUE_TOLERANCE:.0e}, relative"
    spread = f"{len(old)} x {len(next(iter(old.values()), []))} values"
    shapes = [{name: len(values) for name, values in each.items()} for each in (old, new)]
    if shapes[0] != shapes[1]:
        note = f"other behaviours, targets or numbers of vectors. {REPAIR}"
        return Finding(metric, Verdict.DIFFERS, spread=spread, new="of others", slip=slip, note=note)
    before, after = (np.array([each[name] for name in old]) for each in (old, new))
    gap = np.abs(after - before).max(axis=1) / np.sqrt(np.mean(before**2))
    worst = int(gap.argmax())
    within = bool(gap[worst] <= VALUE_TOLERANCE)
    note = f"most of all {list(old)[worst]!r}. {REPAIR}"
    return Finding(
        metric,
        Verdict.MATCH if within else Verdict.DIFFERS,
        spread=spread,
        new=f"largest gap {gap[worst]:.0e}",
        slip=slip,
        note="" if within else note,
    )


def behaviours_sha256(behaviours: Behaviours) -> str:
    """Checksum of texts, tokens, and of which behaviours an item has."""
    digest = hashlib.sha256("\0".join(behaviours.text).encode())
    for value in (behaviours.tokens, behaviours.offsets, behaviours.answered, behaviours.alone):
        digest.update(f"{value.shape}\n".encode() + value.astype("<i8").tobytes())
    return digest.hexdigest()


def reads_sha256(batches: BaheBatches | StreamingBatches) -> str:
    """Checksum of what stands for each target of a split, padding left out, and of the labels.

    Args:
        batches: with `NumbersAsVectors`; of LLM-CTR the tokens stand there anyway.
    """
    digest = hashlib.sha256()
    for key in batches.in_order():
        for part in batches.split(key):
            for value in _reads(batches.load(part, "cpu")):
                digest.update(f"{value.shape}\n".encode() + value.astype("<i8").tobytes())
    return digest.hexdigest()


def _reads(batch: BaheBatch | StreamingBatch) -> list[np.ndarray]:
    """Rows of the targets, labels, and behaviours or tokens: with the lengths of sequences, or a row's."""
    number = batch.behaviours.vectors
    if isinstance(batch, StreamingBatch):
        assert number is not None
        context, real = batch.vector[: batch.num_tokens - batch.num_targets], batch.num_targets
        places = [number[context], number[batch.query[:real]]]
        return [batch.target_row, batch.label[:real].numpy(), *(place.numpy() for place in places)]
    assert batch.pool is not None
    there = batch.pool > 0  # (R, K, L)
    value = batch.value[there.any(dim=1)]
    places = [value] if number is None or batch.item is None else [number[value], number[batch.item]]
    return [batch.target_row, *(each.numpy() for each in (batch.label, there.sum(dim=2), *places))]


def head_parts(
    backbone: Backbone, method: BaheMethod, batches: BaheBatches | StreamingBatches
) -> dict[str, list[float]]:
    """Means of the parts of what the head reads of the last batch, by its targets' rows in the prepared data.

    A streaming row in it is one of the longest: it has k targets.
    """
    model = MODELS.get(method.name, BaheModel)(backbone, method).eval()
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda head, arguments: seen.append(arguments[0]))
    found: dict[str, list[float]] = {}
    with torch.inference_mode():
        for part in batches.split(batches.in_order()[-1]):
            batch: Any = batches.load(part, "cpu")
            model(batch)
            read = seen.pop()[: batch.num_targets]  # (B, K, E)
            found |= zip(map(str, batch.target_row), parts_of(read.float().numpy()), strict=True)
    return found


def parts_of(vectors: np.ndarray) -> list[list[float]]:
    """Means over each of `PARTS` stretches of the vectors (B, ..., E), to 7 digits."""
    stretches = np.array_split(vectors.astype(np.float64), PARTS, axis=-1)
    means = np.stack([stretch.mean(axis=-1) for stretch in stretches], axis=-1)
    return [[float(f"{value:.7g}") for value in row] for row in means.reshape(len(means), -1).tolist()]


def _vector_parts(behaviours: Behaviours, encoder: BehaviourEncoder) -> dict[str, list[float]]:
    """By number, since texts are not ours to publish: behaviours of all lengths, with an answer or none."""
    by_length = np.argsort(behaviours.lengths, kind="stable")
    chosen = by_length[np.linspace(0, len(by_length) - 1, NUM_BEHAVIOURS).astype(np.int64)]
    vectors = encoder.encode(behaviours.tokens_of(chosen))
    return dict(zip(map(str, chosen), parts_of(vectors), strict=True))


def _batches(
    vectors: BehaviourVectors,
    method: BaheMethod,
    data: PreparedData,
    behaviours: Behaviours,
    split: int,
    tier: Tier,
    backbone: Backbone,
) -> BaheBatches | StreamingBatches:
    """As `bahe_task` makes them on a CPU, in order of time."""
    if method.name == DTI_BAHE:
        group = group_of(backbone)
        return streaming_batches(data, behaviours, vectors, method, split, NUM_TARGETS, group, tier.sizes)
    text = method.name == LLM_CTR
    source = SequenceSource(data, behaviours, method.sequences, method.n)
    layout = layout_of("written-out" if text else "side-by-side", tier.sizes, packed=False)
    label, rows = data.interactions.label, data.targets(split)
    return BaheBatches(
        source, behaviours, None if text else vectors, label, rows, NUM_TARGETS, layout, shuffled=False
    )
