"""Listeners hear of every part of a run, and cannot harm it."""

import numpy as np
import pytest

from experiments import by_name, processes
from experiments.runners.registry import RUNNERS, read_table
from experiments.storage.records import Records
from tests.experiments import tiny
from tests.experiments.test_records import COLUMNS, key, make_rows

PARTS = {
    tiny.config: ["round_00", "round_01", "round_02"],
    tiny.learned: ["learning"],
    tiny.one_shot: ["seed_0", "seed_1"],
    tiny.at_init: ["training"],
    tiny.connected: ["round_00", "round_01"],
}


@pytest.fixture(scope="module", params=PARTS, ids=lambda kind: kind.__name__)
def heard(request):
    """A kind of runs, the folder of a finished one, and the parts that it tells when it resumes."""
    workdir, parts = tiny.finished(request.param), []
    tiny.run(workdir, request.param(), listeners=[parts.append])
    return request.param, workdir, parts


def of_results(parts, workdir):
    return [part for part in parts if part.table == workdir / "results.csv"]


def test_a_resumed_run_tells_every_part_in_order(heard):
    kind, workdir, parts = heard
    own = of_results(parts, workdir)
    assert [part.name for part in own] == PARTS[kind] and not any(part.is_new for part in parts)
    order = RUNNERS[kind().runner].row_key(kind().to_dict())
    rows = []
    for part in own:
        rows += part.rows
        assert part.so_far == sorted(rows, key=order)
    assert own[-1].so_far == read_table(workdir / "results.csv")


def test_other_tables_are_told_by_their_paths(heard):
    kind, workdir, parts = heard
    others = {part.table.relative_to(workdir).as_posix() for part in parts} - {"results.csv"}
    assert others == ({"analysis.csv"} if kind is tiny.config else set())


def test_curves_have_the_order_of_the_rows(heard):
    kind, workdir, parts = heard
    for part in of_results(parts, workdir):
        curves = part.curves()
        assert bool(curves) == (kind not in (tiny.one_shot, tiny.connected))
        shared = [name for name in curves if name in ("variant", "initial_logit", "seed", "round")]
        for name in shared:
            members = [row[name] for row in part.rows]
            evaluations = len(curves["step"]) // len(members)
            assert curves[name].tolist() == np.repeat(members, evaluations).tolist()
        if curves:
            best = curves["validation_loss"].reshape(len(part.rows), -1).min(axis=1)
            assert best.tolist() == [np.float32(row["validation_loss"]) for row in part.rows]


def fail(part):
    raise RuntimeError("no\nnetwork")


def spoil(part):
    part.rows[0].clear()
    part.so_far.clear()


def test_a_run_tells_what_it_completes_and_bears_listeners_that_fail(tmp_path, capsys):
    heard, config = [], tiny.config(seeds=(0,), num_rounds=1, variants=("random",))
    rows = tiny.run(tmp_path, config, listeners=[fail, spoil, heard.append])
    assert [(part.table.name, part.name, part.is_new) for part in heard] == [
        ("results.csv", "round_00", True),
        ("analysis.csv", "round_01", True),
        ("results.csv", "round_01", True),
    ]
    assert heard[-1].so_far == rows == read_table(tmp_path / "results.csv")
    assert capsys.readouterr().err.splitlines() == [
        f"warning: no network; {part.name} of {part.table} is not logged" for part in heard
    ]


@pytest.fixture
def table(tmp_path):
    records = Records(tiny.folder(tmp_path), "results.csv", COLUMNS, key)
    (tmp_path / "curves").write_text("curves of round 1")
    for round in (0, 1):
        records.add(f"round_{round}", make_rows(round), [tmp_path / "curves"] * round)
    return tmp_path / "results.csv"


def listen(table, heard):
    folder = tiny.folder(table.parent)._replace(listeners=(heard.append,))
    return Records(folder, table.name, COLUMNS, key)


def test_parts_on_disk_are_told_once_and_before_new_ones(table):
    heard = []
    listen(table, heard).add("round_2", make_rows(2))
    assert [(part.name, part.is_new, len(part.files)) for part in heard] == [
        ("round_0", False, 0),
        ("round_1", False, 1),
        ("round_2", True, 0),
    ]


def test_what_is_damaged_is_not_told(table, capsys):
    table.with_name("curves").write_text("other curves")
    (table.with_name("parts") / "results" / "round_0.json").write_text("{}")
    heard = []
    listen(table, heard)
    assert [(part.name, part.files, part.curves()) for part in heard] == [("round_1", (), {})]
    assert len(capsys.readouterr().err.splitlines()) == 3  # the part, the curves and the table


def test_only_process_0_calls_listeners(table, monkeypatch):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    heard = []
    listen(table, heard).add("round_2", make_rows(2))
    assert not heard


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("functions", "the listener 'functions' is not MODULE:FUNCTION"),
        ("no.such:thing", "the listener no.such:thing is in no module: no is neither in"),
        ("tests.experiments.functions:number", "the listener is 3, expected a function"),
        ("tests.experiments.functions:hinge", r"the listener hinge does not take \(part\)"),
        ("tests.experiments.functions:hing", "unknown function .* did you mean 'hinge'"),
    ],
)
def test_what_is_no_listener_is_refused(name, said):
    with pytest.raises((ValueError, TypeError), match=said):
        by_name.find("listener", name, ("part",))
