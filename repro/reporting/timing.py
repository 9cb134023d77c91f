"""reports/timing.*: training speed against k, beside what tokens allow and what the paper measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from repro.costs.closed_form import token_limit
from repro.reporting.cells import state_of_rows
from repro.reporting.figures import figure_files, figure_text
from repro.reporting.formatting import ABSENT, mean_of, page, table
from repro.reporting.inputs import ORIGINS, YOURS, Inputs
from repro.reporting.references import PAPER_DATASETS
from repro.reporting.table3_blocks import blocks as table3_blocks
from repro.reporting.timing_bounds import LEGEND as BOUNDS_LEGEND
from repro.reporting.timing_bounds import Bounds, bounds_of
from repro.reporting.timing_trained import EQUAL_TOKENS, trained_text
from repro.reporting.timing_variants import LAUNCHED, shape, source_line, variant_blocks, variant_sources

NAME = "timing"
_AGAIN = (
    "Where the sliding window has more repetitions than the others, it was measured once more after the last "
    "k, since a device slows down while it gets warm."
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """The rows of one model on one device from one file; what its prompts allow by k, where it is known."""

    title: str
    source: str
    rows: list[Row]
    bounds: dict[int, Bounds] = field(default_factory=dict)

    @property
    def ks(self) -> list[int]:
        """Targets per prompt, ascending; 1 is the sliding window."""
        return sorted({row["k"] for row in self.rows})

    def values(self, k: int, key: str) -> list[float]:
        """One number of every repetition; empty where it failed or was not measured."""
        found = [row[key] for row in self.rows if row["k"] == k]
        return [value for value in found if isinstance(value, int | float)]

    def tokens_per_step(self, k: int) -> list[float]:
        """Tokens of a mean step, without padding, of every repetition."""
        pairs = zip(self.values(k, "tokens_per_s"), self.values(k, "step_ms"), strict=True)
        return [tokens * ms / 1e3 for tokens, ms in pairs]

    def failed(self, k: int) -> str:
        """How a row failed, or a dash."""
        found = [row["tokens_per_s"] for row in self.rows if row["k"] == k]
        return next((value.replace("_", " ") for value in found if isinstance(value, str)), ABSENT)

    @property
    def fp8(self) -> str | None:
        """Recipe of the frozen base's products, or None."""
        return self.rows[0].get("fp8")

    @property
    def cut(self) -> bool:
        """The model was cut to its first layers: not the shape's speed, and no main result."""
        return self.rows[0].get("layers") is not None

    @property
    def compiled(self) -> bool:
        """As on a GPU; elsewhere the peak is the process's since its start, which says nothing of a row."""
        return bool(self.rows[0]["compile"])

    def peaks(self, k: int) -> list[float]:
        """GiB of every repetition, on a GPU."""
        return self.values(k, "peak_gib") if self.compiled else []

    @property
    def precision(self) -> str:
        """What fp8 is used for, and what it changes; empty without it."""
        if self.fp8 is None:
            return ""
        differences = [row["fp8_difference"] for row in self.rows]
        return (
            f"The frozen base's products are in fp8 (torchao, scales {self.fp8}); weights stay stored in "
            "bfloat16 and are rounded in every step. Before training, final states of a batch's [SUM]s are "
            f"{max(differences):.2%} of their norm away from those of the stored base. SW is in fp8 too. "
        )

    @property
    def graphs(self) -> str:
        """Whether steps were replayed as CUDA graphs; without a GPU, that nothing was compiled."""
        if not self.compiled:
            return "Nothing was compiled. Peak memory is that of a GPU, and not given here."
        words = {
            True: "replayed as CUDA graphs",
            False: LAUNCHED,
            None: f"{LAUNCHED} (rows older than recorded steps)",
        }
        found = {row.get("cuda_graph") for row in self.rows}
        return f"Steps were {' or '.join(words[each] for each in sorted(found, key=str))}."

    def speed_up(self, k: int) -> float | None:
        """Targets per second over the sliding window's."""
        ours, sw = self.values(k, "targets_per_s"), self.values(1, "targets_per_s")
        return mean(ours) / mean(sw) if ours and sw else None


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page, its figure and the plotted numbers."""
    found, runs = sweeps(inputs), table3_blocks(inputs)
    blocks = [
        *figure_text(NAME, "Speed-up and memory against k"),
        "Training steps of the real loop on real prompts, with random weights in the model's shape; DTI is "
        "in our recipe. How a step is built, and what did not help: "
        "[docs/performance.md](../docs/performance.md).",
        _legend(f" {_AGAIN}" if any(map(_first_again, found)) else ""),
    ]
    for sweep in found:
        blocks += [f"## {sweep.title}", sweep.precision + sweep.graphs, _table(sweep)]
        blocks.append(trained_text(sweep.rows[0], runs))
    if not found:
        blocks.append("Not run.")
    blocks += variant_blocks(inputs)
    blocks += ["## The paper's hours", "Table 3 of DTI: hours until convergence.", _paper(inputs)]
    sources = [sweep.source for sweep in found] + variant_sources(inputs)
    blocks += ["## Provenance", "\n".join(dict.fromkeys(sources)) or "No records."]
    plotted = [sweep for sweep in found if sweep.fp8 is None]
    panels = [panel for sweep in plotted for panel in _panels(sweep, inputs)] or [_theory(inputs)]
    return {**figure_files(NAME, panels), f"{NAME}.md": page("Training speed against k", NAME, blocks)}


def state(inputs: Inputs) -> str:
    """How many rows there are, for the index."""
    return state_of_rows([row for sweep in sweeps(inputs) for row in sweep.rows])


def sweeps(inputs: Inputs) -> list[Sweep]:
    """By origin, file, device, model and fp8; each has the sliding window or says nothing about speed-up.

    Those of a cut model come last, before them those in fp8.
    """
    found = []
    for origin in ORIGINS:
        for file in inputs.timing[origin]:
            keys = [(row["device"], shape(row), row["tuning"], row["n"], row.get("fp8")) for row in file.rows]
            for key in dict.fromkeys(keys):
                rows = [row for row, own in zip(file.rows, keys, strict=True) if own == key and row["k"]]
                rows = [row for row in rows if row["method"] in ("sw", "dti") and not row.get("variant")]
                if not rows:
                    continue
                device, model, tuning, n, fp8 = key
                title = f"{model}, {tuning}, n = {n}, {device}"
                title += f", frozen base in fp8, {fp8}" if fp8 else ""
                title += f" ({origin})" if origin == YOURS else ""
                bounds = bounds_of(inputs, file, rows[0], dict.fromkeys(row["k"] for row in rows))
                found.append(Sweep(title, source_line(file), rows, bounds))
    return sorted(found, key=lambda sweep: (sweep.cut, sweep.fp8 is not None))


def _legend(again: str) -> str:
    explained = {
        "Speed-up": "in targets per second, over the sliding window measured in the same file. Token limit: "
        f"(n + 1) k / (n + k).{again}",
        **BOUNDS_LEGEND,
        "Tokens per step": "every batch fills the same length with as many prompts as fit; what they leave "
        f"empty is padding, and is not counted. {EQUAL_TOKENS}",
        "Compilation": "later rows of a sweep compile quickly, as they share the first one's shapes.",
    }
    return "\n".join(f"- *{name}*: {text}" for name, text in explained.items())


def _first_again(sweep: Sweep) -> bool:
    return len(sweep.values(1, "step_ms")) > max(len(sweep.values(k, "step_ms")) for k in sweep.ks[1:] or [1])


def _table(sweep: Sweep) -> str:
    headers = (
        "k", "speed-up", "token limit", "tokens of these prompts", "counted FLOPs", "targets/s", "tokens/s",
        "lowest to highest", "repetitions", "step, ms", "prompts per step", "tokens per step", "peak, GiB",
        "MFU", "compilation, s",
    )  # fmt: skip
    lines = []
    for k in sweep.ks:
        first = next(row for row in sweep.rows if row["k"] == k)
        tokens, speed_up = sweep.values(k, "tokens_per_s"), sweep.speed_up(k)
        between = f"{min(tokens):,.0f} to {max(tokens):,.0f}" if tokens else ABSENT
        lines.append(
            (
                f"{k} (SW)" if k == 1 else str(k),
                f"{speed_up:.2f}" if speed_up else sweep.failed(k),
                f"{token_limit(first['n'], k):.2f}",
                *(sweep.bounds[k].cells if k in sweep.bounds else (ABSENT, ABSENT)),
                mean_of(sweep.values(k, "targets_per_s"), ",.0f"),
                mean_of(tokens, ",.0f"),
                between,
                str(len(tokens)),
                mean_of(sweep.values(k, "step_ms"), ",.1f"),
                str(first["batch"]),
                mean_of(sweep.tokens_per_step(k), ",.0f"),
                mean_of(sweep.peaks(k), ".2f"),
                mean_of(sweep.values(k, "mfu"), ".3f"),
                f"{max(compilation):.0f}" if (compilation := sweep.values(k, "compile_s")) else ABSENT,
            )
        )
    return table(headers, lines)


def _panels(sweep: Sweep, inputs: Inputs) -> list[dict[str, Any]]:
    n, ks = sweep.rows[0]["n"], sweep.ks
    measured = [[k, up] for k in ks if (up := sweep.speed_up(k)) is not None]
    ours = [{"name": "measured", "style": "line", "points": measured}] if measured else []
    counted = [[k, sweep.bounds[k].flops] for k in ks if k in sweep.bounds]
    lines = [*ours, _limit(n, ks), *_published(inputs)]
    if counted:
        lines.append({"name": "counted FLOPs", "style": "dashed", "points": counted})
    memory = [[k, mean(sweep.peaks(k))] for k in ks if sweep.peaks(k)]
    x = "k, targets per prompt"
    panels = [
        {
            "title": sweep.title, "x": x, "y": "speed-up over SW", "log": False,
            "lines": lines,
        }
    ]  # fmt: skip
    if memory:
        panels.append(
            {
                "title": "memory at the same tokens per step", "x": x, "y": "peak, GiB",
                "log": False, "room": 0.15,
                "lines": [{"name": "measured", "style": "line", "points": memory}],
            }
        )  # fmt: skip
    return panels


def _theory(inputs: Inputs) -> dict[str, Any]:
    """The figure of a project without measurements."""
    lines = [_limit(20, [1, 5, 10, 20, 30, 40, 50, 100]), *_published(inputs)]
    return {
        "title": "not run", "x": "k, targets per prompt", "y": "speed-up over SW", "log": False,
        "lines": lines,
    }  # fmt: skip


def _limit(n: int, ks: Sequence[int]) -> dict[str, Any]:
    return {
        "name": f"token limit, n = {n}",
        "style": "dashed",
        "points": [[k, token_limit(n, k)] for k in ks],
    }


def _published(inputs: Inputs) -> list[dict[str, Any]]:
    """The paper's ratios of hours, a line per data set."""
    lines = []
    for dataset in dict.fromkeys(dataset for dataset, _, _ in inputs.paper_hours):
        points = [[k, ratio] for k, ratio in _ratios(inputs, dataset)]
        lines.append({"name": f"paper, {PAPER_DATASETS[dataset]}, 8B", "style": "dashed", "points": points})
    return lines


def _ratios(inputs: Inputs, dataset: str) -> list[tuple[int, float]]:
    hours = {(m, k): h for (d, m, k), h in inputs.paper_hours.items() if d == dataset}
    return [(k, hours["sw", 1] / value) for (method, k), value in sorted(hours.items()) if method == "dti"]


def _paper(inputs: Inputs) -> str:
    lines = [
        (PAPER_DATASETS[dataset], str(k), f"{inputs.paper_hours[dataset, 'dti', k]:.2f}", f"{ratio:.2f}")
        for dataset in dict.fromkeys(dataset for dataset, _, _ in inputs.paper_hours)
        for k, ratio in _ratios(inputs, dataset)
    ]
    return table(("data set", "k", "hours, DTI", "SW's hours over DTI's"), lines)
