"""What was chosen for each baseline by tier and data set; trials are in `results/selection/baselines/`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chosen:
    """The settings that are searched; the defaults serve data that nobody has searched."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    dropout: float = 0.1


SELECTED: dict[tuple[str, str], dict[str, Chosen]] = {
    ("cpu", "ml-100k"): {
        "din": Chosen(3e-3, 0.3, 0.3),
        "sasrec": Chosen(3e-3, 0.3, 0.1),
        "dcnv2": Chosen(1e-3, 0.3, 0.3),
        "sim": Chosen(3e-3, 0.3, 0.1),
        "gru4rec": Chosen(1e-3, 0.3, 0.1),
    },
    ("gpu", "ml-100k"): {
        "din": Chosen(1e-3, 0.03, 0.1),
        "sasrec": Chosen(3e-3, 0.3, 0.3),
        "dcnv2": Chosen(3e-3, 0.03, 0.3),
        "sim": Chosen(3e-3, 0.03, 0.1),
        "gru4rec": Chosen(3e-3, 0.03, 0.3),
    },
    ("gpu", "ml-1m"): {
        "din": Chosen(3e-3, 0.3, 0.1),
        "sasrec": Chosen(3e-3, 0.03, 0.1),
        "dcnv2": Chosen(3e-3, 0.03, 0.1),
        "sim": Chosen(3e-3, 0.3, 0.1),
        "gru4rec": Chosen(3e-3, 0.03, 0.1),
    },
}
