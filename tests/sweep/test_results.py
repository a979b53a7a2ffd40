"""Rows in CSV files."""

from pathlib import Path

from sb3_dqn_ext.sweep.results import add_row, read_rows, select_rows


def test_rows_are_added_and_a_new_column_leaves_earlier_cells_empty(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "rows.csv"
    assert read_rows(path) == []
    add_row(path, {"env": "a", "score": "1"})
    add_row(path, {"env": "b", "score": "2, with a comma\nand a line", "cpu_s": "3"})
    add_row(path, {"env": "c", "cpu_s": "4"})
    assert read_rows(path) == [
        {"env": "a", "score": "1", "cpu_s": ""},
        {"env": "b", "score": "2, with a comma\nand a line", "cpu_s": "3"},
        {"env": "c", "score": "", "cpu_s": "4"},
    ]
    assert select_rows(read_rows(path), env="c") == [{"env": "c", "score": "", "cpu_s": "4"}]
    assert [file.name for file in path.parent.iterdir()] == ["rows.csv"]
