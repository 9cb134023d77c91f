"""The two Parquet files beside records: scores of a run, targets of a test set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from repro.errors import RecordError

SCORES_SCHEMA = pa.schema([pa.field("target", pa.int32(), False), pa.field("score", pa.float32(), False)])
TARGETS_SCHEMA = pa.schema(
    [
        pa.field("target", pa.int32(), False),
        pa.field("group", pa.int32(), False),
        pa.field("label", pa.int8(), False),
    ]
)


@dataclass(frozen=True)
class Targets:
    """Test targets of a data set, protocol and tier, in canonical test order; nothing of items or times."""

    target: np.ndarray  # (T,) int32, ascending: row number in the protocol's canonical test order
    group: np.ndarray  # (T,) int32, anonymous user number, by first appearance
    label: np.ndarray  # (T,) int8, 0/1

    def same_as(self, other: Targets) -> bool:
        """Whether both are the identical targets."""
        return all(
            np.array_equal(a, b)
            for a, b in zip(
                (self.target, self.group, self.label), (other.target, other.group, other.label), strict=True
            )
        )


def anonymous_groups(user: np.ndarray) -> np.ndarray:
    """(T,) int32 users renumbered by first appearance: 7 7 3 7 5 -> 0 0 1 0 2."""
    _, first, inverse = np.unique(user, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse]


def targets_bytes(targets: Targets) -> bytes:
    """Parquet bytes of a targets file."""
    columns = [targets.target, targets.group, targets.label]
    return _parquet_bytes(pa.table(columns, schema=TARGETS_SCHEMA), {})


def storable(score: np.ndarray) -> np.ndarray:
    """(T,) float32 scores rounded to 16 bits after the leading one, half to even.

    They are rounded before any metric is computed. A quarter of the file's size, for an error of at most
    8e-6 of a score: an AUC moves only where two scores are closer than that.
    """
    bits = np.ascontiguousarray(score, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits += 0x3F + ((bits >> 7) & 1)
    return (bits & 0xFFFFFF80).astype(np.uint32).view(np.float32)


def scores_bytes(target: np.ndarray, score: np.ndarray) -> bytes:
    """Parquet bytes of a scores file, at most 3.3 bytes a row where Parquet's defaults take 6 to 10."""
    table = pa.table([target.astype(np.int32), score.astype(np.float32)], schema=SCORES_SCHEMA)
    return _parquet_bytes(table, {"score": "BYTE_STREAM_SPLIT"})


def read_targets(path: Path) -> Targets:
    """Targets file; RecordError if it is damaged or has other columns."""
    return Targets(*_read_columns(path, TARGETS_SCHEMA))


def read_scores(path: Path, target: np.ndarray) -> np.ndarray:
    """(T,) float32 scores of a run, checked to be of exactly these targets.

    Raises:
        RecordError: damaged, other columns, other targets or number of them, a score outside [0, 1].
    """
    found, score = _read_columns(path, SCORES_SCHEMA)
    if not np.array_equal(found, target):
        raise RecordError(
            path,
            f"{len(found)} scores that are not those of the targets file",
            f"one score for each of its {len(target)} targets, in their order",
            "restore the file from git, or delete the run's folder and run again",
        )
    check_score_values(score, path)
    return score


def check_score_values(score: np.ndarray, where: object) -> None:
    """RecordError naming the first score that is not a number in [0, 1]."""
    bad = np.flatnonzero(~((score >= 0) & (score <= 1)))
    if len(bad):
        raise RecordError(
            f"{where}, row {bad[0]}",
            f"score {score[bad[0]]} ({len(bad)} such)",
            "a probability in [0, 1]",
            "record a diverged run with status diverged and no scores; restore a damaged file from git",
        )


def _parquet_bytes(table: pa.Table, encodings: dict[str, str]) -> bytes:
    # Ascending numbers stored as differences shrink to almost nothing; floats split by byte (the caller's
    # choice) show zstd their equal exponents.
    encodings = {"target": "DELTA_BINARY_PACKED"} | encodings
    sink = pa.BufferOutputStream()
    dictionary = [name for name in table.column_names if name not in encodings]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=dictionary,
        column_encoding=encodings,
        store_schema=False,
    )
    return sink.getvalue().to_pybytes()


def _read_columns(path: Path, schema: pa.Schema) -> list[np.ndarray]:
    expected = f"a Parquet file with columns {', '.join(f'{field.name} {field.type}' for field in schema)}"
    fix = "restore the file from git, or delete the run's folder and run again"
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError as error:
        raise RecordError(path, "missing", expected, fix) from error
    except (OSError, pa.ArrowException) as error:  # Arrow reports damaged pages as OSError too
        raise RecordError(path, f"{error}".splitlines()[0], expected, fix) from error
    found = [(field.name, field.type) for field in table.schema]
    if found != [(field.name, field.type) for field in schema] or any(c.null_count for c in table.columns):
        described = ", ".join(f"{name} {kind}" for name, kind in found)
        raise RecordError(path, f"columns {described}", expected, fix)
    return [column.to_numpy() for column in table.columns]
