"""Settings tried on the validation split before the runs: results/selection/<tier>-<dataset>.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from repro.records.schema import Environment, Git, NonNegative, Section, Share, parse_json, validate
from repro.reporting.formatting import ABSENT, count, score, table


class Trial(Section):
    """One setting of one family of rows; test targets had no part in it."""

    model_config = ConfigDict(extra="allow")

    family: str  # sw, dti-minus, dti, dti-tuned; bahe, dti-bahe, llm-ctr
    learning_rate: NonNegative
    alibi_slope: NonNegative | None
    validation_auc: Share | None
    validation_log_loss: NonNegative | None
    device: str


class TrialsFile(Section):
    """One such file."""

    model_config = ConfigDict(extra="allow")

    environment: Environment
    git: Git  # what the trials were made with
    note: str | None = None  # what a reader must know of them
    rows: list[Trial]


def load_trials(results_dir: Path) -> dict[str, dict[str, Any]]:
    """Contents of the files by name, e.g. "cpu-ml-100k", in the order in which they were made.

    Raises:
        RecordError: a file is damaged.
    """
    return read_trials(results_dir / "selection", TrialsFile)


def load_bahe_trials(results_dir: Path) -> dict[str, dict[str, Any]]:
    """The same of BAHE's family: results/selection/bahe/<tier>-<dataset>.json.

    Raises:
        RecordError: a file is damaged.
    """
    return read_trials(results_dir / "selection" / "bahe", TrialsFile)


def read_trials(folder: Path, schema: type[Section]) -> dict[str, dict[str, Any]]:
    """Contents of a folder's JSON files by name, sorted, each checked against its schema.

    Raises:
        RecordError: a file is damaged.
    """
    trials = {}
    for path in sorted(folder.glob("*.json")):
        content = parse_json(path.read_bytes(), path)
        validate(schema, content, path)
        trials[path.stem] = content
    return trials


def trials_section(trials: Mapping[str, Mapping[str, Any]], of: str = "", note: str = "") -> str:
    """Every trial, the one with the best validation AUC of its family in bold; empty without trials.

    Args:
        of: whose, where the page has rows with other trials. note: sentences about these others.
    """
    if not trials:
        return ""
    blocks = [
        "## Settings tried",
        f"Learning rates and slopes were chosen by AUC on the validation split; every setting tried{of} is "
        f"listed, and the best of its family is bold. {note}".rstrip(),
    ]
    for name, content in trials.items():
        rows = content["rows"]
        families = sorted({row["family"] for row in rows})
        budget = ", ".join(f"{f}: {count(sum(row['family'] == f for row in rows))}" for f in families)
        lines = [_line(row, rows) for family in families for row in rows if row["family"] == family]
        headers = ("rows", "learning rate", "ALiBi slope", "validation AUC", "validation log loss", "device")
        made = f"Number of trials: {budget}. Made at commit `{str(content['git']['sha'])[:10]}`."
        blocks += [f"### {name}", " ".join([made, content.get("note") or ""]).strip(), table(headers, lines)]
    return "\n\n".join(blocks)


def _line(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    found = [other["validation_auc"] for other in rows if other["family"] == row["family"]]
    aucs = [auc for auc in found if auc is not None]
    auc = score(row["validation_auc"])
    return (
        row["family"],
        str(row["learning_rate"]),
        ABSENT if row["alibi_slope"] is None else str(row["alibi_slope"]),
        f"**{auc}**" if aucs and row["validation_auc"] == max(aucs) else auc,
        score(row["validation_log_loss"]),
        row["device"],
    )
