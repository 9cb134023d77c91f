"""The [SUM] token: one trained embedding beside the vocabulary, at whose output a target's answer is read."""

from __future__ import annotations

import torch
from torch import nn

from repro.backbones.loading import Backbone


class SumToken(nn.Module):
    """`weight`: one trained embedding (H,), float32, the input of the model at every [SUM].

    It is no entry of the vocabulary: a resized table would add a row to the LM head as well (a token that the
    model could predict, one more class in the loss), would have to be trained as a whole or with a masked
    gradient where the table is fixed or LoRA is used, and would change every checkpoint's shape.

    It starts as the embedding of ":". Every item text ends in ":" before its answer, so the untrained [SUM]
    is a second ":" and its next token the answer: training starts from what the model knows, not from noise.
    The DTI paper only calls [SUM] a special token and does not say how it is initialised.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        # The last id, for tokenizers that put a space token in front.
        colon = backbone.tokenizer.encode(":", add_special_tokens=False)[-1]
        table = backbone.embed_tokens
        with torch.no_grad():  # called, not indexed: Gemma scales in forward
            start = table(torch.tensor(colon, device=table.weight.device))
        self.weight = nn.Parameter(start.detach().float().clone())
