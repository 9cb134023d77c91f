"""A prompt as text: complete, and its windows are those that the model gets."""

import re
from dataclasses import replace

import pytest
from prompt_cases import make_data

from repro.backbones.tokenizer import answer_ids, tiny_tokenizer
from repro.data.interactions import Items
from repro.errors import ConfigError
from repro.prompts.settings import PromptSettings
from repro.prompts.show import show_row
from repro.prompts.templates import Template
from repro.prompts.tokenise import tokenise_items

TOKENIZER = tiny_tokenizer()
TITLES = ("Alien", "Brazil", "Casablanca", "Dune", "Evita", "Fargo", "Gandhi")
DATA = replace(
    make_data([9], train_only=True, min_context=2), items=Items(tuple("abcdefg"), TITLES, ((),) * len(TITLES))
)
ITEMS = tokenise_items(DATA.items, TOKENIZER, Template("Rate."), answer_ids(TOKENIZER))


def shown(settings: PromptSettings, row: int = 0) -> list[str]:
    return show_row(DATA, ITEMS, settings, row, TOKENIZER).splitlines()


def line_of(lines: list[str], number: int) -> str:
    return next(line for line in lines if re.match(rf"\s+(context|target)\s+{number} @", line))


def test_a_streaming_prompt_shows_every_interaction_with_its_answer_and_every_window() -> None:
    lines = shown(PromptSettings(n=2, k=3))
    assert lines[0].startswith("row 0: 3 targets, ") and "sum_layout=deferred" in lines[0]
    assert "instruction @0: 'Rate.'" in lines[1]
    for number in range(5):
        row = int(DATA.user_rows[number])
        title = TITLES[DATA.interactions.item[row]]
        answer = " yes" if DATA.interactions.label[row] else " no"
        line = line_of(lines, number)
        assert line.split()[0] == ("target" if number >= 2 else "context")
        assert line.endswith(f": {title}:" + (answer if number < 4 else ""))
    sums = [line for line in lines if "[SUM]" in line]
    assert len(sums) == 3
    for place, line in enumerate(sums):
        label = DATA.interactions.label[DATA.user_rows[place + 2]]
        assert f"(interactions {place}..{place + 2})" in line
        assert "instruction, text tokens" in line
        assert line.endswith("learns 'yes'" if label else "learns 'no'")


def test_a_sum_takes_the_position_behind_its_targets_text() -> None:
    deferred, inline = (
        shown(PromptSettings(n=2, k=3)),
        shown(PromptSettings(n=2, k=3, sum_layout="inline-positions")),
    )
    begin, title = (int(x) for x in re.findall(r"@(\d+)", line_of(deferred, 2))), line_of(deferred, 2)
    text = "\n" + TITLES[DATA.interactions.item[DATA.user_rows[2]]] + ":"
    own = next(line for line in deferred if "[SUM] 0 @" in line)
    assert int(re.search(r"@(\d+)", own).group(1)) == next(begin) + len(TOKENIZER(text)["input_ids"]), title
    first, second = (int(re.search(r"@(\d+)", line_of(lines, 3)).group(1)) for lines in (deferred, inline))
    assert second == first + 1, "inline, one [SUM] stands before interaction 3"


def test_hidden_instruction_token_windows_and_visible_sums_are_told() -> None:
    settings = PromptSettings(2, 3, "inline-visible", "tokens", 5, "hidden")
    lines = [line for line in shown(settings) if "sees" in line]
    assert not any("instruction," in line for line in lines)
    for line in lines:
        low, high = (int(x) for x in re.search(r"text tokens (\d+)\.\.(\d+)", line).groups())
        assert high - low + 1 == 5
    wide = [
        line for line in shown(replace(settings, window="interactions", window_tokens=None)) if "sees" in line
    ]
    assert "[SUM] 0..1," in wide[2]


def test_a_sliding_window_prompt_has_one_target_in_its_last_line() -> None:
    lines = shown(PromptSettings(n=2, k=1), row=3)
    assert sum("[SUM]" in line for line in lines) == 1
    assert "[SUM] 0 @" in lines[-1]


@pytest.mark.parametrize("row", [-1, 7])
def test_a_row_that_is_not_there_is_refused(row) -> None:
    with pytest.raises(ConfigError, match="0 to 6") as error:
        shown(PromptSettings(n=2, k=1), row)
    assert error.value.where == "row"
