"""What comes before training: checksums of prepared data and token rows, and scores of the untrained model.

The checksums change with a source file, a protocol, a tokenizer, a template, a position or an interval of
visible keys; the scores change with the weights and with how a forward pass uses all of these. Scores are
compared as log-odds: a model cut to its first layers gives a "yes" a probability of about 1e-6 before it is
trained, and no difference of such numbers would ever reach a tolerance in probability.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from repro.backbones.loading import Backbone, group_of
from repro.data import SPLIT_NAMES, TEST, TRAIN, PreparedData, take_subset
from repro.data.protocols import PROTOCOLS
from repro.experiments.run_config import Tier
from repro.methods.method import SumMethod
from repro.methods.sum_batches import SumBatches, batches_of
from repro.methods.sum_model import SumModel
from repro.pipeline import Workshop
from repro.prompts.packing import PackedBatch, pack_rows
from repro.prompts.templates import template_for
from repro.prompts.tokenise import TokenisedItems, tokenise_items
from repro.regression.committed import prepare_again
from repro.regression.findings import Finding, Verdict

NUM_PROMPTS = 64
SCORE_TOLERANCE = 1e-4  # in log-odds, so at most a quarter of it in probability
SMALLEST = 2.0**-24  # float32's distance of 1 from the next number below: keeps a saturated score finite
ROWS_PER_PACK = 256
# What a title seldom holds, and tokenizers treat differently: digits after spaces, accents, other scripts,
# the text of a special token.
PROBES = ("two  1995", "Apollo 13 (1995)", "\t12,000.50", "Amélie Ünïcode", "七人の侍", "<|im_end|> yes no")


@dataclass(frozen=True)
class PromptProbe:
    """Which data, model and prompt formats are looked at.

    Attributes:
        tier: backbone, its number of layers, targets.
        methods: by name; their training prompts are hashed and scored, and the test prompts that all share.
    """

    tier: Tier
    dataset: str
    protocol: str
    methods: dict[str, SumMethod]


def prompt_state(probe: PromptProbe, workshop: Workshop) -> dict[str, dict[str, Any]]:
    """{"checksums": name -> sha256, "scores": prompt format -> log-odds of the first `NUM_PROMPTS` targets}.

    Prompts that several methods share, fixes included, are scored once.

    Raises:
        ReproError: data or weights are missing or damaged.
    """
    tier, template = probe.tier, template_for(probe.dataset)
    whole = {name: prepare_again(probe.dataset, name, tier.min_context, None) for name in PROTOCOLS}
    subset = tier.subset
    data = take_subset(
        whole[probe.protocol], subset.train_targets, subset.validation_targets, subset.test_targets
    )
    backbone = workshop.backbone(tier)
    answers = (backbone.yes_id, backbone.no_id)
    items = tokenise_items(data.items, backbone.tokenizer, template, answers)
    probes = replace(data.items, key=PROBES, text=PROBES, categories=((),) * len(PROBES))
    checksums = {f"data, {name}": prepared.sha256 for name, prepared in whole.items()}
    checksums |= {
        f"data, {probe.protocol}, this tier's targets": data.sha256,
        "tokens of all items": items.sha256(),
        "tokens of odd texts": tokenise_items(probes, backbone.tokenizer, template, answers).sha256(),
    }
    model = SumModel(backbone, tier.loss).eval()
    scores: dict[str, list[float]] = {}
    seen = set()
    for name, method in probe.methods.items():
        for split in (TRAIN, TEST):
            batches = _batches(probe, backbone, data, items, method, split)
            label = f"{name}, {SPLIT_NAMES[split]} prompts"
            checksums[label] = rows_sha256(batches)
            if (checksums[label], batches.fixes) not in seen:
                seen.add((checksums[label], batches.fixes))
                scores[label] = first_log_odds(model, batches)
    return {"checksums": checksums, "scores": scores}


def compare_prompts(reference: dict[str, Any], new: dict[str, Any]) -> list[Finding]:
    """One line for the checksums, one for the scores."""
    old, now = reference["checksums"], new["checksums"]
    changed = sorted(name for name in {*old, *now} if old.get(name) != now.get(name))
    note = f"{'; '.join(changed)}: changed. If meant, raise numerics and run with --update" if changed else ""
    lines = [
        Finding(
            "checksums of data, tokens, prompt rows",
            Verdict.DIFFERS if changed else Verdict.MATCH,
            spread=f"{len(old)} checksums",
            new=f"{len(changed)} changed" if changed else "all match",
            slip="any",
            note=note,
        )
    ]
    for name in sorted({*reference["scores"], *new["scores"]}):
        pair = [np.array(state["scores"].get(name, [])) for state in (reference, new)]
        equally_many = len(pair[0]) == len(pair[1])
        gap = float(np.abs(pair[0] - pair[1]).max(initial=0.0)) if equally_many else np.inf
        within = gap <= SCORE_TOLERANCE
        lines.append(
            Finding(
                f"untrained model, {name}",
                Verdict.MATCH if within else Verdict.DIFFERS,
                spread=f"{len(pair[0])} scores",
                new=f"largest gap {gap:.0e}" if equally_many else f"{len(pair[1])} scores",
                slip=f"{SCORE_TOLERANCE:.0e} in log-odds",
                note="" if within else "weights, tokens, positions or visibility changed",
            )
        )
    return lines


def rows_sha256(batches: SumBatches) -> str:
    """Checksum of all rows of a split as they are packed: tokens, positions, visible intervals, labels."""
    digest = hashlib.sha256()
    for first in range(0, len(batches.rows), ROWS_PER_PACK):
        chosen = np.arange(first, min(first + ROWS_PER_PACK, len(batches.rows)))
        packed = pack_rows(batches.source, batches.rows, chosen)
        for each in fields(PackedBatch):
            value = np.asarray(getattr(packed, each.name)).astype("<i8")
            digest.update(f"{each.name} {value.shape}\n".encode() + value.tobytes())
    return digest.hexdigest()


def first_log_odds(model: SumModel, batches: SumBatches) -> list[float]:
    """Log-odds of a "yes" for the first `NUM_PROMPTS` targets, in the order of their rows."""
    enough = int(np.searchsorted(np.cumsum(batches.rows.num_targets), NUM_PROMPTS)) + 1
    scores: list[float] = []
    with torch.inference_mode():
        for part in batches.split(np.arange(min(enough, len(batches.rows)))):
            batch = batches.load(part, "cpu")
            scores += model(batch).score[: batch.num_targets].tolist()
    probability = np.clip(scores[:NUM_PROMPTS], None, 1 - SMALLEST)
    return np.round(np.log(probability) - np.log1p(-probability), 6).tolist()


def _batches(
    probe: PromptProbe,
    backbone: Backbone,
    data: PreparedData,
    items: TokenisedItems,
    method: SumMethod,
    split: int,
) -> SumBatches:
    group = group_of(backbone)
    return batches_of(data, items, method, split, NUM_PROMPTS, group, probe.tier.sizes)
