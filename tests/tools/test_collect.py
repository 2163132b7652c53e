import shutil

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.runners import connectivity, iterative, learned
from experiments.storage import results
from experiments.storage.code import Code
from experiments.storage.files import read_json, write_json
from tests.bad_input import check_one_line
from tests.experiments import tiny
from tools import collect

VARIANTS = ("large_final", "random:rewind", "movement:reinit")


def make_rows(config, seeds, variants, num_rounds, command):
    numbers = {name: config[name] for name in iterative.NUMBERS}
    rows = []
    for round in range(num_rounds + 1):
        for variant in variants if round else ["dense"]:
            for seed in seeds:
                member = {"variant": variant.removesuffix(":rewind"), "seed": seed, "round": round}
                row = tiny.blank_row(iterative.COLUMNS) | member | numbers
                row |= {} if round else {"default_rate": None}
                row |= {"id": results.row_id({}, member, "0"), "validation_loss": float("nan")}
                rows.append(row | {"command": command})
    return rows


@pytest.fixture
def make_run(tmp_path):
    """Make the folder of a run without running it."""

    def make_run(name, seeds=(0, 1), variants=VARIANTS, num_rounds=2, machine="a", **changes):
        config = tiny.config(seeds=seeds, num_rounds=num_rounds, **changes)
        config.variants = variants
        workdir = tmp_path / name
        write_json(workdir / "config.json", config.to_dict())
        write_json(workdir / "environment.json", [{"processor": machine}])
        rows = make_rows(config, seeds, variants, num_rounds, f"command of {name}")
        results.write_rows(workdir / "results.csv", rows, iterative.COLUMNS)
        return workdir

    return make_run


def change_first_row(workdir, **changes):
    first, *rest = results.read_rows(workdir / "results.csv", iterative.COLUMNS)
    results.write_rows(workdir / "results.csv", [first | changes, *rest], iterative.COLUMNS)


def members(rows):
    return [(row["round"], row["variant"], row["seed"]) for row in rows]


def test_runs_are_joined_in_order(make_run, tmp_path):
    late = make_run("late", seeds=(5, 2), variants=VARIANTS[:2], num_rounds=1)
    early = make_run("early", seeds=(3,), variants=VARIANTS[1:], machine="b")
    again = make_run("again", seeds=(3,), variants=VARIANTS[1:])
    output = tmp_path / "results" / "table.of.all"
    rows = collect.collect([late, early, again], output)
    assert members(rows) == [
        (0, "dense", 2),
        (0, "dense", 3),
        (0, "dense", 5),
        (1, "large_final", 2),
        (1, "large_final", 5),
        (1, "random", 2),
        (1, "random", 3),
        (1, "random", 5),
        (1, "movement:reinit", 3),
        (2, "random", 3),
        (2, "movement:reinit", 3),
    ]
    assert repr(
        results.read_rows(tmp_path / "results" / "table.of.all.csv", iterative.COLUMNS)
    ) == repr(rows)
    config = read_json(tmp_path / "results" / "table.of.all.config.json")
    before = read_json(late / "config.json")
    joined = {"seeds": [2, 3, 5], "variants": [*VARIANTS], "num_rounds": 2}
    assert config == before | joined
    environments = read_json(tmp_path / "results" / "table.of.all.environment.json")
    assert environments == [{"processor": "a"}, {"processor": "b"}]


def test_the_same_row_of_two_runs_counts_once(make_run, tmp_path):
    one, two = make_run("one"), make_run("two")
    rows = collect.collect([one, two], tmp_path / "table")
    assert repr(rows) == repr(results.read_rows(one / "results.csv", iterative.COLUMNS))


SOURCES = "0.1.0+s0123456789"


def set_code(run, version, uncommitted=(), machine=None):
    """Make all rows of a run those of a version of the code."""
    rows = results.read_rows(run / "results.csv", iterative.COLUMNS)
    rows = [row | {"code_version": version} for row in rows]
    results.write_rows(run / "results.csv", rows, iterative.COLUMNS)
    told = {"code_version": version, "uncommitted": list(uncommitted)}
    write_json(run / "environment.json", [*(machine or []), told])


def test_rows_of_several_versions_of_the_code_are_joined_only_on_demand(make_run, tmp_path):
    runs = [make_run("one"), make_run("two", seeds=(7,)), make_run("three", seeds=(8,))]
    for run, version in zip(runs, (SOURCES, SOURCES[:-1] + "a", "0.1.0+g0123456789"), strict=True):
        set_code(run, version)
    for some in (runs[:2], runs[1:]):
        with pytest.raises(ValueError, match=r"made by 2 versions of the code \(.*, .*\); --allow"):
            collect.collect(some, tmp_path / "out" / "table")
        assert not (tmp_path / "out").exists()
    rows = collect.collect(runs, tmp_path / "table", allow_code_change=True)
    told = read_json(tmp_path / "table.config.json")["code"]
    assert told == list(dict.fromkeys(row["code_version"] for row in rows)) and len(told) == 3
    collect.collect([runs[0]], tmp_path / "table")
    assert read_json(tmp_path / "table.config.json")["code"] == [SOURCES]


def test_rows_that_tell_commits_alone_are_joined_as_before(make_run, tmp_path):
    runs = [make_run("one"), make_run("two", seeds=(7,))]
    for run, version in zip(runs, ("0.1.0+g0123456789", "0.1.0+g012345678a"), strict=True):
        set_code(run, version)
    collect.collect(runs, tmp_path / "table")
    assert "code" not in read_json(tmp_path / "table.config.json")


def test_rows_of_uncommitted_sources_are_refused_until_these_are_committed(
    make_run, tmp_path, monkeypatch
):
    run = make_run("run")
    set_code(run, SOURCES, uncommitted=["supermask_jax/masks.py"])
    with pytest.raises(ValueError) as caught:
        collect.collect([run], tmp_path / "out" / "table")
    check_one_line(caught.value)
    assert f"{run} has rows of uncommitted code ({SOURCES}); commit" in str(caught.value)
    here = Code(SOURCES, "0123456789", ("supermask_jax/masks.py",))
    monkeypatch.setattr(collect, "identify", lambda: here)
    with pytest.raises(ValueError, match="uncommitted code"):
        collect.collect([run], tmp_path / "out" / "table")
    monkeypatch.setattr(collect, "identify", lambda: here._replace(uncommitted=()))
    collect.collect([run], tmp_path / "now")
    monkeypatch.undo()
    set_code(run, SOURCES, (), [{"code_version": SOURCES, "uncommitted": ["x.py"]}])
    collect.collect([run], tmp_path / "later")


def test_parts_of_another_run_are_refused(tmp_path):
    run = shutil.copytree(tiny.finished(), tmp_path / "run")
    config = read_json(run / "config.json")
    write_json(run / "config.json", config | {"learning_rate": 0.5})
    with pytest.raises(ValueError, match=r"parts/results/round_00.json was made with other sett"):
        collect.collect([run], tmp_path / "out" / "table")
    assert not (tmp_path / "out").exists()


def test_the_same_member_by_other_code_counts_once(make_run, tmp_path):
    one, two = make_run("one"), make_run("two")
    change_first_row(two, id="0123456789ab", code_version="0.1.0+g0123456789")
    rows = collect.collect([one, two], tmp_path / "table")
    assert repr(rows) == repr(results.read_rows(one / "results.csv", iterative.COLUMNS))


def test_a_table_takes_in_more_runs(make_run, tmp_path):
    one, two = make_run("one", machine="a"), make_run("two", seeds=(2, 3), machine="b")
    collect.collect([one, two], tmp_path / "at_once")
    collect.collect([one], tmp_path / "grown")
    shutil.rmtree(one)
    collect.collect([tmp_path / "grown", two], tmp_path / "grown")
    for suffix in (".csv", ".config.json", ".environment.json"):
        grown, at_once = (tmp_path / f"{name}{suffix}" for name in ("grown", "at_once"))
        assert grown.read_bytes() == at_once.read_bytes()


def test_a_run_of_another_format_is_refused(make_run, tmp_path):
    one, two = make_run("one"), make_run("two", seeds=(7,))
    for folder, version in ((one, 1), (two, 2)):
        config = read_json(folder / "config.json")
        write_json(folder / "config.json", config | {"format": version})
    collect.collect([one], tmp_path / "table")
    with pytest.raises(ValueError, match="the runs differ in format: 1 and 2"):
        collect.collect([tmp_path / "table", two], tmp_path / "table")


def test_files_beside_an_earlier_table_are_removed(make_run, tmp_path):
    for suffix in (".analysis.csv", ".curves.parquet"):
        (tmp_path / f"table{suffix}").write_text("old")
    collect.collect([make_run("one")], tmp_path / "table")
    beside = {path.name for path in tmp_path.glob("table*")}
    assert beside == {"table.csv", "table.config.json", "table.environment.json"}


@pytest.mark.parametrize("changes", [{"test_accuracy": 0.25}, {"validation_loss": 1.0}])
def test_other_numbers_for_the_same_row_are_refused(make_run, tmp_path, changes):
    one, two = make_run("one"), make_run("two")
    change_first_row(two, **changes)
    id = results.read_rows(one / "results.csv", iterative.COLUMNS)[0]["id"]
    with pytest.raises(ValueError, match=f"{two} has other numbers for row {id}"):
        collect.collect([one, two], tmp_path / "out" / "table")
    assert not (tmp_path / "out").exists()


def make_older(workdir):
    """Remove the columns that tables lacked before settings could list several numbers."""
    rows = results.read_rows(workdir / "results.csv", iterative.COLUMNS)
    older = [name for name in iterative.COLUMNS if name not in iterative.NUMBERS]
    rows = [{name: row[name] for name in older} for row in rows]
    results.write_rows(workdir / "results.csv", rows, older)


def test_runs_that_differ_in_numbers_are_joined_into_lists(make_run, tmp_path):
    runs = [
        make_run(str(place), variants=("random",), num_rounds=1, **own)
        for place, own in enumerate(
            ({"learning_rate": 0.5, "default_rate": 0.4},
             {"learning_rate": 0.25, "weight_decay": 0.125},
             {"learning_rate": 0.5, "default_rate": 0.4, "seeds": (3,)})
        )
    ]  # fmt: skip
    for run in runs:
        make_older(run)
    first = read_json(runs[0] / "config.json")
    del first["weight_decay"]  # as in a file that is older than the setting
    write_json(runs[0] / "config.json", first)
    rows = collect.collect(runs, tmp_path / "table")
    names = "variant", *iterative.NUMBERS, "seed"
    assert [tuple(row[name] for name in names) for row in rows] == [
        *(("dense", 0.25, 0.125, 0.0, None, seed) for seed in (0, 1)),
        *(("dense", 0.5, 0.0, 0.0, None, seed) for seed in (0, 1, 3)),
        *(("random", 0.25, 0.125, 0.0, 0.2, seed) for seed in (0, 1)),
        *(("random", 0.5, 0.0, 0.0, 0.4, seed) for seed in (0, 1, 3)),
    ]
    config = read_json(tmp_path / "table.config.json")
    assert config == first | {
        "learning_rate": [0.25, 0.5], "weight_decay": [0.0, 0.125], "default_rate": [0.2, 0.4],
        "seeds": [0, 1, 3],
    }  # fmt: skip
    grown = collect.collect([tmp_path / "table", runs[1]], tmp_path / "table")
    assert repr(grown) == repr(rows)


@pytest.mark.parametrize("changes", [{"clip_norm": 0.5}, {"network": "conv2"}, {"epochs": 9}])
def test_runs_of_other_settings_are_refused(make_run, tmp_path, changes):
    one, two = make_run("one"), make_run("two", seeds=(7,), **changes)
    [name] = changes
    with pytest.raises(ValueError, match=f"the runs differ in {name}: .* and {changes[name]!r}"):
        collect.collect([one, two], tmp_path / "out" / "table")
    assert not (tmp_path / "out").exists()


def test_a_run_of_changed_files_is_refused(make_run, tmp_path):
    run = make_run("run")
    change_first_row(run, code_version="0.1.0+g0123456789.dirty.01234567")
    with pytest.raises(ValueError, match=f"{run} has rows of uncommitted code"):
        collect.collect([run], tmp_path / "out" / "table")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def main(tmp_path):
    """Run the program on folders."""
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(output=str(tmp_path / "table")):
        yield lambda *folders: collect.main(["collect", *map(str, folders)])


def test_the_program_says_what_it_wrote(make_run, main, tmp_path, capsys):
    main(make_run("one"))
    assert capsys.readouterr().out == f"14 rows in {tmp_path / 'table'}.csv\n"
    assert len(results.read_rows(tmp_path / "table.csv", iterative.COLUMNS)) == 14


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "error: name at least one folder of a run."),
        (["none"], r"error: .*none is neither the folder of a run nor a table: no .*none\.config"),
    ],
)
def test_the_program_ends_with_an_error(main, tmp_path, folders, message):
    with pytest.raises(SystemExit, match=message):
        main(*(tmp_path / name for name in folders))
    assert not (tmp_path / "table.csv").exists()


def curve_points(path):
    """Return all rows of learning curves, in no particular order."""
    columns = results.read_curves(path)
    return sorted(map(repr, zip(*(columns[name] for name in sorted(columns)), strict=True)))


@pytest.mark.parametrize("make_config", [tiny.learned, tiny.one_shot])
def test_slices_of_supermasks_join_into_the_bytes_of_one_run(make_config, tmp_path, capsys):
    config = make_config(retrain_epochs=0) if make_config is tiny.learned else make_config()
    tiny.run(tmp_path / "whole", config, code=tiny.COMMITTED)
    slices = [tmp_path / f"slice_{index}" for index in (0, 1)]
    for index, folder in enumerate(slices):
        tiny.run(folder, config, f"{index}/2", tiny.COMMITTED)
    collect.collect(slices, tmp_path / "joined")
    whole = (tmp_path / "whole" / "results.csv").read_bytes()
    assert (tmp_path / "joined.csv").read_bytes() == whole
    curves = tmp_path / "joined.curves.parquet"
    assert curves.exists() == (make_config is tiny.learned)
    if curves.exists():
        collect.collect([tmp_path / "joined", slices[0], slices[1]], tmp_path / "twice")
        paths = (curves, tmp_path / "twice.curves.parquet", tmp_path / "whole" / learned.CURVES)
        joined, twice, alone = (curve_points(path) for path in paths)
        assert joined == twice == alone
    if curves.exists():
        (slices[1] / learned.CURVES).unlink()
        collect.collect(slices, tmp_path / "less")
        assert f"{slices[1] / learned.CURVES} is missing; the table" in capsys.readouterr().err
        assert set(curve_points(tmp_path / "less.curves.parquet")) < set(joined)
    table = slices[0] / "results.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="resume that run to rewrite the table"):
        collect.collect(slices, tmp_path / "joined")
    shutil.rmtree(slices[0] / "parts")
    with pytest.raises(ValueError, match=r"the slices have \d+ of \d+ rows; finish them first"):
        collect.collect(slices, tmp_path / "again")


def test_slices_of_connectivity_have_finished_the_same_round(tmp_path):
    run = tiny.finished(tiny.connected)
    rows = results.read_rows(run / "results.csv", connectivity.COLUMNS)

    def write(seed, rounds):
        folder = tmp_path / f"slice_{seed}"
        own = [row for row in rows if row["seed"] == seed and row["round"] in rounds]
        write_json(folder / "config.json", read_json(run / "config.json") | {"slice": f"{seed}/2"})
        write_json(folder / "environment.json", [])
        results.write_rows(folder / "results.csv", own, connectivity.COLUMNS)
        return folder

    slices = [write(0, (0, 1)), write(1, (0,))]
    with pytest.raises(ValueError, match=r"slices 1/2 have not finished round 1\.$"):
        collect.collect(slices, tmp_path / "table")
    write(1, (0, 1))
    assert repr(collect.collect(slices, tmp_path / "table")) == repr(rows)
    for seed in (0, 1):
        write(seed, (0,))
    assert {row["round"] for row in collect.collect(slices, tmp_path / "table")} == {0}
