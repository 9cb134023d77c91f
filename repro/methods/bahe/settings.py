"""What makes a run of BAHE, LLM-CTR or DTI over BAHE; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from repro.behaviours.drift import Drift
from repro.behaviours.pooling import POOLINGS
from repro.data.interactions import DERIVED_SEQUENCES
from repro.errors import ConfigError
from repro.prompts.rows import MAX_K, MAX_N

BAHE, LLM_CTR, DTI_BAHE = "bahe", "llm-ctr", "dti-bahe"
LOWER = ("frozen", "trained")


@dataclass(frozen=True)
class BaheMethod:
    """One method that reads behaviours.

    Attributes:
        name: `bahe`, `llm-ctr` or `dti-bahe`, as in records.
        n: context interactions; every sequence is drawn from a user's last n, so that BAHE sees what the
            sliding window, DTI and DIN see, and no more.
        k: targets per streaming row; `dti-bahe` alone has it.
        sequences: the user's sequences by name: `liked`, `disliked`, `recent` (all n), or names of a source
            with a column of its own. One interaction may stand in several.
        layer_cut: share of layers that encode a behaviour; m = round(layer_cut * layers).
        pooling: of a behaviour's tokens: `last` or `mean`.
        lora_rank: of the adapters (64 in the paper); their alpha is twice that.
        cached: read vectors from the behaviour table; False: run the lower layers in every step.
        feature_parallel: each sequence runs through the upper layers alone; False: all of a user's sequences
            back to back in one.
        lower: `frozen`, or `trained` (with adapters too; nothing can be cached then).
        drift: item texts that change over time, and a table that follows them now and then (`bahe` alone);
            None: texts stand still.

    Raises:
        ConfigError: a field outside its range, or two that contradict each other.
    """

    name: str
    n: int
    k: int | None = None
    sequences: tuple[str, ...] = DERIVED_SEQUENCES
    layer_cut: float = 0.5
    pooling: str = "last"
    lora_rank: int = 64
    cached: bool = True
    feature_parallel: bool = True
    lower: str = "frozen"
    drift: Drift | None = None

    trains = True

    def __post_init__(self) -> None:
        def need(good: bool, field: str, expected: str) -> None:
            if not good:
                where, found = f"{self.name} setting {field!r}", repr(getattr(self, field))
                raise ConfigError(where, found, expected, "correct it where the run is declared")

        names = (BAHE, LLM_CTR, DTI_BAHE)
        need(self.name in names, "name", f"one of {', '.join(names)}")
        need(1 <= self.n <= MAX_N, "n", f"1 to {MAX_N}")
        if self.name == DTI_BAHE:
            need(self.k is not None and 1 <= self.k <= MAX_K, "k", f"1 to {MAX_K}")
        else:
            need(self.k is None, "k", "None: only dti-bahe has targets per row")
        need(0 < len(set(self.sequences)) == len(self.sequences), "sequences", "different names")
        need(0.0 < self.layer_cut < 1.0, "layer_cut", "above 0 and below 1")
        need(self.pooling in POOLINGS, "pooling", f"one of {', '.join(POOLINGS)}")
        need(self.lora_rank >= 1, "lora_rank", "at least 1")
        need(self.lower in LOWER, "lower", f"one of {', '.join(LOWER)}")
        need(self.lower == "frozen" or not self.cached, "lower", "'frozen' beside cached=True")
        need(self.drift is None or self.name == BAHE, "drift", "None: only bahe reads texts of another time")

    def num_lower(self, num_layers: int) -> int:
        """m: how many of the backbone's layers encode a behaviour, as `lower_layers`.

        Raises:
            ConfigError: none of the layers would be lower, or none upper.
        """
        lower = lower_layers(self.layer_cut, num_layers)
        if not 1 <= lower < num_layers:
            found = f"{self.layer_cut} of {num_layers} layers, so m = {lower}"
            expected = f"m from 1 to {num_layers - 1}"
            raise ConfigError(f"{self.name} setting 'layer_cut'", found, expected, "choose another cut")
        return lower

    def resolved(self) -> dict[str, Any]:
        """What a record says of it beside its backbone; keys that do not apply to the method are null."""
        streaming, written_out = self.name == DTI_BAHE, self.name == LLM_CTR
        behaviours: dict[str, Any] = {
            "sequences": None if streaming else list(self.sequences),
            "layer_cut": self.layer_cut,
            "pooling": self.pooling,
            "cached": self.cached,
            "feature_parallel": None if streaming else self.feature_parallel,
            "lower": self.lower,
            "drift": None if self.drift is None else asdict(self.drift),
        }
        if written_out:
            behaviours |= dict.fromkeys(set(behaviours) - {"sequences"})
        return {
            "k": self.k,
            "n": self.n,
            "sum_layout": "deferred" if streaming else None,
            "window": "interactions" if streaming else None,
            "instruction": None,
            "fixes": None,
            "behaviours": behaviours,
        }


def bahe(n: int) -> BaheMethod:
    """BAHE as in the paper: half of the layers frozen and cached, sequences side by side, LoRA rank 64."""
    return BaheMethod(BAHE, n)


def lower_layers(layer_cut: float, num_layers: int) -> int:
    """m = round(share x L); half-way numbers round to the even one."""
    return round(layer_cut * num_layers)


def llm_ctr(n: int) -> BaheMethod:
    """BAHE's comparison partner: the same LLM, adapters and head, fed the same sequences as text."""
    return BaheMethod(LLM_CTR, n)


def dti_bahe(n: int, k: int) -> BaheMethod:
    """DTI's streaming rows over behaviour vectors, in the tuned recipe's geometry."""
    return BaheMethod(DTI_BAHE, n, k)
