"""Measuring in a process of its own: a command that must end well."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from repro import paths


class ProgramFailedError(Exception):
    """A program ended with an error or did not end; the message holds the end of what it printed."""


def run_program(
    name: str, command: Sequence[str], variables: Mapping[str, str], limit_s: float | None = None
) -> None:
    """Run a command in the project's folder, with these variables besides its own; show nothing of it.

    Raises:
        ProgramFailedError: it ended with an error, or took more than `limit_s` seconds.
    """
    try:
        done = subprocess.run(
            command,
            cwd=paths.PROJECT_ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramFailedError(f"{name} took more than {limit_s:,.0f} s") from error
    if done.returncode:
        raise ProgramFailedError(f"{name} ended with {done.returncode}:\n{done.stdout[-3000:]}")
