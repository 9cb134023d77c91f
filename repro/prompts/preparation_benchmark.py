"""Seconds and memory from raw files to packed prompts.

Run it with `python -m repro.prompts.preparation_benchmark ml-1m DIR`.

The data cache is bypassed: a temporary one is used.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def measure(dataset: str, data_dir: Path | None, n: int = 20, k: int = 50) -> list[tuple[str, float]]:
    """(step, seconds) of every step from raw files to packed prompts, then ("peak GiB", gibibytes).

    Rows are ranges over each user's history and item tokens are stored once, so a row costs 24 bytes until it
    is packed; packing is measured on every training prompt of both kinds and every test prompt.
    """
    from repro.backbones.tokenizer import answer_ids, load_tokenizer
    from repro.data import TEST, TRAIN, load_prepared
    from repro.prompts.batching import batch_rows
    from repro.prompts.packing import PromptSource, pack_rows
    from repro.prompts.rows import build_rows
    from repro.prompts.settings import PromptSettings
    from repro.prompts.templates import template_for
    from repro.prompts.tokenise import tokenise_items

    steps: list[tuple[str, float]] = []
    begin = time.perf_counter()

    def done(step: str) -> None:
        nonlocal begin
        now = time.perf_counter()
        steps.append((step, now - begin))
        begin = now

    data = load_prepared(dataset, None, data_dir)
    done("raw files to prepared data")
    tokenizer = load_tokenizer("smollm2-135m")
    items = tokenise_items(data.items, tokenizer, template_for(dataset), answer_ids(tokenizer))
    done("tokenizer and item tokens")
    rows = {"sliding-window": build_rows(data, TRAIN, n, 1), "streaming": build_rows(data, TRAIN, n, k)}
    test = build_rows(data, TEST, n, 1)
    done(f"rows ({len(rows['sliding-window']):,} sliding-window, {len(rows['streaming']):,} streaming)")
    for name, chosen, settings in (
        ("streaming training prompts", rows["streaming"], PromptSettings(n, k)),
        ("sliding-window training prompts", rows["sliding-window"], PromptSettings(n)),
        ("test prompts", test, PromptSettings(n)),
    ):
        source, tokens = PromptSource(data, items, settings), 0
        for batch in batch_rows(chosen, 256, np.arange(len(chosen))):
            tokens += pack_rows(source, chosen, batch).num_tokens
        done(f"packing all {len(chosen):,} {name}, {tokens:,} tokens")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return [*steps, ("peak GiB", peak)]


def main() -> None:
    """Print the table."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python -m repro.prompts.preparation_benchmark DATASET [DATA_DIR]")
    from repro.backbones.tokenizer import load_tokenizer

    load_tokenizer("smollm2-135m")  # the one-time conversion is no part of a preparation
    with tempfile.TemporaryDirectory() as folder:
        backbones = (
            Path(os.environ.get("REPRO_CACHE_DIR", Path(__file__).parents[2] / ".cache")) / "backbones"
        )
        (Path(folder) / "backbones").symlink_to(backbones)
        os.environ["REPRO_CACHE_DIR"] = folder
        steps = measure(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) == 3 else None)
    for step, value in steps:
        print(f"{value:8.2f}  {step}")
    print(f"{sum(value for step, value in steps if step != 'peak GiB'):8.2f}  seconds in all")


if __name__ == "__main__":
    main()
