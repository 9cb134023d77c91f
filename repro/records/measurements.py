"""Measurements that are not training runs: <root>/<kind>/*.json, each {"environment", "rows"}.

Where all rows are of one state of the sources, the environment's "commit" says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repro.errors import RecordError, StorageError
from repro.records.atomic import json_bytes, write_file
from repro.records.run_id import canonical_json
from repro.records.schema import (
    Count,
    Environment,
    Name,
    NonNegative,
    Positive,
    Section,
    Share,
    parse_json,
    validate,
)

Kind = Literal["timing", "flops", "bahe", "baseline_speed", "leakage", "behaviour_table"]
# Null: not measured here or does not apply (MFU of an unknown device). A failure is named, never a number.
Measured = NonNegative | Literal["out_of_memory"] | None


class TimingRow(Section):
    """Speed of training steps of one method on one device; synchronised clocks, first steps left out."""

    device: str
    device_count: Positive
    backbone: str
    tuning: Literal["full", "lora"]
    dtype: str
    compile: bool
    method: Name
    k: Positive | None  # targets per streaming prompt
    n: Positive  # context interactions
    batch: Positive  # rows per step
    repeat: Count  # which repetition, from 0
    tokens_per_s: Measured  # non-padding tokens only
    targets_per_s: Measured
    step_ms: Measured
    peak_gib: Measured
    compile_s: Measured
    mfu: Measured  # share of the device's peak
    cuda_graph: bool | None = None  # steps replayed as CUDA graphs; null in rows older than these
    fp8: Literal["tensorwise", "rowwise"] | None = None  # scales of the frozen base's products; null: no fp8
    fp8_difference: NonNegative | None = None  # of [SUM] states, as a share of those of the stored base
    variant: str | None = None  # by its title; null: a row of the sweep over k
    layers: Positive | None = None  # that the model was cut to; null: all of its shape


class PromptDetail(Section):
    """What a row's prompts hold, per target; closed-form rows of prompt methods have it."""

    prompts: NonNegative
    interactions: NonNegative
    tokens_text: NonNegative  # text and answers that are processed, without instruction and [SUM]
    tokens_instruction: NonNegative  # processed: once per forward pass
    tokens_raw: NonNegative  # bare item texts
    tokens_templated: NonNegative  # with template, answers, one instruction per prompt, [SUM]
    tokens_padded: NonNegative  # processed, text and [SUM]s rounded up to the batches' multiples
    tokens_bucketed: NonNegative  # processed, rounded up to one of a few lengths (CUDA)
    visible_pairs: NonNegative  # (query, key) pairs per layer
    computed_pairs: NonNegative  # pairs of the banded attention, in a sample of batches
    longest_prompt: Positive  # tokens, not per target
    targets: Positive  # in the training split, not per target
    kept_bytes_per_token: NonNegative | None  # what autograd keeps; null where the step was not counted
    forward_parts: dict[str, NonNegative]  # FLOPs by part
    train_parts: dict[str, NonNegative]


class LengthDetail(Section):
    """A row at one text length."""

    text_tokens: Positive
    behaviours: Positive | None  # vectors that BAHE's upper layers read; null for LLM-CTR
    layer_cut: Share | None  # share of layers frozen; null for LLM-CTR
    table_flops_per_behaviour: NonNegative | None  # encoding one behaviour once, outside training


class FlopsRow(Section):
    """Cost of one target by one counter."""

    backbone: str
    tuning: Literal["full", "lora"] | None  # null for a model without an LLM
    dataset: str | None  # whose token lengths; null for synthetic lengths
    method: Name
    k: Positive | None
    n: Positive | None
    counter: Literal["closed_form", "fvcore", "torch"]
    forward_flops_per_target: NonNegative  # one multiply-add = 2
    train_flops_per_target: NonNegative | None  # null: the counter counts forward only
    ratio_to_sw: NonNegative | None  # this row's cost over the sliding window's; null without a partner
    prompt: PromptDetail | None = None
    length: LengthDetail | None = None


class BaheRow(Section):
    """Efficiency of one step at one text length."""

    device: str
    device_count: Positive
    backbone: str
    layer_cut: Share  # share of layers frozen
    batch: Positive  # samples per step
    text_tokens: Positive
    method: Literal["llm_ctr", "bahe"]
    step_ms: Measured
    samples_per_s: Measured
    peak_gib: Measured
    train_flops_per_sample: NonNegative | None
    table_build_s: Measured
    repeat: Count = 0  # which repetition
    layers: Positive | None = None  # of the backbone, frozen ones included
    dtype: str | None = None
    compile: bool | None = None
    cuda_graph: bool | None = None  # the whole step is one graph
    behaviour_tokens: Positive | None = None  # tokens of every behaviour
    behaviours: Positive | None = None  # of a sample: those of the user's sequences, and the item
    table_behaviours: Positive | None = None  # distinct ones that `table_build_s` encoded
    reserved_gib: Measured = None  # held by the allocator, a graph's private pool included
    mfu: Measured = None  # share of the device's peak


class BaselineSpeedRow(Section):
    """Training speed of one program's DIN, alone in its process."""

    device: str
    threads: Positive
    program: Literal["ours", "fuxictr", "fuxictr-batches-ready", "deepctr-torch"]
    dataset: Name
    protocol: Name
    n: Positive  # past interactions per target
    batch: Positive  # targets per optimiser step
    repeat: Count  # from 0
    whole_epoch: bool  # all training targets instead of a part
    targets: Positive  # trained on
    prepare_s: NonNegative  # from the loaded data set to the program's own input, and building the model
    train_s: NonNegative  # batches, forward, backward, optimiser
    targets_per_s: NonNegative
    loaded_gib: NonNegative  # peak resident memory once the data set is loaded
    peak_gib: NonNegative  # peak resident memory in the end


class LeakageRow(Section):
    """What a streaming method's targets know of a label that lies a planted number of interactions back."""

    device: str
    backbone: str
    method: Name
    layer_cut: Share | None  # share of layers that read a behaviour alone; null for DTI
    layers: Positive  # the others: those that read across interactions
    n: Positive
    k: Positive
    distance: Positive  # interactions between a target and the label that it repeats; visible up to n
    seed: Count  # of data, weights and order
    train_targets: Positive
    test_targets: Positive  # of users that are not trained on
    test_users: Positive
    train_loss: NonNegative  # mean over the one epoch
    best_auc: Share  # of whoever sees the label
    streaming_auc: Share  # targets scored in streaming prompts, as in training
    streaming_low: Share  # its 95 % interval, over users
    streaming_high: Share
    window_auc: Share  # the same targets in the test format, which shows their window and nothing else


class BehaviourTableRow(Section):
    """Speed and size of a behaviour table, or speed of a step on the way into one.

    Measured is one of: storage (random vectors into a table), texts (made-up items' texts -> tokens), encoder
    (real texts through layers), filling (real texts encoded and written into a table on disk).
    """

    device: str
    threads: Positive  # of each process
    measured: Literal["storage", "texts", "encoder", "filling"]
    repeat: Count
    behaviours: Positive
    width: Positive | None  # numbers per vector; null for texts
    build_s: NonNegative  # adding, preparing, encoding or filling in all of them
    behaviours_per_s: NonNegative
    processes: Positive | None = None  # that share a filling; null: this one alone
    storage: Literal["memory", "lance"] | None  # null for texts and the encoder
    open_s: NonNegative | None  # opening from disk, texts read; null in memory; from here: storage alone
    first_read_s: NonNegative | None  # checking all vectors and writing them as one mapped file
    lookups_per_s: NonNegative | None  # text -> row
    vectors_per_s: NonNegative | None  # row -> vector, from the mapped tensor
    update_s: NonNegative | None  # adding 1,000 more until all can be read again
    text_bytes: NonNegative | None  # of texts too
    index_bytes: NonNegative | None  # of texts and rows in memory, computed
    table_bytes: NonNegative | None  # on disk, or of the vectors in memory
    export_bytes: NonNegative | None  # of the mapped file
    backbone: str | None  # null for storage, and so are tokens
    num_layers: Positive | None  # m, the layers that encode; null for storage and texts
    precision: Literal["fp32", "bf16"] | None  # as num_layers
    tokens: Positive | None  # without padding


ROWS: dict[str, type[Section]] = {
    "timing": TimingRow,
    "flops": FlopsRow,
    "bahe": BaheRow,
    "baseline_speed": BaselineSpeedRow,
    "leakage": LeakageRow,
    "behaviour_table": BehaviourTableRow,
}


@dataclass(frozen=True)
class Measurement:
    """One file of measurements."""

    path: Path
    environment: dict[str, Any]
    rows: list[dict[str, Any]]


def write_measurement(
    root: Path, kind: Kind, name: str, environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Path:
    """Write `root`/`kind`/`name`.json, replacing an earlier file of that name atomically.

    Raises:
        RecordError: a row with an unknown, missing or wrong key. StorageError: cannot be written.
    """
    path = Path(root) / kind / f"{name}.json"
    content = {"environment": dict(environment), "rows": [dict(row) for row in rows]}
    _check(content, kind, path)
    write_file(path, json_bytes(content))
    return path


def read_measurement(path: Path) -> Measurement:
    """Read one file; its folder names its kind.

    Raises:
        RecordError: damaged, or as `write_measurement`. StorageError: cannot be read.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StorageError(path, error.strerror or str(error), "a readable file", "check the path") from error
    content = parse_json(text, path)
    _check(content, path.parent.name, path)
    return Measurement(path, content["environment"], content["rows"])


def list_measurements(root: Path, kind: Kind) -> list[Measurement]:
    """All files of a kind below `root`, sorted by name; empty where there are none."""
    return [read_measurement(path) for path in sorted((Path(root) / kind).glob("*.json"))]


def _check(content: dict[str, Any], kind: str, path: Path) -> None:
    if kind not in ROWS:
        raise RecordError(
            path, f"kind {kind!r}", f"one of {', '.join(ROWS)}", "put the file into such a folder"
        )
    if set(content) != {"environment", "rows"} or not isinstance(content["rows"], list):
        raise RecordError(
            path, f"keys {sorted(content)}", 'a table of "environment" and a list "rows"', "rewrite it"
        )
    canonical_json(content, str(path))
    validate(Environment, content["environment"], f"{path}, environment")
    for index, row in enumerate(content["rows"]):
        validate(ROWS[kind], row, f"{path}, row {index}")
