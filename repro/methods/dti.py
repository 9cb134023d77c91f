"""Dynamic Target Isolation (DTI): one streaming prompt trains k targets under windowed attention.

`dti-minus` has windowed attention and no fix; `dti` has both fixes. Two recipes:

* `paper`: the paper's prompt as we read it. Without the fix a [SUM] stands inline and takes up a position id
  (Figure 5); with the fix it has no position id (section 4.2), so it takes none up and the text keeps the
  geometry of a test prompt. The instruction belongs to no window (section 3.4: a [SUM] attends "only to
  tokens associated with its preceding context interactions").
* `tuned`: ours. [SUM]s deferred, each at exactly the position it has in a test prompt, instruction visible;
  no further fix is needed, so none is applied.
"""

from __future__ import annotations

from repro.backbones.fix_settings import Fixes, Reset
from repro.methods.method import SumMethod
from repro.prompts.settings import PromptSettings

PAPER_FIXES = Fixes(reset=Reset(), position="alibi-rotated-keys", alibi_slope=0.01)


def dti_minus(n: int, k: int) -> SumMethod:
    """Streaming prompts and windowed attention, no fix, paper recipe (the paper's DTI-)."""
    prompt = PromptSettings(n=n, k=k, sum_layout="inline-positions", instruction="hidden")
    return SumMethod("dti-minus", prompt)


def dti(n: int, k: int, fixes: Fixes = PAPER_FIXES) -> SumMethod:
    """Streaming prompts, windowed attention, reset and position fix, paper recipe (the paper's DTI)."""
    return SumMethod("dti", PromptSettings(n=n, k=k, instruction="hidden"), fixes)


def dti_tuned(n: int, k: int) -> SumMethod:
    """Streaming prompts with deferred [SUM]s in test geometry and a visible instruction (our recipe)."""
    return SumMethod("dti", PromptSettings(n=n, k=k))
