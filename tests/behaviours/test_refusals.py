"""What a table and its encoder refuse: clear errors, the same in memory and on disk, and nothing changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from behaviour_cases import WIDTH, many, random_rows, tiny

from repro.behaviours.encoding import BehaviourEncoder
from repro.behaviours.table import MemoryTable, fill, look_up, open_table
from repro.errors import ConfigError, DataError, TableError

FINGERPRINT = "f" * 64


def bad_rows():
    texts, vectors = random_rows(3)
    nan, large = vectors.copy(), vectors.astype(np.float64)
    nan[1, 2], large[1, 2] = np.nan, 1e300
    yield "empty", [texts[0], " ", texts[2]], vectors, "an empty text"
    yield "twice", [texts[0], texts[0], texts[2]], vectors, "1 texts come twice"
    yield "there", [texts[0], "\ntext 101: yes", texts[2]], vectors, "1 are in the table already"
    yield "width", texts, vectors[:, 1:], rf"vectors of shape \(3, {WIDTH - 1}\)"
    yield "count", texts, vectors[1:], rf"vectors of shape \(2, {WIDTH}\)"
    yield "nan", texts, nan, "'.ntext 1: yes' is not finite"
    yield "beyond float32", texts, large, "'.ntext 1: yes' is not finite"
    yield "complex", texts, vectors * 1j, "vectors of complex64"
    yield "bool", texts, vectors > 0, "vectors of bool"
    yield "digits", texts, vectors.astype(str), "vectors of <U"
    yield "objects", texts, vectors.astype(object), "vectors of object"
    yield "list", texts, list(vectors), "vectors as list.*\\n.*\\n.*np.stack"
    yield "complex tensor", texts, torch.from_numpy(vectors * 1j), "vectors of complex64"
    yield "gradient", texts, torch.from_numpy(vectors).requires_grad_(), r"\n.*take vectors.detach\(\)"
    yield "int key", [texts[0], 7, texts[2]], vectors, "a key of type int, 7"
    yield "bytes key", [texts[0], b"a", texts[2]], vectors, "a key of type bytes, b'a'"
    yield "no key", [texts[0], None, texts[2]], vectors, "a key of type NoneType"
    yield "surrogate", [texts[0], "a\ud800", texts[2]], vectors, r"'a.ud800', which UTF-8 cannot write"
    yield "one text", "abc", vectors, "texts as str"
    yield "iterator", iter(texts), vectors, r"texts as list_iterator.*\n.*\n.*list\(texts\)"


@pytest.mark.parametrize("case", list(bad_rows()), ids=lambda case: case[0])
def test_bad_rows_are_refused_and_change_nothing(folder, case) -> None:
    _, texts, vectors, message = case
    table = open_table(folder, FINGERPRINT, WIDTH)
    table.add(*random_rows(3, first=100))
    version = table.version
    with pytest.raises(DataError, match=message):
        table.add(texts, vectors)
    assert (len(table), table.version) == (3, version)
    table.add(*random_rows(3))
    assert len(table) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8])
def test_tensors_are_taken_as_float32(folder, dtype) -> None:
    texts, vectors = random_rows(4)
    given = (100 * torch.from_numpy(vectors)).clamp(-127, 127).to(dtype)
    table = open_table(folder, FINGERPRINT, WIDTH)
    table.add(texts, given)
    assert torch.equal(table.vectors(), given.float())


@pytest.mark.parametrize("width", [0, -1, 48.0, True, "48", None])
def test_a_width_that_is_no_number_from_1_is_refused(folder, width) -> None:
    with pytest.raises(ConfigError, match=f"width of the behaviour table: {width!r}"):
        open_table(folder, FINGERPRINT, width)
    assert folder is None or not folder.exists()


@pytest.mark.parametrize("fingerprint", ["", None, b"f", "\ud800"])
def test_a_fingerprint_that_is_no_text_is_refused(folder, fingerprint) -> None:
    with pytest.raises(ConfigError, match="fingerprint of the behaviour table"):
        open_table(folder, fingerprint, WIDTH)


def test_another_width_under_one_fingerprint_is_refused_with_both(tmp_path) -> None:
    pytest.importorskip("lance")
    open_table(tmp_path, FINGERPRINT, WIDTH).add(*random_rows(3))
    with pytest.raises(TableError, match=r"vectors of width 48, .*\n  expected: width 50") as error:
        open_table(tmp_path, FINGERPRINT, 50)
    assert "delete" not in error.value.fix
    assert len(open_table(tmp_path, FINGERPRINT, WIDTH)) == 3


def test_a_table_of_another_width_than_the_encoder_is_refused() -> None:
    backbone = tiny()
    encoder, behaviours = BehaviourEncoder(backbone, 2), many(backbone, 3)
    table = MemoryTable(encoder.fingerprint, encoder.width + 1)
    with pytest.raises(
        TableError, match=rf"width {encoder.width + 1}, .*\n  expected: width {encoder.width}"
    ):
        fill(table, behaviours, encoder)
    with pytest.raises(TableError, match=rf"expected: width {encoder.width}"):
        look_up(table, behaviours, np.arange(3), encoder)


@pytest.mark.parametrize("name", [".", "table.lance", "lock", "vectors.f32", "vectors.json"])
def test_a_file_in_place_of_a_folder_or_the_reverse_is_named(tmp_path, name) -> None:
    pytest.importorskip("lance")
    path: Path = tmp_path / "table" / name
    path.parent.mkdir(exist_ok=True)
    if name in (".", "table.lance"):
        path.write_text("not a table")
        found, expected = "a file", "a folder"
    else:
        path.mkdir()
        found, expected = "a folder", "a file"
    with pytest.raises(TableError) as error:
        open_table(tmp_path / "table", FINGERPRINT, WIDTH)
    assert str(error.value).startswith(f"{path}: {found}\n  expected: {expected} of a behaviour table")
    assert "space" not in str(error.value) and path.exists()


def bad_numbers():
    yield "beyond", [0, 999], r"1 of 2 are outside, 999 first\n  expected: 0 to 11"
    yield "just beyond", [12], "1 of 1 are outside, 12 first"
    yield "negative", [0, -1], "1 of 2 are outside, -1 first"
    yield "float", [0.0], r"float64 of shape \(1,\)"
    yield "mask", [True, False], r"bool of shape \(2,\).*\n.*\n.*np.flatnonzero for a mask"
    yield "two dimensions", [[0], [1]], r"int64 of shape \(2, 1\)"
    yield "one alone", 3, r"int64 of shape \(\)"
    yield "ragged", [[0], [1, 2]], "an int array of one dimension"
    yield "texts", ["a"], r"<U1 of shape \(1,\)"
    yield "none", None, r"object of shape \(\)"


@pytest.mark.parametrize("case", list(bad_numbers()), ids=lambda case: case[0])
def test_numbers_that_are_no_behaviours_are_refused(folder, case) -> None:
    _, numbers, message = case
    backbone = tiny()
    behaviours, encoder = many(backbone, 4), BehaviourEncoder(backbone, 2)
    table = open_table(folder, encoder.fingerprint, encoder.width)
    fill(table, behaviours, encoder)
    assert len(behaviours) == 12
    for own in (None, encoder):
        with pytest.raises(DataError, match=message):
            look_up(table, behaviours, numbers, own)
    assert look_up(table, behaviours, [], encoder).shape == (0, encoder.width)
    assert look_up(table, behaviours, [3, 0, 3]).shape == (3, encoder.width)


@pytest.mark.parametrize("num_layers", [-1, 0, 4, 5, 2.0, True, "2", None])
def test_m_out_of_range_is_refused(num_layers) -> None:
    with pytest.raises(ConfigError, match=rf"num_layers \(m\): {num_layers!r}\n  expected: 1 to 3"):
        BehaviourEncoder(tiny(), num_layers)


@pytest.mark.parametrize("batch_tokens", [0, -1, 64.0, True])
def test_a_batch_without_tokens_is_refused(batch_tokens) -> None:
    with pytest.raises(ConfigError, match=rf"batch_tokens: {batch_tokens!r}\n"):
        BehaviourEncoder(tiny(), 2, batch_tokens=batch_tokens)


def test_a_whole_number_of_numpys_is_one() -> None:
    assert BehaviourEncoder(tiny(), np.int64(2)).fingerprint == BehaviourEncoder(tiny(), 2).fingerprint
