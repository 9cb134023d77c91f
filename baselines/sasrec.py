"""SASRec, self-attentive sequential recommendation (Kang and McAuley, ICDM 2018, arXiv 1808.09781), for CTR.

The papers that print a CTR score of it leave out how an item's score becomes a probability; the head here is
ours: see `StateHead`.

Shapes: B targets, n past interactions, E width, H attention heads, D = E / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.histories import Catalogue, IdBatch
from baselines.layers import IdModel, InteractionEncoder, StateHead

NORM_EPS = 1e-8  # of the authors' layer normalisations


@dataclass(frozen=True)
class SasRecSettings:
    """Attributes:
    item_dim, category_dim: widths of the two embeddings; E is their sum.
    blocks, heads: of self-attention; the paper has 2 and 1.
    hidden: layers of the head.
    """

    item_dim: int = 32
    category_dim: int = 16
    blocks: int = 2
    heads: int = 2
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    init_std: float = 0.05


class SasRecBlock(nn.Module):
    """Self-attention and point-wise feed-forward network (sections III-B and III-C), as in the authors' code.

    There, and here, q = LayerNorm(x) asks and x itself answers; the residual paths start at the normalised
    values: y = LayerNorm(q + attention(q, x, x)), out = y + feed_forward(y). The paper's equation
    x + dropout(g(LayerNorm(x))) would normalise keys and values too and start both residuals before that.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_out = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """What the last q positions become.

        Args:
            x: (B, n, E).
            visible: (B, q, n) bool, which positions each of them sees; at least one.

        Returns:
            (B, q, E).
        """
        normed = self.attention_norm(x[:, -visible.shape[1] :])
        query = self._heads(self.query(normed))
        key, value = (self._heads(each) for each in self.key_value(x).chunk(2, dim=-1))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, visible[:, None], dropout)
        y = self.forward_norm(normed + self.attention_out(attended.transpose(1, 2).flatten(2)))
        inner = self._drop(F.relu(self.inner(y)))
        return y + self._drop(self.outer(inner))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, n, E) -> (B, H, n, D)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def causal_visibility(mask: Tensor) -> Tensor:
    """(B, n, n) bool: a query sees itself and every real interaction before it.

    A padded position sees itself alone, so that its softmax has something to add up; nobody reads it.

    Args:
        mask: (B, n) bool, True where real.
    """
    n = mask.shape[1]
    square = torch.ones(n, n, dtype=torch.bool, device=mask.device)
    return (square.tril() & mask[:, None, :]) | torch.eye(n, dtype=torch.bool, device=mask.device)


class SASRec(IdModel):
    """The state after the newest past interaction, beside the target.

    Section III-A: an interaction's vector (item, categories and answer) is scaled by sqrt(E), as in the
    authors' code, and gets a learned vector for its place. Places are counted from the newest interaction
    back, so a history has the same ones however much padding stands before it.
    """

    def __init__(self, catalogue: Catalogue, n: int, settings: SasRecSettings) -> None:
        super().__init__()
        s = settings
        self.encoder = InteractionEncoder(catalogue, s.item_dim, s.category_dim, s.init_std)
        width = self.encoder.width
        self.position = nn.Parameter(torch.randn(n, width) * s.init_std)  # row 0: the newest
        self.blocks = nn.ModuleList(SasRecBlock(width, s.heads, s.dropout) for _ in range(s.blocks))
        self.last_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(s.dropout)
        self.head = StateHead(width, s.hidden, s.dropout)

    def last_state(self, past: Tensor, mask: Tensor) -> Tensor:
        """(B, n, E), (B, n) bool -> (B, E) state after the newest interaction, 0 without any."""
        n, width = past.shape[1:]
        x = past * width**0.5 + self.position[:n].flip(0)
        x = self.dropout(x) * mask[..., None]
        visible = causal_visibility(mask)
        for block in self.blocks[:-1]:
            x = block(x, visible)
        x = self.blocks[-1](x, visible[:, -1:])  # of the last block only the newest position is read
        return self.last_norm(x).squeeze(1) * mask[:, -1:]

    def logit(self, batch: IdBatch) -> Tensor:
        """(B,) logits of a like."""
        target, past, mask = self.encoder(batch)
        return self.head(self.last_state(past, mask), target)
