"""docs/prompts.md prints the templates exactly, and its examples are what the command prints."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from repro.cli import app
from repro.data import DATASET_NAMES
from repro.paths import PROJECT_ROOT
from repro.prompts.templates import Template, template_for

PAGE = (PROJECT_ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```console\n\$ python -m repro (.*?)\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_instruction_is_printed_beside_its_data_set() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and "Answer yes or no." in line]
    for name in DATASET_NAMES:
        row = next((row for row in rows if f"`{name}`" in row), None) or rows[-1]
        assert f"| `{template_for(name).instruction}` |" in row


def test_the_interaction_format_and_the_cut_are_printed() -> None:
    template = Template("")
    assert f"`{template.interaction!r}`".replace("'", "") in PAGE
    assert f"longer than {template.max_item_tokens} tokens" in PAGE


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    """Shared by the examples: preparing ml-100k and unpacking the tokenizer takes seconds."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_examples_are_what_the_command_prints(command, printed, cache, monkeypatch) -> None:
    monkeypatch.setenv("REPRO_CACHE_DIR", cache)
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout == printed
