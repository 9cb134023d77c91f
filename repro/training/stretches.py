"""How many steps are queued on the device between two looks at their losses."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

STRETCH_S = 1.0  # aimed at: seconds between two looks, which wait for the device


class StretchLength:
    """Number of steps in the next stretch, the same on all processes.

    By a clock of its own, a process could stop at a diverged step while another has queued the next one,
    whose sums then wait for the first for ever.

    Attributes:
        steps: of the next stretch; 1 at first, and at most doubled from one to the next.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.steps = accelerator, 1

    def adapt(self, seconds: float) -> None:
        """Aim at `STRETCH_S`, by the first process's time. All processes call this after the same step.

        Args:
            seconds: of a stretch of `steps` steps. One that the end of an epoch cut short counts as whole: it
                doubles the next at most.
        """
        aimed = self.steps * STRETCH_S / max(seconds, 1e-9)
        self.steps = max(1, min(int(aimed), 2 * self.steps))
        if self.accelerator.num_processes > 1:
            first = torch.tensor(self.steps, device=self.accelerator.device)
            self.steps = int(broadcast(first, from_process=0))
