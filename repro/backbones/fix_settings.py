"""DTI's two fixes as settings: hidden-state reset (section 4.1) and positions of the [SUM]s (section 4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from repro.errors import ConfigError

RESET_LAYERS = ("last", "all")
RESET_MIXING = ("projected", "hidden")
POSITIONS = ("rope", "alibi-rotated-keys", "alibi-plain-keys")


@dataclass(frozen=True)
class Reset:
    """Hidden-state reset: far context tokens are moved towards their initial (embedding) state.

    The paper resets "the final hidden state of each context interaction", which no [SUM] reads. Reading
    taken: the reset applies to the keys and values that [SUM]s read, in the last layer or in all layers; text
    tokens are not changed. The ratio at distance d (in interactions) is
    alpha(d) = a_min + (a_max - a_min) * sigmoid((d - n / 2) / tau); the target's own text (d = 0), the
    instruction and [SUM]s are never reset.

    Attributes:
        a_min, a_max: range of the ratio. tau: width of the transition, in interactions.
        layers: `last` or `all`.
        mixing: `projected` mixes projected keys and values; `hidden` mixes hidden states, then normalises and
            projects (almost without effect where embeddings are small beside the last layer's input).
        at_test: also applied to test prompts (the paper's argument in section 4.1 says it should not be).
    """

    a_min: float = 0.0
    a_max: float = 0.5
    tau: float = 2.0
    layers: str = "last"
    mixing: str = "projected"
    at_test: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.a_min <= self.a_max <= 1.0:
            found = f"[{self.a_min}, {self.a_max}]"
            raise ConfigError("reset range", found, "0 <= a_min <= a_max <= 1", "choose another range")
        if not 0.0 < self.tau < math.inf:  # written so that NaN is refused
            raise ConfigError("reset tau", str(self.tau), "a positive number", "choose another width")
        for name, known in (("layers", RESET_LAYERS), ("mixing", RESET_MIXING)):
            if getattr(self, name) not in known:
                found = repr(getattr(self, name))
                raise ConfigError(f"reset {name}", found, f"one of {', '.join(known)}", "choose one of these")


@dataclass(frozen=True)
class Fixes:
    """What a [SUM]'s attention does beyond plain causal attention.

    Attributes:
        reset: hidden-state reset, or None.
        position: `rope` (no fix), or the [SUM] has no position id and its scores get an ALiBi bias: with the
            text's keys as they are (`alibi-rotated-keys`) or un-rotated for the [SUM] rows
            (`alibi-plain-keys`). The paper does not say which.
        alibi_slope: the bias is -alibi_slope * (p_query - p_key), the same for all heads.
    """

    reset: Reset | None = None
    position: str = "rope"
    alibi_slope: float = 0.0

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            raise ConfigError(
                "position", repr(self.position), f"one of {', '.join(POSITIONS)}", "choose one of these"
            )
        if not 0.0 <= self.alibi_slope < math.inf:
            raise ConfigError("alibi_slope", str(self.alibi_slope), "zero or more", "choose another slope")
        if self.alibi_slope and self.position == "rope":
            found = f"{self.alibi_slope} with position='rope'"
            raise ConfigError("alibi_slope", found, "zero: there is no ALiBi", "choose an ALiBi position")

    @property
    def plain_keys(self) -> bool:
        """Whether the [SUM]s read keys that are not rotated."""
        return self.position == "alibi-plain-keys"

    @property
    def mixes_hidden(self) -> bool:
        """Whether a reset mixes hidden states: its norms are of pairs, so keys are gathered, by no kernel."""
        return self.reset is not None and self.reset.mixing == "hidden"

    def at_test(self) -> Fixes:
        """The fixes of a test prompt: positions as trained, the reset only where `at_test` is set."""
        keep_reset = self.reset is not None and self.reset.at_test
        return Fixes(self.reset if keep_reset else None, self.position, self.alibi_slope)
