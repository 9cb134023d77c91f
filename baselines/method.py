"""What makes an ID-based baseline: its name, its history, the settings of its model and of its training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from repro.training.settings import TrainingSettings


@dataclass(frozen=True)
class IdMethod:
    """A baseline that reads item ids, categories and past answers, never text or demographics.

    Attributes:
        name: as in records: `din`, `sasrec`, `rates`, ...
        n: past interactions it reads; None: all of them (or none at all, see its file).
        model: frozen dataclass with the settings of its model, in the model's own file.
        training: settings of the training loop; None for a method that is fitted in closed form.
    """

    name: str
    n: int | None
    model: Any
    training: TrainingSettings | None

    @property
    def trains(self) -> bool:
        """Whether it goes through the training loop (a fitted method is only tested by it)."""
        return self.training is not None

    def resolved(self) -> dict[str, Any]:
        """What a record says of it; keys that belong to language models are null."""
        without = ("k", "sum_layout", "window", "instruction", "backbone", "tuning", "fixes")
        return dict.fromkeys(without) | {"n": self.n, "model": asdict(self.model), "precision": "fp32"}
