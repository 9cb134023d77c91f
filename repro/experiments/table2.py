"""Table 2 of DTI: data set statistics, written as a measurement file."""

from __future__ import annotations

from pathlib import Path

from repro.data import SPLIT_NAMES, default_protocol, load_prepared
from repro.data.statistics import dataset_statistics
from repro.records.environment import environment


def write_statistics(dataset: str, protocol: str | None, data_dir: Path | None, root: Path) -> Path:
    """Write `statistics/<dataset>-<protocol>.json` below a folder; returns its path."""
    from repro.records.atomic import json_bytes, write_file

    protocol = protocol or default_protocol(dataset)
    data = load_prepared(dataset, protocol, data_dir)
    before, after = dataset_statistics(data)
    targets = {f"{name}_targets": len(data.targets(split)) for split, name in enumerate(SPLIT_NAMES)}
    row = before | {"protocol": protocol, "items_pruned": after["items"], "sha256": data.sha256} | targets
    row.pop("stage")
    path = root / "statistics" / f"{dataset}-{protocol}.json"
    write_file(path, json_bytes({"environment": environment(), "rows": [row]}))
    return path
