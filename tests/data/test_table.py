import numpy as np
import pandas as pd
import pytest

from repro.data import load_prepared, table, take_subset
from repro.errors import ConfigError, DataError


def frame(num_rows=60):
    rows = np.arange(num_rows)
    return pd.DataFrame(
        {
            "user": [f"u{row % 4}" for row in rows],
            "item": [f"i{row % 7}" for row in rows],
            "text": [f'Thing {row % 7}, "quoted", Ünïcode' for row in rows],
            "label": (rows // 3) % 2,
            "timestamp": 1_700_000_000 + rows // 2,
        }
    )


def save(data, path):
    data.to_csv(path, index=False) if path.suffix == ".csv" else data.to_parquet(path, index=False)
    return path


def read(path):
    return table.read(table.find_files(path))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_both_formats_give_the_same_data(tmp_path, suffix):
    data = frame()
    prepared = load_prepared("table", data_dir=save(data, tmp_path / f"mine{suffix}"))
    assert (prepared.name, prepared.protocol) == ("table", "dti")
    ordered = data.sort_values("timestamp", kind="stable")
    assert [prepared.items.key[item] for item in prepared.interactions.item] == ordered["item"].tolist()
    assert prepared.interactions.label.tolist() == ordered["label"].tolist()
    assert prepared.items.text[0] == 'Thing 0, "quoted", Ünïcode'
    assert prepared.items.categories == ((),) * 7
    assert prepared.title == f"Own table mine{suffix}"


def test_numbers_as_ids_other_columns_and_categories(tmp_path):
    data = frame().assign(user=lambda d: d.index % 4, price=1.5, category="Music| Jazz ")
    source = read(save(data, tmp_path / "mine.parquet"))
    assert source.items.categories[0] == ("Music", "Jazz")
    assert source.interactions.user.max() == 3
    from_csv = read(save(data, tmp_path / "mine.csv"))
    assert from_csv.items == source.items


def test_numbers_are_read_as_numbers_in_any_clothing(tmp_path):
    plain = read(save(frame(), tmp_path / "plain.parquet")).interactions
    floats = frame().astype({"label": float, "timestamp": float})
    booleans = frame().astype({"label": bool})
    for name, data in (("floats.csv", floats), ("floats.parquet", floats), ("booleans.parquet", booleans)):
        found = read(save(data, tmp_path / name)).interactions
        assert np.array_equal(found.label, plain.label)
        assert np.array_equal(found.timestamp, plain.timestamp)
    nanoseconds = frame().assign(timestamp=lambda d: d["timestamp"] * 10**9 + 123_456_789)
    found = read(save(nanoseconds, tmp_path / "nanoseconds.csv")).interactions
    assert np.array_equal(found.timestamp, nanoseconds["timestamp"])


def test_text_of_several_lines_becomes_one_line(tmp_path):
    data = frame().assign(text=lambda d: "two\n lines " + d["item"])
    assert read(save(data, tmp_path / "mine.csv")).items.text[0] == "two lines i0"


def with_value(column, row, value):
    def change(data):
        data = data.astype({column: object})
        data.loc[row, column] = value
        return data

    return change


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("change", "where", "found"),
    [
        (lambda data: data.drop(columns=["text", "label"]), "mine", "no column text, label"),
        (lambda data: data.assign(label=lambda d: d["label"] + 1), "row 4", "2"),
        (lambda data: data.astype({"label": float}).replace({"label": {1.0: 0.5}}), "row 4", "0.5"),
        (lambda data: data.assign(label=lambda d: d["label"].where(d.index != 9)), "row 10", ""),
        (lambda data: data.assign(timestamp=lambda d: d["timestamp"].where(d.index != 9)), "row 10", ""),
        (lambda data: data.assign(timestamp=lambda d: d["timestamp"] + 0.5), "row 1", ".5"),
        (lambda data: data.assign(label=lambda d: "yes"), "row 1", "yes"),
        (with_value("user", 7, None), "row 8", "nothing"),
        (with_value("item", 7, ""), "row 8", "nothing"),
        (with_value("text", 7, " "), "row 8", "' '"),
        (with_value("text", 7, "another text"), "row 8", "another text"),
        (lambda data: pd.concat([data, data.iloc[[5]]]), "row 61", "as row 6"),
        (lambda data: data.iloc[:0], "mine", "no rows"),
    ],
)
def test_bad_tables_name_row_and_column(tmp_path, suffix, change, where, found):
    path = save(change(frame()), tmp_path / f"mine{suffix}")
    with pytest.raises(DataError) as caught:
        load_prepared("table", data_dir=path)
    assert str(path) in caught.value.where
    assert where in caught.value.where
    assert found in caught.value.found


def test_dates_are_refused_with_advice(tmp_path):
    data = frame().assign(timestamp=lambda d: pd.to_datetime(d["timestamp"], unit="s"))
    for suffix in (".csv", ".parquet"):
        with pytest.raises(DataError, match="seconds since 1970"):
            read(save(data, tmp_path / f"mine{suffix}"))


def test_csv_errors_name_the_line_even_after_rows_of_several_lines(tmp_path):
    data = frame().assign(
        text=lambda d: "two\nlines " + d["item"], label=lambda d: d["label"].where(d.index != 9, 7)
    )
    with pytest.raises(DataError, match=r"row 10 \(line 21\), column label: '7'"):
        read(save(data, tmp_path / "mine.csv"))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda content: content.replace(b"u1,i1,", b"u1,i1,extra,", 1), "Expected 5 columns, got 6"),
        (lambda content: content.replace(b"u1,i1,", b"u1,", 1), "Expected 5 columns, got 4"),
        (lambda content: content.decode().encode("iso-8859-1"), "not utf-8"),
        (lambda content: b"", "no column user"),
        (lambda content: content[: content.rindex(b",")], "Expected 5 columns, got 4"),
    ],
    ids=["more-fields", "fewer-fields", "encoding", "empty", "cut-off"],
)
def test_malformed_csv(tmp_path, change, found):
    path = save(frame(), tmp_path / "mine.csv")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load_prepared("table", data_dir=path)
    assert str(path) in caught.value.where
    assert found in caught.value.found


def test_byte_order_mark_is_no_part_of_the_header(tmp_path):
    path = save(frame(), tmp_path / "mine.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read(path).interactions) == 60


def test_damaged_parquet(tmp_path):
    path = save(frame(), tmp_path / "mine.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(path)


def test_missing_file_folder_or_other_type(tmp_path):
    with pytest.raises(ConfigError, match="no file given"):
        load_prepared("table")
    with pytest.raises(DataError, match="is missing"):
        load_prepared("table", data_dir=tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        load_prepared("table", data_dir=tmp_path)
    (tmp_path / "mine.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"file type \.xlsx"):
        load_prepared("table", data_dir=tmp_path / "mine.xlsx")


def test_empty_after_pruning(tmp_path):
    data = frame().assign(item=lambda d: "i" + d.index.astype(str))
    with pytest.raises(DataError, match="left after pruning"):
        load_prepared("table", data_dir=save(data, tmp_path / "mine.csv"))


def shops(data):
    """A second domain: what was searched, clicked and bought; the label does not follow from it."""
    kinds = np.array(["search", "click", "purchase"])
    return data.assign(sequence=kinds[np.arange(len(data)) * 5 % 3])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_sequence_column_stays_with_its_interactions(tmp_path, suffix):
    data = shops(frame())
    path = save(data, tmp_path / f"mine{suffix}")
    for source in ("files", "cache"):
        prepared = load_prepared("table", data_dir=path)
        ordered = data.sort_values("timestamp", kind="stable")
        assert prepared.sequences == ("click", "purchase", "search"), source
        named = [prepared.sequences[number] for number in prepared.interactions.sequence]
        assert named == ordered["sequence"].tolist(), source


def test_the_sequence_column_is_part_of_the_checksum_and_of_a_subset(tmp_path):
    plain = load_prepared("table", data_dir=save(frame(), tmp_path / "plain.csv"))
    named = load_prepared("table", data_dir=save(shops(frame()), tmp_path / "named.csv"))
    other = shops(frame()).replace({"sequence": {"click": "view"}})
    renamed = load_prepared("table", data_dir=save(other, tmp_path / "renamed.csv"))
    assert plain.interactions.sequence is None and plain.sequences == ()
    assert len({plain.sha256, named.sha256, renamed.sha256}) == 3
    assert take_subset(named).sha256 == named.sha256
    few = take_subset(named, train_targets=3)
    assert few.sequences == named.sequences and few.interactions.sequence is named.interactions.sequence


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("value", "expected"), [("", "not empty"), ("liked", "a name other than liked, disliked, recent")]
)
def test_a_sequence_without_a_name_of_its_own_is_refused(tmp_path, suffix, value, expected):
    path = save(with_value("sequence", 4, value)(shops(frame())), tmp_path / f"mine{suffix}")
    with pytest.raises(DataError, match=expected) as caught:
        read(path)
    assert "row 5" in str(caught.value) and "column sequence" in str(caught.value)


def test_a_sequence_for_each_interaction_is_no_sequence(tmp_path):
    data = frame().assign(sequence=lambda d: [f"session {row}" for row in d.index])
    with pytest.raises(DataError, match="60 different names"):
        read(save(data, tmp_path / "mine.csv"))
