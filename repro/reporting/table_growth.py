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
    "Measured by `nox -s bench_table`. Storage: made-up texts with random vectors, so that nothing but the "
    "table is measured; means over repetitions. *build* writes all of them, *open* reads the texts again, "
    "*first read* checks every vector and writes the file that training maps, *update* adds 1,000 behaviours "
    "until all can be read again. Encoding: real behaviours through the lower layers, without a table. What "
    "a table from texts costs is the sum of both."
)
STORAGE_HEADERS = (
    "storage", "behaviours", "numbers per vector", "build, s", "open, s", "first read, s", "update, s",
    "look-ups/s", "vectors/s", "texts, MiB", "index in memory, MiB", "table, MiB", "mapped file, MiB", "n",
)  # fmt: skip
ENCODER_HEADERS = (
    "encoder", "precision", "behaviours", "tokens each", "behaviours/s", "s per million, from the rate", "n",
)  # fmt: skip


def section(inputs: Inputs) -> list[str]:
    """Blocks of the section, without its heading."""
    files = [(origin, file) for origin in ORIGINS for file in inputs.behaviour_table[origin]]
    blocks = [LEGEND] if files else [LEGEND, f"Tables of up to {count(MILLION)} behaviours: {NOT_RUN}."]
    for origin, file in files:
        blocks += _file(file, f" ({origin})" if origin == YOURS else "")
    return [*blocks, *_builds(inputs), *_fillings(inputs)]


def _file(file: Measurement, own: str) -> list[str]:
    blocks = []
    devices = dict.fromkeys((row["measured"], row["device"], row["threads"]) for row in file.rows)
    for measured, device, threads in devices:
        rows = [
            row for row in file.rows if (row["measured"], row["device"]) == (measured, device)
            and row["threads"] == threads
        ]  # fmt: skip
        heading = f"{measured.capitalize()}, {device}, {plural(threads, 'thread')}{own}:"
        blocks += [heading, _storage(rows) if measured == "storage" else _encoders(rows)]
    largest = max((row["behaviours"] for row in file.rows if row["measured"] == "storage"), default=0)
    if largest < MILLION:
        blocks.append(f"Tables of {count(MILLION)} behaviours: {NOT_RUN}.")
    return [*blocks, f"`behaviour_table/{file.path.name}`: {versions(file.environment)}."]


def _storage(rows: Sequence[Row]) -> str:
    lines = []
    for storage, behaviours, width in sorted({(r["storage"], r["behaviours"], r["width"]) for r in rows}):
        own = [r for r in rows if (r["storage"], r["behaviours"], r["width"]) == (storage, behaviours, width)]
        seconds = [_mean(own, key, ",.2f") for key in ("build_s", "open_s", "first_read_s", "update_s")]
        rates = [_mean(own, key, ",.0f") for key in ("lookups_per_s", "vectors_per_s")]
        sizes = [
            _mean(own, key, ",.1f", MIB)
            for key in ("text_bytes", "index_bytes", "table_bytes", "export_bytes")
        ]
        lines.append((storage, count(behaviours), count(width), *seconds, *rates, *sizes, str(len(own))))
    return table(STORAGE_HEADERS, lines)


def _encoders(rows: Sequence[Row]) -> str:
    keys = ("backbone", "num_layers", "precision", "behaviours")
    lines = []
    for key in dict.fromkeys(tuple(row[name] for name in keys) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in keys) == key]
        backbone, layers, precision, behaviours = key
        rate = mean(row["behaviours_per_s"] for row in own)
        lines.append(
            (
                f"{backbone}, {plural(layers, 'layer')}",
                precision,
                count(behaviours),
                f"{own[0]['tokens'] / behaviours:.1f}",
                f"{rate:,.0f}",
                f"{MILLION / rate:,.0f}",
                str(len(own)),
            )
        )
    return table(ENCODER_HEADERS, lines)


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
        f"{title} on {device}, {min(own):,.0f} to {max(own):,.0f} behaviours/s"
        for (title, device), own in rates.items()
    ]
    if not said:
        return []
    said_of = "Tables of BAHE's runs, of all layer cuts, first calls included in their records' seconds"
    return [f"{said_of}: {'; '.join(said)}."]


def _mean(rows: Sequence[Row], key: str, form: str, unit: float = 1.0) -> str:
    values = [row[key] for row in rows]
    return ABSENT if None in values else f"{mean(values) / unit:{form}}"
