"""Commands on a table of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_cases import TABLE1


@pytest.fixture
def own_table(own_folders) -> Path:
    """A CSV with 12 users of 20 interactions each."""
    path = own_folders / "own.csv"
    lines = ["user,item,text,label,timestamp"]
    for user in range(12):
        for step in range(20):
            item = (user * 7 + step * 3) % 23
            lines.append(f"u{user},i{item},Item {item},{(user + step) % 2},{step}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_own_data(command, own_table, own_folders) -> None:
    arguments = (*TABLE1[:3], "--dataset", "table", "--data-dir", str(own_table), "--rows", "zero-shot")
    text = own_table.read_text()
    own_table.write_text(text.replace("label", "rating", 1))
    code, _, err = command(*arguments)
    assert code == 2
    assert "label" in err
    own_table.write_text(text)
    code, _, err = command(*arguments)
    assert code == 0, err
    assert list((own_folders / "runs" / "test" / "table").glob("zero-shot-*/record.json"))


def test_other_data_is_another_run(command, own_table, own_folders) -> None:
    arguments = (*TABLE1[:3], "--dataset", "table", "--data-dir", str(own_table), "--rows", "zero-shot")
    assert command(*arguments)[0] == 0
    own_table.write_text(own_table.read_text().replace("Item 7", "Item seven"))
    assert command(*arguments)[0] == 0
    assert len(list((own_folders / "runs" / "test" / "table").glob("zero-shot-*/record.json"))) == 2
