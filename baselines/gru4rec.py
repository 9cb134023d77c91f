"""GRU4Rec, session-based recommendation with recurrent networks (Hidasi et al., ICLR 2016, arXiv 1511.06939).

Read for CTR as other papers do: the whole history of a user is the session, interactions enter as learned
vectors (the paper found one-hot items better on its data), and the state meets the target in `StateHead`.

Shapes: B targets, n past interactions, E width of an interaction's vector, G units of the GRU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.histories import Catalogue, IdBatch
from baselines.layers import IdModel, InteractionEncoder, StateHead


@dataclass(frozen=True)
class Gru4RecSettings:
    """Attributes:
    item_dim, category_dim: widths of the two embeddings; E is their sum.
    units, layers: of the GRU; the paper found one layer best.
    hidden: layers of the head.
    """

    item_dim: int = 32
    category_dim: int = 16
    units: int = 64
    layers: int = 1
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    init_std: float = 0.05


class GRU4Rec(IdModel):
    """The state of a GRU after the newest past interaction, beside the target."""

    def __init__(self, catalogue: Catalogue, n: int, settings: Gru4RecSettings) -> None:
        super().__init__()
        s = settings
        self.encoder = InteractionEncoder(catalogue, s.item_dim, s.category_dim, s.init_std)
        between = s.dropout if s.layers > 1 else 0.0
        self.gru = nn.GRU(self.encoder.width, s.units, s.layers, batch_first=True, dropout=between)
        self.out = nn.Linear(s.units, self.encoder.width)
        self.dropout = nn.Dropout(s.dropout)
        self.head = StateHead(self.encoder.width, s.hidden, s.dropout)

    def last_state(self, past: Tensor, mask: Tensor) -> Tensor:
        """(B, n, E), (B, n) bool -> (B, G) state after the newest interaction, 0 without any.

        Histories are moved to the left, so that the GRU starts from 0 at their first real interaction; what
        it makes of the copies behind them is not read. Three of n = 5: 0 0 a b c -> a b c c c, state after c.
        """
        n = mask.shape[1]
        length = mask.sum(dim=1)
        column = torch.arange(n, device=mask.device) + (n - length)[:, None]  # (B, n)
        moved = past.gather(1, column.clamp_(max=n - 1)[..., None].expand_as(past))
        states, _ = self.gru(moved)
        last = (length - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[-1])
        return states.gather(1, last).squeeze(1) * mask[:, -1:]

    def logit(self, batch: IdBatch) -> Tensor:
        """(B,) logits of a like."""
        target, past, mask = self.encoder(batch)
        state = self.last_state(self.dropout(past), mask)
        return self.head(self.out(self.dropout(state)), target)
