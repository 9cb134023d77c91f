"""The CTR head that BAHE, LLM-CTR and DTI over BAHE share.

Shapes: B targets, S user sequences, K vectors per target, E hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.training.task import ModelOutput

HIDDEN = 256
INIT_STD = 0.02


class CtrHead(nn.Module):
    """A target's pooled vectors side by side -> a logit; sigmoid for the score, binary cross-entropy.

    The paper concatenates the embeddings of a user's sequences and the item's and feeds a "CTR head" without
    saying what it is. Reading taken: each of the S + 1 vectors is normalised (layers end in a norm whose
    scale differs between models), then two linear layers with a GELU between them. A sequence that a user
    does not have is a learned vector.

    Args:
        width: E.
        segments: K: S + 1, or 1 for a model whose one state has read user and item.
    """

    def __init__(self, width: int, segments: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.empty = nn.Parameter(INIT_STD * torch.randn(segments - 1, width)) if segments > 1 else None
        self.first = nn.Linear(segments * width, HIDDEN)
        self.second = nn.Linear(HIDDEN, 1)

    def forward(self, vectors_BKE: Tensor, label_B: Tensor, is_empty_BS: Tensor | None = None) -> ModelOutput:
        """Loss summed over targets and their scores.

        Args:
            vectors_BKE: the pooled sequences, then the item; or one state that has read both.
            label_B: float32: 0, 1, or -1 for padding.
            is_empty_BS: bool, sequences that the user does not have.
        """
        kind = "cpu" if vectors_BKE.is_meta else vectors_BKE.device.type  # autocast knows no meta device
        with torch.autocast(kind, enabled=False):  # scores that differ must not round to ties
            vectors = vectors_BKE.float()
            if self.empty is not None and is_empty_BS is not None:
                user = torch.where(is_empty_BS[..., None], self.empty, vectors[:, :-1])
                vectors = torch.cat([user, vectors[:, -1:]], dim=1)
            logit = self.second(F.gelu(self.first(self.norm(vectors).flatten(1)))).squeeze(-1)
            real = (label_B >= 0).float()
            loss = F.binary_cross_entropy_with_logits(logit, label_B.clamp(min=0), real, reduction="sum")
        return ModelOutput(loss, torch.sigmoid(logit.detach()))
