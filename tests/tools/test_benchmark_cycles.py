from pathlib import Path

import pytest

from tools import benchmark_cycles
from tools.benchmark import measurements
from tools.benchmark_cycles import Operation, Row

ROOT = Path(__file__).parents[2]
TABLES = [ROOT / "results" / f"benchmark_cycles{name}.csv" for name in ("_before", "", "_float32")]
BEFORE, AFTER, FLOAT32 = (measurements.read(path, Row) for path in TABLES)
# Cycles per member-step on a v5e, at the precision that is the default there.
GOALS = {"lenet300": 7_500, "conv2": 600_000, "conv4": 800_000, "conv6": 950_000}


def line(rows, network, precision="default"):
    [own] = [row for row in rows if (row.network, row.precision) == (network, precision)]
    return own


@pytest.mark.parametrize("network", GOALS)
def test_the_committed_table_reaches_the_goals(network):
    assert line(AFTER, network).cycles <= GOALS[network]


@pytest.mark.parametrize("row", AFTER + FLOAT32, ids=lambda row: f"{row.network}-{row.precision}")
def test_every_step_takes_at_most_two_thirds_of_the_cycles_of_before(row):
    before = line(BEFORE, row.network, row.precision)
    assert before.members == row.members
    assert row.cycles <= 2 / 3 * before.cycles


def test_a_chunk_of_conv2_needs_little_working_memory():
    assert line(AFTER, "conv2").members == 8
    assert line(AFTER, "conv2").temporaries_mb <= 250


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_line_has_its_ten_costliest_operations(path):
    operations = measurements.read(path.with_suffix(".operations.csv"), Operation)
    for row in measurements.read(path, Row):
        own = [x for x in operations if (x.network, x.precision) == (row.network, row.precision)]
        cycles = [x.cycles for x in own]
        assert len(own) == 10 and cycles == sorted(cycles, reverse=True)
        assert 0 < sum(cycles) <= row.cycles


def test_the_page_has_the_costliest_operations_before_and_after():
    page = (ROOT / "docs" / "performance.md").read_text()
    for path in TABLES[:2]:
        for network in ("lenet300", "conv2"):
            assert benchmark_cycles.costliest(path, network, "default") in page


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--networks=conv3", "error: unknown network 'conv3'; did you mean"),
        ("--precisions=double", "error: unknown precision 'double'"),
    ],
)
def test_wrong_flags_are_one_line(flag, message):
    with pytest.raises(SystemExit) as caught:
        benchmark_cycles.main([flag])
    text = str(caught.value)
    assert text.startswith(message) and len(text.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--members=-1", "--at_once=a"])
def test_wrong_numbers_are_refused(flag, capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark_cycles.main([flag])
    assert "is not 0 or more" in capsys.readouterr().err
