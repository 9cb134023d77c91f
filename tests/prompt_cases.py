"""Small random data sets and prompt formats, and prompts built the slow way, straight from the rules."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from repro.data.interactions import TRAIN, Interactions, Items, PreparedData
from repro.prompts.packing import PromptSource, pack_rows
from repro.prompts.rows import Rows, build_rows
from repro.prompts.settings import INSTRUCTIONS, SUM_LAYOUTS, WINDOWS, PromptSettings
from repro.prompts.tokenise import TokenisedItems

YES, NO = 1, 2
FIRST_ITEM_TOKEN = 20


def make_data(
    history_lengths: list[int],
    seed: int = 0,
    min_context: int = 0,
    share_of_targets: float = 1.0,
    train_only: bool = False,
) -> PreparedData:
    """Users with the given numbers of interactions, interleaved in time; random items, labels and splits."""
    rng = np.random.default_rng(seed)
    user = rng.permutation(np.repeat(np.arange(len(history_lengths), dtype=np.int32), history_lengths))
    num_rows, num_items = len(user), 7
    interactions = Interactions(
        user=user,
        item=rng.integers(num_items, size=num_rows).astype(np.int32),
        label=rng.integers(2, size=num_rows).astype(np.int8),
        timestamp=np.arange(num_rows, dtype=np.int64),
    )
    seen: dict[int, int] = {}
    position = np.zeros(num_rows, dtype=int)
    for row, who in enumerate(user):
        position[row] = seen.get(int(who), 0)
        seen[int(who)] = position[row] + 1
    split = rng.choice([0, 0, 0, 1, 2], size=num_rows).astype(np.int8)
    return PreparedData.build(
        name="random",
        protocol="random",
        min_context=min_context,
        interactions=interactions,
        items=Items(
            tuple(map(str, range(num_items))), tuple(f"item {i}" for i in range(num_items)), ((),) * num_items
        ),
        split=np.zeros_like(split) if train_only else split,
        is_target=(position >= min_context) & (rng.random(num_rows) < share_of_targets),
        source_sha256="",
        counts={},
    )


def make_items(num_items: int = 7, seed: int = 0, num_prefix: int = 3, longest: int = 4) -> TokenisedItems:
    """Items of 1 to `longest` tokens, no token in two items, and an instruction of `num_prefix` tokens."""
    lengths = np.random.default_rng(seed).integers(1, longest + 1, size=num_items)
    return TokenisedItems(
        tokens=(FIRST_ITEM_TOKEN + np.arange(lengths.sum())).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        instruction=(3 + np.arange(num_prefix)).astype(np.int32),
        yes_id=YES,
        no_id=NO,
    )


def film_like(num_users: int = 400) -> tuple[PreparedData, TokenisedItems]:
    """Users, item texts and instruction about as long as those of MovieLens in SmolLM2's tokens."""
    rng = np.random.default_rng(0)
    data = make_data(
        np.minimum(rng.lognormal(4.4, 1.0, num_users), 900).astype(int).tolist(), train_only=True
    )
    lengths = np.array([12, 14, 15, 16, 17, 19, 22])
    items = make_items(num_prefix=20)
    tokens = (FIRST_ITEM_TOKEN + np.arange(lengths.sum())).astype(np.int32)
    return data, replace(items, tokens=tokens, offsets=np.concatenate([[0], np.cumsum(lengths)]))


@dataclass(frozen=True)
class Case:
    """A data set with one prompt format, and the training rows in a random order."""

    source: PromptSource
    rows: Rows
    chosen: np.ndarray

    @property
    def settings(self) -> PromptSettings:
        return self.source.settings

    def pack(self, text_multiple: int = 1, sum_multiple: int = 1):
        return pack_rows(self.source, self.rows, self.chosen, text_multiple, sum_multiple)


@st.composite
def datasets(draw) -> PreparedData:
    return make_data(
        draw(st.lists(st.integers(1, 14), min_size=1, max_size=4)),
        seed=draw(st.integers(0, 10_000)),
        min_context=draw(st.integers(0, 3)),
        share_of_targets=draw(st.sampled_from([1.0, 0.6, 0.2])),
    )


@st.composite
def prompt_settings(draw) -> PromptSettings:
    window = draw(st.sampled_from(WINDOWS))
    return PromptSettings(
        n=draw(st.integers(1, 6)),
        k=draw(st.integers(1, 8)),
        sum_layout=draw(st.sampled_from(SUM_LAYOUTS)),
        window=window,
        window_tokens=draw(st.integers(1, 12)) if window == "tokens" else None,
        instruction=draw(st.sampled_from(INSTRUCTIONS)),
        answers_in_context=draw(st.booleans()),
    )


@st.composite
def cases(draw) -> Case:
    """At least one row, in any order, possibly not all of them."""
    data, settings = draw(datasets()), draw(prompt_settings())
    rows = build_rows(data, TRAIN, settings.n, settings.k)
    if not len(rows):
        data = make_data([6, 3], seed=draw(st.integers(0, 99)), train_only=True)
        rows = build_rows(data, TRAIN, settings.n, settings.k)
    items = make_items(len(data.items), seed=draw(st.integers(0, 99)), num_prefix=draw(st.integers(0, 3)))
    order = draw(st.permutations(range(len(rows))))[: draw(st.integers(1, min(len(rows), 6)))]
    return Case(PromptSource(data, items, settings), rows, np.array(order))


@dataclass
class Token:
    """One token of a prompt written out in reading order."""

    row: int  # prompt; -1 for the instruction
    data_row: int  # row of PreparedData, -1 for the instruction
    number: int  # interaction counted within the prompt
    kind: str  # "instruction", "text", "answer" or "sum"
    value: int  # token id; -1 for [SUM]
    position: int


def read_out(case: Case) -> list[Token]:
    """The prompts in reading order: instruction once, then text, [SUM] and answer of each interaction."""
    data, items, settings = case.source.data, case.source.items, case.settings
    tokens = [Token(-1, -1, -1, "instruction", int(t), p) for p, t in enumerate(items.instruction)]
    for row in case.chosen:
        place = len(items.instruction)
        first, start, stop = (int(a[row]) for a in (case.rows.first, case.rows.start, case.rows.stop))
        for along in range(first, stop):
            data_row = int(data.user_rows[along])
            item = data.interactions.item[data_row]
            for value in items.tokens[items.offsets[item] : items.offsets[item + 1]]:
                tokens.append(Token(row, data_row, along - first, "text", int(value), place))
                place += 1
            if along >= start and data.is_target[data_row] and data.split[data_row] == TRAIN:
                tokens.append(Token(row, data_row, along - first, "sum", -1, place))
                place += settings.sum_layout != "deferred"
            if along < stop - 1 and settings.answers_in_context:
                answer = YES if data.interactions.label[data_row] else NO
                tokens.append(Token(row, data_row, along - first, "answer", answer, place))
                place += 1
    return tokens


def array_order(tokens: list[Token]) -> list[int]:
    """Reading order -> array order of a packed batch: text first, then the [SUM]s."""
    return [i for i, t in enumerate(tokens) if t.kind != "sum"] + [
        i for i, t in enumerate(tokens) if t.kind == "sum"
    ]


def _reaches(query: int, key: int, tokens: list[Token], settings: PromptSettings) -> bool:
    """Whether the text token `key`, read before `query`, lies in the window of `query`."""
    if settings.window == "interactions":
        return tokens[query].number - tokens[key].number <= settings.n
    text_between = sum(t.kind != "sum" for t in tokens[key + 1 : query + (tokens[query].kind != "sum")])
    return text_between < int(settings.window_tokens or 0)


def sees(query: int, key: int, tokens: list[Token], settings: PromptSettings) -> bool:
    """The documented rule, for two places in reading order."""
    q, x = tokens[query], tokens[key]
    if query == key:
        return True
    if key > query:
        return False
    if x.kind == "instruction":
        return q.kind == "instruction" or settings.instruction == "visible"
    if q.row != x.row:
        return False
    if x.kind == "sum":  # it counts as standing at the token before it
        return settings.sum_layout == "inline-visible" and _reaches(query, key - 1, tokens, settings)
    return _reaches(query, key, tokens, settings)


def naive_visibility(tokens: list[Token], settings: PromptSettings) -> np.ndarray:
    """(T + S, T + S) bool in array order."""
    order = array_order(tokens)
    return np.array([[sees(q, x, tokens, settings) for x in order] for q in order])
