"""Typed errors for bad input: each names where, what was found, what was expected and what to do."""

from __future__ import annotations


class ReproError(Exception):
    """Base of every error that a user's input can cause; the command line prints it without a traceback.

    Args:
        where: the file (with line or field) or the setting at fault.
        found: what is there.
        expected: what should be there.
        fix: the command or step that mends it.
    """

    def __init__(self, where: object, found: str, expected: str, fix: str) -> None:
        self.where, self.found, self.expected, self.fix = str(where), found, expected, fix
        super().__init__(f"{where}: {found}\n  expected: {expected}\n  to fix: {fix}")


class DataError(ReproError):
    """A source file, a table or a protocol's result is not usable."""


class ConfigError(ReproError):
    """An unknown or contradictory setting (tier, data set, row, k, n, ...)."""


class BackboneError(ReproError):
    """A model or tokenizer cannot serve as backbone."""


class CheckpointError(ReproError):
    """A checkpoint is damaged or belongs to another configuration."""


class TableError(ReproError):
    """A behaviour table is damaged, belongs to another encoder, or lacks a behaviour."""


class RecordError(ReproError):
    """A record is damaged, incomplete, or belongs to another configuration."""


class StorageError(ReproError):
    """Writing failed (disk full, no permission); nothing half-written is left."""


class CountError(ReproError):
    """A FLOP counter met an operation that it cannot count; it never takes one for free."""
