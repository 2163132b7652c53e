import pytest

from tools import benchmark_gradual
from tools.benchmark import measurements
from tools.benchmark_gradual import WAYS, Row


def test_a_small_benchmark_writes_its_table(tmp_path, capsys):
    small = ["--networks=tiny", "--members=1,2", "--steps=2", "--turns=1"]
    benchmark_gradual.main([*small, f"--table={tmp_path / 'small'}"])
    printed, written = (
        [line.split(" | ")[:5] for line in text.splitlines()]
        for text in (capsys.readouterr().out, benchmark_gradual.markdown(tmp_path / "small.csv"))
    )
    assert printed == written and len(written) == 2 + 3 * len(WAYS)
    rows = measurements.read(tmp_path / "small.csv", Row)
    layouts = [(1, 1), (1, 2), (2, 2)]  # members and steps
    ways = [(*layout, way) for layout in layouts for way in WAYS]
    assert [(row.members, row.steps, row.way) for row in rows] == ways
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
        ("--steps=1", "error: --steps is 1, expected an integer of 2 or more."),
        ("--turns=many", "error: --turns is 'many', expected an integer of 1 or more."),
    ],
)
def test_mistakes_get_one_line(flag, message):
    with pytest.raises(SystemExit) as stopped:
        benchmark_gradual.main([flag])
    assert str(stopped.value).startswith(message)
