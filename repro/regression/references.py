"""Reference files in `results/references/`: raw lists of retrained runs, and the state of the prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from repro.errors import StorageError
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

PROMPTS = "prompts"
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


def read_reference(folder: Path, name: str) -> dict[str, Any] | None:
    """Content of a reference file, or None where there is none.

    Raises:
        RecordError: damaged, or not of its schema. StorageError: cannot be read.
    """
    path = folder / f"{name}.json"
    try:
        content = parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(path, error.strerror or str(error), "a readable file", "check the path") from error
    validate(_model(name), content, path)
    return content


def write_reference(folder: Path, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write a reference file with what it was made with; returns its whole content.

    Raises:
        RecordError: not of its schema. StorageError: cannot be written.
    """
    path = folder / f"{name}.json"
    whole = {"environment": environment(), "git": git_state(), **content}
    validate(_model(name), whole, path)
    write_file(path, json_bytes(whole))
    return whole


def _model(name: str) -> type[Section]:
    return PromptReference if name == PROMPTS else RetrainedReference
