"""The trainable model of every [SUM] method: backbone, [SUM] embedding, loss and scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.backbones.decoder import Decoder, check_layers
from repro.backbones.loading import Backbone
from repro.backbones.plan import BatchPlan
from repro.backbones.sum_token import SumToken
from repro.methods.sum_batches import SumBatch
from repro.training.task import ModelOutput

LOSSES = ("vocabulary", "answers")


class SumModel(nn.Module):
    """Scores targets at their [SUM]s.

    score = softmax over the yes/no logits at [SUM] (DTI section 2c); loss = cross-entropy of the answer token
    over the whole vocabulary (section 3.4), or over yes and no alone (`loss="answers"`).
    """

    def __init__(self, backbone: Backbone, loss: str = "vocabulary", compiled: bool = False) -> None:
        super().__init__()
        assert loss in LOSSES, loss
        check_layers(backbone.layers, backbone.config)
        self.language_model = backbone.model
        self.sum_token = SumToken(backbone)
        self.loss = loss
        self._embed = [backbone.embed_tokens]  # in lists: already registered under language_model
        self._head = [backbone.lm_head_weight]
        self._decoder = Decoder(backbone.layers, backbone.decoder.rotary_emb, backbone.decoder.norm, compiled)
        self.answer_ids: Tensor
        self.register_buffer("answer_ids", torch.tensor([backbone.no_id, backbone.yes_id]), persistent=False)

    def hidden_states(self, plan: BatchPlan) -> Tensor:
        """(S, E) final hidden states of the [SUM]s."""
        text = self._embed[0](plan.tokens)
        return self._decoder.forward_sums(
            text, self.sum_token.weight.to(text.dtype).expand(len(plan.label), -1), plan
        )

    def forward(self, batch: SumBatch) -> ModelOutput:
        """Loss and scores of one batch; in evaluation mode the scores alone (the loss is then 0)."""
        plan = batch.plan
        hidden, weight = self.hidden_states(plan), self._head[0]
        kind = "cpu" if hidden.is_meta else hidden.device.type  # autocast knows no meta device
        with torch.autocast(kind, enabled=False):  # scores that differ must not round to ties
            answers = hidden.float() @ weight[self.answer_ids].float().T  # (S, 2): no, yes
        if not self.training:  # scoring: no need for the vocabulary
            return ModelOutput(answers.new_zeros(()), torch.softmax(answers, dim=-1)[:, 1])
        if self.loss == "answers":
            loss = F.cross_entropy(answers, plan.label, ignore_index=-1, reduction="sum")
        else:
            token = torch.where(plan.label >= 0, self.answer_ids[plan.label.clamp(min=0)], -1)
            logits = F.linear(hidden, weight).float()
            loss = F.cross_entropy(logits, token, ignore_index=-1, reduction="sum")
        return ModelOutput(loss, torch.softmax(answers.detach(), dim=-1)[:, 1])
