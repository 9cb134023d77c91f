"""reports/bahe_open.md: what BAHE's paper leaves open, and how far it is answered here."""

from __future__ import annotations

from repro.data import groceries
from repro.experiments.bahe_variants import CUTS
from repro.methods.bahe.settings import BAHE
from repro.reporting import leakage, stale_tables, table_growth
from repro.reporting.bahe_efficiency import ratio_text
from repro.reporting.bahe_figures import cut_panels, growth_panels, stale_panels
from repro.reporting.bahe_sweeps import efficiency_sweeps
from repro.reporting.bahe_variants import (
    PAIRED,
    TABLE_COST,
    Group,
    caveats,
    full_method,
    not_run,
    runs_details,
    settings_of,
    told_apart,
    variant_groups,
    variant_table,
)
from repro.reporting.cells import NOT_RUN, Cell
from repro.reporting.figures import figure_files, figure_text
from repro.reporting.formatting import ABSENT, count, listed, page, plural, table
from repro.reporting.inputs import ORIGINS, Inputs
from repro.reporting.provenance import provenance

NAME = "bahe_open"
PAPER_LENGTH = 2048  # text tokens, the longest that the paper tests
NO_DOMAIN = (
    f"{NOT_RUN}: `{groceries.PACKAGE.install}` brings one, on which `nox -s bahe -- --dataset groceries` "
    "runs; `--dataset table` runs on your own"
)
MOVIES = {"ml-100k", "ml-1m"}
HALF = "cut-3-6"
_FIGURE = "Layer cuts, tables that age and tables that grow; differences with their intervals"
CUT_TITLES = {name: f"{name[4]}/6 of the layers frozen" for name in CUTS}


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page."""
    cuts, stale = cut_groups(inputs), stale_tables.stale_groups(inputs)
    blocks = [
        *figure_text(NAME, _FIGURE),
        "## 1. Longer than 2,048 tokens",
        *_lengths(inputs),
        "## 2. Where to cut the layers",
        *_cuts(cuts),
        "## 3. A growing table",
        *table_growth.section(inputs),
        "## 4. A table that ages",
        *stale_tables.section(stale),
        "## 5. Other domains and other modalities",
        _ledger(inputs),
        f"## {leakage.HEADING}",
        *leakage.section(inputs),
        provenance([run for group in (*cuts, *stale) for run in group.runs]),
    ]
    panels = [*cut_panels(cuts, HALF), *stale_panels(stale), *growth_panels(inputs)]
    return {**figure_files(NAME, panels), f"{NAME}.md": page("BAHE: open questions", NAME, blocks)}


def state(inputs: Inputs) -> str:
    """What has records, for the index."""
    counted = {
        "table": sum(len(file.rows) for origin in ORIGINS for file in inputs.behaviour_table[origin]),
        "layer cuts": sum(len(group.cells) for group in cut_groups(inputs)),
        "stale tables": sum(len(group.cells) for group in stale_tables.stale_groups(inputs)),
        "leakage": sum(len(file.rows) for origin in ORIGINS for file in inputs.leakage[origin]),
    }
    return "; ".join(f"{name}: {plural(n, 'row') if n else NOT_RUN}" for name, n in counted.items())


def cut_groups(inputs: Inputs) -> list[Group]:
    """BAHE with other layer cuts; the usual cut alone is no comparison."""
    plain = settings_of(full_method())
    name_of_cut = {cut: name for name, cut in CUTS.items()}

    def name_of(cell: Cell) -> str | None:
        own = settings_of(cell)
        return name_of_cut.get(own["layer_cut"]) if own | {"layer_cut": plain["layer_cut"]} == plain else None

    return [group for group in variant_groups(inputs, list(CUTS), name_of) if set(group.cells) != {HALF}]


def _lengths(inputs: Inputs) -> list[str]:
    headers = ("model and device", "text tokens", "time, LLM-CTR / BAHE", "memory, LLM-CTR / BAHE")
    lines = [
        (sweep.title, count(tokens), *(ratio_text(sweep, key, tokens) for key in ("step_ms", "peak_gib")))
        for sweep in efficiency_sweeps(inputs)
        for tokens in sweep.lengths
        if tokens > PAPER_LENGTH
    ]
    where = (
        "The efficiency page has all lengths, failures and settings: [bahe_efficiency](bahe_efficiency.md)."
    )
    return [where, table(headers, lines) if lines else f"Texts of more than 2,048 tokens: {NOT_RUN}."]


def _cuts(groups: list[Group]) -> list[str]:
    text = (
        "The share of the layers that encode a behaviour alone, are frozen and cached; the others read "
        "across behaviours and are trained with adapters. A share of L layers is m = round(share × L) of "
        "them. Compared with half of the layers. "
        "All cuts have the learning rate that was chosen for half of the layers. "
        f"{PAIRED} *Table build*: {TABLE_COST}."
    )
    if not groups:
        return [text, not_run(list(CUT_TITLES.values()))]
    blocks = [text]
    for group in groups:
        titles = {name: _with_layers(name, group) for name in CUTS}
        blocks += [f"### {group.title}", variant_table(group, titles, HALF), told_apart(group, titles, HALF)]
        blocks += caveats(group, titles) + runs_details(group, titles)
    return blocks


def _with_layers(name: str, group: Group) -> str:
    """Row title with m, as `BaheMethod.num_lower` rounds it, where the record has the number of layers."""
    total = next(iter(group.cells.values())).config["backbone_settings"]["layers"]
    return CUT_TITLES[name] + ("" if total is None else f" (m = {round(CUTS[name] * total)} of {total})")


def _ledger(inputs: Inputs) -> str:
    """What was done for each kind of data that is not films in text."""
    found = {
        run.record["config"]["dataset"]
        for origin in ORIGINS
        for run in inputs.runs[origin]
        if run.record["config"]["method"] == BAHE and run.status == "ok"
    }
    domains = sorted(found - MOVIES)
    lines = [
        (
            "text of another domain",
            f"runs on {listed(domains)}: [bahe](bahe.md)" if domains else NO_DOMAIN,
            "data set groceries ([what it is and is not](../docs/data.md#groceries)), and any CSV or Parquet "
            "file, with user sequences of its own: [docs](../docs/bahe.md)",
        ),
        (
            "vectors of another encoder",
            "quality not tested",
            "the table takes them, under a fingerprint and keys of their own; tested with made-up vectors",
        ),
        ("images", "not tested", ABSENT),
        ("audio", "not tested", ABSENT),
    ]
    return table(("behaviours", "result", "what there is"), lines)
