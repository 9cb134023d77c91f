"""Published values from reports/reference/, the numbers that ours stand beside."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from repro.errors import DataError

Key = TypeVar("Key")
Value = TypeVar("Value")

PAPER_DATASETS = {"ml-1m": "ML-1M", "amazon-cds": "CDs", "amazon-kindle": "Kindles"}
STAND_IN = "ml-1m"  # whose published values stand beside a data set that the paper does not have


@dataclass(frozen=True)
class PaperScore:
    """One cell group of DTI's Table 1."""

    auc: float
    log_loss: float
    f1: float
    relative_percent: float | None  # None: SW itself


@dataclass(frozen=True)
class PaperStatistics:
    """One row of DTI's Table 2."""

    users: int
    items: int
    samples: int
    sparsity: float


@dataclass(frozen=True)
class PublishedScore:
    """One published result of an ID-based model."""

    auc: float
    log_loss: float
    source: str


@dataclass(frozen=True)
class BaheClaims:
    """BAHE's abstract: how many times less training takes than with LLM-CTR, and the lengths tested."""

    time: float
    memory: float
    text_tokens: tuple[int, ...]


def paper_dataset(dataset: str) -> tuple[str, str]:
    """The paper's data set to set beside ours, and the words for its columns, e.g. ("ml-1m", "paper, 8B")."""
    if dataset in PAPER_DATASETS:
        return dataset, "paper, 8B"
    return STAND_IN, f"paper, {PAPER_DATASETS[STAND_IN]}, 8B"


def paper_scores(folder: Path) -> dict[tuple[str, str, int], PaperScore]:
    """DTI's Table 1 by (data set, method, k).

    Raises:
        DataError: file missing, or a line that does not hold what it should.
    """

    def read(row: Mapping[str, str]) -> tuple[tuple[str, str, int], PaperScore]:
        relative = float(row["relative_auc_percent"]) if row["relative_auc_percent"] else None
        values = PaperScore(float(row["auc"]), float(row["log_loss"]), float(row["f1"]), relative)
        return (row["dataset"], row["method"], int(row["k"])), values

    return _read(folder / "dti_table1.csv", read)


def paper_statistics(folder: Path) -> dict[str, PaperStatistics]:
    """DTI's Table 2 by data set.

    Raises:
        DataError: as `paper_scores`.
    """

    def read(row: Mapping[str, str]) -> tuple[str, PaperStatistics]:
        users, items, samples = (int(row[key]) for key in ("users", "items", "samples"))
        return row["dataset"], PaperStatistics(users, items, samples, float(row["sparsity"]))

    return _read(folder / "dti_table2.csv", read)


def published_baselines(folder: Path) -> dict[tuple[str, str, str], PublishedScore]:
    """Published results of ID-based models by (data set, protocol, method).

    Raises:
        DataError: as `paper_scores`.
    """

    def read(row: Mapping[str, str]) -> tuple[tuple[str, str, str], PublishedScore]:
        values = PublishedScore(float(row["auc"]), float(row["log_loss"]), row["source"])
        return (row["dataset"], row["protocol"], row["method"]), values

    return _read(folder / "published_baselines.csv", read)


def paper_hours(folder: Path) -> dict[tuple[str, str, int], float]:
    """Training hours until convergence of DTI's Table 3 by (data set, method, k); SW has k = 1.

    Raises:
        DataError: as `paper_scores`.
    """

    def read(row: Mapping[str, str]) -> tuple[tuple[str, str, int], float]:
        return (row["dataset"], row["method"], int(row["k"])), float(row["hours"])

    return _read(folder / "dti_table3.csv", read)


def bahe_claims(folder: Path) -> BaheClaims:
    """BAHE's central claim.

    Raises:
        DataError: as `paper_scores`.
    """
    path = folder / "bahe_claims.csv"
    found = _read(path, lambda row: (row["claim"].partition(" reduction")[0], row["value"]))
    try:
        lengths = tuple(int(tokens) for tokens in found["text lengths tested"].split(" and "))
        return BaheClaims(float(found["training time"]), float(found["training memory"]), lengths)
    except (KeyError, ValueError) as error:
        expected = "reductions of training time and memory, and the text lengths"
        raise DataError(path, repr(error), expected, "restore the file from git") from error


def _read(path: Path, read: Callable[[Mapping[str, str]], tuple[Key, Value]]) -> dict[Key, Value]:
    fix = "restore the file from git"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(path, "missing", "the published values", fix) from error
    values = {}
    for number, row in enumerate(csv.DictReader(lines), start=2):
        try:
            key, value = read(row)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}, line {number}", repr(error), "every column with a number", fix
            ) from error
        values[key] = value
    return values
