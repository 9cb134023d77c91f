"""Checkpoints of a running training: one file, replaced atomically, refused for another configuration.

Only what training changes is stored: trained parameters, batch statistics, optimiser, random state and
progress, from which the schedule follows. The rest of the model comes from the backbone. Read back with
`weights_only=True`: a checkpoint cannot run code.
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


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor of everything that training changes: trained parameters and persistent buffers.

    A buffer is left out of it with `persistent=False`; batch statistics (DIN's Dice) are in it.
    """
    buffers = dict(model.named_buffers())
    stored = {name: buffers[name] for name in model.state_dict() if name in buffers}
    return {**trained_parameters(model), **stored}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what training changes, on the CPU."""
    return {name: each.detach().to("cpu", copy=True) for name, each in trained_state(model).items()}


def load_snapshot(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy a snapshot back. Raises ValueError for other names or shapes."""
    state = trained_state(model)
    wrong = set(state) ^ set(values)
    wrong |= {name for name in set(state) & set(values) if state[name].shape != values[name].shape}
    if wrong:
        raise ValueError(f"parameters that are not this model's: {', '.join(sorted(wrong)[:3])}")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(values[name])


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
