"""Shared by all tests: one torch thread (tiny tensors; processes share the cores), a Hypothesis profile."""

import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("repro", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repro")


# A shell that starts the tests in the background makes them ignore Ctrl-C, which some of them are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    """Only where a test module has imported torch: the data layer's tests must do without."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
