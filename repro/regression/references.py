"""Reference files in `results/references/`: lists of retrained runs, the state of prompts and behaviours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from repro.errors import RecordError, StorageError
from repro.records.atomic import json_bytes, write_file
from repro.records.environment import environment, git_state
from repro.records.schema import (
    Count,
    Environment,
    Git,
    NonNegative,
    Positive,
    Section,
    Sha256,
    Share,
    parse_json,
    validate,
)

PROMPTS, BEHAVIOURS, SCORES = "prompts", "behaviours", "scores"
UPDATE = "run nox -s regression -- --update"
PROCESSOR_KEYS = (  # of /proc/cpuinfo; the last three on ARM
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU part", "Features",
)  # fmt: skip
MIN_RUNS = 5


class ReferenceRun(Section):
    """One run of the list."""

    seed: Count
    auc: Share
    log_loss: NonNegative
    train_s: NonNegative


class RetrainedReference(Section):
    """`<row>.json`: the same configuration trained with several seeds on one device."""

    environment: Environment
    git: Git
    device: str  # name with cores, as in records
    threads: Positive  # torch's, fixed: another number sums in another order
    config: dict[str, Any]  # resolved configuration, without the seed and the checksums of content
    test_targets: Positive
    runs: Annotated[list[ReferenceRun], Field(min_length=MIN_RUNS)]


class PromptReference(Section):
    """`prompts.json`: what data, tokenizer, templates and weights give before anything is trained."""

    environment: Environment
    git: Git
    checksums: dict[str, Sha256]  # of prepared data, tokens and packed rows, by name
    scores: dict[str, list[float]]  # log-odds of the untrained model on fixed prompts, by prompt format


class BehaviourReference(Section):
    """`behaviours.json`: what BAHE's family reads before it is trained."""

    environment: Environment
    git: Git
    checksums: dict[str, Sha256]  # of behaviours, and of which stand for the targets of a split, by name
    values: dict[str, dict[str, list[float]]]  # means of parts of vectors, by group, then behaviour or target


class ScoresReference(Section):
    """`scores.json`: which scores are committed."""

    environment: Environment
    git: Git
    scores: dict[str, Sha256]  # of the score column, by run id


def machine() -> dict[str, str | None]:
    """Versions, and the kind of processor: what must be equal for the same numbers to the last digit."""
    return environment() | {"processor": processor_fingerprint()}


def processor_fingerprint(told_by: Path = Path("/proc/cpuinfo")) -> str | None:
    """sha256 of the model and instruction sets of the first processor; None where the system does not tell.

    A processor's name is not enough: a virtual machine may give a general one, and hide instruction sets,
    which decide the kernels that torch runs and so the order of its sums.
    """
    try:
        lines = told_by.read_text().splitlines()
    except OSError:
        return None
    told: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        told.setdefault(key.strip(), " ".join(sorted(value.split())))
    found = [f"{key}: {told[key]}" for key in PROCESSOR_KEYS if key in told]
    return hashlib.sha256("\n".join(found).encode()).hexdigest() if found else None


def read_reference(folder: Path, name: str) -> dict[str, Any] | None:
    """Content of a reference file, or None where there is none.

    Raises:
        RecordError: damaged, not of its schema, or made by sources that no commit holds.
        StorageError: cannot be read.
    """
    path = folder / f"{name}.json"
    try:
        content = parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(path, error.strerror or str(error), "a readable file", "check the path") from error
    validate(_model(name), content, path)
    git = content["git"]
    if git["sha"] is None or git["dirty"] is not False:
        found = f"sha {git['sha']}, dirty {git['dirty']}"
        raise RecordError(f"{path}, field git", found, "the commit that made it, unchanged", UPDATE)
    return content


def write_reference(folder: Path, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write a reference file with what it was made with; returns its whole content.

    Raises:
        RecordError: not of its schema. StorageError: cannot be written.
    """
    path = folder / f"{name}.json"
    whole = {"environment": machine(), "git": git_state(), **content}
    validate(_model(name), whole, path)
    write_file(path, json_bytes(whole))
    return whole


def _model(name: str) -> type[Section]:
    models: dict[str, type[Section]] = {
        PROMPTS: PromptReference,
        BEHAVIOURS: BehaviourReference,
        SCORES: ScoresReference,
    }
    return models.get(name, RetrainedReference)
