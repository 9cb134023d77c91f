"""Table 2's page: statistics beside the paper's."""

from __future__ import annotations

import pytest

from repro.errors import RecordError
from repro.reporting import render_all


def page(world, own=False):
    render_all(world.results, world.runs if own else None, world.reports, only=["table2"])
    return (world.reports / "table2.md").read_text()


def test_the_unpruned_number_of_ml_1m_is_said_from_the_numbers(world):
    world.add_statistics()
    assert (
        "3,706 items of its Table 2 are the unpruned number: the source holds 3,706, and 3,416 remain"
        in page(world)
    )


def test_the_sentence_follows_other_numbers(world):
    world.add_statistics(items_pruned=3000)
    assert "and 3,000 remain" in page(world)
    world.add_statistics(items=4000, items_pruned=3706)
    text = page(world)
    assert "those that remain after pruning, of 4,000" in text
    assert "ML-1M: items differ from the paper's." in text
    world.add_statistics(items_pruned=3706)
    assert "pruning," not in page(world)


def test_statistics_stand_beside_the_papers(world):
    world.add_statistics()
    lines = page(world).splitlines()
    (line,) = [line for line in lines if line.startswith("| MovieLens-1M") and "0.9553" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:5] == cells[5:] == ["6,040", "3,706", "1,000,209", "0.9553"]


def test_data_sets_of_the_paper_without_statistics_are_not_run(world):
    lines = page(world).splitlines()
    assert sum("not run" in line for line in lines) == 3


def test_two_protocols_of_a_source_are_one_line_of_its_statistics(world):
    world.add_statistics()
    world.add_statistics(protocol="rella", train_targets=776_007)
    sources, protocols = page(world).split("## Protocols")
    assert sources.count("| MovieLens-1M ") == 1
    assert protocols.count("| MovieLens-1M ") == 2
    assert "776,007" in protocols


def test_your_statistics_are_marked_unless_they_are_the_committed_ones(world):
    world.add_statistics()
    world.add_statistics(own=True)
    assert "yours" not in page(world, own=True)
    world.add_statistics(own=True, samples=999_999)
    assert "MovieLens-1M (yours)" in page(world, own=True)


def test_a_damaged_file_is_named_with_its_field(world):
    path = world.add_statistics(users="many")
    with pytest.raises(RecordError, match=r"ml-1m-dti\.json, field rows\.0\.users"):
        page(world)
    path.write_text("{")
    with pytest.raises(RecordError, match=r"ml-1m-dti\.json"):
        page(world)
