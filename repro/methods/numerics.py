"""Version numbers of what moves numbers; raised by hand when a change does (see CONTRIBUTING.md).

They are part of every run's configuration. A record made under an older number is marked stale in reports.
"""

from __future__ import annotations

import re

NUMERICS: dict[str, int] = {
    **{"zero-shot": 1, "sw": 1, "dti-minus": 1, "dti": 1},
    **{"constant": 1, "user-rate": 1, "item-rate": 1, "rates": 1},
    **{"bahe": 1, "llm-ctr": 1, "dti-bahe": 1},
    **{"din": 1, "sasrec": 1, "dcnv2": 1, "sim": 1, "gru4rec": 1},
}
TRAINER_NUMERICS = 1


def method_numerics(method: str) -> int:
    """Version of a method by its name in records; `rates-20` has that of `rates`.

    Raises:
        KeyError: no such method.
    """
    return NUMERICS[re.sub(r"^rates-\d+$", "rates", method)]
