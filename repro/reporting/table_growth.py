"""A growing behaviour table on reports/bahe_open.md: size, speed and the cost of encoding, from records."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from repro.methods.bahe.settings import BAHE, lower_layers
from repro.records.measurements import Measurement
from repro.reporting.bahe_sweeps import efficiency_sweeps, known_layers
from repro.reporting.cells import NOT_RUN, build_cells
from repro.reporting.formatting import ABSENT, count, plural, table
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.provenance import versions

Row = dict[str, Any]
MIB, MILLION = 2**20, 1_000_000
LEGEND = (
    "Measured by `nox -s bench_table`; times and rates from the lowest to the highest of n repetitions, the "
    "figure has their means. Storage: made-up texts with random vectors, so that nothing but the table is "
    "measured. *build* writes all of them, *open* reads the texts again, *first read* checks every vector "
    "and writes the file that training maps, *update* adds 1,000 behaviours until all can be read again. "
    "Texts: made-up items -> texts and tokens of their behaviours. Encoder: real behaviours through the "
    "lower layers, without a table. What a table from texts costs is the sum of these three. Filling: "
    "`build-table` under `accelerate launch`, whose processes share encoding and writing, first calls "
    "included; that each of them starts and prepares all texts is not part of it."
)
STORAGE_HEADERS = (
    "storage", "behaviours", "numbers per vector", "build, s", "open, s", "first read, s", "update, s",
    "look-ups/s", "vectors/s", "texts, MiB", "index in memory, MiB", "table, MiB", "mapped file, MiB", "n",
)  # fmt: skip
TEXT_HEADERS = (
    "tokenizer", "behaviours", "tokens each", "texts, MiB", "s", "behaviours/s",
    "s per million, from the rate", "n",
)  # fmt: skip
ENCODER_HEADERS = (
    "encoder", "precision", "behaviours", "tokens each", "behaviours/s", "s per million, from the rate", "n",
)  # fmt: skip
FILLING_HEADERS = (
    "encoder", "precision", "behaviours", "tokens each", "processes", "s", "behaviours/s",
    "mean rate over one's", "n",
)  # fmt: skip
ABSENT_KINDS = {"texts": "Preparing texts", "filling": "Filling by one process and by two"}


def section(inputs: Inputs) -> list[str]:
    """Blocks of the section, without its heading."""
    files = [(origin, file) for origin in ORIGINS for file in inputs.behaviour_table[origin]]
    blocks = [LEGEND] if files else [LEGEND, f"Tables of up to {count(MILLION)} behaviours: {NOT_RUN}."]
    for origin, file in files:
        blocks += _file(file, f" ({origin})" if origin == YOURS else "")
    return [*blocks, *_builds(inputs), *_fillings(inputs)]


def _file(file: Measurement, own: str) -> list[str]:
    tables = {"storage": _storage, "texts": _texts, "encoder": _encoders, "filling": _filled}
    blocks = []
    devices = dict.fromkeys((row["measured"], row["device"], row["threads"]) for row in file.rows)
    for measured, device, threads in devices:
        rows = [
            row for row in file.rows if (row["measured"], row["device"]) == (measured, device)
            and row["threads"] == threads
        ]  # fmt: skip
        each = " a process" if measured == "filling" else ""
        heading = f"{measured.capitalize()}, {device}, {plural(threads, 'thread')}{each}{own}:"
        blocks += [heading, tables[measured](rows)]
    largest = max((row["behaviours"] for row in file.rows if row["measured"] == "storage"), default=0)
    missing = [f"Tables of {count(MILLION)} behaviours"] if largest < MILLION else []
    missing += [kind for measured, kind in ABSENT_KINDS.items() if measured not in {m for m, *_ in devices}]
    blocks += [f"{what}: {NOT_RUN}." for what in missing]
    return [*blocks, f"`behaviour_table/{file.path.name}`: {versions(file.environment)}."]


def _groups(rows: Sequence[Row], *keys: str) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Rows that agree in some keys, in the order of the first of each."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(found.items())


def _storage(rows: Sequence[Row]) -> str:
    lines = []
    for (storage, behaviours, width), own in sorted(
        _groups(rows, "storage", "behaviours", "width"), key=lambda group: group[0]
    ):
        seconds = [_range(own, key, ",.2f") for key in ("build_s", "open_s", "first_read_s", "update_s")]
        rates = [_range(own, key, ",.0f") for key in ("lookups_per_s", "vectors_per_s")]
        sizes = [
            _range(own, key, ",.1f", MIB)
            for key in ("text_bytes", "index_bytes", "table_bytes", "export_bytes")
        ]
        lines.append((storage, count(behaviours), count(width), *seconds, *rates, *sizes, str(len(own))))
    return table(STORAGE_HEADERS, lines)


def _texts(rows: Sequence[Row]) -> str:
    lines = [
        (
            backbone,
            count(behaviours),
            f"{own[0]['tokens'] / behaviours:.1f}",
            _range(own, "text_bytes", ",.1f", MIB),
            _range(own, "build_s", ",.2f"),
            _range(own, "behaviours_per_s", ",.0f"),
            _per_million(own),
            str(len(own)),
        )
        for (backbone, behaviours), own in _groups(rows, "backbone", "behaviours")
    ]
    return table(TEXT_HEADERS, lines)


def _encoders(rows: Sequence[Row]) -> str:
    lines = [
        (*_encoder(own), _range(own, "behaviours_per_s", ",.0f"), _per_million(own), str(len(own)))
        for _, own in _groups(rows, "backbone", "num_layers", "precision", "behaviours")
    ]
    return table(ENCODER_HEADERS, lines)


def _filled(rows: Sequence[Row]) -> str:
    keys = ("backbone", "num_layers", "precision", "behaviours")
    lines = []
    for _, encoder in _groups(rows, *keys):
        alone = [row["behaviours_per_s"] for row in encoder if row["processes"] == 1]
        for (processes,), own in _groups(encoder, "processes"):
            rate = mean(row["behaviours_per_s"] for row in own)
            ratio = f"{rate / mean(alone):.2f} ×" if alone else ABSENT
            seconds, rates = (_range(own, "build_s", ",.2f"), _range(own, "behaviours_per_s", ",.0f"))
            lines.append((*_encoder(own), count(processes), seconds, rates, ratio, str(len(own))))
    return table(FILLING_HEADERS, lines)


def _encoder(rows: Sequence[Row]) -> tuple[str, ...]:
    """Encoder, precision, behaviours and tokens each, of rows that agree in them."""
    row = rows[0]
    title = f"{row['backbone']}, {plural(row['num_layers'], 'layer')}"
    return title, row["precision"], count(row["behaviours"]), f"{row['tokens'] / row['behaviours']:.1f}"


def _per_million(rows: Sequence[Row]) -> str:
    return _range([{"s": MILLION / row["behaviours_per_s"]} for row in rows], "s", ",.0f")


def _builds(inputs: Inputs) -> list[str]:
    """The encoder's rate where the efficiency sweeps built a table; empty without."""
    lines = []
    for sweep in efficiency_sweeps(inputs):
        for size in sweep.behaviour_sizes:
            own = [row for row in sweep.rows if row["method"] == BAHE and row["behaviour_tokens"] == size]
            builds = {
                (row.get("table_behaviours"), row["table_build_s"]): row for row in own
            }  # many rows each
            lines += [line for row in builds.values() if (line := _build(row)) is not None]
    if not lines:
        return []
    headers = ("encoder", "device", *ENCODER_HEADERS[1:-1])
    text = (
        "The encoder that filled the tables of the [efficiency page](bahe_efficiency.md), one build each: "
        "random tokens, random weights, a table in memory; the time of filling it is part of it, first "
        "calls are not:"
    )
    return [text, table(headers, lines)]


def _build(row: Row) -> tuple[str, ...] | None:
    """A line of an efficiency row's table; None where its size, time or encoder's depth is unknown."""
    number, seconds = row.get("table_behaviours"), row["table_build_s"]
    total = row.get("layers") or known_layers(row["backbone"])
    if not number or not total or not isinstance(seconds, float):
        return None
    layers, rate = plural(lower_layers(row["layer_cut"], total), "layer"), number / seconds
    return (
        f"{row['backbone'].removeprefix('random:')} shape, {layers}",
        row["device"],
        str(row.get("dtype") or ABSENT),
        count(number),
        str(row["behaviour_tokens"]),
        f"{rate:,.0f}",
        f"{MILLION / rate:,.0f}",
    )


def _fillings(inputs: Inputs) -> list[str]:
    """Behaviours per second of the runs' own tables, by device; empty without."""
    rates: dict[tuple[str, str], list[float]] = {}
    for origin in ORIGINS:
        for cell in build_cells(run for run in inputs.runs[origin] if run.record["config"]["method"] == BAHE):
            encoded, seconds = cell.mean("data", "behaviours_encoded"), cell.mean("time", "table_build_s")
            if encoded and seconds:
                key = (cell.config["backbone_settings"]["title"], cell.device)
                rates.setdefault(key, []).append(encoded / seconds)
    said = [
        f"{title} on {device}, {_edges(own, ',.0f')} behaviours/s" for (title, device), own in rates.items()
    ]
    if not said:
        return []
    said_of = "Tables of BAHE's runs, of all layer cuts, first calls included in their records' seconds"
    return [f"{said_of}: {'; '.join(said)}."]


def _range(rows: Sequence[Row], key: str, form: str, unit: float = 1.0) -> str:
    """Lowest to highest; one value where both read the same."""
    values = [row[key] for row in rows]
    if None in values:
        return ABSENT
    return _edges([value / unit for value in values], form)


def _edges(values: Sequence[float], form: str) -> str:
    low, high = (f"{edge:{form}}" for edge in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
