"""Settings of a prompt: what is refused, and the test format."""

import pytest

from repro.errors import ConfigError
from repro.prompts.settings import PromptSettings


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"sum_layout": "inline"}, "sum_layout"),
        ({"window": "items"}, "window"),
        ({"instruction": "none"}, "instruction"),
        ({"window": "tokens"}, "window_tokens"),
        ({"window": "tokens", "window_tokens": 0}, "window_tokens"),
        ({"window": "tokens", "window_tokens": -5}, "window_tokens"),
        ({"window_tokens": 100}, "window_tokens"),
    ],
)
def test_unknown_or_contradictory_settings_are_refused(arguments, where) -> None:
    with pytest.raises(ConfigError) as error:
        PromptSettings(**arguments)
    assert error.value.where == where
    assert error.value.expected and error.value.fix


def test_the_test_format_is_the_sliding_window_whatever_training_was() -> None:
    trained = PromptSettings(7, 50, "inline-visible", "tokens", 300, "hidden", answers_in_context=False)
    assert trained.test_format() == PromptSettings(n=7, k=1, answers_in_context=False)
    assert PromptSettings(n=7, k=50).test_format() == PromptSettings(n=7)
