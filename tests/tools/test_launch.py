"""Slices of a sweep: their members, their jobs, and the table that joins them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.runners import iterative
from experiments.runners.hyperparameters import Numbers
from experiments.runners.sweeps import Slice
from experiments.runners.variants import Member, Variant
from experiments.storage import results
from experiments.storage.files import read_json
from tests.bad_input import check_one_line
from tests.experiments import command_lines, tiny
from tools import collect

CONFIG = "--config=experiments/configs/mask_criteria.py:lenet300,tiny"


@given(
    st.integers(1, 5), st.sampled_from([(0.1,), (0.1, 0.01)]), st.permutations(range(4)),
    st.integers(1, 4),
)  # fmt: skip
def test_slices_part_the_members_and_keep_their_order(num_variants, rates, seeds, count):
    variants = [Variant.parse(name) for name in list(iterative.CRITERIA)[:num_variants]]
    numbers = [Numbers(rate, 0.0, 0.0, 0.2) for rate in rates]
    members = [Member(v, seed, own) for v in variants for own in numbers for seed in seeds]
    slices = [Slice(index, count).take(members) for index in range(count)]
    assert sorted(map(members.index, sum(slices, ()))) == list(range(len(members)))
    for part in slices:
        assert list(part) == sorted(part, key=members.index)
    assert max(map(len, slices)) - min(map(len, slices)) <= 1
    if count == len(seeds):
        assert all(len({member.seed for member in part}) == 1 for part in slices)


@given(st.one_of(st.text(), st.text("0123456789/", max_size=9), st.from_regex(r"\d+/\d+")))
def test_any_text_is_a_slice_or_an_error_in_one_line(text):
    try:
        part = Slice.parse(text)
    except ValueError as error:
        check_one_line(error)
    else:
        assert 0 <= part.index < part.count
        assert f"{part.index}/{part.count}" == text


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "0/0", "1/2/3"])
def test_text_that_is_not_a_slice_is_refused(text):
    with pytest.raises(ValueError, match="expected i/n with i from 0 to n - 1"):
        Slice.parse(text)


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    """Three slices of a sweep of four members, and the whole sweep, with the same code version."""
    base = tmp_path_factory.mktemp("slices")
    config = tiny.config(seeds=(1, 0))
    tiny.run(base / "whole", config, code=tiny.COMMITTED)
    folders = [base / f"slice_{index}" for index in range(3)]
    for index, folder in enumerate(folders):
        tiny.run(folder, config, f"{index}/3", tiny.COMMITTED)
    return base, folders


def test_slices_join_into_the_bytes_of_one_run(sliced):
    base, folders = sliced
    collect.collect(folders[::-1], base / "joined")
    assert (base / "joined.csv").read_bytes() == (base / "whole" / "results.csv").read_bytes()
    joined = read_json(base / "joined.config.json")
    assert joined == read_json(base / "whole" / "config.json")


def test_missing_slices_are_named(sliced):
    base, folders = sliced
    with pytest.raises(ValueError, match="of 3 slices 0/3, 2/3 are missing"):
        collect.collect(folders[1:2], base / "part")


def test_slices_that_are_behind_are_named():
    configs = [{"slice": part, "num_rounds": 3} for part in ("0/2", "1/2")]
    with pytest.raises(ValueError, match="slices 1/2 have not finished round 3"):
        collect.check_slices(configs, [[{"round": 3}], [{"round": 2}]])


def test_jobs_do_the_slices(tmp_path):
    pytest.importorskip("submitit")
    done = command_lines.fork(
        "tools.launch", "--cluster=local", "--slices=2", CONFIG,
        f"--config.variants={tiny.VARIANTS}", f"--workdir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "slice 0/2 finished\nslice 1/2 finished\nto join them: python -m tools.c" in done.stdout
    slices = [
        results.read_rows(tmp_path / f"slice_{index}" / "results.csv", iterative.COLUMNS)
        for index in (0, 1)
    ]
    assert [{row["seed"] for row in rows} for rows in slices] == [{0}, {1}]
    assert list((tmp_path / "logs").iterdir()) and not list((tmp_path / "logs").glob("*.pkl"))

    def numbers(rows):
        return sorted(repr({k: v for k, v in row.items() if k != "command"}) for row in rows)

    whole = results.read_rows(tiny.finished() / "results.csv", iterative.COLUMNS)
    assert numbers([*slices[0], *slices[1]]) == numbers(whole)


MISTAKES = {
    "no slices": (["--slices=0"], "error: flag --slices=0: 0 is not a positive integer"),
    "many slices": (["--slices=99"], "error: --slice asks for 99 parts of"),
    "slice": (
        ["--slices=2", "--slice=0/2"],
        "error: --slice is set by tools.launch; give --slices.",
    ),
    "variant": (
        ["--slices=2", "--config.variants=('rando',)"],
        "error: unknown criterion 'rando'",
    ),
    "flag": (["--slices=2", "--worker=1"], "error: Unknown command line flag 'worker'"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The folder that was asked for, and what was answered by name."""
    pytest.importorskip("submitit")
    new = tmp_path_factory.mktemp("mistakes") / "new"
    command = ("tools.launch", "--cluster=local", CONFIG, f"--workdir={new}")
    found = command_lines.answers([(*command, *flags) for flags, _ in MISTAKES.values()])
    return new, dict(zip(MISTAKES, found, strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found_before_anything_is_submitted(answers, mistake):
    new, found = answers
    status, output = found[mistake]
    assert status == 1
    assert output.startswith(MISTAKES[mistake][1]) and len(output.splitlines()) == 1
    assert not (new / "slice_0").exists()
