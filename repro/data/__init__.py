"""Sources -> interactions and items -> chronological split. Start at `load_prepared`; see docs/data.md."""

from repro.data.interactions import (
    SPLIT_NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    Interactions,
    Items,
    PreparedData,
    Source,
)
from repro.data.protocols import PROTOCOLS, apply_protocol
from repro.data.registry import DATASET_NAMES, default_protocol, load_prepared
from repro.data.statistics import dataset_statistics, split_statistics
from repro.data.subset import take_subset
from repro.data.synthetic import SyntheticSettings

__all__ = [
    "DATASET_NAMES",
    "PROTOCOLS",
    "SPLIT_NAMES",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Interactions",
    "Items",
    "PreparedData",
    "Source",
    "SyntheticSettings",
    "apply_protocol",
    "dataset_statistics",
    "default_protocol",
    "load_prepared",
    "split_statistics",
    "take_subset",
]
