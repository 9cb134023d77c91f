"""Where the tables of these tests are opened."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "disk"])
def folder(request, tmp_path) -> Path | None:
    """Where a table is opened: None is memory."""
    if request.param == "disk" and importlib.util.find_spec("lance") is None:
        pytest.skip("pylance is not installed")
    return tmp_path / "table" if request.param == "disk" else None
