"""The FLOP sweeps: real prompts or set text lengths -> rows of `results/flops`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from baselines.histories import Catalogue
from repro.backbones.shapes import SHAPES
from repro.backbones.spec import SMOLLM2, BackboneSpec
from repro.backbones.tokenizer import answer_ids, load_tokenizer
from repro.costs.architecture import Architecture, architecture_of
from repro.costs.closed_form import PARTS, Cost, Training, check_sizes, stack_cost, sum_model_cost
from repro.costs.counted_models import Counted, StackCounter, SumModelCounter
from repro.costs.id_models import id_rows
from repro.costs.prompt_counts import PromptCounts, count_prompts
from repro.data import TRAIN, PreparedData, load_prepared
from repro.experiments import flops as sweep
from repro.methods.method import BatchSizes
from repro.methods.sum_batches import batches_of
from repro.prompts.templates import Template, template_for
from repro.prompts.tokenise import tokenise_items

Row = dict[str, Any]

# Of the measurement, not of a tier: targets of a batch share its instruction, which is processed once per
# forward pass, so FLOPs per target depend on the first two numbers. The multiples move padded tokens only.
BATCH_TARGETS = 1024
BATCH_SIZES = BatchSizes(max_tokens=65_536, text_multiple=512, sum_multiple=64)


def k_sweep(
    dataset: str,
    protocol: str | None,
    data_dir: Path | None,
    contexts: Sequence[int] = sweep.CONTEXTS,
    targets: Sequence[int] = sweep.TARGETS_PER_PROMPT,
    backbones: Sequence[tuple[str, str]] = sweep.BACKBONES,
) -> list[Row]:
    """Rows of every method, n, k and counter on the training split's real prompts.

    Token lengths are those of SmolLM2's tokenizer for every backbone, for it is the one that comes with a
    package; Llama 3's is not freely available. Prompts are batched as `BATCH_TARGETS` and `BATCH_SIZES` say.

    Raises:
        ConfigError: n or k below 1, or a prompt longer than the backbone's positions. DataError: no data.
    """
    for n in contexts:
        for k in targets:
            check_sizes(n, k)
    data = load_prepared(dataset, protocol, data_dir)
    cells = list(sweep.k_cells(tuple(contexts), tuple(targets)))
    counted = _prompt_counts(dataset, data, cells)
    rows: list[Row] = []
    for shape, tuning in backbones:
        arch, training = architecture_of(f"random:{shape}"), Training(tuning)
        for cell, counts in counted:
            arch.check_length(counts.longest, f"{shape}, longest prompt of n = {cell.n}, k = {cell.k}")
        dtype = "bfloat16" if tuning == "lora" else "float32"  # as loaded; autocast is not in it
        counter = SumModelCounter(BackboneSpec(f"random:{shape}", tuning=tuning, dtype=dtype))
        sw: dict[tuple[int, str], Row] = {}
        for cell, counts in counted:
            cost = sum_model_cost(arch, counts.counts, training, cell.reset)
            found = [_closed(cost, counts.targets) | {"prompt": _detail(counts, cost)}]
            if cell.counted:
                both = counter.count(counts.counts, cell.method.fixes)
                found[0]["prompt"]["kept_bytes_per_token"] = both.kept_bytes / counts.processed
                found += _counters(both, counts.targets)
            for row in found:
                base = sw.setdefault((cell.n, row["counter"]), row)  # SW comes first at every n
                rows.append(
                    _head(shape, tuning, dataset, cell.name, cell.k, cell.n) | row | _ratio(row, base)
                )
    return rows + [
        _head("none", None, dataset, row["method"], None, row["n"]) | row
        for row in id_rows(Catalogue.of(data), sweep.HISTORIES)
    ]


def length_sweep(
    lengths: Sequence[int] = sweep.LENGTHS, backbones: Sequence[str] = sweep.LENGTH_BACKBONES
) -> list[Row]:
    """Rows of LLM-CTR, BAHE and BAHE with one long sequence at set text lengths, LoRA of rank 64 on all.

    A sample is `text_tokens` of behaviours, in sequences of equal length. LLM-CTR reads all of it as one
    text; BAHE's upper layers read one vector per behaviour, each sequence alone, and the item's vector joins
    at the head. With one long sequence, in place of feature parallel, they read all behaviours of a user
    together; what is pooled for the head stays the same. Encoding the table is counted apart, per behaviour.
    `ratio_to_sw` is null: the partner is LLM-CTR.

    Raises:
        ConfigError: no length fits the backbone's positions.
    """
    rows: list[Row] = []
    for name in backbones:
        arch = architecture_of(f"random:{name}")
        arch.check_length(min(lengths), f"{name}, shortest text")
        for method in ("llm-ctr", "bahe", sweep.ONE_SEQUENCE):
            rows += _length_rows(name, arch, method, lengths)
    return rows


def _length_rows(name: str, arch: Architecture, method: str, lengths: Sequence[int]) -> list[Row]:
    """Rows of one method; LLM-CTR has none where the text is longer than the model's positions."""
    bahe, samples = method != "llm-ctr", sweep.LENGTH_SAMPLES
    parts = sweep.USER_SEQUENCES if method == "bahe" else 1
    cut = round(arch.layers * sweep.LAYER_CUT) if bahe else 0
    training = Training("lora", sweep.BAHE_RANK, train_embeddings=False, frozen_layers=cut)
    vectors = sweep.USER_SEQUENCES + 1 if bahe else 1  # the item's vector joins at BAHE's head
    table = stack_cost(arch, [sweep.TOKENS_PER_BEHAVIOUR], training, range(cut)).forward
    counter = StackCounter(SHAPES[name], training, vectors, bahe)
    rows: list[Row] = []
    for tokens in lengths:
        if not bahe and tokens > arch.positions:
            continue
        behaviours = tokens // sweep.TOKENS_PER_BEHAVIOUR
        alone = [(behaviours if bahe else tokens) // parts] * parts
        sequences, head = alone * samples, (samples, vectors * arch.hidden)
        cost = stack_cost(arch, sequences, training, range(cut, arch.layers), head)
        detail = {
            "text_tokens": tokens,
            "behaviours": behaviours if bahe else None,
            "layer_cut": cut / arch.layers if bahe else None,
            "table_flops_per_behaviour": table if bahe else None,
        }
        row = _head(name, "lora", None, method, None, None) | {"length": detail}
        both = counter.count(sequences, samples)
        rows += [row | found for found in (_closed(cost, samples), *_counters(both, samples))]
    return rows


def _ratio(row: Row, base: Row) -> Row:
    """Cost over the sliding window's, in training where the counter counts it."""
    name = "train_flops_per_target" if row["train_flops_per_target"] else "forward_flops_per_target"
    return {"ratio_to_sw": row[name] / base[name]}


def _prompt_counts(
    dataset: str, data: PreparedData, cells: Iterable[sweep.Cell]
) -> list[tuple[sweep.Cell, PromptCounts]]:
    tokenizer = load_tokenizer(SMOLLM2)
    answers = answer_ids(tokenizer)
    items = tokenise_items(data.items, tokenizer, template_for(dataset), answers)
    bare = tokenise_items(data.items, tokenizer, Template("", "{text}"), answers)
    found: dict[tuple[int, int, str], PromptCounts] = {}
    result = []
    for cell in cells:
        key = (cell.n, cell.k, cell.method.prompt.instruction)  # the fixes move no token
        if key not in found:
            batches = batches_of(data, items, cell.method, TRAIN, BATCH_TARGETS, 1, BATCH_SIZES)
            found[key] = count_prompts(batches, bare.lengths)
        result.append((cell, found[key]))
    return result


def _head(
    backbone: str, tuning: str | None, dataset: str | None, method: str, k: int | None, n: int | None
) -> Row:
    return {
        "backbone": backbone, "tuning": tuning, "dataset": dataset, "method": method, "k": k, "n": n,
        "ratio_to_sw": None,
    }  # fmt: skip


def _closed(cost: Cost, targets: int) -> Row:
    return {
        "counter": "closed_form",
        "forward_flops_per_target": cost.forward / targets,
        "train_flops_per_target": cost.train / targets,
    }


def _counters(counted: Counted, targets: int) -> list[Row]:
    return [
        {
            "counter": "fvcore",
            "forward_flops_per_target": counted.fvcore_forward / targets,
            "train_flops_per_target": None,
        },
        {
            "counter": "torch",
            "forward_flops_per_target": counted.torch_forward / targets,
            "train_flops_per_target": counted.torch_train / targets,
        },
    ]


def _detail(counts: PromptCounts, cost: Cost) -> Row:
    targets, instruction = counts.targets, counts.instruction
    parts = {name: cost.part(name) for name in PARTS}
    return {
        "kept_bytes_per_token": None,
        "prompts": counts.prompts / targets,
        "interactions": counts.interactions / targets,
        "tokens_text": (counts.counts.text - instruction) / targets,
        "tokens_instruction": instruction / targets,
        "tokens_raw": counts.raw / targets,
        "tokens_templated": counts.templated / targets,
        "tokens_padded": counts.padded / targets,
        "tokens_bucketed": counts.bucketed / targets,
        "visible_pairs": (counts.counts.text_pairs + counts.counts.sum_pairs) / targets,
        "computed_pairs": counts.computed_pairs,
        "longest_prompt": counts.longest,
        "targets": targets,
        "forward_parts": {name: work.forward / targets for name, work in parts.items()},
        "train_parts": {
            name: (work.forward + work.recomputed + work.backward) / targets for name, work in parts.items()
        },
    }
