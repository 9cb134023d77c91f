"""Time and peak memory of synthetic data, generated and prepared: `python -m repro.data.synthetic_benchmark`.

Each size runs in a process of its own, so that its peak is its own. Sizes can be named as arguments.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

DEFAULT_SIZES = (1_000_000, 10_000_000)


def measure(num_interactions: int) -> dict[str, float]:
    """Generates and prepares in this process: num_interactions, generate_s, prepare_s, peak_gib."""
    from repro.data import SyntheticSettings, apply_protocol
    from repro.data.synthetic import generate

    start = time.perf_counter()
    source = generate(SyntheticSettings(num_interactions=num_interactions, signal="beyond"))
    generated = time.perf_counter()
    apply_protocol(source, "rella")
    prepared = time.perf_counter()
    return {
        "num_interactions": num_interactions,
        "generate_s": generated - start,
        "prepare_s": prepared - generated,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,  # Linux counts in KiB
    }


def main(arguments: list[str]) -> None:
    """Prints one line per size."""
    if arguments[:1] == ["--one"]:
        print(json.dumps(measure(int(arguments[1]))))
        return
    print("interactions   generate (s)   prepare (s)   peak (GiB)   bytes per interaction")
    for size in [int(argument.replace("_", "")) for argument in arguments] or DEFAULT_SIZES:
        command = [sys.executable, "-m", "repro.data.synthetic_benchmark", "--one", str(size)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{size:>12,} {row['generate_s']:>14.2f} {row['prepare_s']:>13.2f} {row['peak_gib']:>12.2f}"
            f" {row['peak_gib'] * 2**30 / size:>23.0f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
