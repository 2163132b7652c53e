import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from experiments.runners import iterative, mask_analysis
from experiments.runners.outcomes import abstract_outcome
from experiments.runners.variants import Variant
from experiments.storage import results, run_folder
from experiments.storage.checkpoints import Checkpoints
from supermask_jax.actions import MASK_ONE, MASK_ZERO
from supermask_jax.criteria import CRITERIA
from tests.bad_input import check_one_line
from tests.experiments import tiny

KINDS = (results.integer, results.number)
NUMBERS = [name for name, read in iterative.COLUMNS.items() if read in KINDS]


@pytest.fixture(scope="module")
def workdir():
    return tiny.finished()


@pytest.fixture(scope="module")
def rows(workdir):
    return results.read_rows(workdir / "results.csv", iterative.COLUMNS)


def member(rows, variant, seed, round):
    [row] = [r for r in rows if (r["variant"], r["seed"], r["round"]) == (variant, seed, round)]
    return row


def load(workdir, round):
    plan = iterative.make_plan(tiny.config())
    checkpoints = Checkpoints(run_folder.existing(workdir).below("checkpoints"), keep=2)
    outcome = checkpoints.load(round, abstract_outcome(plan, round))
    return plan, outcome


def test_one_row_per_member_and_round(rows):
    assert [(r["round"], r["variant"], r["seed"]) for r in rows] == [
        (0, "dense", 0),
        (0, "dense", 1),
        *((r, variant, seed) for r in (1, 2) for variant in tiny.VARIANTS for seed in (0, 1)),
    ]
    assert len({r["id"] for r in rows}) == len(rows)
    assert {r["command"] for r in rows} == {"a command"}
    reshuffled = member(rows, "random:reshuffle:freeze", 1, 2)
    assert [reshuffled[c] for c in ("criterion", "mask_one", "mask_zero")] == [
        "random",
        "reshuffle",
        "freeze",
    ]


def test_rows_hold_sensible_numbers(rows):
    for row in rows:
        assert 0.3 < row["test_accuracy"] < 1 and 0 < row["validation_loss"] < 2.3
        assert row["early_stop_step"] in (0, 10, 20, 21)


def test_density_is_the_exact_count(rows):
    plan = iterative.make_plan(tiny.config())
    sizes = jax.tree.map(lambda x: x.size, plan.problem.params)
    prunable = jax.tree.leaves(plan.problem.prunable)
    for row in rows:
        kept = jax.tree.leaves(plan.scope.counts(row["round"]))
        total = sum(n for n, yes in zip(jax.tree.leaves(sizes), prunable, strict=True) if yes)
        left = sum(n for n, yes in zip(kept, prunable, strict=True) if yes)
        assert row["density"] == left / total


def test_checkpoint_holds_the_population_and_pruned_weights_did_not_move(workdir):
    _, outcome = load(workdir, 2)
    for fill, mask, end in zip(
        *(jax.tree.leaves(t) for t in (outcome.state.fill, outcome.state.mask, outcome.w_f)),
        strict=True,
    ):
        assert len(mask) == 4
        np.testing.assert_array_equal(fill[~mask], end[~mask])
    kernel = outcome.state.mask["dense1"]["kernel"]
    assert not np.array_equal(kernel[0], kernel[1]), "seeds share a mask"


def test_curves_have_every_evaluation_of_every_member(workdir, rows):
    curves = pq.read_table(workdir / "curves").to_pylist()
    assert len(curves) == len(rows) * 4
    for row in rows:
        own = [c for c in curves if all(c[k] == row[k] for k in ("variant", "seed", "round"))]
        assert [c["step"] for c in own] == [0, 10, 20, 21]
        best = min(own, key=lambda c: c["validation_loss"])
        assert best["step"] == row["early_stop_step"]
        assert np.float32(row["validation_loss"]) == np.float32(best["validation_loss"])


def test_a_member_alone_gives_the_same_rows(rows, tmp_path):
    config = tiny.config(seeds=(1,))
    config.variants = (tiny.VARIANTS[1],)
    alone = tiny.run(tmp_path, config)
    for row in alone:
        twin = member(rows, row["variant"], 1, row["round"])
        assert row["id"] == twin["id"]
        assert [row[name] for name in NUMBERS] == [twin[name] for name in NUMBERS]


def test_a_resumed_run_says_so_and_equals_an_uninterrupted_one(workdir, tmp_path, capsys):
    tiny.run(tmp_path, tiny.config(num_rounds=1))
    assert "resuming" not in capsys.readouterr().out
    tables = {"results.csv": iterative.COLUMNS, mask_analysis.FILE: mask_analysis.COLUMNS}
    for name, columns in tables.items():
        rows = results.read_rows(tmp_path / name, columns)
        results.write_rows(tmp_path / name, [*rows, rows[-1] | {"round": 2}], columns)
    tiny.run(tmp_path, tiny.config())
    assert capsys.readouterr().out.startswith(f"resuming {tmp_path} at round 2 of 2\n")
    for name in tables:
        assert (tmp_path / name).read_bytes() == (workdir / name).read_bytes()


def test_a_finished_run_does_nothing_and_says_so(workdir, rows, monkeypatch, capsys):
    monkeypatch.setattr(iterative.Laboratory, "train", None)
    assert repr(tiny.run(workdir, tiny.config())) == repr(rows)
    assert capsys.readouterr().out == f"{workdir} is complete\n"


@pytest.mark.parametrize(
    "numbers", [{}, {"learning_rate": (1e-3, 1e-2), "weight_decay": (0.0, 1e-3),
                     "default_rate": (0.2, 0.3)}]
)  # fmt: skip
def test_programs_are_compiled_once_for_a_whole_run(compilations, tmp_path, monkeypatch, numbers):
    """Nothing is compiled after round 1: every round advances S members of each variant."""
    after = {}

    def finish_round(self, number, rows):
        after[number] = list(compilations)

    monkeypatch.setattr(iterative.RoundProgress, "finish_round", finish_round)
    config = tiny.config(num_rounds=4)
    config.variants = ("large_final", "random")
    tiny.run(tmp_path, ConfigDict(config.to_dict() | numbers))
    assert after[4].count("jit(run_chunk)") == 2, "of S and of P members"
    assert after[4].count("jit(_test)") == 2
    assert after[4].count("jit(score_seeds)") == 2, "of two criteria"
    assert after[4].count("jit(advance_seeds)") == 1, "of one pair of actions"
    assert after[4] == after[1]


def test_a_member_that_diverges_is_marked_and_harms_no_other(rows, tmp_path, monkeypatch):
    advance = iterative.Laboratory.start

    def break_one(self, round, previous):
        state = advance(self, round, previous)
        if round == 1:
            state.w_i["dense1"]["bias"][0] = np.nan
        return state

    monkeypatch.setattr(iterative.Laboratory, "start", break_one)
    for row in tiny.run(tmp_path, tiny.config())[2:]:
        accuracies = row["test_accuracy"], row["final_test_accuracy"], row["validation_loss"]
        if (row["variant"], row["seed"]) == (tiny.VARIANTS[0], 0):
            assert np.isnan(accuracies).all()
        else:
            twin = member(rows, row["variant"], row["seed"], row["round"])
            assert repr([row[name] for name in NUMBERS]) == repr([twin[name] for name in NUMBERS])


@pytest.mark.parametrize(
    ("text", "variant", "name"),
    [
        ("movement", ("movement", "rewind", "zero"), "movement"),
        ("movement:rewind", ("movement", "rewind", "zero"), "movement"),
        ("movement:reinit:zero", ("movement", "reinit", "zero"), "movement:reinit"),
        ("movement:rewind:freeze", ("movement", "rewind", "freeze"), "movement:rewind:freeze"),
    ],
)
def test_variants_are_parsed_and_printed(text, variant, name):
    assert Variant.parse(text) == variant
    assert str(Variant.parse(text)) == name
    assert Variant.parse(name) == variant


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("large_finel",)}, "unknown criterion 'large_finel'; did you mean 'large_f"),
        ({"variants": ("random:rewnd",)}, "unknown mask-1 action 'rewnd'; did you mean 'rewind'"),
        ({"variants": ("random:rewind:zro",)}, "unknown mask-0 action 'zro'; did you mean 'zero'"),
        ({"variants": ("random:rewind:zero:x",)}, "more parts than criterion:mask_one:mask_zero"),
        ({"variants": ("random", "random:rewind:zero")}, "config.variants has random more than"),
        ({"variants": ()}, "expected a non-empty list"),
        ({"seeds": ()}, "expected a non-empty list"),
        ({"seeds": (1, 2, 1)}, "config.seeds has 1 more than once"),
        ({"seeds": (-1,)}, "config.seeds has -1, expected an integer of 0 or more"),
        ({"seeds": (0.5,)}, "config.seeds has 0.5, expected an integer"),
        ({"num_rounds": -1}, "config.num_rounds has -1"),
        ({"epochs": 0}, "config.epochs has 0"),
        ({"eval_every": 0}, "config.eval_every has 0"),
        ({"batch_size": 2000}, "config.batch_size is 2000, expected at most the 1297"),
        ({"learning_rate": 0.0}, "config.learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "config.learning_rate is nan"),
        ({"network": "lenet30"}, "unknown network 'lenet30'; did you mean 'lenet300'"),
        ({"dataset": "digit"}, "unknown data set 'digit'; did you mean 'digits'"),
        ({"default_rate": 1.0}, "config.default_rate is 1.0, expected a number in [0, 1)"),
        ({"rates": (("conv1/kernel", 0.1),)}, "rule 'conv1/kernel' matches no leaf"),
        ({"rates": ((".*", 0.1),)}, "is not prunable"),
        ({"rates": (0.1,)}, "rule 0.1 is not a pair (pattern, rate)"),
        ({"network": "conv2"}, "choose the network after the colon: --config=FILE.py:conv2"),
        ({"seeds": (2**32,)}, "expected at most 4294967295"),
        ({"matmul_precision": "float31"}, "config.matmul_precision is 'float31'"),
    ],
)
def test_wrong_settings_are_named_before_any_training(changes, message):
    config = tiny.config()
    config.update(**changes)
    with pytest.raises(ValueError) as caught:
        iterative.make_plan(config)
    assert message in str(caught.value)


NAMES = (*CRITERIA, *MASK_ONE, *MASK_ZERO, "", "\n")


@given(st.one_of(st.text(), st.lists(st.sampled_from(NAMES), max_size=4).map(":".join)))
def test_any_text_is_a_variant_or_an_error_in_one_line(text):
    try:
        variant = Variant.parse(text)
    except ValueError as error:
        check_one_line(error)
    else:
        parts = text.split(":")
        assert [*variant] == [*parts, *["rewind", "zero"][len(parts) - 1 :]]


@given(*(st.sampled_from(sorted(names)) for names in (CRITERIA, MASK_ONE, MASK_ZERO)))
def test_every_variant_survives_printing_and_parsing(criterion, mask_one, mask_zero):
    variant = Variant(criterion, mask_one, mask_zero)
    assert Variant.parse(str(variant)) == Variant.parse(":".join(variant)) == variant


def test_missing_data_says_how_to_get_it(tmp_path):
    config = tiny.config(dataset="mnist")
    with pytest.raises(FileNotFoundError, match=r"python -m experiments\.datasets mnist"):
        iterative.make_plan(config, str(tmp_path))
