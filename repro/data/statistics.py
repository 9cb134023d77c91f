"""What a data set holds, as DTI's Table 2 counts it, and what each split holds."""

from __future__ import annotations

import numpy as np

from repro.data.interactions import SPLIT_NAMES, PreparedData


def dataset_statistics(prepared: PreparedData) -> list[dict[str, object]]:
    """Two rows, `unpruned` and `pruned`, with dataset, title, stage, users, items, samples and sparsity.

    sparsity = 1 - samples / (users x items), as in DTI's Table 2, which prints the unpruned counts of ML-1M
    although its text prunes. The second row shows an effect under protocol `dti` only: no other one prunes.
    """
    rows: list[dict[str, object]] = []
    for stage, prefix in (("unpruned", "raw_"), ("pruned", "")):
        users, items, samples = (
            prepared.counts[f"{prefix}{key}"] for key in ("users", "items", "interactions")
        )
        rows.append(
            {
                "dataset": prepared.name,
                "title": prepared.title,
                "stage": stage,
                "users": users,
                "items": items,
                "samples": samples,
                "sparsity": 1.0 - samples / (users * items),
            }
        )
    return rows


def split_statistics(prepared: PreparedData) -> list[dict[str, object]]:
    """A row per split: dataset, protocol, split, interactions, targets, users of targets, rate of likes."""
    rows: list[dict[str, object]] = []
    for split, name in enumerate(SPLIT_NAMES):
        targets = prepared.targets(split)
        rows.append(
            {
                "dataset": prepared.name,
                "protocol": prepared.protocol,
                "split": name,
                "interactions": int(np.count_nonzero(prepared.split == split)),
                "targets": len(targets),
                "users": len(np.unique(prepared.interactions.user[targets])),
                "likes": float(prepared.interactions.label[targets].mean()) if len(targets) else 0.0,
            }
        )
    return rows
