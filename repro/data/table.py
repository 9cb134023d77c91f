"""The user's own data: one CSV or Parquet file with columns user, item, text, label, timestamp.

An optional column `category` (levels joined by `|`) serves ID-based baselines. An optional column `sequence`
names the user sequence that an interaction belongs to (`search`, `click`, `purchase`); BAHE reads each of
them apart. Other columns are ignored.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from repro.data.files import checksum, decode, one_line, read_bytes, require_file, shown
from repro.data.interactions import DERIVED_SEQUENCES, Interactions, Items, Source
from repro.errors import ConfigError, DataError

COLUMNS = ("user", "item", "text", "label", "timestamp")
OPTIONAL_COLUMNS = ("category", "sequence")
MAX_SEQUENCES = 16  # more names are no user sequences, but a column of something else
HINT = "a CSV or Parquet file with columns user, item, text, label (0 or 1) and timestamp (a whole number)"
FIX = f"write {HINT}"


def find_files(data_dir: Path | None) -> tuple[Path, ...]:
    """The table itself. ConfigError when none is named, DataError when it is missing or of another kind."""
    if data_dir is None:
        raise ConfigError("data set table", "no file given", HINT, "pass the file as --data-dir")
    path = require_file(data_dir, f"pass {HINT} as --data-dir")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(path, f"file type {path.suffix or 'without suffix'}", ".csv or .parquet", FIX)
    return (path,)


def read(files: tuple[Path, ...]) -> Source:
    """The source in file order. Raises DataError naming the row and column at fault."""
    (path,) = files
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    return source_of(path, table, "table", f"Own table {path.name}", checksum(files))


def source_of(path: Path, table: pa.Table, name: str, title: str, sha256: str) -> Source:
    """The source that a table's columns describe, rows in their order; built-in sources come this way too.

    Args:
        path: where the columns come from, for errors.
        table: `COLUMNS`, and of `OPTIONAL_COLUMNS` what there is.
        name, title, sha256: of the source.

    Raises:
        DataError: naming the row and column at fault.
    """
    if not table.num_rows:
        raise DataError(path, "no rows", "at least one interaction", FIX)
    user, _, _ = _numbered(path, table, "user")
    item, keys, first_rows = _numbered(path, table, "item")
    text = _strings(path, table, "text")
    label = _numbers(path, table, "label")
    bad_label = np.flatnonzero((label != 0) & (label != 1))
    if len(bad_label):
        _fail(path, table, int(bad_label[0]), "label", "0 (did not like) or 1 (liked)")
    timestamp = _numbers(path, table, "timestamp")
    sequence, sequences = _sequences(path, table)
    interactions = Interactions(user, item, label.astype(np.int8), timestamp, sequence)
    _refuse_duplicates(path, interactions)
    items = Items(keys, _item_texts(path, item, text, first_rows), _categories(table, first_rows))
    return Source(name, title, interactions, items, sha256, sequences=sequences)


def _read_parquet(path: Path) -> pa.Table:
    try:
        schema = pa.parquet.read_schema(path)
        _require_columns(path, schema.names)
        return pa.parquet.read_table(path, columns=_known_columns(schema.names))
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"not a readable Parquet file ({_first_line(error)})", HINT, FIX) from error


def _read_csv(path: Path) -> pa.Table:
    """All columns as text, so that what is no number can be named as it stands in the file."""
    fix = f"save {path.name} as UTF-8"
    header = decode(read_bytes(path), path, "utf-8-sig", fix).partition("\n")[0]
    names = next(csv.reader([header]), [])
    _require_columns(path, names)
    known = _known_columns(names)
    try:
        return pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(use_threads=False),  # row numbers in errors need one thread
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(known, pa.string()), include_columns=known
            ),
        )
    except pa.ArrowException as error:
        raise DataError(path, _first_line(error), f"{len(names)} fields in each row", FIX) from error


def _require_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        found = f"no column {', '.join(missing)} (there are: {', '.join(names) or 'none'})"
        raise DataError(path, found, f"columns {', '.join(COLUMNS)}", FIX)


def _known_columns(names: list[str]) -> list[str]:
    return [name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in names]


def _strings(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as text without missing, NaN or empty values."""
    column = table[name]
    present = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        present = pc.and_kleene(present, pc.invert(pc.is_nan(column)))
    try:
        text = column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(f"{path}, column {name}", f"type {column.type}", "text or numbers", FIX) from error
    present = pc.fill_null(pc.and_kleene(present, pc.not_equal(pc.utf8_trim_whitespace(text), "")), False)
    bad = np.flatnonzero(~present.to_numpy())
    if len(bad):
        _fail(path, table, int(bad[0]), name, "a value that is not empty")
    return text


def _numbered(path: Path, table: pa.Table, name: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Ids as numbers in order of first appearance: (N,) int32, the ids, and the first row of each."""
    encoded = _strings(path, table, name).combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return numbers, tuple(encoded.dictionary.to_pylist()), np.unique(numbers, return_index=True)[1]


def _numbers(path: Path, table: pa.Table, name: str) -> np.ndarray:
    """A column of whole numbers, (N,) int64; "7" and "7.0" count, empty, NaN and "7.5" do not."""
    expected = "0 or 1" if name == "label" else "a whole number (for dates: seconds since 1970)"
    column = table[name].combine_chunks()
    if _is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and not (
        name == "label" and pa.types.is_boolean(column.type)
    ):
        raise DataError(f"{path}, column {name}", f"type {column.type}", expected, FIX)
    try:
        if column.null_count:
            raise pa.ArrowInvalid("missing values")
        return np.array(_whole(column), dtype=np.int64)
    except pa.ArrowException:
        _fail(path, table, _first_not_whole(column), name, expected)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _whole(values: pa.Array) -> pa.Array:
    """int64, or ArrowException. Text goes there directly (nanoseconds do not fit a float), else by float."""
    try:
        return values.cast(pa.int64())
    except pa.ArrowException:
        if not _is_text(values.type):
            raise
        return values.cast(pa.float64()).cast(pa.int64())


def _first_not_whole(column: pa.Array) -> int:
    """The row at fault, found one by one once it is known that there is one."""
    for row in range(len(column)):
        value = column.slice(row, 1)
        try:
            if value.null_count:
                return row
            _whole(value)
        except pa.ArrowException:
            return row
    return 0


def _item_texts(
    path: Path, item: np.ndarray, text: pa.ChunkedArray, first_rows: np.ndarray
) -> tuple[str, ...]:
    """The text of each item; DataError when an item's rows disagree, for one of them may tell the answer."""
    encoded = text.combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy(zero_copy_only=False)
    differs = np.flatnonzero(numbers != numbers[first_rows][item])
    if len(differs):
        row, first = int(differs[0]), int(first_rows[item[differs[0]]])
        found = f"text {shown(text[row].as_py())}, but {shown(text[first].as_py())} in row {first + 1}"
        raise DataError(f"{path}, {_place(path, row)}, column text", found, "one text per item", FIX)
    dictionary = encoded.dictionary.to_pylist()
    return tuple(one_line(dictionary[number]) for number in numbers[first_rows])


def _categories(table: pa.Table, first_rows: np.ndarray) -> tuple[tuple[str, ...], ...]:
    if "category" not in table.column_names:
        return ((),) * len(first_rows)
    values = table["category"].take(pa.array(first_rows)).to_pylist()
    return tuple(
        tuple(level.strip() for level in str(value or "").split("|") if level.strip()) for value in values
    )


def _sequences(path: Path, table: pa.Table) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(N,) int8 and the names, sorted; (None, ()) without the column."""
    if "sequence" not in table.column_names:
        return None, ()
    numbers, names, first_rows = _numbered(path, table, "sequence")
    for name, row in zip(names, first_rows.tolist(), strict=True):
        if name in DERIVED_SEQUENCES:
            rule = f"a name other than {', '.join(DERIVED_SEQUENCES)}: these follow from labels and order"
            _fail(path, table, row, "sequence", rule)
    if len(names) > MAX_SEQUENCES:
        found, expected = f"{len(names):,} different names", f"{MAX_SEQUENCES} user sequences or fewer"
        raise DataError(f"{path}, column sequence", found, expected, "name kinds of interactions, not each")
    order = np.argsort(np.array(names))
    return np.argsort(order).astype(np.int8)[numbers], tuple(names[place] for place in order)


def _refuse_duplicates(path: Path, interactions: Interactions) -> None:
    """DataError when a user has the same item twice at the same time."""
    user, item, time = interactions.user, interactions.item, interactions.timestamp
    order = np.lexsort((time, item, user))
    again = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0) & (np.diff(time[order]) == 0)
    if again.any():
        rows = order[1:][again]
        second = int(rows.min())
        same = (user == user[second]) & (item == item[second]) & (time == time[second])
        found = f"the same user, item and timestamp as row {int(np.flatnonzero(same)[0]) + 1}"
        raise DataError(f"{path}, {_place(path, second)}", found, "each event once", "drop the duplicate row")


def _fail(path: Path, table: pa.Table, row: int, column: str, expected: str) -> NoReturn:
    found = table[column][row].as_py()
    text = "nothing" if found is None or found == "" else shown(found)
    raise DataError(f"{path}, {_place(path, row)}, column {column}", text, expected, FIX)


def _place(path: Path, row: int) -> str:
    """`row 7 (line 8)`: rows count from 1 without the header; a CSV row can span several lines."""
    if path.suffix.lower() != ".csv":
        return f"row {row + 1}"
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream)
        records = -1
        for fields in lines:
            records += bool(fields)  # a blank line is no row
            if records == row + 1:
                break
        return f"row {row + 1} (line {lines.line_num})"


def _first_line(error: Exception) -> str:
    return one_line(str(error).partition("\n")[0])[:200]
