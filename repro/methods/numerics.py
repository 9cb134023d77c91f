"""Version numbers of what moves numbers; raised by hand when a change does (see CONTRIBUTING.md).

They are part of every run's configuration. A record made under an older number is marked stale in reports.
"""

from __future__ import annotations

NUMERICS: dict[str, int] = {"zero-shot": 1, "sw": 1, "dti-minus": 1, "dti": 1}
TRAINER_NUMERICS = 1
