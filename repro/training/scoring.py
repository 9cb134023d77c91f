"""Scores of a split, on one process or several."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from repro.training.losses import DivergedError
from repro.training.prefetch import loaded
from repro.training.task import Batches


def score_targets(
    model: nn.Module, batches: Batches, accelerator: Accelerator
) -> tuple[np.ndarray, np.ndarray]:
    """Target rows, ascending, and their scores: ((n,) int64, (n,) float32). Waits for the device once.

    Args:
        model: without the wrapper of several processes, which may have unequal numbers of batches here.

    Raises:
        DivergedError: a score is not finite.
    """
    model.eval()
    mine = batches.in_order()[accelerator.process_index :: accelerator.num_processes]
    rows: list[np.ndarray] = []
    scores: list[torch.Tensor] = []
    parts = [part for whole in mine for part in batches.split(whole)]
    with torch.inference_mode(), closing(loaded(batches, parts, accelerator.device)) as stream:
        for batch in stream:
            scores.append(model(batch).score[: batch.num_targets].float())
            rows.append(batch.target_row)
    pairs = gather_object([(np.concatenate(rows), torch.cat(scores).cpu().numpy())] if rows else [])
    row = np.concatenate([pair[0] for pair in pairs])
    score = np.concatenate([pair[1] for pair in pairs])
    if not np.isfinite(score).all():
        raise DivergedError(f"{np.count_nonzero(~np.isfinite(score))} scores are not finite")
    order = np.argsort(row)
    return row[order], score[order]
