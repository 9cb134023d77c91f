"""A method that scores targets at [SUM]s: its prompts in training, its fixes, and the prompts of its test."""

from __future__ import annotations

from dataclasses import dataclass, field

from repro.backbones.fix_settings import Fixes
from repro.prompts.settings import PromptSettings


@dataclass(frozen=True)
class SumMethod:
    """One method of Table 1.

    Attributes:
        name: `zero-shot`, `sw`, `dti-minus` or `dti`, as in records.
        prompt: format of the training prompts; validation and test use `prompt.test_format()`.
        fixes: DTI's fixes in training; validation and test use `fixes.at_test()`.
        trains: False for the zero-shot reference.
    """

    name: str
    prompt: PromptSettings
    fixes: Fixes = field(default_factory=Fixes)
    trains: bool = True


@dataclass(frozen=True)
class BatchSizes:
    """How batches are cut for the machine; moves no number but rounding.

    Attributes:
        max_tokens: text tokens per forward pass; a larger batch is accumulated from micro-batches.
        text_multiple, sum_multiple: length buckets: text tokens and [SUM]s are padded up to multiples.
    """

    max_tokens: int = 4096
    text_multiple: int = 64
    sum_multiple: int = 8
