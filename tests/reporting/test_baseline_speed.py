"""The speed table: medians, ranges and ratios of the rows, the whole epoch apart."""

from __future__ import annotations

from repro.reporting.baseline_speed import speed_lines, speed_section, whole_epoch_line

ENVIRONMENT = {"torch": "2.13.0", "fuxictr": "2.3.10", "deepctr-torch": "0.3.0"}


def row(program, speed, repeat=0, whole_epoch=False):
    targets = 776_007 if whole_epoch else 60_000
    return {
        "device": "some CPU, 2 cores",
        "threads": 2,
        "program": program,
        "dataset": "ml-1m",
        "protocol": "rella",
        "n": 30,
        "batch": 2048,
        "repeat": repeat,
        "whole_epoch": whole_epoch,
        "targets": targets,
        "prepare_s": 0.25,
        "train_s": targets / speed,
        "targets_per_s": float(speed),
        "loaded_gib": 0.44,
        "peak_gib": 0.80 + 0.01 * repeat,
    }


ROWS = [
    *(row("fuxictr", speed, repeat) for repeat, speed in enumerate([6000, 8000, 7000])),
    *(row("ours", speed, repeat) for repeat, speed in enumerate([14000, 15000, 10000])),
    row("ours", 20000, whole_epoch=True),
]


def test_lines_hold_median_range_ratio_and_memory():
    ours, fuxictr = speed_lines(ENVIRONMENT, ROWS)
    assert ours[:5] == ("this suite", "14,000", "10,000 to 15,000", "3", "1.00 ×")
    assert fuxictr[:5] == ("FuxiCTR 2.3.10", "7,000", "6,000 to 8,000", "3", "2.00 ×")
    assert ours[5:] == ("0.2 s", "0.38", "0.82")


def test_whole_epoch_counts_for_no_repetition():
    assert whole_epoch_line(ROWS) == (
        "One whole epoch of this suite's DIN: 776,007 targets in 38.8 s (20,000 targets/s), "
        "peak memory 0.80 GiB."
    )
    assert whole_epoch_line(ROWS[:-1]) is None


def test_section_names_what_was_held_equal():
    text = speed_section(ENVIRONMENT, ROWS)
    for part in ("60,000 training targets", "history 30", "batches of 2,048", "2 threads", "torch 2.13.0"):
        assert part in text
