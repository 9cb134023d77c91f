"""Shared by the tests of the data layer: an own cache folder, small sources, the real ML-1M if it is here."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from repro.data import Interactions, Items, Source, groceries
from repro.paths import PROJECT_ROOT

UNPACK = PROJECT_ROOT.parent / "shared" / "data" / "ml-1m" / "unpack.py"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def ml_1m_dir(tmp_path_factory) -> Path:
    """A folder with the real ML-1M."""
    if "REPRO_ML1M_DIR" in os.environ:
        return Path(os.environ["REPRO_ML1M_DIR"])
    if not UNPACK.is_file():
        pytest.skip("the real ML-1M is not here: set REPRO_ML1M_DIR to a folder with ratings.dat")
    folder = tmp_path_factory.mktemp("ml-1m")
    subprocess.run([sys.executable, str(UNPACK), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def groceries_package() -> Source:
    """The source of the installed package."""
    if not groceries.PACKAGE.is_installed:
        pytest.skip(f"the package of groceries is not installed: {groceries.PACKAGE.install}")
    return groceries.read(groceries.find_files())


@pytest.fixture
def make_source():
    """Builds a Source from rows (user, item, label, timestamp) in file order."""

    def make(rows) -> Source:
        user, item, label, timestamp = (np.array(column) for column in zip(*rows, strict=True))
        num_items = int(item.max()) + 1
        return Source(
            name="handmade",
            title="Handmade",
            interactions=Interactions(
                user.astype(np.int32),
                item.astype(np.int32),
                label.astype(np.int8),
                timestamp.astype(np.int64),
            ),
            items=Items(
                tuple(f"key{i}" for i in range(num_items)),
                tuple(f"Title {i}, Drama" for i in range(num_items)),
                (("Drama",),) * num_items,
            ),
            sha256="0" * 64,
        )

    return make


@pytest.fixture
def ml_1m_small(tmp_path) -> Path:
    """A tiny folder in ML-1M's format: 6 users, 8 movies, 36 ratings."""
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    ratings = [
        f"{user}::{movie}::{1 + (user * movie) % 5}::{978300000 + 10 * movie + user}\n"
        for user in range(1, 7)
        for movie in range(user % 3 + 1, user % 3 + 7)
    ]
    (folder / "ratings.dat").write_text("".join(ratings))
    movies = "".join(f"{movie}::Movie {movie}, The (199{movie})::Drama|Comedy\n" for movie in range(1, 9))
    (folder / "movies.dat").write_bytes(movies.replace("Movie 7", "Misérables").encode("iso-8859-1"))
    (folder / "users.dat").write_text("".join(f"{user}::F::25::10::48067\n" for user in range(1, 7)))
    return folder
