"""Published values: complete, consistent in themselves, and damage is named."""

from __future__ import annotations

import pytest

from repro.errors import DataError
from repro.paths import PROJECT_ROOT
from repro.reporting.references import PAPER_DATASETS, paper_dataset, paper_scores, paper_statistics
from repro.reporting.sections import KS

REFERENCE = PROJECT_ROOT / "reports" / "reference"


def test_table1_has_13_rows_for_each_data_set():
    expected = {("sw", 1)} | {(method, k) for method in ("dti-minus", "dti") for k in KS}
    found = paper_scores(REFERENCE)
    for dataset in PAPER_DATASETS:
        assert {(method, k) for name, method, k in found if name == dataset} == expected


def test_relative_auc_of_the_paper_is_ours():
    """Our definition gives the paper's 36 values from its AUCs, but for one slip of the paper."""
    found = paper_scores(REFERENCE)
    unequal = {}
    for (dataset, method, k), values in found.items():
        if method != "sw":
            relative = round(100 * (values.auc / found[dataset, "sw", 1].auc - 1), 2)
            if relative != values.relative_percent:
                unequal[dataset, method, k] = (relative, values.relative_percent)
    assert unequal == {("amazon-cds", "dti", 5): (0.12, 0.17)}


def test_sparsity_of_the_paper_is_ours():
    for values in paper_statistics(REFERENCE).values():
        assert round(1 - values.samples / (values.users * values.items), 4) == values.sparsity


def test_a_data_set_that_the_paper_lacks_stands_beside_ml_1m_and_says_so():
    assert paper_dataset("ml-1m") == ("ml-1m", "paper, 8B")
    assert paper_dataset("ml-100k") == ("ml-1m", "paper, ML-1M, 8B")


def test_a_missing_file_and_a_broken_line_are_named(tmp_path):
    with pytest.raises(DataError, match=r"dti_table1\.csv"):
        paper_scores(tmp_path)
    text = (REFERENCE / "dti_table2.csv").read_text().replace("0.9993", "?")
    (tmp_path / "dti_table2.csv").write_text(text)
    with pytest.raises(DataError, match=r"dti_table2\.csv, line 3"):
        paper_statistics(tmp_path)
