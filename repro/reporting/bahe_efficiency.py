"""reports/bahe_efficiency.*: time, memory and FLOPs of training LLM-CTR and BAHE as the user's text grows."""

from __future__ import annotations

from repro.reporting.bahe_figures import efficiency_panels
from repro.reporting.bahe_sweeps import BAHE, LLM_CTR, OOM, Cell, Sweep, efficiency_sweeps
from repro.reporting.cells import state_of_rows
from repro.reporting.figures import figure_files, figure_text
from repro.reporting.flops_rows import giga
from repro.reporting.formatting import ABSENT, count, listed, page, plural, ratio, table
from repro.reporting.inputs import ORIGINS, Inputs

NAME = "bahe_efficiency"
TITLES = {LLM_CTR: "LLM-CTR", BAHE: "BAHE"}


def render(inputs: Inputs) -> dict[str, bytes]:
    """The page, its figure and the plotted numbers."""
    sweeps = efficiency_sweeps(inputs)
    blocks = [
        *figure_text(NAME, "Step time, memory and ratios against text length"),
        "## Beside the claim",
        _claim(inputs, sweeps) if sweeps else "Not run.",
        "## How it is measured",
        _method(),
    ]
    for sweep in sweeps:
        blocks += [f"## {sweep.title}", _settings(sweep), _main(sweep), _more(sweep)]
        blocks += ["### The table's build, paid back", _build(inputs, sweep)]
        if len(sweep.behaviour_sizes) > 1:
            blocks += ["### Length of a behaviour", _sizes(sweep)]
    sources = [f"- `{sweep.source}`: {sweep.versions}" for sweep in sweeps]
    blocks += ["## Provenance", "\n".join(dict.fromkeys(sources)) or "No records."]
    panels = [panel for sweep in sweeps for panel in efficiency_panels(sweep, inputs.bahe_claims)]
    title = "BAHE: training time and memory against text length"
    return {**figure_files(NAME, panels), f"{NAME}.md": page(title, NAME, blocks)}


def state(inputs: Inputs) -> str:
    """How many rows there are, for the index."""
    return state_of_rows([row for sweep in efficiency_sweeps(inputs) for row in sweep.rows])


def _method() -> str:
    return (
        "A sample is the text of a user's behaviours, in three sequences, and of the candidate item: "
        "random tokens, so that nothing but length changes. LLM-CTR reads all of it as one text through "
        "all layers; BAHE reads a vector per behaviour from its table, each sequence alone, through the "
        "upper layers. Both are the models and batches of the quality runs, with random weights, LoRA on "
        "every projection of the layers they run, and AdamW. A step is forward pass, backward pass, "
        "clipping and optimiser at the cosine's rate. Batches are laid out, and behaviours looked up in "
        "the table, as in training: on CUDA by a thread that works ahead, and waiting for it counts. "
        "Precision, compilation, CUDA graphs and all kernels but attention's are the same on both sides; "
        "compiled, LLM-CTR's texts, all of one length, take PyTorch's flash attention, the faster one for "
        "them, and BAHE's sequences the interval kernel. A step is one pass over all samples on both "
        "sides, without micro-batches and without activation checkpointing: with them LLM-CTR would need "
        "less memory and more time.\n\nThe frozen layers and the token embeddings are not on the device "
        "while BAHE trains; building its table is timed apart. Peak memory is the most that PyTorch had "
        "allocated during a step that is not captured, with weights, adapters, gradients, optimiser and "
        "the batch; on a CPU it is added up from PyTorch's record of allocations. Held memory is what the "
        "allocator kept from the device after the repetitions: a graph keeps its private pool, gaps "
        f"included, for as long as it lives. Ratios are LLM-CTR's mean over BAHE's. {OOM}: out of memory."
    )


def _settings(sweep: Sweep) -> str:
    first = next((row for row in sweep.rows if row["method"] == BAHE), sweep.rows[0])
    compiled = {True: "layers compiled", False: "layers not compiled", None: "compilation not stated"}
    graphs = {bool(row.get("cuda_graph")) for row in sweep.rows if row["step_ms"] != "out_of_memory"}
    graph = "no CUDA graphs" if True not in graphs else "CUDA graphs"
    graph += " but where noted" if len(graphs) > 1 else ""
    parts = [
        f"{first['batch']} samples per step",
        f"behaviours of {sweep.usual_size} tokens",
        f"BAHE with {first['layer_cut']:.3g} of the layers frozen",
        str(first.get("dtype") or "precision not stated"),
        compiled[first.get("compile")],
        graph,
        plural(1 + max(row.get("repeat", 0) for row in sweep.rows), "repetition"),
    ]
    return f"{', '.join(parts)}."


def _claim(inputs: Inputs, sweeps: list[Sweep]) -> str:
    """The paper's ratios beside ours, at the lengths that it tested, and where ours reach them."""
    claims = inputs.bahe_claims
    lines = []
    for sweep in sweeps:
        for tokens in claims.text_tokens:
            if tokens in sweep.lengths:
                time, memory = (sweep.ratio(key, tokens) for key in ("step_ms", "peak_gib"))
                reached = [_reached(time, claims.time), _reached(memory, claims.memory)]
                if sweep.no_verdict is not None:
                    reached = [f"{sweep.no_verdict}, no verdict"] * 2
                shown = [ratio_text(sweep, key, tokens) for key in ("step_ms", "peak_gib")]
                shown.insert(1, ratio(sweep.anew_ratio(tokens)))
                lines.append((sweep.title, count(tokens), *shown, *reached))
    lengths = listed([count(tokens) for tokens in claims.text_tokens])
    said = (
        f"Claimed (abstract): {claims.time:g} times less training time and {claims.memory:g} times less "
        f"memory than the same LLM fed the full text; tested at {lengths} tokens. The paper names neither "
        "its model nor its implementation of either side. *All new*: time with every behaviour of every "
        "sample encoded when it is needed, as the table's build was timed."
    )
    if not lines:
        return f"{said}\n\nNo length of the claim was measured."
    headers = [
        *("model and device", "text tokens", "time, measured", "time, all new", "memory, measured"),
        *(f"time, {claims.time:g} × reached", f"memory, {claims.memory:g} × reached"),
    ]
    return f"{said}\n\n{table(headers, lines)}"


def _reached(value: float | None, claimed: float) -> str:
    return ABSENT if value is None else "yes" if value >= claimed else "no"


def ratio_text(sweep: Sweep, key: str, tokens: int, size: int | None = None) -> str:
    """The ratio, or why there is none."""
    for method in (LLM_CTR, BAHE):
        if sweep.cell(method, tokens, size).out_of_memory:
            return f"{TITLES[method]} {OOM}"
    return ratio(sweep.ratio(key, tokens, size))


def _main(sweep: Sweep) -> str:
    headers = (
        "text tokens", "behaviours", "LLM-CTR, step, ms", "BAHE, step, ms", "time ratio",
        "LLM-CTR, peak, GiB", "BAHE, peak, GiB", "memory ratio", "LLM-CTR, GFLOPs per sample",
        "BAHE, GFLOPs per sample", "FLOPs ratio",
    )  # fmt: skip
    lines = []
    for tokens in sweep.lengths:
        partner, ours = sweep.cell(LLM_CTR, tokens), sweep.cell(BAHE, tokens)
        flops = "train_flops_per_sample"
        lines.append(
            (
                count(tokens),
                count(ours.rows[0]["behaviours"]) if ours.rows else ABSENT,
                _spread(partner, "step_ms"),
                _spread(ours, "step_ms"),
                ratio_text(sweep, "step_ms", tokens),
                _number(partner, "peak_gib"),
                _number(ours, "peak_gib"),
                ratio_text(sweep, "peak_gib", tokens),
                giga(partner.mean(flops)),
                giga(ours.mean(flops)),
                ratio(sweep.ratio(flops, tokens)),
            )
        )
    return table(headers, lines)


def _more(sweep: Sweep) -> str:
    """Throughput, use of the device and held memory."""
    headers = ("text tokens", "method", "samples/s", "MFU", "held, GiB", "CUDA graph")
    lines = [
        (
            count(tokens),
            TITLES[method],
            _number(cell, "samples_per_s", ",.1f"),
            _number(cell, "mfu", ".3f"),
            _number(cell, "reserved_gib"),
            "yes" if all(row.get("cuda_graph") for row in cell.rows) else "no",
        )
        for tokens in sweep.lengths
        for method in (LLM_CTR, BAHE)
        if (cell := sweep.cell(method, tokens)).rows and not cell.out_of_memory
    ]
    return table(headers, lines)


def _build(inputs: Inputs, sweep: Sweep) -> str:
    """After how many samples the table has cost nothing, and what is left where no behaviour comes twice."""
    lines = []
    for tokens in sweep.lengths:
        partner, ours = sweep.cell(LLM_CTR, tokens), sweep.cell(BAHE, tokens)
        build, number = ours.mean("table_build_s"), next(iter(ours.values("table_behaviours")), None)
        if build is None or not number:
            continue
        each, batch = build / number, ours.rows[0]["batch"]
        theirs, own = partner.mean("step_ms"), ours.mean("step_ms")
        paid = shorter = ABSENT
        if theirs is not None and own is not None:
            saved = (theirs - own) / 1e3 / batch
            paid = f"{build / saved:,.0f}" if saved > 0 else "never"
            shorter = f"{1e3 * saved:,.4g} ms"
        lines.append(
            (
                count(tokens),
                f"{count(int(number))}, {build:.3g} s",
                f"{1e3 * each:.3g} ms",
                shorter,
                paid,
                ratio(sweep.anew_ratio(tokens)),
            )
        )
    if not lines:
        return "Not measured."
    headers = (
        "text tokens", "table", "encoding a behaviour", "saved per sample", "samples until paid back",
        "time ratio if every behaviour of every sample were new",
    )  # fmt: skip
    text = (
        "Encoding the distinct behaviours once, on the same device, by the encoder that fills the table "
        "(forward pass of the frozen layers, no adapters; copies to and from the device included). The "
        f"build is paid back once this many samples were trained on{_epochs(inputs)}. The last column is the "
        "worst case: no behaviour comes twice, and each is encoded when it is needed."
    )
    return f"{text}\n\n{table(headers, lines)}"


def _epochs(inputs: Inputs) -> str:
    """How many samples the data sets have, to set the number beside."""
    rows = [row for origin in ORIGINS for row in inputs.statistics[origin]]
    targets = {f"{row['title']} ({row['protocol']})": row["train_targets"] for row in rows}
    known = [f"{title} {count(number)}" for title, number in targets.items() if number]
    return f" (training targets of an epoch: {listed(known)})" if known else ""


def _sizes(sweep: Sweep) -> str:
    """How both ratios depend on the tokens of a behaviour."""
    sizes = sweep.behaviour_sizes
    headers = ["text tokens"]
    headers += [f"time ratio, {size} tokens per behaviour" for size in sizes]
    headers += [f"time ratio, all new, {size}" for size in sizes]
    headers += [f"memory ratio, {size}" for size in sizes]
    lines = []
    for tokens in sweep.lengths:
        measured = [bool(sweep.cell(BAHE, tokens, size).rows) for size in sizes]
        if sum(measured) > 1:
            time, memory = (
                [ratio_text(sweep, key, tokens, size) for size in sizes] for key in ("step_ms", "peak_gib")
            )
            anew = [ratio(sweep.anew_ratio(tokens, size)) for size in sizes]
            lines.append((count(tokens), *time, *anew, *memory))
    text = (
        "BAHE reads one vector for each behaviour: at the same text length, shorter behaviours are more "
        "vectors, and it saves less. *All new*: with every behaviour of every sample encoded when it is "
        "needed."
    )
    return f"{text}\n\n{table(headers, lines)}"


def _number(cell: Cell, key: str, form: str = ".3g") -> str:
    if cell.out_of_memory:
        return OOM
    value = cell.mean(key)
    return ABSENT if value is None else f"{value:{form}}"


def _spread(cell: Cell, key: str) -> str:
    """The mean, and lowest to highest of several repetitions."""
    values, text = cell.values(key), _number(cell, key, ",.2f")
    return f"{text} ({min(values):,.2f} to {max(values):,.2f})" if len(values) > 1 else text
