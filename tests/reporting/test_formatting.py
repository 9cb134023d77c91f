"""Numbers as pages print them."""

from __future__ import annotations

import pytest

from repro.reporting import formatting


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "—"), (123.64, "123.6 s"), (912, "15.2 min"), (23868, "6.63 h")]
)
def test_durations_have_units(seconds, text):
    assert formatting.duration(seconds) == text


def test_differences_have_a_sign_and_nothing_is_minus_zero():
    assert formatting.signed(-0.00004) == "+0.0000"
    assert formatting.signed(-0.00006) == "-0.0001"
    assert formatting.percent(-0.004) == "+0.00 %"
    assert formatting.percent(-0.826) == "-0.83 %"


def test_labels_of_one_method_share_its_name():
    labels = ["SW, k = 1", "DTI, k = 5", "DTI, k = 50", "DTI, k = 5, loss = answers", "Zero-shot"]
    assert formatting.compact(labels) == ("SW, k = 1; DTI, k = 5, 50; DTI, k = 5, loss = answers; Zero-shot")


def test_a_pipe_in_a_cell_does_not_split_it():
    assert "a \\| b" in formatting.table(["x"], [["a | b"]])


def test_numbers_in_cells_stay_as_they_are_written():
    assert "0.7000" in formatting.table(["x"], [["0.7000"]])
