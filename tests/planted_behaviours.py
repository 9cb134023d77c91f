"""Damage to BAHE's family, one way at a time; each function plants one by pytest's `monkeypatch`."""

from __future__ import annotations

from dataclasses import replace

from repro.behaviours import encoding
from repro.behaviours.pooling import pooled
from repro.methods.bahe import settings, task
from repro.methods.bahe.batches import BaheBatches
from repro.methods.bahe.sequences import SequenceSource
from repro.methods.bahe.streaming import StreamingBatches


def first_token(monkeypatch) -> None:
    """A behaviour is the state of its first token, which is the same for all."""
    monkeypatch.setattr(encoding, "pooled", lambda hidden, lengths, pooling: hidden[:, 0])


def mean_of_tokens(monkeypatch) -> None:
    """The other pooling than the settings say."""
    monkeypatch.setattr(encoding, "pooled", lambda hidden, lengths, pooling: pooled(hidden, lengths, "mean"))


def one_layer_fewer(monkeypatch) -> None:
    """The encoder stops a layer before the one at which the model goes on."""
    layers = encoding.DenseLayers
    monkeypatch.setattr(encoding, "DenseLayers", lambda chosen, rotary: layers(chosen[:-1], rotary))


def other_m(monkeypatch) -> None:
    """Encoder and model agree, on another m than round(share x L)."""
    monkeypatch.setattr(settings, "lower_layers", lambda layer_cut, num_layers: 1)


def wired_otherwise(monkeypatch) -> None:
    """A run fills its table by an encoder of fewer layers than its method says."""
    encoder = task.BehaviourEncoder

    def shallower(backbone, num_layers, *arguments, **named):
        return encoder(backbone, num_layers - 1, *arguments, **named)

    monkeypatch.setattr(task, "BehaviourEncoder", shallower)


def own_answer(monkeypatch, in_test: bool = True) -> None:
    """A target's item stands there with the answer that is asked for; `in_test`: not in training alone."""
    cut, load, load_rows = SequenceSource.cut, BaheBatches.load, StreamingBatches.load
    leaks = [False]

    def leaking_cut(self, rows):
        found, place = cut(self, rows), self._end[rows]
        answered = self._behaviours.answered[self._item[place], self._label[place]]
        return replace(found, item=answered) if leaks[0] else found

    def leaking_load(self, key, device):
        leaks[0] = in_test or self.shuffled  # training's alone are
        return load(self, key, device)

    def leaking_rows(self, key, device):
        honest = self._alone
        self._alone = self._answered if in_test or self._rows.shuffled else honest
        try:
            return load_rows(self, key, device)
        finally:
            self._alone = honest

    monkeypatch.setattr(SequenceSource, "cut", leaking_cut)
    monkeypatch.setattr(BaheBatches, "load", leaking_load)
    monkeypatch.setattr(StreamingBatches, "load", leaking_rows)


def own_answer_in_training(monkeypatch) -> None:
    """As `own_answer`, in training alone: what is learned is of no use in the test."""
    own_answer(monkeypatch, in_test=False)
