import pytest

from tools import benchmark_gradual
from tools.benchmark import measurements
from tools.benchmark_gradual import WAYS, Row


def test_a_small_benchmark_writes_its_table(tmp_path, capsys):
    small = ["--networks=tiny", "--members=1,2", "--steps=2", "--turns=1"]
    benchmark_gradual.main([*small, f"--table={tmp_path / 'small'}"])
    assert benchmark_gradual.markdown(tmp_path / "small.csv") in capsys.readouterr().out
    rows = measurements.read(tmp_path / "small.csv", Row)
    assert [(row.members, row.way) for row in rows] == [(n, way) for n in (1, 2) for way in WAYS]
    assert all(row.milliseconds > 0 for row in rows)
    assert {row.weights for row in rows} == {8 * 6 + 6 + 6 * 4 + 4}
    held = {row.way: row.bytes_per_weight for row in rows}
    # Two moments of Adam, a mask of one byte, a copy of the weights, and a few scalars.
    assert [round(held[way]) for way in WAYS] == [8, 9, 9, 13, 9]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--networks=wid", "error: unknown network 'wid'; did you mean 'wide'? known: lenet300"),
        ("--members=0", "error: --members is 0, expected an integer of 1 or more."),
        ("--turns=many", "error: --turns is 'many', expected an integer of 1 or more."),
    ],
)
def test_mistakes_get_one_line(flag, message):
    with pytest.raises(SystemExit) as stopped:
        benchmark_gradual.main([flag])
    assert str(stopped.value).startswith(message)
