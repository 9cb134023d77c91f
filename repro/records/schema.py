"""What `record.json` holds, key by key, and its validation.

Unknown keys are refused everywhere but in `config` and `environment`, which may say more than what is
required here. Keys that do not apply to a run (`sum_layout` of an ID baseline) are there and null, so that a
missing key always means a damaged or foreign record. NaN and infinity are refused everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from repro.errors import RecordError
from repro.records.run_id import canonical_json, run_id

SCHEMA_VERSION = 1

Status = Literal["ok", "out_of_memory", "diverged", "interrupted", "rehearsal"]
OK: Status = "ok"
# Nothing is left to train in these; an interrupted run resumes, a rehearsal is trained in earnest.
FINISHED: tuple[Status, ...] = ("ok", "out_of_memory", "diverged")

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # also a part of a path
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A table of the record: types are taken strictly (no "1" for 1), unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Numerics(Section):
    """Raised when a change moves numbers; a record with other values is stale."""

    method: Count  # of the method's own code
    trainer: Count  # of the training loop


class Config(Section):
    """The resolved configuration; `run_id` hashes all of it, further keys included."""

    model_config = ConfigDict(extra="allow")

    method: Name  # sw | dti-minus | dti | zero-shot | bahe | llm-ctr | dti-bahe | rates | din | sasrec | ...
    recipe: Literal["paper", "tuned", "control"]  # whose choice of settings it is
    k: Positive | None  # targets per streaming prompt; 1 for the sliding window
    n: Positive | None  # context interactions of a target
    sum_layout: Literal["deferred", "inline-positions", "inline-visible"] | None  # where [SUM] tokens stand
    window: Literal["interactions", "tokens"] | None  # what n is counted in
    instruction: Literal["visible", "hidden"] | None  # whether every query sees the instruction
    backbone: str | None  # the LLM by name; null without one
    tuning: Literal["full", "lora"] | None  # what is trained of the LLM; null if nothing or no LLM
    dataset: Name
    protocol: Name  # named rule of pruning, dropping and splitting
    tier: Name  # named complete configuration of a size
    seed: Count
    fixes: dict[str, Any] | None  # settings of hidden-state reset and positional fix; null where none applies
    numerics: Numerics


class Metrics(Section):
    """On the test targets, as `repro.evaluation.metrics.evaluate_scores` returns them."""

    auc: Share  # once over all targets
    log_loss: NonNegative  # nats
    f1: Share  # threshold 0.5
    gauc: Share | None  # per-user AUC weighted by number of targets; null if no user has both classes
    gauc_users: Count  # users in gauc
    gauc_users_left_out: Count  # users whose targets are all of one class


class NoMetrics(Section):
    """A run that is not ok has no metric, not even a null one."""


class ValidationEpoch(Section):
    """One epoch's metrics on the validation targets."""

    epoch: Count  # from 0: its place in the list
    auc: Share
    log_loss: NonNegative
    f1: Share | None = None
    gauc: Share | None = None
    gauc_users: Count | None = None
    gauc_users_left_out: Count | None = None
    train_loss: NonNegative | None = None  # mean over the epoch's training targets
    train_s: NonNegative | None = None  # on the training clock, up to the end of this epoch


class Data(Section):
    """What the run was trained and tested on."""

    sha256: Sha256  # of the prepared data
    train_targets: Count
    validation_targets: Count
    test_targets: Count  # rows of scores.parquet
    tokens_raw: Count | None  # training tokens of one epoch without padding; null without an LLM
    tokens_padded: Count | None  # the same with padding
    behaviours_encoded: Count | None = None  # by the behaviour table's first build and its refreshes


class Time(Section):
    """Seconds by synchronised clocks that never overlap; null = not measured."""

    train_s: NonNegative | None  # training steps only
    train_to_best_s: NonNegative | None  # the part of train_s up to the end of the best epoch
    compile_s: NonNegative | None  # compilation
    eval_s: NonNegative | None  # validation and test
    test_s: NonNegative | None = None  # the part of eval_s that scored the test targets
    data_s: NonNegative | None  # preparing data and prompts
    epochs: Count  # trained; 0 for an untrained model
    best_epoch: Count | None  # whose weights were tested: its place in `validation`
    table_build_s: NonNegative | None = None  # encoding the data set's behaviours, whichever run did it


class Memory(Section):
    """Of the training process."""

    peak_gib: NonNegative | None  # of the accelerator; on a CPU, resident memory of the process


class Device(Section):
    """Where it ran."""

    name: str  # part of the run id
    count: Positive


class Environment(Section):
    """Versions; null = not installed. Further packages may be named."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | None]

    python: str
    torch: str | None
    transformers: str | None


class Git(Section):
    """State of the sources; null without git."""

    sha: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")] | None
    dirty: bool | None  # changes outside of results/ and reports/


class Record(Section):
    """One training run, `record.json`."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    run_id: Name  # names the folder too
    status: Status
    config: Config
    metrics: Metrics | NoMetrics
    validation: list[ValidationEpoch]  # one per finished epoch, in order; empty without epochs
    data: Data
    time: Time
    memory: Memory
    device: Device
    environment: Environment
    git: Git
    code_sha256: Sha256  # sources of data, prompts, backbones, methods, training; for information


class OkRecord(Record):
    """A run with results."""

    status: Literal["ok"]
    metrics: Metrics


class FailedRecord(Record):
    """A run without results: its status is shown in their place."""

    metrics: NoMetrics


def validate_record(record: Mapping[str, Any], where: object = "record") -> None:
    """Check a record's keys, types, ranges and that its parts agree.

    Raises:
        RecordError: names `where` and the field.
    """
    canonical_json(record, str(where))
    validate(OkRecord if record.get("status") == OK else FailedRecord, record, where)
    expected_id = run_id(record["config"], record["device"]["name"])
    fix = "the record was edited or belongs to another configuration: delete its folder and run again"
    if record["run_id"] != expected_id:
        expected = f"{expected_id!r}, the id of this configuration and device"
        raise RecordError(f"{where}, field run_id", repr(record["run_id"]), expected, fix)
    epochs = [entry["epoch"] for entry in record["validation"]]
    if epochs != list(range(len(epochs))):
        expected = f"0 to {len(epochs) - 1} in order"
        raise RecordError(f"{where}, field validation", f"epochs {epochs}", expected, fix)
    best = record["time"]["best_epoch"]
    if best is not None and best >= len(epochs):
        expected = f"null or one of the {len(epochs)} epochs in validation, counted from 0"
        raise RecordError(f"{where}, field time.best_epoch", str(best), expected, fix)


def parse_record(text: bytes, where: object) -> dict[str, Any]:
    """Record from the bytes of a `record.json`, validated.

    Raises:
        RecordError: not JSON, or as `validate_record`.
    """
    record = parse_json(text, where)
    validate_record(record, where)
    return record


def parse_json(text: bytes, where: object) -> dict[str, Any]:
    """A JSON table; RecordError if it is damaged, holds NaN or infinity, or is something else."""
    fix = "the file is damaged: restore it from git, or delete its folder and run again"
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:  # also a broken UTF-8 sequence
        raise RecordError(where, str(error), "valid JSON", fix) from error
    if not isinstance(value, dict):
        raise RecordError(where, type(value).__name__, "a JSON table", fix)
    return value


def validate(model: type[Section], value: Any, where: object) -> None:
    """Check a value against a section; RecordError names the first field at fault and how many more are."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first, field = problems[0], _field(value, problems[0]["loc"])
        here = [
            problem for problem in problems if _field(value, problem["loc"]) == field
        ]  # members of a union
        found = {"missing": "missing", "extra_forbidden": "unknown key"}.get(first["type"])
        more = f" (and {len(problems) - len(here)} more)" if len(problems) > len(here) else ""
        raise RecordError(
            f"{where}, field {field}",
            (found or f"{first['input']!r:.80}") + more,
            " or ".join(problem["msg"].removeprefix("Input should be ") for problem in here),
            "see docs/records.md; a file written by another version of this program cannot be read",
        ) from error


def _field(value: Any, location: tuple[int | str, ...]) -> str:
    """Dotted name of a place; pydantic's location goes on with the members of a union, which are no keys."""
    parts = []
    for part in location:
        if not isinstance(value, Mapping | list):
            break
        parts.append(str(part))
        present = isinstance(value, list) or part in value
        value = value[part] if present else None  # type: ignore[index, call-overload]
    return ".".join(parts)


def is_stale(record: Mapping[str, Any], current_numerics: Mapping[str, int]) -> bool:
    """Whether the record's numbers come from code whose numbers have moved since (or not yet had).

    Args:
        current_numerics: {"method": of this record's method, "trainer": of the training loop}, now.
    """
    return dict(record["config"]["numerics"]) != dict(current_numerics)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that a record may hold")
