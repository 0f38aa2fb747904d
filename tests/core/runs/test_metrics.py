"""A run's numbers: one writer, readers at any moment, curves short enough for a browser."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion_core.runs.metrics import (
    MetricsError,
    MetricsWriter,
    read_all,
    read_curve,
    read_last,
    read_names,
)
from tests.odd_runs import bound_by_permissions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.sqlite"


def write(path: Path, name: str, values: np.ndarray, first: int = 1) -> None:
    writer = MetricsWriter(path, keep_up_to_step=10**9)
    writer.add((first + k, name, float(value), 100.0 + k) for k, value in enumerate(values))
    writer.close()


def test_what_is_written_is_read_back_in_the_order_of_the_steps(path: Path) -> None:
    writer = MetricsWriter(path)
    writer.add([(2, "loss", 0.2, 12.5), (1, "loss", 0.1, 11.5), (1, "rate", 5.0, 11.5)])
    writer.add([(3, "loss", 0.3, 13.5)])
    writer.close()
    curve = read_curve(path, "loss")
    assert curve["step"].tolist() == [1, 2, 3] and curve["step"].dtype == np.int64
    assert curve["value"].tolist() == [0.1, 0.2, 0.3]
    assert curve["wall_time"].tolist() == [11.5, 12.5, 13.5]
    assert read_names(path) == ["loss", "rate"]
    assert read_last(path) == {"loss": (3, 0.3), "rate": (1, 5.0)}


def test_the_same_step_written_again_is_replaced(path: Path) -> None:
    writer = MetricsWriter(path)
    writer.add([(1, "loss", 0.5, 1.0)])
    writer.commit()
    writer.add([(1, "loss", 0.25, 2.0)])
    writer.close()
    assert read_curve(path, "loss")["value"].tolist() == [0.25]


def test_a_missing_file_an_empty_one_and_an_unknown_curve_give_nothing(path: Path) -> None:
    for _ in range(2):
        assert read_names(path) == [] and read_last(path) == {}
        curve = read_curve(path, "loss")
        assert [len(curve[key]) for key in ("step", "value", "wall_time")] == [0, 0, 0]
        path.touch()  # SQLite makes the file before the writer makes the table
    write(path, "loss", np.ones(3))
    assert len(read_curve(path, "other")["step"]) == 0


def test_a_reader_leaves_no_file_where_there_was_none(path: Path) -> None:
    read_curve(path, "loss")
    assert not path.exists()


def test_values_that_are_no_finite_numbers_are_left_out(path: Path) -> None:
    write(path, "loss", np.array([1.0, np.nan, np.inf, -np.inf, 2.0]))
    assert read_curve(path, "loss")["step"].tolist() == [1, 5]


def test_a_resumed_writer_drops_the_steps_that_it_will_write_again(path: Path) -> None:
    write(path, "loss", np.arange(10.0))
    writer = MetricsWriter(path, keep_up_to_step=4)
    assert read_curve(path, "loss")["step"].tolist() == [1, 2, 3, 4]
    writer.add([(5, "loss", 50.0, 0.0)])
    writer.close()
    assert read_curve(path, "loss")["value"].tolist() == [0, 1, 2, 3, 50]
    assert read_last(path)["loss"] == (5, 50.0)
    MetricsWriter(path).close()  # a run begun anew keeps nothing
    assert read_names(path) == []


# ---------------------------------------------------------------- thinning


def test_a_curve_of_up_to_2000_points_comes_whole(path: Path) -> None:
    values = np.random.default_rng(0).random(2000)
    write(path, "loss", values)
    assert np.array_equal(read_curve(path, "loss")["value"], values)


def test_a_long_curve_keeps_at_most_2000_points_and_its_extremes(path: Path) -> None:
    values = np.random.default_rng(0).normal(size=25_001)
    values[[7, 12_345, 25_000]] = [40, -40, 41]
    write(path, "loss", values)
    curve = read_curve(path, "loss")
    assert 1000 <= len(curve["step"]) <= 2000
    assert (np.diff(curve["step"]) > 0).all()
    # Each point is a true one, its wall time included.
    assert np.array_equal(curve["value"], values[curve["step"] - 1])
    assert np.array_equal(curve["wall_time"], 100.0 + curve["step"] - 1)
    # In each of 1,000 stretches of steps the smallest and the largest value stay.
    stretch = np.arange(25_001) * 1000 // 25_001
    kept = stretch[curve["step"] - 1]
    for k in (0, 1, 500, 998, 999):
        inside = values[stretch == k]
        assert sorted(curve["value"][kept == k]) == [inside.min(), inside.max()]
    assert {40, -40, 41} <= set(curve["value"])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.integers(0, 10**6), st.floats(-1e6, 1e6), min_size=1, max_size=200),
    st.integers(1, 30).map(lambda half: 2 * half),
)
def test_any_curve_is_thinned_to_points_of_its_own_with_its_extremes(
    path: Path, points: dict[int, float], most: int
) -> None:
    path.unlink(missing_ok=True)
    writer = MetricsWriter(path)
    writer.add((step, "loss", value, 0.0) for step, value in points.items())
    writer.close()
    curve = read_curve(path, "loss", max_points=most)
    assert 1 <= len(curve["step"]) <= most
    assert all(points[step] == v for step, v in zip(curve["step"], curve["value"], strict=True))
    assert curve["value"].min() == min(points.values())
    assert curve["value"].max() == max(points.values())


# ---------------------------------------------------------------- while it is written


def test_readers_see_what_is_committed_and_never_wait_for_the_writer(path: Path) -> None:
    writer = MetricsWriter(path)
    writer.add([(1, "loss", 0.1, 0.0)])
    assert len(read_curve(path, "loss")["step"]) == 0  # it waits for the commit
    writer.commit()
    assert read_curve(path, "loss")["step"].tolist() == [1]
    # In the middle of a transaction: sqlite3 begins it with the first insert.
    writer.connection.execute("INSERT INTO scalars VALUES (2, 'loss', 0.2, 0.0)")
    assert writer.connection.in_transaction
    assert read_curve(path, "loss")["step"].tolist() == [1]
    writer.connection.commit()
    assert read_curve(path, "loss")["step"].tolist() == [1, 2]
    writer.close()


def test_a_reader_cannot_write(path: Path) -> None:
    write(path, "loss", np.ones(2))
    before = path.read_bytes()
    read_curve(path, "loss")
    read_last(path)
    assert path.read_bytes() == before


def test_a_closed_file_is_one_plain_file(path: Path) -> None:
    writer = MetricsWriter(path)
    writer.add([(1, "loss", 0.1, 0.0)])
    writer.commit()
    assert [p.name for p in path.parent.glob("metrics.sqlite-wal")] == ["metrics.sqlite-wal"]
    writer.close()
    assert list(path.parent.glob("metrics.sqlite-*")) == []


def test_a_full_disk_keeps_the_rows_waiting(path: Path, capsys) -> None:
    """SQLite says "database or disk is full" of a file that may not grow, too."""
    writer = MetricsWriter(path)
    (pages,) = writer.connection.execute("PRAGMA page_count").fetchone()
    writer.connection.execute(f"PRAGMA max_page_count={pages}")
    writer.add((step, "loss", 0.5, 0.0) for step in range(1, 1001))
    writer.commit()
    assert "full" in capsys.readouterr().err
    assert len(read_curve(path, "loss")["step"]) == 0
    writer.connection.execute("PRAGMA max_page_count=100000")
    writer.close()
    assert len(read_curve(path, "loss")["step"]) == 1000


def test_a_file_of_another_make_gets_a_sentence(path: Path) -> None:
    path.write_bytes(b"this is no database at all, and long enough to be seen as none" * 20)
    with pytest.raises(MetricsError) as raised:
        read_curve(path, "loss")
    assert str(raised.value) == (
        "metrics.sqlite is damaged. If the run is resumed, the file is renamed and the curves "
        "start again."
    )


def test_a_file_that_cannot_be_used_for_now_is_said_in_plain_words(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = MetricsWriter(path)
    writer.add([(1, "loss", 0.5, 0.0)])
    writer.commit()
    writer.connection.execute("PRAGMA query_only=ON")
    writer.add([(2, "loss", 0.5, 0.0)])
    writer.commit()
    said = "metrics.sqlite cannot be written: it is read-only. Its rows wait."
    assert capsys.readouterr().err.splitlines() == [said]
    writer.connection.close()


def test_a_name_with_quotes_is_only_a_name(path: Path) -> None:
    name = "loss'; DROP TABLE scalars; --"
    write(path, name, np.ones(3000))
    assert read_names(path) == [name]
    assert len(read_curve(path, name)["step"]) > 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM scalars").fetchone() == (3000,)
    connection.close()


# ---------------------------------------------------------------- damage


def as_text(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE scalars SET value = 'much' WHERE step = 7")


def of_other_columns(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE scalars (name TEXT, when_ REAL)")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("mine")


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def with_a_hole(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 + 100 : -4096] = bytes(len(content) - 8192 - 100)
    path.write_bytes(content)


DAMAGES = {
    "random bytes": lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)),
    "text": lambda path: path.write_text("no database"),
    "cut short": lambda path: os.truncate(path, path.stat().st_size * 3 // 5),
    "cut to 100 bytes": lambda path: os.truncate(path, 100),
    "a hole": with_a_hole,
    "a text value": as_text,
    "other columns": of_other_columns,
    "a folder": as_folder,
    "a pipe": as_pipe,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_set_aside_whole_and_another_begun(
    damage: Callable[[Path], object], path: Path
) -> None:
    write(path, "loss", np.arange(3000.0))
    damage(path)
    before = path.read_bytes() if path.is_file() else b""
    said: list[str] = []
    writer = MetricsWriter(path, keep_up_to_step=10, say=said.append)
    writer.add([(11, "loss", 0.5, 1.0)])
    writer.close()
    assert read_curve(path, "loss")["step"].tolist() == [11]
    [aside] = path.parent.glob("metrics-damaged-*.sqlite")
    assert said == [
        f"metrics.sqlite is damaged or cannot be written. It is renamed to {aside.name}, and the "
        "curves start again."
    ]
    assert not aside.is_file() or aside.read_bytes() == before
    assert not aside.is_dir() or (aside / "file").read_text() == "mine"
    MetricsWriter(path, say=said.append).close()
    assert len(said) == 1


def test_a_file_that_must_not_be_written_is_set_aside(path: Path) -> None:
    write(path, "loss", np.arange(3.0))
    path.chmod(0o444)
    said: list[str] = []
    with bound_by_permissions():
        MetricsWriter(path, keep_up_to_step=2, say=said.append).close()
    assert len(said) == 1 and read_names(path) == []
    [aside] = path.parent.glob("metrics-damaged-*.sqlite")
    assert read_curve(aside, "loss")["step"].tolist() == [1, 2, 3]


def test_two_damaged_files_of_the_same_second_are_both_kept(path: Path) -> None:
    for k in range(3):
        path.write_text(f"damaged {k}")
        MetricsWriter(path).close()
    kept = {each.read_text() for each in path.parent.glob("metrics-damaged-*")}
    assert kept == {"damaged 0", "damaged 1", "damaged 2"}


def test_a_file_that_is_damaged_while_it_is_written_is_set_aside_with_the_rows_that_wait(
    path: Path,
) -> None:
    said: list[str] = []
    writer = MetricsWriter(path, say=said.append)
    writer.connection.execute("PRAGMA journal_mode=DELETE")
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    writer.add([(1, "loss", 0.5, 1.0)])
    writer.close()
    assert read_last(path) == {"loss": (1, 0.5)} and len(said) == 1


@pytest.mark.parametrize("emptied", [Path.unlink, lambda path: os.truncate(path, 0)])
def test_a_resume_says_that_the_file_is_gone(emptied: Callable[[Path], object], path: Path) -> None:
    write(path, "loss", np.arange(7.0))
    emptied(path)
    said: list[str] = []
    MetricsWriter(path, keep_up_to_step=4, say=said.append).close()
    assert said == ["metrics.sqlite is missing or empty; the curves start again."]
    emptied(path)
    MetricsWriter(path, say=said.append).close()
    assert len(said) == 1  # of a new run there is none yet


def test_a_file_in_use_is_not_damaged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, "loss", np.arange(3.0))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0))
    with closing(connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            MetricsWriter(path)
    assert list(path.parent.glob("metrics-damaged-*")) == []


def test_a_value_that_is_no_number_gets_a_sentence(path: Path) -> None:
    write(path, "loss", np.arange(7.0))
    as_text(path)
    for read in (lambda: read_curve(path, "loss"), lambda: read_last(path), lambda: read_all(path)):
        with pytest.raises(MetricsError, match="damaged: it has values that are no numbers"):
            read()
