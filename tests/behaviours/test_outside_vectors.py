"""Vectors of another encoder (images, audio, ...) in a behaviour table: taken, kept apart, and looked up."""

from __future__ import annotations

import numpy as np
import pytest

from repro.behaviours.table import BehaviourTable, open_table
from repro.errors import DataError, TableError

OUTSIDE, WIDTH = "f" * 64, 12  # the fingerprint that some image encoder gives itself
KEYS = ("image:poster-1.jpg", "image:poster-2.jpg", "audio:trailer-1.wav")


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((len(KEYS), WIDTH)).astype(np.float32)


def looked_up(table: BehaviourTable, keys: tuple[str, ...]) -> np.ndarray:
    return table.vectors().numpy()[table.rows(keys)]


def test_made_up_vectors_come_back_as_they_went_in(folder, vectors) -> None:
    table = open_table(folder, OUTSIDE, WIDTH)
    table.add(KEYS[:2], vectors[:2])
    table.add(KEYS[2:], vectors[2:])
    assert np.array_equal(looked_up(table, KEYS[::-1]), vectors[::-1])
    assert table.rows(["a text"]).tolist() == [-1]
    if folder is not None:
        assert np.array_equal(looked_up(open_table(folder, OUTSIDE, WIDTH), KEYS), vectors)


def test_they_do_not_mix_with_those_of_a_language_model(tmp_path, vectors) -> None:
    pytest.importorskip("lance", reason="pylance is not installed")
    open_table(tmp_path / "outside.lance", OUTSIDE, WIDTH).add(KEYS, vectors)
    with pytest.raises(TableError, match="another encoder"):
        open_table(tmp_path / "outside.lance", "a" * 64, WIDTH)


@pytest.mark.parametrize("shape", [(3, WIDTH + 1), (2, WIDTH), (3, WIDTH)])
def test_vectors_of_another_shape_or_not_finite_are_refused(folder, shape) -> None:
    table = open_table(folder, OUTSIDE, WIDTH)
    with pytest.raises(DataError):
        table.add(KEYS, np.full(shape, np.nan if shape == (3, WIDTH) else 0.0, dtype=np.float32))
    assert len(table) == 0
