"""Shares of a table's runs, for one process per GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import ConfigError
from repro.experiments.rows import share_of


@given(st.lists(st.integers()), st.integers(1, 9))
def test_shares_together_are_everything_once(everything, number) -> None:
    shares = [share_of(everything, f"{each}/{number}") for each in range(1, number + 1)]
    assert sorted(each for share in shares for each in share) == sorted(everything)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert share_of(everything, None) == everything


@pytest.mark.parametrize("share", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2", "01/2"])
def test_anything_else_is_refused(share) -> None:
    with pytest.raises(ConfigError, match="1 <= i <= n"):
        share_of([1, 2, 3], share)
