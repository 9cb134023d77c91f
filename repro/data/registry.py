"""The data sets by name, and `load_prepared`: source files -> cache -> prepared data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from repro.data import amazon, groceries, ml_1m, ml_100k, table
from repro.data.cache import CachedData
from repro.data.files import checksum
from repro.data.interactions import PreparedData, Source
from repro.data.protocols import apply_protocol, check_protocol
from repro.data.synthetic import SyntheticSettings, generate
from repro.errors import ConfigError, DataError

RELLA_ML_1M_TARGETS = (776_007, 97_000, 97_002)  # published by ReLLa; 970,009 in all


@dataclass(frozen=True)
class DataSet:
    """How a data set is found and read, and the protocol it has by default."""

    default_protocol: str
    find_files: Callable[[Path | None], tuple[Path, ...]]
    read: Callable[[tuple[Path, ...], float], Source]
    rated: bool = True  # labels come from ratings, so like_above applies


DATASETS = {
    "ml-100k": DataSet("dti", ml_100k.find_files, ml_100k.read),
    "ml-1m": DataSet("rella", ml_1m.find_files, ml_1m.read),
    "amazon-cds": DataSet(
        "dti", partial(amazon.find_files, "amazon-cds"), partial(amazon.read, "amazon-cds")
    ),
    "amazon-kindle": DataSet(
        "dti", partial(amazon.find_files, "amazon-kindle"), partial(amazon.read, "amazon-kindle")
    ),
    "groceries": DataSet(
        "dti", groceries.find_files, lambda files, like_above: groceries.read(files), rated=False
    ),
    "table": DataSet("dti", table.find_files, lambda files, like_above: table.read(files), rated=False),
}
SYNTHETIC_PROTOCOL = "rella"  # prunes nothing, so planted distances stay what they are
DATASET_NAMES = (*DATASETS, "synthetic")


def default_protocol(name: str) -> str:
    """The protocol of a data set when none is named. Raises ConfigError for an unknown data set."""
    if name not in DATASET_NAMES:
        known = f"one of {', '.join(DATASET_NAMES)}"
        raise ConfigError("data set", f"unknown data set {name!r}", known, "name one of them as --dataset")
    return DATASETS[name].default_protocol if name in DATASETS else SYNTHETIC_PROTOCOL


def load_prepared(
    name: str,
    protocol: str | None = None,
    data_dir: str | Path | None = None,
    *,
    min_context: int = 5,
    like_above: float = 3.0,
    synthetic: SyntheticSettings | None = None,
) -> PreparedData:
    """The data set after its protocol, from the cache when the same was prepared before.

    Args:
        name: one of DATASET_NAMES.
        protocol: one of PROTOCOLS; None takes the data set's default.
        data_dir: folder with the source files (`table`: the file itself). `ml-100k` and `groceries` need
            none, for their files come with an installed package.
        min_context: targets have at least this many earlier interactions of their user.
        like_above: label = rating > like_above, for sources with ratings from 1 to 5.
        synthetic: size and planted signal of `synthetic`, which is generated each time and never cached.

    Raises:
        ConfigError: unknown data set or protocol, no folder, or a setting out of its range.
        DataError: a source file is missing, damaged or not what it should be, or nothing is left of it.
        StorageError: the cache cannot be written.
    """
    usual_protocol = default_protocol(name)
    protocol = usual_protocol if protocol is None else protocol
    check_protocol(protocol, min_context)
    _check_like_above(like_above)
    if name == "synthetic":
        return apply_protocol(generate(synthetic or SyntheticSettings()), protocol, min_context)
    if synthetic is not None:
        raise ConfigError("synthetic", f"given for data set {name}", "data set synthetic", "leave it out")
    dataset = DATASETS[name]
    files = dataset.find_files(None if data_dir is None else Path(data_dir))
    settings: dict[str, object] = {"source_sha256": checksum(files), "min_context": min_context}
    if dataset.rated:
        settings["like_above"] = like_above
    cached = CachedData(name, protocol, settings)
    prepared = cached.load()
    if prepared is None:
        prepared = apply_protocol(dataset.read(files, like_above), protocol, min_context)
        _check_published_counts(prepared)
        cached.save(prepared)
    return prepared


def _check_like_above(like_above: float) -> None:
    if math.isnan(like_above) or not 1 <= like_above < 5:
        expected = "from 1 to below 5, so that both labels are possible"
        raise ConfigError("like_above", str(like_above), expected, "choose a rating threshold, for example 3")


def _check_published_counts(prepared: PreparedData) -> None:
    """The full ML-1M under `rella` has exactly the published number of targets in each split."""
    full = prepared.name == "ml-1m" and prepared.counts["raw_interactions"] == ml_1m.NUM_RATINGS
    if not full or prepared.protocol != "rella" or prepared.min_context != 5:
        return
    sizes = tuple(int(size) for size in np.bincount(prepared.split[prepared.is_target], minlength=3))
    if sizes != RELLA_ML_1M_TARGETS:
        expected = f"{RELLA_ML_1M_TARGETS} targets under protocol rella"
        raise DataError("data set ml-1m", f"{sizes} targets", expected, ml_1m.FIX)
