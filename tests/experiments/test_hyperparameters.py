"""Settings that list several numbers: their members, rows, curves and programs."""

import collections
import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from absl import flags
from absl.testing import flagsaver
from ml_collections import ConfigDict

from experiments.command_line import _NumbersParser
from experiments.plots import FIGURES
from experiments.plots import mask_analysis as figure
from experiments.runners import hyperparameters, iterative, mask_analysis
from experiments.runners.registry import RUNNERS, read_table
from experiments.storage import results
from experiments.storage.files import read_json
from supermask_jax import rates
from tests.experiments import command_lines, tiny
from tools import collect, rerun

COMMITTED = Path(__file__).parents[2] / "results" / "mask_criteria_lenet300_mnist"
SMALL = {"seeds": (0,), "epochs": 1}
# A small run, the numbers that it sweeps, and one combination of them to train alone.
SWEEPS = {
    "sgd": (
        tiny.config(variants=("random",), num_rounds=1, optimizer="sgd", **SMALL),
        {"learning_rate": (0.1, 0.3), "weight_decay": (0.01, 0.0), "momentum": (0.0, 0.9),
         "default_rate": (0.2, 0.4)},
        (0.3, 0.0, 0.9, 0.4),
    ),
    "adam": (
        tiny.config(variants=("random",), num_rounds=1, schedule="cosine", **SMALL),
        {"learning_rate": (1.2e-3, 0.01), "weight_decay": (0.0, 0.01)},
        (0.01, 0.01),
    ),
    "rewound": (  # of a network with state, whose layers are ranked together
        tiny.rewound(variants=("random",), num_rounds=1, seeds=(0,), rates=(), least=5,
                     network="tests.experiments.functions:normalised"),
        {"learning_rate": (1.2e-3, 0.01), "default_rate": (0.5, 0.3)},
        (0.01, 0.3),
    ),
    "learned": (
        tiny.learned(variants=("init:rescale",), initial_logits=(1.0,), retrain_epochs=0, **SMALL),
        {"learning_rate": (100.0, 30.0), "weight_decay": (0.0, 1e-4), "momentum": (0.9, 0.0)},
        (30.0, 1e-4, 0.0),
    ),
    "pruning_at_init": (
        tiny.at_init(variants=("magnitude",), ticket_rounds=(2,), **SMALL),
        {"learning_rate": (1.2e-3, 0.01), "default_rate": (0.2, 0.4)},
        (0.01, 0.4),
    ),
}  # fmt: skip
RATES, LEARNING_RATES = (0.2, 0.5), (1.2e-3, 0.01)


def with_settings(config, **changes):
    return ConfigDict(config.to_dict() | changes)


def swept():
    """Two learning rates and two pruning rates of two variants and two seeds."""
    return with_settings(
        tiny.config(num_rounds=2), learning_rate=LEARNING_RATES, default_rate=RATES
    )


@pytest.fixture(scope="module")
def workdir():
    return tiny.finished(swept)


@pytest.fixture(scope="module")
def rows(workdir):
    return read_table(workdir / "results.csv")


def curves_of(folder, own):
    """The learning curves in a folder, of members with some numbers or none."""
    table = pq.read_table(folder / "curves").to_pandas()
    for name in own.keys() & set(table):
        table = table[(table[name] == own[name]) | table[name].isna()].drop(columns=name)
    return table.reset_index(drop=True)


@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.optimized) for name in ("sgd", "adam", "learned")),
     pytest.param("rewound", marks=[pytest.mark.optimized, pytest.mark.slow]),
     "pruning_at_init"],
)  # fmt: skip
def test_members_are_those_of_runs_alone_to_the_last_bit(name, tmp_path, compilations):
    config, numbers, values = SWEEPS[name]
    own = dict(zip(numbers, values, strict=True))
    rows = tiny.run(tmp_path / "all", with_settings(config, **numbers))
    sizes = set(collections.Counter(row.get("round") for row in rows).values())
    for program in ("jit(run_chunk)", "jit(_test)"):
        assert compilations.count(program) == len(sizes), "one program trains all members"
    alone = tiny.run(tmp_path / "alone", with_settings(config, **own))
    assert [tuple(r[each] for each in numbers) for r in rows if r["variant"] != "dense"] == [
        *itertools.product(*numbers.values())
    ]
    assert len({row["id"] for row in rows}) == len(rows)
    named = results.columns_between(alone[0], "id", "density")
    twins = {tuple(row[each] for each in named): row for row in rows}
    for row in alone:
        twin = twins[tuple(row[each] for each in named)]
        if row["variant"] == "dense" and "default_rate" in own:  # with the id of the first rate
            assert row["default_rate"] is None
            row = row | {"id": twin["id"]}
        assert repr(row) == repr(twin)
    found = curves_of(tmp_path / "all", own)
    assert found.equals(curves_of(tmp_path / "alone", own)[[*found]])


def test_members_come_by_variant_numbers_and_seed(rows):
    names = "round", "variant", *hyperparameters.OF_PRUNING, "seed"
    assert [tuple(row[name] for name in names) for row in rows] == [
        *((0, "dense", rate, 0.0, 0.0, None, seed) for rate in LEARNING_RATES for seed in (0, 1)),
        *(
            (number, variant, learning_rate, 0.0, 0.0, rate, seed)
            for number in (1, 2)
            for variant in tiny.VARIANTS
            for learning_rate in LEARNING_RATES
            for rate in RATES
            for seed in (0, 1)
        ),
    ]


def test_densities_are_those_of_the_pruning_rates(rows):
    params = iterative.make_plan(tiny.config()).problem.params
    kernels = {f"{layer}/kernel": leaf["kernel"] for layer, leaf in params.items()}
    whole = sum(leaf.size for leaf in kernels.values())
    for row in rows:
        own = dict.fromkeys(kernels, row["default_rate"] or 0.0) | {"output/kernel": 0.1}
        kept = rates.keep_counts(kernels, own, row["round"])
        assert row["density"] == sum(kept.values()) / whole


def test_the_analysis_tells_members_apart_and_compares_those_of_the_same_numbers(workdir, rows):
    analysed = results.read_rows(workdir / mask_analysis.FILE, mask_analysis.COLUMNS)
    names = "round", "variant", "learning_rate", "default_rate", "seed"
    densities = {
        tuple(row[name] for name in names): row["value"]
        for row in analysed
        if (row["quantity"], row["layer"]) == ("density", "all")
    }
    assert densities.keys() == {tuple(r[name] for name in names) for r in rows if r["round"]}
    for row in rows[4:]:
        found = densities[tuple(row[name] for name in names)]
        np.testing.assert_allclose(found, row["density"], rtol=1e-6)
    overlaps = [row for row in analysed if (row["quantity"], row["layer"]) == ("overlap", "all")]
    assert len(overlaps) == 2 * 4 * 4  # rounds, numbers, pairs of two variants and two seeds
    drawn = figure.draw(analysed)
    labels = {line.get_label() for line in drawn.axes[0].get_lines()}
    assert labels == {
        f"{variant}, learning rate {rate:g}, pruning rate {pruned}"
        for variant in tiny.VARIANTS for rate in LEARNING_RATES for pruned in RATES
    }  # fmt: skip
    for line in drawn.axes[0].get_lines():
        pruned = float(str(line.get_label()).rpartition(" ")[2])
        expected = [100 * r["density"] for r in rows if r["default_rate"] == pruned and r["seed"]]
        np.testing.assert_allclose(line.get_xdata(), sorted(set(expected), reverse=True), rtol=1e-6)


@pytest.mark.parametrize("place", [3, -1])
def test_a_row_computed_again_is_equal(workdir, rows, place, capsys):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(results=str(workdir), data_dir=None):
        rerun.main(["rerun", rows[place]["id"]])
    said = capsys.readouterr().out
    assert said.endswith("every number is equal\n") and "None" not in said


def test_runs_of_one_number_each_join_into_the_bytes_of_one_run(tmp_path):
    config, *_ = SWEEPS["learned"]
    whole = with_settings(config, learning_rate=(30.0, 100.0))
    tiny.run(tmp_path / "whole", whole, code=tiny.COMMITTED)
    folders = []
    for rate in (100.0, 30.0):
        folders.append(tmp_path / str(rate))
        tiny.run(folders[-1], with_settings(config, learning_rate=rate), code=tiny.COMMITTED)
    collect.collect([tmp_path / "whole"], tmp_path / "expected")
    collect.collect(folders, tmp_path / "joined")
    collect.collect([tmp_path / "joined", folders[0]], tmp_path / "again")
    for name in ("joined", "again"):
        for suffix in (".csv", ".config.json"):
            expected = (tmp_path / f"expected{suffix}").read_bytes()
            assert (tmp_path / f"{name}{suffix}").read_bytes() == expected
        found, expected = (
            pq.read_table(tmp_path / f"{each}.curves.parquet")
            .to_pandas()
            .sort_values(["learning_rate", "step"], ignore_index=True)
            for each in (name, "expected")
        )
        assert found.equals(expected)


def test_the_rows_of_a_slice_are_those_of_the_whole_sweep(rows, tmp_path):
    by_id = {row["id"]: row for row in rows}
    sliced = tiny.run(tmp_path, swept(), "1/3")
    assert repr(sliced) == repr([by_id[row["id"]] for row in sliced])
    counts = collections.Counter((row["round"], row["seed"]) for row in sliced)
    assert counts == {(0, 0): 2, (0, 1): 1, (1, 0): 3, (1, 1): 2, (2, 0): 3, (2, 1): 2}


def test_an_older_table_reads_draws_and_is_filled_when_it_is_collected(tmp_path):
    older = read_table(COMMITTED.with_suffix(".csv"))
    assert {row[name] for row in older for name in hyperparameters.OF_PRUNING} == {None}
    labels = FIGURES["mask_criteria"](older).legends[0].get_texts()
    assert {text.get_text() for text in labels} == {"large_final", "random", "dense"}
    rows = collect.collect([COMMITTED], tmp_path / "table")
    assert [row["id"] for row in rows] == [row["id"] for row in older]
    for row in rows:
        numbers = [row[name] for name in hyperparameters.OF_PRUNING]
        assert numbers == [1.2e-3, 0.0, 0.0, None if row["variant"] == "dense" else 0.2]
    assert repr(read_table(tmp_path / "table.csv")) == repr(rows)
    config = read_json(tmp_path / "table.config.json")
    assert config == read_json(COMMITTED.with_suffix(".config.json"))


@pytest.mark.parametrize("make_config", [tiny.config, tiny.learned, tiny.at_init])
def test_a_list_of_one_number_is_that_number(make_config):
    config = make_config()
    runner = RUNNERS[config.runner]
    one = {name: config[name] for name in runner.NUMBERS}
    lists = with_settings(config, **{name: [number] for name, number in one.items()})
    plan, plain = runner.make_plan(lists), runner.make_plan(config)
    assert repr(plan.config) == repr(plain.config)
    assert hyperparameters.swept(plan.config, runner.NUMBERS) == []
    assert hyperparameters.context(plan.config, []) == {}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1e-3", 0.001),
        (" 3 ", 3.0),
        ("(1e-3,3e-3)", (0.001, 0.003)),
        ("[1e-3, 3e-3,]", (0.001, 0.003)),
        ("1e-3,3e-3", (0.001, 0.003)),
        ("(1e-3,)", (0.001,)),
        ("(1e-3)", (0.001,)),
        ("()", ()),
    ],
)
def test_numbers_are_read_from_the_command_line(text, numbers):
    assert _NumbersParser().parse(text) == numbers


def test_a_command_sweeps(tmp_path):
    done = command_lines.fork(
        "experiments.run", "--config=experiments/configs/mask_criteria.py:lenet300,tiny",
        "--config.variants=random", "--config.seeds=0", "--config.num_rounds=1",
        "--config.learning_rate=(1e-3,3e-3)", "--config.weight_decay=(1e-4,)",
        f"--workdir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("dense", "random"):
        assert all(f"{name}, learning rate {rate}" in done.stdout for rate in (0.001, 0.003))
    config = read_json(tmp_path / "config.json")
    assert (config["learning_rate"], config["weight_decay"]) == ([0.001, 0.003], 0.0001)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "mask_criteria.png", "mask_criteria_convergence.png", "mask_analysis.png"
    }  # fmt: skip
