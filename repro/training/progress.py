"""What a run shows: a progress bar with ETA on a terminal, one quiet line per event otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining


class RunProgress:
    """Progress of one run.

    Args:
        title: run name in front of every line.
        total_steps: optimiser steps of all epochs.
        quiet: print nothing (processes other than the first).
    """

    def __init__(self, title: str, total_steps: int, quiet: bool = False) -> None:
        self.title, self.total_steps, self.quiet = title, total_steps, quiet
        self.console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._begin = self._last = time.perf_counter()
        self._tokens = self._targets = 0

    def __enter__(self) -> RunProgress:
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            times = (TimeElapsedColumn(), Remaining(), TextColumn("{task.fields[state]}"))
            self._bar = Progress(*columns, *times, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total_steps, state="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def event(self, text: str) -> None:
        """One line: epoch finished, checkpoint found, best epoch, ..."""
        if not self.quiet:
            self.console.print(f"{self.title}: {text}", highlight=False, soft_wrap=True)

    def resume(self, done_steps: int) -> None:
        """Start the bar where a checkpoint left off."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done_steps)

    def step(self, loss: float, targets: int, tokens: int) -> None:
        """Count one optimiser step; speeds are over the last second or more."""
        self._targets += targets
        self._tokens += tokens
        now = time.perf_counter()
        if self._bar is None or self._task is None:
            return
        fields: dict[str, Any] = {}
        if now - self._last > 1.0:
            seconds = now - self._last
            speed = f"{self._tokens / seconds:,.0f} tokens/s {self._targets / seconds:,.1f} targets/s"
            fields["state"] = f"loss {loss:.4f} {speed}"
            self._last, self._tokens, self._targets = now, 0, 0
        self._bar.update(self._task, advance=1, **fields)
