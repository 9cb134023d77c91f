"""How fast a behaviour table is built and read, and how large it gets, up to a million behaviours.

Three kinds of rows. `storage`: vectors are random numbers of SmolLM2's width and texts are made up, so that
nothing but the table is measured. `texts`: made-up items -> texts and tokens of their behaviours, one thread.
`encoder`: real behaviours of ml-100k through half of SmolLM2's layers, no table. Building a table from texts
costs the sum of the three. A fourth kind, `filling`, is `repro/costs/filling_benchmark.py`'s.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro import paths
from repro.backbones.loading import Backbone, load_backbone
from repro.backbones.spec import BackboneSpec
from repro.behaviours.encoding import PRECISIONS, BehaviourEncoder
from repro.behaviours.table import CHUNK, BehaviourTable, keeps_tables, open_table
from repro.behaviours.texts import Behaviours, behaviours_of
from repro.data import default_protocol, load_prepared
from repro.data.interactions import Items
from repro.errors import ConfigError, TableError
from repro.prompts.templates import template_for
from repro.records.environment import device_name, device_slug, environment
from repro.records.measurements import read_measurement, write_measurement

SIZES = (10_000, 100_000, 1_000_000)
WIDTH = 576  # of SmolLM2-135M
REPEATS = 3
ASKED, LOOKUPS = 4096, 50  # distinct behaviours of one lookup, about those of a training batch; and how often
ADDED = 1000  # behaviours of an update at full size
ENCODED_ON_CPU = 512  # real behaviours that are encoded there; elsewhere all of them
DATASET = "ml-100k"


def run_benchmark(
    root: Path,
    sizes: Sequence[int] = SIZES,
    repeats: int = REPEATS,
    spec: BackboneSpec | None = None,
    show: Callable[[str], None] = print,
    more: Iterable[dict[str, Any]] = (),
) -> Path:
    """Measure storage in memory and on disk, texts and the encoder.

    Without `pylance` there is no storage on disk: the other rows are measured, unless an earlier file of this
    device has rows that would be lost.

    Args:
        root: results/ or runs/.
        sizes: numbers of behaviours.
        repeats: of every measurement.
        spec: the encoder's backbone; default SmolLM2, half of whose layers encode.
        show: takes a line per row.
        more: rows to take (measured as they are asked for) behind these.

    Returns:
        The file, <root>/behaviour_table/<device>.json.

    Raises:
        ConfigError: a size below `ASKED`. TableError: rows of storage on disk would be lost. StorageError:
            the disk is full. RecordError: the earlier file is damaged.
    """
    if min(sizes) < ASKED:
        raise ConfigError("sizes", str(min(sizes)), f"at least {ASKED} behaviours", "choose larger tables")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = device_slug(device_name(device))
    storages = ("memory", "lance") if keeps_tables() else ("memory",)
    if "lance" not in storages:
        show("pylance is not installed: no storage on disk is measured")
        _lose_nothing(root / "behaviour_table" / f"{name}.json")
    rows = []
    for row in chain(_rows(storages, sizes, repeats, spec or BackboneSpec(), device), more):
        rows.append(row)
        show(f"{_title(row)}, {row['behaviours']:,} behaviours: {row['behaviours_per_s']:,.0f} per s")
    versions = environment()
    if "lance" in storages:
        versions |= {"pylance": importlib.metadata.version("pylance")}
    return write_measurement(root, "behaviour_table", name, versions, rows)


def _title(row: Mapping[str, Any]) -> str:
    if row["measured"] == "filling":
        return f"filling by {row['processes']} process{'es' if row['processes'] > 1 else ''}"
    return {"texts": "texts", "encoder": f"encoder, {row['precision']}"}.get(row["measured"], row["storage"])


def _lose_nothing(path: Path) -> None:
    from repro.behaviours.lance_table import INSTALL

    if path.is_file() and any(row["storage"] == "lance" for row in read_measurement(path).rows):
        raise TableError(
            str(path), "rows of storage on disk", "none, without pylance", f"{INSTALL}, or move the file away"
        )


def _rows(
    storages: Sequence[str], sizes: Sequence[int], repeats: int, spec: BackboneSpec, device: str
) -> Iterator[dict[str, Any]]:
    cache = paths.cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    for repeat in range(repeats):
        for count in sizes:
            for storage in storages:
                # In the cache: /tmp may be in memory, and the largest table takes 5 GB.
                with tempfile.TemporaryDirectory(dir=cache) as scratch:
                    folder = Path(scratch) / "table" if storage == "lance" else None
                    measured = measure_storage(count, folder)
                measured |= {"storage": storage, "repeat": repeat, "device": device_name()}
                yield row_of("storage", measured)
    backbone = load_backbone(spec, device)
    for repeat in range(repeats):
        for count in sizes:
            with one_tokenizer_thread():
                measured = measure_texts(backbone, count)
            yield row_of("texts", measured | {"repeat": repeat, "device": device_name(), "threads": 1})
    behaviours = _real_behaviours(backbone)
    for repeat in range(repeats):
        for precision in PRECISIONS:
            measured = measure_encoder(backbone, behaviours, precision)
            yield row_of("encoder", measured | {"repeat": repeat, "device": device_name(device)})


def row_of(measured: str, values: dict[str, Any]) -> dict[str, Any]:
    """A row of a `behaviour_table` file, with null where this kind of row has nothing to say."""
    storage = ("storage", "open_s", "first_read_s", "lookups_per_s", "vectors_per_s", "update_s")
    sizes = ("text_bytes", "index_bytes", "table_bytes", "export_bytes")
    encoder = ("backbone", "num_layers", "precision", "tokens")
    empty = dict.fromkeys((*storage, *sizes, *encoder, "width", "processes"))
    return empty | {"measured": measured, "threads": torch.get_num_threads()} | values


def synthetic_texts(first: int, count: int) -> list[str]:
    """Texts of about the length of a film's title and genres, no two alike."""
    return [f"\nInvented Film Number {i} (1995), Action, Adventure: yes" for i in range(first, first + count)]


def measure_storage(count: int, folder: Path | None) -> dict[str, Any]:
    """Build a table of random vectors, open it again, read it, add to it.

    Args:
        count: behaviours. folder: of the table; None: in memory.

    Returns:
        Seconds, rates and bytes, by the keys of a row.
    """
    fingerprint = "random vectors"
    table = open_table(folder, fingerprint, WIDTH)
    build_s = sum(_timed_add(table, start, min(CHUNK, count - start)) for start in range(0, count, CHUNK))
    start = time.perf_counter()
    if folder is not None:
        table = open_table(folder, fingerprint, WIDTH)
    open_s = time.perf_counter() - start
    start = time.perf_counter()
    vectors = table.vectors()
    first_read_s = time.perf_counter() - start
    texts = synthetic_texts(0, count)
    rng, lookup_s, gather_s = np.random.default_rng(0), 0.0, 0.0
    for number in range(LOOKUPS + 1):
        asked = [texts[i] for i in rng.integers(count, size=ASKED).tolist()]
        start = time.perf_counter()
        found = table.rows(asked)
        middle = time.perf_counter()
        vectors[torch.from_numpy(found)]
        if number:  # the first one warms up
            lookup_s, gather_s = lookup_s + middle - start, gather_s + time.perf_counter() - middle
    table_bytes = _bytes(folder, "table.lance/**/*") if folder else vectors.nbytes
    export_bytes = _bytes(folder, "vectors.f32") if folder else None
    update_s = _timed_add(table, count, ADDED)
    start = time.perf_counter()
    table.vectors()
    return {
        "behaviours": count,
        "width": WIDTH,
        "build_s": build_s,
        "behaviours_per_s": count / build_s,
        "open_s": open_s if folder else None,
        "first_read_s": first_read_s if folder else None,
        "lookups_per_s": LOOKUPS * ASKED / lookup_s,
        "vectors_per_s": LOOKUPS * ASKED / gather_s,
        "update_s": update_s + time.perf_counter() - start,
        "text_bytes": sum(len(text.encode()) for text in texts),
        "index_bytes": sys.getsizeof(dict.fromkeys(texts)) + sum(sys.getsizeof(t) + 32 for t in texts),
        "table_bytes": table_bytes,
        "export_bytes": export_bytes,
    }


def _timed_add(table: BehaviourTable, first: int, count: int) -> float:
    texts = synthetic_texts(first, count)
    vectors = np.random.default_rng(first).standard_normal((count, WIDTH), dtype=np.float32)
    start = time.perf_counter()
    table.add(texts, vectors)
    return time.perf_counter() - start


def _bytes(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


@contextmanager
def one_tokenizer_thread() -> Iterator[None]:
    """Tokenizers in Rust read this variable at every call; they would take all cores."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def measure_texts(backbone: Backbone, count: int) -> dict[str, Any]:
    """Prepare `count` behaviours or up to two more: made-up items, each with no, with yes and alone.

    Returns:
        As `measure_storage`.
    """
    texts = tuple(f"Invented Film Number {i} (1995), Action, Adventure" for i in range(-(-count // 3)))
    items, answers = Items(texts, texts, ((),) * len(texts)), (backbone.yes_id, backbone.no_id)
    start = time.perf_counter()
    behaviours = behaviours_of(items, backbone.tokenizer, template_for(DATASET), answers)
    build_s = time.perf_counter() - start
    return {
        "behaviours": len(behaviours),
        "build_s": build_s,
        "behaviours_per_s": len(behaviours) / build_s,
        "backbone": backbone.spec.title,
        "tokens": len(behaviours.tokens),
        "text_bytes": sum(len(text.encode()) for text in behaviours.text),
    }


def _real_behaviours(backbone: Backbone) -> Behaviours:
    items = load_prepared(DATASET, default_protocol(DATASET)).items
    answers = (backbone.yes_id, backbone.no_id)
    return behaviours_of(items, backbone.tokenizer, template_for(DATASET), answers)


def measure_encoder(backbone: Backbone, behaviours: Behaviours, precision: str) -> dict[str, Any]:
    """Encode behaviours of all lengths through half of the layers; the first batch is left out.

    Returns:
        As `measure_storage`.
    """
    encoder = BehaviourEncoder(
        backbone, backbone.num_layers // 2, precision=precision, template=behaviours.template
    )
    by_length = np.argsort(behaviours.lengths, kind="stable")
    limit = ENCODED_ON_CPU if encoder.device.type == "cpu" else len(by_length)
    chosen = by_length[np.linspace(0, len(by_length) - 1, min(limit, len(by_length))).astype(np.int64)]
    tokens = behaviours.tokens_of(chosen)
    encoder.encode(tokens[:1])
    start = time.perf_counter()
    encoder.encode(tokens)  # its result is on the host: all is done
    build_s = time.perf_counter() - start
    return {
        "behaviours": len(tokens),
        "width": encoder.width,
        "build_s": build_s,
        "behaviours_per_s": len(tokens) / build_s,
        "backbone": backbone.spec.title,
        "num_layers": backbone.num_layers // 2,
        "precision": precision,
        "tokens": int(sum(len(ids) for ids in tokens)),
    }
