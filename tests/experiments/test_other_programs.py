"""Tables that other programs have read and written again."""

import csv
import itertools
import math
import re
from pathlib import Path

import pytest

from experiments.runners import iterative, learned, mask_analysis
from experiments.runners.registry import read_table
from experiments.storage import results
from tests.experiments import tiny

COMMITTED = Path(__file__).parents[2] / "results"
# What tools.collect wrote; the benchmarks' tables have columns of their own.
TABLES = sorted(set(COMMITTED.glob("*.csv")) - set(COMMITTED.glob("benchmark_*.csv")))


def with_pandas(source, target):
    pandas = pytest.importorskip("pandas")
    pandas.read_csv(source).to_csv(target, index=False)


def with_pandas_as_text(source, target):
    pandas = pytest.importorskip("pandas")
    pandas.read_csv(source, dtype=str).to_csv(target, index=False, na_rep="", quoting=csv.QUOTE_ALL)


def with_pandas_through_parquet(source, target):
    pandas = pytest.importorskip("pandas")
    parquet = target.with_suffix(".parquet")
    pandas.read_csv(source).to_parquet(parquet)
    pandas.read_parquet(parquet).to_csv(target, index=False)


def with_polars(source, target):
    polars = pytest.importorskip("polars")
    polars.read_csv(source).write_csv(target, include_bom=True, line_terminator="\r\n")


def with_polars_through_parquet(source, target):
    polars = pytest.importorskip("polars")
    parquet = target.with_suffix(".parquet")
    polars.read_csv(source).write_parquet(parquet)
    polars.read_parquet(parquet).write_csv(target, float_scientific=True)


def with_pyarrow(source, target):
    from pyarrow import csv

    csv.write_csv(csv.read_csv(source), target)


def with_pyarrow_through_parquet(source, target):
    import pyarrow.parquet as pq
    from pyarrow import csv

    parquet = target.with_suffix(".parquet")
    pq.write_table(csv.read_csv(source), parquet)
    csv.write_csv(pq.read_table(parquet), target)


PROGRAMS = (
    with_pandas,
    with_pandas_as_text,
    with_pandas_through_parquet,
    with_polars,
    with_polars_through_parquet,
    with_pyarrow,
    with_pyarrow_through_parquet,
)


def younger_left_out(rows, source):
    """Return rows without the columns that are younger than their table."""
    names = {*results.read_header(source)}
    return [{name: x for name, x in row.items() if name in names} for row in rows]


@pytest.mark.parametrize("source", TABLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("rewrite", PROGRAMS)
def test_a_committed_table_comes_back_equal(tmp_path, rewrite, source):
    target = tmp_path / "table.csv"
    rewrite(source, target)
    rows = younger_left_out(read_table(target), source)
    results.write_rows(target, rows, rows[0])
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("source", TABLES, ids=lambda path: path.stem)
def test_a_committed_table_is_written_as_it_was_read(tmp_path, source):
    rows = younger_left_out(read_table(source), source)
    results.write_rows(tmp_path / "table.csv", rows, rows[0])
    assert (tmp_path / "table.csv").read_bytes() == source.read_bytes()


def rewritten(rewrite, id, folder):
    """Return the rows of a table with one row, after a program has read and written it."""
    source, target = folder / "source.csv", folder / "target.csv"
    results.write_rows(source, [tiny.blank_row(learned.COLUMNS) | {"id": id}], learned.COLUMNS)
    rewrite(source, target)
    return read_table(target)


@pytest.mark.parametrize("rewrite", PROGRAMS)
def test_no_program_takes_an_id_for_a_number(tmp_path, rewrite):
    ids = (results.row_id({}, {"seed": seed}, "1") for seed in itertools.count())
    id = next(id for id in ids if re.fullmatch("[0-9]+e[0-9]{4,}", id[1:]))
    assert [row["id"] for row in rewritten(rewrite, id, tmp_path)] == [id]


@pytest.mark.parametrize("rewrite", [with_pandas, with_polars, with_pyarrow])
def test_an_id_that_became_infinity_is_refused(tmp_path, rewrite):
    with pytest.raises(ValueError, match="line 2, column id: 'inf' is no id; a program took the"):
        rewritten(rewrite, "86e501496586", tmp_path)


@pytest.mark.parametrize(
    ("read", "cells", "value"),
    [
        # Python, polars and DuckDB, R and spreadsheets, SQLite, numpy
        (results.boolean, ("True", "true", "TRUE", "1", "1.0", "1.000e+00"), True),
        (results.boolean, ("False", "false", "FALSE", "0", "0.0", "-0.0"), False),
        (results.integer, ("1500", "1500.0", "1.5e3", "1.5E+03", "+1500", " 1500"), 1500),
        (results.integer, ("-3", "-3.0"), -3),
        (results.integer, ("0", "-0.0"), 0),
        (results.integer, ("9007199254740993",), 2**53 + 1),
        (results.optional_integer, ("", "nan", "NA", "<NA>", "null", "None"), None),
        (results.optional_integer, ("7", "7.0"), 7),
        (results.number, ("1e-05", "1E-5", "0.00001", ".00001", "10e-6"), 1e-05),
        (results.number, ("1", "1.", "1.0"), 1.0),
        (results.number, ("-0.0", "-0"), -0.0),
        (results.number, ("", "nan", "NaN", "-nan", "NA", "#N/A", "NULL", "none"), math.nan),
        (results.number, ("inf", "Inf", "INF", "infinity"), math.inf),
        (results.identifier, ("86e501496586",), "86e501496586"),
        (results.identifier, ("067681310248",), "067681310248"),
        (results.identifier, ("re5014965861",), "re5014965861"),
        (results.text, ("nan",), "nan"),
    ],
)  # fmt: skip
def test_cells_are_read_by_what_they_mean(read, cells, value):
    for cell in cells:
        assert repr(read(cell)) == repr(value), cell


@pytest.mark.parametrize(
    ("columns", "name", "cells"),
    [
        (learned.COLUMNS, "rescale", ("", "yes", "WAHR", "2", "nan", "True False")),
        (learned.COLUMNS, "seed", ("", "nan", "1.5", "inf", "1_000", "one", "1e16", "\u0661")),
        (mask_analysis.COLUMNS, "other_seed", ("1.5", "?")),
        (learned.COLUMNS, "density", ("0,5", "50%", "1_0.0", "0x1p-1", "1 000", "#NUM!", "1e")),
        (learned.COLUMNS, "id", ("inf", "", "nan", "4.02E+11", "67681310248", "322436661089.0")),
    ],
)  # fmt: skip
def test_cells_that_can_only_be_guessed_are_refused(tmp_path, columns, name, cells):
    path = tmp_path / "table.csv"
    for cell in cells:
        rows = [tiny.blank_row(columns), tiny.blank_row(columns) | {name: cell}]
        results.write_rows(path, rows, columns)
        with pytest.raises(ValueError) as caught:
            read_table(path)
        said = f"{path} is damaged in line 3, column {name}: {cell!r} is "
        assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_columns_may_have_any_order(tmp_path):
    path, rows = tmp_path / "table.csv", [tiny.blank_row(learned.COLUMNS)]
    results.write_rows(path, rows, sorted(learned.COLUMNS))
    again = read_table(path)
    assert again == rows and list(again[0]) == list(learned.COLUMNS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: "," + head, "is not a table of this version: remove '' from it."),
        (
            lambda head: head + ",Unnamed: 0",
            "is not a table of this version: remove 'Unnamed: 0' ",
        ),
        (
            lambda head: head.replace("seed", "SEED"),
            "version: it lacks 'seed'; remove 'SEED' from it",
        ),
        (
            lambda head: head.replace("round", "seed"),
            "it lacks 'round'; it has 'seed' more than on",
        ),
        (
            lambda head: head.replace(",", ";"),
            "is not a table of this version: it lacks 'id', 'exp",
        ),
        (lambda head: head + "\n1,2", "is damaged in line 2: it has 2 cells for 22 columns."),
        (lambda head: head + '\n"1', "is damaged in line 2: unexpected end of data."),
        (lambda head: head + '\n"1"2', "is damaged in line 2: ',' expected after '\"'."),
        (
            lambda head: head + "\n\udce9",
            "is not a table in UTF-8: 'utf-8' codec can't decode byte",
        ),
    ],
)
def test_tables_of_another_form_are_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "table.csv"
    path.write_text(change(",".join(iterative.COLUMNS)), errors="surrogateescape")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_rescaled_row_stays_rescaled(tmp_path):
    """In a table of DuckDB, which writes true, and nothing for what is missing."""
    path = tmp_path / "table.csv"
    row = tiny.blank_row(learned.COLUMNS) | {"retrained_test_accuracy": math.nan}
    results.write_rows(path, [row | {"rescale": "true", "retrained_test_accuracy": ""}], row)
    assert repr(read_table(path)) == repr([row])
