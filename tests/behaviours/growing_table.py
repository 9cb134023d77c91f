"""A process that adds to a table until it is killed; a script for the tests beside it.

`python growing_table.py FOLDER ROWS` opens the table, says so, adds ROWS behaviours, exports all vectors, and
so on for ever; after each step it prints the version.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from repro.behaviours.lance_table import LanceTable

WIDTH = 64
FINGERPRINT = "f" * 64


def rows(first: int, count: int) -> tuple[list[str], np.ndarray]:
    """Behaviours number `first` and on: their texts, and vectors that tell the number."""
    number = np.arange(first, first + count, dtype=np.float32)
    return [f"behaviour {i}" for i in range(first, first + count)], number[:, None] + np.zeros((1, WIDTH))


if __name__ == "__main__":
    table, count = LanceTable(Path(sys.argv[1]), FINGERPRINT, WIDTH), int(sys.argv[2])
    print(table.version, flush=True)
    while True:
        with table.exclusive():
            print(table.add(*rows(len(table), count)), flush=True)
        table.vectors()
        print(table.version, flush=True)
