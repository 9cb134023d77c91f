import gzip
import json
from pathlib import Path

import pytest

from repro.data import amazon, load_prepared
from repro.errors import ConfigError, DataError

REVIEWS, META = "CDs_and_Vinyl_5.json", "meta_CDs_and_Vinyl.json"


def review(user, item, rating, time, **more):
    record = {
        "overall": rating,
        "verified": True,
        "reviewTime": "09 1, 2016",
        "reviewerID": user,
        "asin": item,
        "style": {"Format:": " Audio CD"},
        "reviewText": "Ein Café\u2028and a line separator",
        "unixReviewTime": time,
    }
    return json.dumps({**record, **more})


def meta(item, **fields):
    return json.dumps({"also_buy": [], "description": ["text"], **fields, "asin": item})


@pytest.fixture
def write(tmp_path):
    """Writes both files, packed or plain, and returns their folder."""

    def write_files(reviews, metadata, packed=True) -> Path:
        for name, lines in ((REVIEWS, reviews), (META, metadata)):
            content = b"".join(line if isinstance(line, bytes) else f"{line}\n".encode() for line in lines)
            if packed:
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (tmp_path / name).write_bytes(content)
        return tmp_path

    return write_files


def read(folder, like_above=3.0):
    return amazon.read("amazon-cds", amazon.find_files("amazon-cds", folder), like_above)


ONE_META = [meta("B0001", title="Blue", category=["CDs & Vinyl", "Folk"], brand="Joni Mitchell")]


@pytest.mark.parametrize("packed", [True, False])
def test_packed_and_plain_files(write, packed):
    source = read(
        write([review("A1", "B0001", 5.0, 86_400), review("A2", "B0001", 3.0, 0)], ONE_META, packed)
    )
    assert source.items.text == ("Blue, Folk, Joni Mitchell",)
    assert source.items.key == ("B0001",)
    assert source.items.categories == (("Folk",),)
    assert source.interactions.label.tolist() == [1, 0]
    assert source.interactions.timestamp.tolist() == [86_400, 0]
    assert source.title == "Amazon CDs"
    assert source.counts == {"duplicates_dropped": 0, "items_without_metadata": 0}


def test_first_of_duplicate_reviews_stays(write):
    reviews = [
        review("A1", "B0001", 5.0, 300),
        review("A2", "B0001", 4.0, 200),
        review("A1", "B0001", 1.0, 100),
        review("A1", "B0001", 2.0, 100),
    ]
    source = read(write(reviews, ONE_META))
    assert source.counts["duplicates_dropped"] == 2
    assert list(
        zip(source.interactions.user, source.interactions.label, source.interactions.timestamp, strict=True)
    ) == [
        (1, 1, 200),
        (0, 0, 100),
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"title": "Blue", "category": ["CDs & Vinyl", "Folk"], "brand": "Joni"}, "Blue, Folk, Joni"),
        ({"title": "Blue", "category": ["CDs & Vinyl", "Pop", "Oldies"], "brand": ""}, "Blue, Pop, Oldies"),
        ({"category": ["CDs & Vinyl", "Folk"], "brand": "Joni"}, "Folk, Joni"),
        ({"title": None, "category": None, "brand": None}, "an item without description"),
        ({}, "an item without description"),
        ({"title": "Rock &amp; Roll"}, "Rock & Roll"),
        ({"title": "Rock &amp;amp; Roll"}, "Rock & Roll"),
        ({"title": '<span class="a-size">Blue\n <b>Notes</b></span>'}, "Blue Notes"),
        ({"title": "I &lt;3 You > me"}, "I <3 You > me"),
        ({"title": "var aPageStart = (new Date()).getTime();\nvar x", "brand": "Joni"}, "Joni"),
        ({"title": "<script>var a = 1;</script>Blue"}, "Blue"),
        ({"title": "Blue", "category": [["CDs & Vinyl", "Folk"], ["Music", "Pop"]]}, "Blue, Folk"),
        ({"title": "Blue", "categories": [["CDs & Vinyl", "Folk &amp; Country"]]}, "Blue, Folk & Country"),
        ({"title": "Blue", "category": "Folk"}, "Blue, Folk"),
        ({"title": "Blue", "category": []}, "Blue"),
        ({"title": "Blue", "brand": "Visit Amazon's Joni Mitchell Page"}, "Blue, Joni Mitchell"),
    ],
)
def test_quirks_of_metadata(write, fields, text):
    source = read(write([review("A1", "B0001", 5.0, 1)], [meta("B0001", **fields)]))
    assert source.items.text == (text,)


def test_item_without_metadata_and_repeated_metadata(write):
    reviews = [review("A1", "B0009", 5.0, 1), review("A1", "B0001", 5.0, 1)]
    source = read(
        write(reviews, [*ONE_META, meta("B0001", title="Other"), meta("B0777", title="Not reviewed")])
    )
    assert source.items.text == ("an item without description", "Blue, Folk, Joni Mitchell")
    assert source.counts["items_without_metadata"] == 1


def test_old_dumps_with_python_dictionaries(write):
    fields = "'title': 'Don\\'t \"Stop\"', 'categories': [['CDs & Vinyl', 'Rock']], 'price': None"
    line = f"{{'asin': 'B0001', {fields}}}"
    assert read(write([review("A1", "B0001", 5.0, 1)], [line])).items.text == ('Don\'t "Stop", Rock',)


def test_python_lines_are_never_evaluated(write, tmp_path):
    target = tmp_path / "made-by-code"
    line = f"{{'asin': open({str(target)!r}, 'w').write('x')}}"
    with pytest.raises(DataError, match="line 1"):
        read(write([review("A1", "B0001", 5.0, 1)], [line]))
    assert not target.exists()


def test_threshold_is_a_setting(write):
    folder = write([review("A1", "B0001", 4.0, 1), review("A2", "B0001", 5.0, 1)], ONE_META)
    assert read(folder).interactions.label.tolist() == [1, 1]
    assert read(folder, like_above=4.0).interactions.label.tolist() == [0, 1]


def test_load_prepared_keeps_ties_in_file_order(write):
    reviews = [
        review(f"A{user}", f"B000{item}", 1 + (user * item) % 5, (user + item) // 3 * 86_400)
        for item in range(5)
        for user in range(12)
    ]
    folder = write(reviews, [meta(f"B000{item}", title=f"Title {item}") for item in range(5)])
    prepared = load_prepared("amazon-cds", data_dir=folder, min_context=2)
    assert prepared.protocol == "dti"
    order = sorted(range(len(reviews)), key=lambda number: json.loads(reviews[number])["unixReviewTime"])
    keys = [prepared.items.key[item] for item in prepared.interactions.item]
    assert keys == [json.loads(reviews[number])["asin"] for number in order]
    assert prepared.counts["duplicates_dropped"] == 0


GOOD = [review("A1", "B0001", 5.0, 1)] * 2


@pytest.mark.parametrize(
    ("reviews", "metadata", "where", "found"),
    [
        ([GOOD[0], '{"overall": 5.0, "asin": '], ONE_META, f"{REVIEWS}.gz, line 2", "overall"),
        ([GOOD[0], "[1, 2]"], ONE_META, f"{REVIEWS}.gz, line 2", "[1, 2]"),
        ([GOOD[0], review("A1", "B0001", 6.0, 1)], ONE_META, "line 2, field overall", "6.0"),
        ([review("A1", "B0001", "5.0", 1)], ONE_META, "line 1, field overall", "'5.0'"),
        ([review("A1", "B0001", float("nan"), 1)], ONE_META, "line 1, field overall", "nan"),
        ([review("A1", "B0001", 5.0, None)], ONE_META, "line 1, field unixReviewTime", "None"),
        ([review(None, "B0001", 5.0, 1)], ONE_META, "line 1, field reviewerID", "None"),
        ([review("A1", "", 5.0, 1)], ONE_META, "line 1, field asin", "''"),
        ([b'{"reviewerID": "Caf\xe9"}\n'], ONE_META, f"{REVIEWS}.gz, line 1", "0xe9"),
        ([b"{'reviewerID': 'Caf\xe9'}\n"], ONE_META, f"{REVIEWS}.gz, line 1", "0xe9"),
        ([], ONE_META, REVIEWS, "no reviews"),
        (GOOD, ["not json"], f"{META}.gz, line 1", "not json"),
        (GOOD, ['{"title": "Blue"}'], f"{META}.gz, line 1, field asin", "None"),
        (GOOD, [meta("B0777", title="Other")], META, "not one item"),
    ],
)
def test_bad_input_names_file_line_and_field(write, reviews, metadata, where, found):
    with pytest.raises(DataError) as caught:
        load_prepared("amazon-cds", data_dir=write(reviews, metadata))
    assert where in caught.value.where
    assert found in caught.value.found
    assert "download" in caught.value.fix


@pytest.mark.parametrize("name", [REVIEWS, META])
@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:-4],
        lambda packed: packed[:40] + bytes([packed[40] ^ 0xFF]) + packed[41:],
        lambda packed: packed[:12] + b"\xff" * 20 + packed[32:],
    ],
    ids=["half", "without-end", "one-byte", "twenty-bytes"],
)
def test_broken_gzip(write, name, damage):
    reviews = [review(f"A{number}", "B0001", 5.0, number) for number in range(50)]
    folder = write(reviews, [meta(f"B{number:04}", title=f"Title {number}") for number in range(50)])
    path = folder / f"{name}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load_prepared("amazon-cds", data_dir=folder)
    assert str(path) in caught.value.where


@pytest.mark.parametrize("name", ["amazon-cds", "amazon-kindle"])
def test_missing_folder_and_files(tmp_path, name):
    with pytest.raises(ConfigError, match=r"_5\.json\.gz"):
        load_prepared(name)
    with pytest.raises(DataError, match="missing"):
        load_prepared(name, data_dir=tmp_path)


def test_kindle_reads_its_own_files_and_drops_the_store_levels(tmp_path):
    levels = ["Kindle Store", "Kindle eBooks", "Romance"]
    (tmp_path / "Kindle_Store_5.json").write_text(review("A1", "B0001", 4.0, 1) + "\n")
    (tmp_path / "meta_Kindle_Store.json").write_text(meta("B0001", title="Emma", category=levels) + "\n")
    source = amazon.read("amazon-kindle", amazon.find_files("amazon-kindle", tmp_path))
    assert source.items.text == ("Emma, Romance",)
    assert (source.name, source.title) == ("amazon-kindle", "Amazon Kindle")
