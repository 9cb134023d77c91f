"""What the FLOP sessions sweep: k and n on real prompts, text lengths for LLM-CTR against BAHE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from repro.backbones.fix_settings import Fixes
from repro.costs import projection
from repro.methods.dti import dti, dti_minus
from repro.methods.method import SumMethod
from repro.methods.sliding_window import sliding_window

CONTEXTS = (10, 20, 50)  # n
TARGETS_PER_PROMPT = (1, 5, 10, 20, 30, 40, 50, 100, 200)  # k
COUNTED_CONTEXT = 20  # every k is put before both counters here; other n at COUNTED_TARGETS
COUNTED_TARGETS = (50,)
BACKBONES = (("smollm2-135m", "full"), ("llama-3.1-8b", "lora"))  # shape, tuning

HISTORIES = (20, 30)  # past interactions that DIN and SASRec read

LENGTHS = (512, 1024, 2048, 4096, 8192, 16_384)
LENGTH_BACKBONES = ("smollm2-135m", "qwen2.5-1.5b")
LENGTH_SAMPLES = projection.BAHE_BATCH
TOKENS_PER_BEHAVIOUR = 16
USER_SEQUENCES = 4  # of behaviours, read separately
ONE_SEQUENCE = "bahe-one-sequence"  # BAHE without feature parallel: read as one
LAYER_CUT = 0.5
BAHE_RANK = projection.BAHE_RANK


@dataclass(frozen=True)
class Cell:
    """One method at one n and k.

    Attributes:
        name: as in records. counted: both counters count it too, not the closed form alone.
    """

    name: str
    method: SumMethod
    counted: bool

    @property
    def n(self) -> int:
        """Context interactions."""
        return self.method.prompt.n

    @property
    def k(self) -> int:
        """Targets per prompt."""
        return self.method.prompt.k

    @property
    def reset(self) -> str | None:
        """Layers with the hidden-state reset: `last`, `all`, or None."""
        fixes: Fixes = self.method.fixes
        return None if fixes.reset is None else fixes.reset.layers


def k_cells(contexts: tuple[int, ...], targets: tuple[int, ...]) -> Iterator[Cell]:
    """SW, DTI (both fixes, the paper's recipe) and DTI- for every n and k."""
    for n in contexts:
        yield Cell("sw", sliding_window(n), True)
        for k in targets:
            yield Cell("dti", dti(n, k), n == COUNTED_CONTEXT or k in COUNTED_TARGETS)
            yield Cell("dti-minus", dti_minus(n, k), k in COUNTED_TARGETS and n == COUNTED_CONTEXT)
