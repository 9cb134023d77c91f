import time

import numpy as np
import pytest

from repro.data import TEST, TRAIN, VALIDATION, load_prepared, ml_1m
from repro.data.protocols import apply_protocol
from repro.errors import ConfigError, DataError


def read(folder, like_above=3.0):
    return ml_1m.read(ml_1m.find_files(folder), like_above)


def test_small_folder_gives_rows_in_file_order_and_texts(ml_1m_small):
    source = read(ml_1m_small)
    first_lines = [line.split("::") for line in (ml_1m_small / "ratings.dat").read_text().splitlines()]
    assert source.interactions.timestamp.tolist() == [int(fields[3]) for fields in first_lines]
    assert source.interactions.label.tolist() == [int(int(fields[2]) > 3) for fields in first_lines]
    assert [source.items.key[i] for i in source.interactions.item] == [fields[1] for fields in first_lines]
    assert source.items.text[0] == "Movie 1, The (1991), Drama, Comedy"
    assert source.items.text[6] == "Misérables, The (1997), Drama, Comedy"
    assert source.items.categories[0] == ("Drama", "Comedy")
    assert source.title == "MovieLens-1M"


def test_label_threshold_is_a_setting(ml_1m_small):
    assert (
        read(ml_1m_small, like_above=4.0).interactions.label.sum()
        < read(ml_1m_small).interactions.label.sum()
    )


def test_windows_line_ends_read_the_same(ml_1m_small):
    expected = read(ml_1m_small)
    for name in ml_1m.FILE_NAMES:
        content = (ml_1m_small / name).read_bytes()
        (ml_1m_small / name).write_bytes(content.replace(b"\n", b"\r\n"))
    found = read(ml_1m_small)
    assert found.items == expected.items
    assert np.array_equal(found.interactions.timestamp, expected.interactions.timestamp)


def replace_line(number, text):
    def change(content: bytes) -> bytes:
        lines = content.split(b"\n")
        lines[number - 1] = text
        return b"\n".join(lines)

    return change


@pytest.mark.parametrize(
    ("name", "change", "where", "found"),
    [
        ("ratings.dat", replace_line(3, b"1::2::3"), "line 3", "'1::2::3'"),
        ("ratings.dat", replace_line(4, b"1::2::3::4::5"), "line 4", "1::2::3::4::5"),
        ("ratings.dat", replace_line(4, b"1::2::3.5::4"), "line 4", "1::2::3.5::4"),
        ("ratings.dat", replace_line(5, b"1::2::five::4"), "line 5", "five"),
        ("ratings.dat", replace_line(6, b""), "line 6", "''"),
        ("ratings.dat", replace_line(2, b"1::3::6::978300031"), "line 2, field rating", "rating 6"),
        ("ratings.dat", replace_line(2, b"1::3::0::978300031"), "line 2, field rating", "rating 0"),
        ("ratings.dat", replace_line(2, b"1::99::5::978300031"), "line 2, field item", "movie 99"),
        ("ratings.dat", replace_line(2, b"77::3::5::978300031"), "line 2, field user", "user 77"),
        ("ratings.dat", replace_line(9, b"1::3::5::1"), "line 9", "again (first in line 2)"),
        ("ratings.dat", lambda content: content[:-5], "line 36", "cut off"),
        (
            "ratings.dat",
            lambda content: b"".join(content.splitlines(True)[:30]),
            "ratings.dat",
            "no rating of user 6",
        ),
        ("ratings.dat", lambda content: b"", "ratings.dat", "no ratings"),
        ("ratings.dat", lambda content: content.decode().encode("utf-16"), "line 1", "1"),
        ("movies.dat", replace_line(2, b"2::No genre"), "line 2", "No genre"),
        ("movies.dat", replace_line(3, b"x::Title::Drama"), "line 3", "x::Title::Drama"),
        ("movies.dat", replace_line(3, b"2::Title::Drama"), "line 3, field MovieID", "movie 2 again"),
        ("movies.dat", lambda content: content[:-4], "line 8", "cut off"),
        ("movies.dat", lambda content: b"", "movies.dat", "empty"),
        ("movies.dat", lambda content: content.decode("iso-8859-1").encode(), "line 7", "UTF-8"),
        ("users.dat", replace_line(2, b"2;F;25"), "line 2", "2;F;25"),
    ],
)
def test_bad_input_names_file_line_and_finding(ml_1m_small, name, change, where, found):
    path = ml_1m_small / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load_prepared("ml-1m", "rella", ml_1m_small, min_context=1)
    assert str(path) in caught.value.where
    assert where in caught.value.where
    assert found in caught.value.found
    assert caught.value.expected and caught.value.fix


@pytest.mark.parametrize("name", ml_1m.FILE_NAMES)
def test_missing_file(ml_1m_small, name):
    (ml_1m_small / name).unlink()
    with pytest.raises(DataError, match=f"{name}: the file is missing"):
        load_prepared("ml-1m", data_dir=ml_1m_small)


def test_no_folder():
    with pytest.raises(ConfigError, match=r"ratings\.dat"):
        load_prepared("ml-1m")


def test_full_user_list_with_a_rating_missing(ml_1m_small, monkeypatch):
    monkeypatch.setattr(ml_1m, "NUM_USERS", 6)
    with pytest.raises(DataError, match="36 ratings"):
        read(ml_1m_small)


def test_real_counts_titles_and_speed(ml_1m_dir):
    start = time.perf_counter()
    prepared = load_prepared("ml-1m", data_dir=ml_1m_dir)
    assert time.perf_counter() - start < 15  # about 1.5 s on one core
    assert prepared.protocol == "rella"
    assert [len(prepared.targets(split)) for split in (TRAIN, VALIDATION, TEST)] == [776_007, 97_000, 97_002]
    assert prepared.is_target.sum() == 970_009
    assert len(prepared.items) == 3_706
    assert "Misérables, Les (1995), Drama, Musical" in prepared.items.text
    if ml_1m.file_sha256(ml_1m_dir / "ratings.dat") == ml_1m.INTERPOLATED_RATINGS_SHA256:
        assert prepared.title == "ML-1M (timestamps partly interpolated)"
        assert prepared.name == "ml-1m"
    assert load_prepared("ml-1m", data_dir=ml_1m_dir).sha256 == prepared.sha256  # from the cache


def test_real_pruned_counts(ml_1m_dir):
    prepared = apply_protocol(read(ml_1m_dir), "dti")
    assert prepared.counts["raw_items"] == 3_706
    assert prepared.counts["items"] == 3_416
    assert len(np.unique(prepared.interactions.user[prepared.targets(TEST)])) == 1_209
