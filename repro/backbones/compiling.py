"""torch.compile with room for every shape that the models of a process meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIMIT = 512  # versions of one function, of all models in a process together


def compiled(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
    """The function, compiled for every shape anew or (`dynamic`) once for all.

    A function has one compilation for each padded length, dtype and need of a gradient, and all models of a
    process share them. Past torch's own limit, eight, it would run uncompiled without a word; here there is
    room, and past that an error.
    """
    config: Any = torch._dynamo.config
    for name in ("recompile_limit", "accumulated_recompile_limit"):
        setattr(config, name, max(getattr(config, name), LIMIT))
    config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=dynamic)
