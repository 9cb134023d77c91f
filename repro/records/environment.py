"""Where and with what a run was made: versions, device, git state, checksum of the sources."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro import paths

PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy")
HASHED_FOLDERS = ("data", "prompts", "backbones", "behaviours", "methods", "training")
GENERATED_FOLDERS = ("results", "reports")


def environment() -> dict[str, str | None]:
    """Versions of Python, the platform and the packages that numbers depend on; nothing is imported."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "platform": _platform()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _platform() -> str:
    """System, processor family and C library; a kernel release would name the machine."""
    library = " ".join(part for part in platform.libc_ver() if part)
    return ", ".join(part for part in (platform.system(), platform.machine(), library) if part)


def device_name(torch_device: str | None = None) -> str:
    """Name of a device, which is part of a run's id.

    Args:
        torch_device: e.g. "cuda:0"; None or "cpu" is the processor with the number of its cores that this
            process may use. Torch is imported for CUDA only.
    """
    kind = (torch_device or "cpu").split(":")[0]
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name(torch_device)
    cores = num_cores()
    name = f"{_cpu_model()}, {cores} core{'s' if cores != 1 else ''}"
    return name if kind == "cpu" else f"{name}, {kind}"


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_slug(name: str) -> str:
    """A device's name as part of a file's name: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def git_state(repository: Path = paths.PROJECT_ROOT) -> dict[str, Any]:
    """{"sha": commit, "dirty": whether anything but generated results and reports differs from it}.

    Both are None without git, without a commit, or where `repository` is not the top of a work tree (a copy
    installed inside some other project must not claim that project's commit).
    """
    unknown = {"sha": None, "dirty": None}
    top = _git(repository, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != repository.resolve():
        return unknown
    sha = _git(repository, "rev-parse", "--verify", "--quiet", "HEAD")
    excluded = [f":(exclude){folder}" for folder in GENERATED_FOLDERS]
    changes = _git(repository, "status", "--porcelain", "--", ".", *excluded)
    return unknown if not sha or changes is None else {"sha": sha, "dirty": bool(changes)}


def code_sha256(package: Path = paths.PROJECT_ROOT / "repro", folders: Sequence[str] = HASHED_FOLDERS) -> str:
    """Checksum over path and content of a package's sources: those of HASHED_FOLDERS."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((package / folder).rglob("*.py"), key=lambda path: path.as_posix()):
            content = path.read_bytes().replace(b"\r\n", b"\n")  # a checkout may convert line ends
            digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def commit() -> dict[str, str | None]:
    """{"commit": ...} of this project, for an environment: with "-dirty" where sources differ from it."""
    state = git_state()
    return {"commit": f"{state['sha']}-dirty" if state["dirty"] else state["sha"]}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git(repository: Path, *arguments: str) -> str | None:
    """Output of a git command, None where git or the repository is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
