"""Amazon reviews of 2018 (Ni et al., 2019): CDs and Kindle, 5-core reviews and metadata, gzip or plain.

What the files are known for, and what is done about it:
- the same user reviews the same item more than once: the first review by time stays (ties: by file order),
  the others are counted as `duplicates_dropped`;
- items without title, or without any metadata: their text is what is left of title, category and brand;
- HTML tags and entities in titles, scraped scripts in place of a title (dropped), several entries per item
  (the first stays), brands such as `Visit Amazon's Anne Rice Page` (`Anne Rice`);
- category as a list, as a list of lists (older dumps: `categories`), as plain text, or absent;
- lines that are Python dictionaries in place of JSON (older dumps), parsed as literals and never evaluated.
Time stamps are days, so ties are many; they stay in file order.
"""

from __future__ import annotations

import ast
import html
import json
import re
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repro.data.files import checksum, numbered_lines, one_line, require_file, shown
from repro.data.interactions import Interactions, Items, Source
from repro.errors import ConfigError, DataError

PAGE = "https://nijianmo.github.io/amazon/"
SCRIPT = re.compile(r"<(script|style)\b.*?(</\1>|$)", re.DOTALL | re.IGNORECASE)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
BRAND_PAGE = re.compile(r"Visit Amazon's (.+) Page")
NO_TEXT = "an item without description"


class Category(NamedTuple):
    """One of the two data sets: file stem, report title, and levels that every item of it has."""

    stem: str
    title: str
    constant_levels: frozenset[str]


CATEGORIES = {
    "amazon-cds": Category("CDs_and_Vinyl", "Amazon CDs", frozenset({"CDs & Vinyl"})),
    "amazon-kindle": Category("Kindle_Store", "Amazon Kindle", frozenset({"Kindle Store", "Kindle eBooks"})),
}


class Description(NamedTuple):
    """What metadata tells of one item."""

    text: str
    categories: tuple[str, ...]


def find_files(name: str, data_dir: Path | None) -> tuple[Path, ...]:
    """Reviews and metadata file in `data_dir`. ConfigError without a folder, DataError for a missing file."""
    stem = CATEGORIES[name].stem
    wanted = (f"{stem}_5.json.gz", f"meta_{stem}.json.gz")
    fix = _fix(name)
    if data_dir is None:
        raise ConfigError(f"data set {name}", "no folder given", f"a folder with {' and '.join(wanted)}", fix)
    files = []
    for file_name in wanted:
        packed = data_dir / file_name
        plain = packed.with_suffix("")
        files.append(plain if plain.is_file() and not packed.is_file() else require_file(packed, fix))
    return tuple(files)


def read(name: str, files: tuple[Path, ...], like_above: float = 3.0) -> Source:
    """The source in file order; label = rating > `like_above` (DTI leaves the threshold of Amazon open; 3 is
    our reading, as for MovieLens). Raises DataError.
    """
    reviews_path, meta_path = files
    category = CATEGORIES[name]
    keys, interactions, dropped = _read_reviews(reviews_path, like_above, _fix(name))
    described = _read_descriptions(meta_path, set(keys), category.constant_levels, _fix(name))
    if not described:
        expected = f"metadata of the items in {reviews_path.name}"
        raise DataError(meta_path, "not one item of the reviews is in the metadata", expected, _fix(name))
    nothing = Description(NO_TEXT, ())
    items = Items(
        key=tuple(keys),
        text=tuple(described.get(key, nothing).text for key in keys),
        categories=tuple(described.get(key, nothing).categories for key in keys),
    )
    counts = {"duplicates_dropped": dropped, "items_without_metadata": len(keys) - len(described)}
    return Source(name, category.title, interactions, items, checksum(files), counts)


def _fix(name: str) -> str:
    stem = CATEGORIES[name].stem
    return f"download {stem}_5.json.gz and meta_{stem}.json.gz from {PAGE} again and pass their folder"


def _read_reviews(path: Path, like_above: float, fix: str) -> tuple[list[str], Interactions, int]:
    """(item keys in order of first review, interactions in file order, duplicates dropped)."""
    user_numbers: dict[str, int] = {}
    item_numbers: dict[str, int] = {}
    flat = array("q")  # user, item, label, time of each row: 32 bytes a row
    for number, line in numbered_lines(path, fix):
        review = parse_record(line, f"{path}, line {number}", fix)
        user, item, rating, time = (
            review.get(field) for field in ("reviewerID", "asin", "overall", "unixReviewTime")
        )
        where = f"{path}, line {number}, field"
        if not isinstance(user, str) or not user:
            raise DataError(f"{where} reviewerID", shown(user), "the reviewer's id", fix)
        if not isinstance(item, str) or not item:
            raise DataError(f"{where} asin", shown(item), "the item's id", fix)
        if not isinstance(rating, int | float) or isinstance(rating, bool) or not 1 <= rating <= 5:
            raise DataError(f"{where} overall", shown(rating), "a rating from 1 to 5", fix)
        if not isinstance(time, int) or isinstance(time, bool):
            raise DataError(f"{where} unixReviewTime", shown(time), "whole seconds since 1970", fix)
        user_number = user_numbers.setdefault(user, len(user_numbers))
        item_number = item_numbers.setdefault(item, len(item_numbers))
        flat.extend((user_number, item_number, int(rating > like_above), time))
    if not flat:
        raise DataError(path, "no reviews in the file", "at least one review", fix)
    table = np.frombuffer(flat, dtype=np.int64).reshape(-1, 4)
    first = _first_of_each_pair(table[:, 0], table[:, 1], table[:, 3])
    kept = table[first]
    interactions = Interactions(
        kept[:, 0].astype(np.int32),
        kept[:, 1].astype(np.int32),
        kept[:, 2].astype(np.int8),
        np.ascontiguousarray(kept[:, 3]),
    )
    return list(item_numbers), interactions, len(table) - len(first)


def _first_of_each_pair(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Rows, in file order, that are the first by time (ties: by file order) of their user and item."""
    order = np.lexsort((time, item, user))  # stable: equal keys stay in file order
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0)
    return np.sort(order[first])


def _read_descriptions(
    path: Path, wanted: set[str], constant_levels: frozenset[str], fix: str
) -> dict[str, Description]:
    """Descriptions of the wanted items; of several entries for one item the first stays."""
    described: dict[str, Description] = {}
    for number, line in numbered_lines(path, fix):
        record = parse_record(line, f"{path}, line {number}", fix)
        key = record.get("asin")
        if not isinstance(key, str) or not key:
            raise DataError(f"{path}, line {number}, field asin", shown(key), "the item's id", fix)
        if key in wanted and key not in described:
            described[key] = describe(record, constant_levels)
    return described


def parse_record(line: bytes, where: str, fix: str) -> dict[str, object]:
    """One line as a dictionary: JSON, else a Python literal (older dumps). Raises DataError."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} is not UTF-8"
        raise DataError(where, found, "JSON in UTF-8, one object a line", fix) from error
    except ValueError:
        try:
            record = ast.literal_eval(line.decode("utf-8"))
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            expected = "a JSON object or Python dictionary in one line"
            raise DataError(where, shown(line.decode("utf-8", "replace")), expected, fix) from error
    if not isinstance(record, dict):
        raise DataError(where, shown(record), "a JSON object", fix)
    return record


def describe(record: dict[str, object], constant_levels: frozenset[str]) -> Description:
    """Text by the template `title, category level, ..., brand`, each part left out where it is missing."""
    title = clean(record.get("title"))
    brand = clean(record.get("brand"))
    page = BRAND_PAGE.fullmatch(brand)
    brand = page[1] if page else brand
    levels = _category_levels(record.get("category", record.get("categories")))
    levels = tuple(level for level in levels if level and level not in constant_levels)
    return Description(", ".join(part for part in (title, *levels, brand) if part) or NO_TEXT, levels)


def _category_levels(value: object) -> tuple[str, ...]:
    """["CDs & Vinyl", "Pop"], [["CDs & Vinyl", "Pop"], [...]] (the first path) or "Pop" -> levels."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list):
        value = [value]
    return tuple(clean(level) for level in value)


def clean(value: object) -> str:
    """Text in one line without HTML; empty for what is no text, or is a scraped script in place of text."""
    if not isinstance(value, str):
        return ""
    text = html.unescape(html.unescape(value))  # some entries are escaped twice: &amp;amp;
    text = one_line(TAG.sub(" ", SCRIPT.sub(" ", text)))
    return "" if "getTime()" in text or "function(" in text else text
