"""Settings that decide what a prompt looks like and which tokens see which."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import ConfigError

SUM_LAYOUTS = ("deferred", "inline-positions", "inline-visible")
WINDOWS = ("interactions", "tokens")
INSTRUCTIONS = ("visible", "hidden")


@dataclass(frozen=True)
class PromptSettings:
    """One prompt format.

    Attributes:
        n: context interactions of a target.
        k: targets per training prompt; 1 is the sliding window.
        sum_layout: `deferred` (a [SUM] takes the position right after its target's text, shifting nobody),
            `inline-positions` (it also takes up a position id, as in DTI's Figure 5; nobody attends to it)
            or `inline-visible` (later tokens whose window reaches it also attend to it).
        window: `interactions` (own interaction and the n before it) or `tokens` (a fixed number of preceding
            tokens, DTI appendix).
        window_tokens: size of the token window, the query's own token included; needed by `window="tokens"`.
        instruction: `visible` to every query, or `hidden`: it belongs to no window (literally section 3.4).
        answers_in_context: whether the answer token follows every context interaction.
    """

    n: int = 20
    k: int = 1
    sum_layout: str = "deferred"
    window: str = "interactions"
    window_tokens: int | None = None
    instruction: str = "visible"
    answers_in_context: bool = True

    def __post_init__(self) -> None:
        for name, known in (("sum_layout", SUM_LAYOUTS), ("window", WINDOWS), ("instruction", INSTRUCTIONS)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    name, repr(getattr(self, name)), f"one of {', '.join(known)}", "choose one of these"
                )
        if self.window == "tokens" and (self.window_tokens is None or self.window_tokens < 1):
            raise ConfigError(
                "window_tokens", str(self.window_tokens), "a positive number", "set it beside window='tokens'"
            )
        if self.window != "tokens" and self.window_tokens is not None:
            found = f"{self.window_tokens} beside window={self.window!r}"
            raise ConfigError("window_tokens", found, "None, or window='tokens'", "leave it out, or set both")

    def test_format(self) -> PromptSettings:
        """The sliding-window prompt that validation and test use for every method (DTI section 3.6)."""
        return PromptSettings(n=self.n, k=1, answers_in_context=self.answers_in_context)
