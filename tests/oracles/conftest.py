"""Compares a case with a peer's layer, and writes golden.json when asked to."""

from __future__ import annotations

import importlib.metadata

import pytest
from parity_cases import CASES, assert_same, write_golden

PEERS = ("fuxictr", "replay-rec")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the peers' values to golden.json")


@pytest.fixture(scope="session")
def peer_values(request):
    """Values that the peers gave, by case; complete only after all tests."""
    values = {}
    yield values
    if request.config.getoption("--update-golden", default=False):
        if set(values) != set(CASES):
            pytest.fail("golden.json is written only when every case was compared: run all of tests/oracles")
        versions = {name: importlib.metadata.version(name) for name in PEERS}
        write_golden(versions, {name: values[name] for name in CASES})


@pytest.fixture
def compare(peer_values):
    """compare(case name, substitute): the substitute computes with a peer's layer and our layer's tensors."""

    def check(name, substitute):
        values = CASES[name].outcome(substitute)
        assert_same(CASES[name].outcome(), values)
        peer_values[name] = values

    return check
