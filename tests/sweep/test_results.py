"""Rows in CSV files."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep.results import KEY, add_row, read_rows, select_rows


def test_rows_are_added_and_a_new_column_leaves_earlier_cells_empty(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "rows.csv"
    assert read_rows(path) == []
    a, b, c = ({"env": env, "variant": "v", "seed": "0", "config": "12"} for env in "abc")
    add_row(path, a | {"score": "1"})
    add_row(path, b | {"score": "2, with a comma\nand a line", "cpu_s": "3"})
    add_row(path, c | {"cpu_s": "4"})
    assert read_rows(path) == [
        a | {"score": "1", "cpu_s": ""},
        b | {"score": "2, with a comma\nand a line", "cpu_s": "3"},
        c | {"score": "", "cpu_s": "4"},
    ]
    assert select_rows(read_rows(path), env="c") == [c | {"score": "", "cpu_s": "4"}]
    add_row(path, b | {"score": "5"}, KEY)
    assert len(read_rows(path)) == 3, "a run has one row"
    assert [file.name for file in path.parent.iterdir() if not file.name.startswith(".")] == ["rows.csv"]


def add_rows(path: Path, env: str) -> None:
    for seed in range(20):
        add_row(path, {"env": env, "variant": "v", "seed": str(seed), "config": "12"}, KEY)


def test_processes_that_add_rows_to_one_file_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(add_rows, [path] * 4, "aabc"))
    assert len(read_rows(path)) == 60


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"env,variant,seed,config\na,v,0,1\n<<<<<<< mine\n", "row 2 has 1 cells, and there are 4 columns"),
        (b"env,variant,seed,config\na,v,0,1,2\n", "row 1 has 5 cells"),
        (b"a,v,0,1\n", "the first line must contain the columns env, variant, seed, config"),
        (b"env,variant,seed,config\n\xff,v,0,1\n", "can't decode"),
        (b'env,variant,seed,config\na,v,0,"1\n', "unexpected end of data"),
    ],
)
def test_a_damaged_file_is_one_error_and_is_kept(tmp_path: Path, damage: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(damage)
    with pytest.raises(ArgumentError, match=message):
        add_row(path, {"env": "a", "variant": "v", "seed": "1", "config": "1"}, KEY)
    assert path.read_bytes() == damage


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    assert read_rows(tmp_path / "rows.csv") == []
