"""Checkpoints of a running training: one file, replaced atomically, refused for another configuration.

Only what training changes is stored: trained parameters, optimiser, random state and progress, from which the
schedule follows. The rest of the model comes from the backbone. Read back with `weights_only=True`: a
checkpoint cannot run code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import CheckpointError, StorageError

STATE_FILE, BEST_FILE = "state.pt", "best.pt"


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that is trained."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the trained parameters, on the CPU."""
    return {name: p.detach().to("cpu", copy=True) for name, p in trained_parameters(model).items()}


def load_snapshot(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy a snapshot back. Raises ValueError for other names or shapes."""
    parameters = trained_parameters(model)
    wrong = set(parameters) ^ set(values)
    wrong |= {name for name in set(parameters) & set(values) if parameters[name].shape != values[name].shape}
    if wrong:
        raise ValueError(f"parameters that are not this model's: {', '.join(sorted(wrong)[:3])}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


class CheckpointFolder:
    """The checkpoint of one run.

    Args:
        folder: made when the first checkpoint is written.
        run_id: written into every file; a file of another run is refused.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder, self.run_id = folder, run_id

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a file under a temporary name, fsync, rename.

        Raises:
            StorageError: disk full or no permission; the previous checkpoint is untouched.
        """
        temporary = self.folder / f".{name}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({"run_id": self.run_id, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / name)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            with suppress(OSError):  # there may be no folder at all
                temporary.unlink()
            raise StorageError(
                self.folder / name,
                f"writing failed: {error}",
                "room and permission",
                "free space and run again",
            ) from error

    def load(self, name: str) -> dict[str, Any] | None:
        """Read a file; None where there is none.

        Raises:
            CheckpointError: damaged, or of another configuration.
        """
        path = self.folder / name
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            run_id = state.pop("run_id")
        except Exception as error:  # any damage: torch raises many types here
            raise CheckpointError(
                path, f"cannot be read ({type(error).__name__})", "a checkpoint", f"delete {self.folder}"
            ) from error
        if run_id != self.run_id:
            raise CheckpointError(
                path, f"is of run {run_id}", f"a checkpoint of {self.run_id}", f"delete {self.folder}"
            )
        return state

    @contextmanager
    def must_fit(self) -> Iterator[None]:
        """What readable files with other content can raise while they are taken up, as CheckpointError."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                self.folder / STATE_FILE,
                f"does not fit ({type(error).__name__}: {error})",
                "a checkpoint that this program wrote",
                f"delete {self.folder} to start again",
            ) from error

    def delete(self) -> None:
        """Remove the checkpoint once the run's record is stored."""
        for path in self.folder.glob("*") if self.folder.exists() else ():
            path.unlink()
        if self.folder.exists():
            self.folder.rmdir()
