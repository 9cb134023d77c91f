"""The floor: logistic regressions on like rates that are known before the target, and constants.

No model of taste at all: what does not beat these clearly has learned nothing that two counters do not know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from baselines.histories import IdBatch
from baselines.layers import IdModel
from repro.data.interactions import TRAIN, PreparedData

FEATURES = ("user_recent", "user_all", "item")


@dataclass(frozen=True)
class RatesSettings:
    """Attributes:
    features: of `FEATURES`, what the regression sees; none of them leaves the constant.
    recent: number of interactions that `user_recent` covers.
    smoothing: how many answers at the training targets' like rate are added to the counted ones.
    """

    features: tuple[str, ...] = FEATURES
    recent: int = 20
    smoothing: float = 5.0


def rate_features(data: PreparedData, settings: RatesSettings) -> np.ndarray:
    """(N, number of features) float64 log-odds of smoothed like rates, one line per interaction.

    `user_recent`: of the user's last `recent` interactions before this one; `user_all`: of all of them;
    `item`: of the training targets of the same item, without the row itself where it is one of them.
    """
    makers = {"user_recent": _user_recent, "user_all": _user_all, "item": _item}
    rows = data.targets(TRAIN)
    mean = float(data.interactions.label[rows].mean())
    columns = []
    for name in settings.features:
        liked, shown = makers[name](data, settings)
        rate = (liked + settings.smoothing * mean) / (shown + settings.smoothing)
        columns.append(np.log(rate / (1 - rate)))
    return np.stack(columns, axis=1) if columns else np.zeros((len(data.interactions), 0))


Counts = tuple[np.ndarray, np.ndarray]  # (N,) liked, (N,) shown


def _of_user(data: PreparedData, length: np.ndarray) -> Counts:
    """Answers among the `length` (N,) interactions of the user before each row."""
    likes = np.concatenate([[0], np.cumsum(data.interactions.label[data.user_rows], dtype=np.int64)])
    end = data.user_offsets[data.interactions.user] + data.position  # place of the row in user order
    return likes[end] - likes[end - length], length


def _user_recent(data: PreparedData, settings: RatesSettings) -> Counts:
    return _of_user(data, np.minimum(data.position, settings.recent).astype(np.int64))


def _user_all(data: PreparedData, settings: RatesSettings) -> Counts:
    return _of_user(data, data.position.astype(np.int64))


def _item(data: PreparedData, settings: RatesSettings) -> Counts:
    rows = data.targets(TRAIN)
    item, label = data.interactions.item, data.interactions.label
    shown = np.bincount(item[rows], minlength=len(data.items))
    liked = np.bincount(item[rows], weights=label[rows], minlength=len(data.items))
    own = np.zeros(len(item), dtype=np.int64)
    own[rows] = 1  # a training target's own answer is left out
    return liked[item] - own * label, shown[item] - own


class Rates(IdModel):
    """Logistic regression, fitted in closed form on the training targets; scored like every other model."""

    def __init__(self, data: PreparedData, settings: RatesSettings) -> None:
        super().__init__()
        rows, features = data.targets(TRAIN), rate_features(data, settings)
        label = data.interactions.label[rows]
        if features.shape[1]:
            fitted = LogisticRegression(C=np.inf).fit(features[rows], label)
            logit = fitted.decision_function(features)
        else:
            logit = np.full(len(features), np.log(label.mean() / (1 - label.mean())))
        self.row_logit: Tensor
        self.register_buffer("row_logit", torch.from_numpy(logit.astype(np.float32)), persistent=False)

    def logit(self, batch: IdBatch) -> Tensor:
        """(B,) logits of a like."""
        return self.row_logit[torch.from_numpy(batch.target_row).to(self.row_logit.device)]
