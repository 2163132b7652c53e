import numpy as np
import pytest

from tools import benchmark_pruning
from tools.benchmark import measurements, pruners
from tools.benchmark_pruning import Row


def test_all_ways_keep_the_same_weights():
    expected = pruners._arrays("sorting", 1000, "float32")()
    assert expected.sum() == 200
    for name in pruners.PRUNERS:
        np.testing.assert_array_equal(pruners._arrays(name, 1000, "float32")(), expected)


def test_a_small_benchmark_writes_its_table_and_figure(tmp_path, capsys):
    ways = ["--ways=ours,sorting,lax.top_k", "--dtypes=bfloat16"]
    small = ["--sizes=100,1e3", "--turns=1", "--patience=1e9", f"--table={tmp_path / 'small'}"]
    benchmark_pruning.main([*ways, *small])
    printed, written = (  # the numbers in the file are rounded, and may round on to others
        [line.split(" | ")[:3] for line in text.splitlines() if line.startswith("|")]
        for text in (capsys.readouterr().out, benchmark_pruning.markdown(tmp_path / "small.csv"))
    )
    assert printed == written and len(written) == 2 + 6
    rows = measurements.read(tmp_path / "small.csv", Row)
    assert [(row.weights, row.way) for row in rows[:2]] == [(100, "ours"), (100, "sorting")]
    assert len(rows) == 6 and all(row.seconds > 0 for row in rows)
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("size", "patience", "memory", "reason"),
    [
        (10**7, 60, 20, None),
        (10**8, 60, 20, "it would take 100 s"),
        (10**8, 200, 8, "it would need 9 GB"),
    ],
)
def test_what_does_not_fit_is_skipped(size, patience, memory, reason):
    row = Row("float32", 10**6, "sorting", 1.0, 80.0, 9.0)
    assert benchmark_pruning.why_not(row, size, patience, memory) == reason


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--sizes=1e4,big", "error: --sizes has 'big', expected numbers from 10 to 2e9."),
        ("--sizes=3e9", "error: --sizes has '3e9', expected numbers from 10 to 2e9."),
        ("--dtypes=float8", "error: unknown type 'float8'; did you mean 'float32'? known: "),
        ("--ways=our", "error: unknown way 'our'; did you mean 'ours'? known: lax.top_k, np."),
    ],
)
def test_mistakes_get_one_line(flag, message):
    with pytest.raises(SystemExit) as stopped:
        benchmark_pruning.main([flag])
    assert str(stopped.value).startswith(message)
