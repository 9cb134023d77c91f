"""Versions, device, git state and source checksum."""

from __future__ import annotations

import subprocess
import sys

import pytest

from repro.records import environment as module
from repro.records.environment import code_sha256, commit, device_name, environment, git_state


def test_versions_are_those_installed():
    found = environment()
    assert set(found) == {"python", "platform", "torch", "transformers", "peft", "accelerate", "numpy"}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    import numpy

    assert found["numpy"] == numpy.__version__


def test_a_package_that_is_not_installed_reads_null(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("surely-not-installed",))
    assert environment()["surely-not-installed"] is None


def test_the_processor_is_named_with_its_cores_and_without_torch():
    assert device_name() == device_name("cpu")
    assert device_name().rsplit(", ", 1)[1].split()[1] in ("core", "cores")
    assert device_name("mps").endswith(", mps")
    code = "import sys; from repro.records.environment import *; device_name(); environment(); code_sha256()"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_processor_without_a_model_name_still_has_a_name(monkeypatch):
    monkeypatch.setattr(module.Path, "read_text", lambda self: "processor\t: 0\nBogoMIPS\t: 50\n")
    monkeypatch.setattr(module.platform, "processor", lambda: "")
    monkeypatch.setattr(module.platform, "machine", lambda: "aarch64")
    assert device_name().startswith("aarch64, ")


def git(repository, *arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", "-C", str(repository), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_git_state_sees_changes_of_sources_only(tmp_path):
    unknown = {"sha": None, "dirty": None}
    assert git_state(tmp_path) == unknown
    git(tmp_path, "init")
    assert git_state(tmp_path) == unknown  # no commit yet
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "table1.md").write_text("1")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-m", "first")
    clean = {"sha": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    assert git_state(tmp_path) == clean
    (tmp_path / "reports" / "table1.md").write_text("2")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "record.json").write_text("{}")
    assert git_state(tmp_path) == clean
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path) == clean | {"dirty": True}
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "untracked.py").write_text("3")
    assert git_state(tmp_path)["dirty"] is True
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert git_state(inside) == unknown  # a copy installed inside of another project


@pytest.mark.parametrize(("dirty", "text"), [(False, "a" * 40), (True, f"{'a' * 40}-dirty"), (None, None)])
def test_the_commit_of_an_environment_says_whether_sources_differ(monkeypatch, dirty, text):
    state = {"sha": None if dirty is None else "a" * 40, "dirty": dirty}
    monkeypatch.setattr(module, "git_state", lambda: state)
    assert commit() == {"commit": text}


def test_git_state_without_the_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == {"sha": None, "dirty": None}


@pytest.fixture
def package(tmp_path):
    for folder in ("data", "prompts", "methods", "training", "reporting"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_bytes(b"x = 1\n")
    return tmp_path


def test_source_checksum_follows_the_sources_that_make_numbers(package):
    before = code_sha256(package)
    assert len(before) == 64
    (package / "reporting" / "module.py").write_text("x = 2\n")
    (package / "data" / "notes.txt").write_text("no source")
    (package / "data" / "module.py").write_bytes(b"x = 1\r\n")  # another platform's line ends
    assert code_sha256(package) == before
    seen = {before}
    for folder in ("data", "prompts", "methods", "training"):
        (package / folder / "module.py").write_text("x = 2\n")
        seen.add(code_sha256(package))
    (package / "data" / "module.py").rename(package / "data" / "renamed.py")
    seen.add(code_sha256(package))
    (package / "methods" / "inner").mkdir()
    (package / "methods" / "inner" / "deep.py").write_text("")
    seen.add(code_sha256(package))
    assert len(seen) == 7
