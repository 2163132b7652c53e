import itertools
import math
import re
import warnings
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supermask_jax import rates, trees
from tests import reference
from tests.bad_input import check_one_line
from tests.trees import KERNELS, KINDS, leaves


def layers(**shapes):
    return {
        name: {
            "kernel": jax.ShapeDtypeStruct(shape, jnp.float32),
            "bias": jax.ShapeDtypeStruct(shape[-1:], jnp.float32),
        }
        for name, shape in shapes.items()
    }


def conv(*channels):
    pairs = enumerate(itertools.pairwise((3, *channels)), 1)
    return {f"conv{n}": (3, 3, *pair) for n, pair in pairs}


def dense(*sizes):
    names = [*(f"dense{n}" for n in range(1, len(sizes) - 1)), "output"]
    return dict(zip(names, itertools.pairwise(sizes), strict=True))


FC = layers(**dense(784, 300, 100, 10))
CONV2 = layers(**conv(64, 64), **dense(16384, 256, 256, 10))
CONV4 = layers(**conv(64, 64, 128, 128), **dense(8192, 256, 256, 10))
CONV6 = layers(**conv(64, 64, 128, 128, 256, 256), **dense(4096, 256, 256, 10))


def rules(conv_rate=None):
    conv_rule = [] if conv_rate is None else [("conv.*/kernel", conv_rate)]
    return [*conv_rule, (r"dense\d/kernel", 0.2), ("output/kernel", 0.1)]


@pytest.mark.parametrize(
    ("params", "conv_rate", "size", "percent_left"),
    [
        (FC, None, 266_200, {1: 80.04, 2: 64.06, 6: 26.32, 12: 6.95, 16: 2.88, 24: 0.50}),
        (CONV2, 0.1, 4_300_992, {4: 41.20, 8: 17.03, 24: 0.54}),
        (CONV4, 0.1, 2_425_024, {4: 43.63, 8: 19.62, 24: 1.29}),
        (CONV6, 0.15, 2_261_184, {4: 46.68, 8: 22.11, 24: 1.27}),
    ],
    ids=["fc", "conv2", "conv4", "conv6"],
)
def test_the_schedules_of_the_paper(params, conv_rate, size, percent_left):
    prunable = jax.tree.leaves(trees.prunable_leaves(params))
    tree = rates.rates_by_path(params, rules(conv_rate))

    def kept(number):
        counts = jax.tree.leaves(rates.keep_counts(params, tree, number))
        return sum(count for count, yes in zip(counts, prunable, strict=True) if yes)

    assert kept(0) == size
    for number, percent in percent_left.items():
        assert round(100 * kept(number) / size, 2) == percent


@pytest.mark.parametrize("kind", KINDS)
def test_rates_of_every_tree(kind):
    params = KINDS[kind]()
    first = min(KERNELS[kind])
    tree = rates.rates_by_path(params, [(re.escape(first), 0.5)], default=0.2)
    assert jax.tree.structure(tree) == jax.tree.structure(params)
    expected = {path: 0.2 if path in KERNELS[kind] else 0.0 for path, _ in leaves(params)}
    assert {path: float(rate) for path, rate in leaves(tree)} == expected | {first: 0.5}
    counts = rates.keep_counts(params, tree, 3)
    for _, leaf, rate, count in leaves(params, tree, counts):
        assert count == reference.keep_count(leaf.size, rate, 3)
    assert all(type(count) is int for count in jax.tree.leaves(counts))


def test_the_first_match_wins_and_patterns_match_whole_paths():
    got = rates.rates_by_path(FC, [("dense1/.*nel", 0.3), ("dense./kernel", 0.4)], default=0.1)
    assert [got[name]["kernel"] for name in ("dense1", "dense2", "output")] == [0.3, 0.4, 0.1]


def test_prunable_overrules_the_default():
    prunable = jax.tree.map(lambda leaf: False, FC)
    prunable["output"]["bias"] = True
    got = rates.rates_by_path(FC, [("output/bias", 0.3)], prunable=prunable)
    assert {path: rate for path, rate in leaves(got) if rate} == {"output/bias": 0.3}


@given(
    size=st.integers(0, 10**7),
    thousandths=st.integers(0, 999),
    number=st.integers(0, 30),
)
def test_counts_equal_fractions_and_only_fall(size, thousandths, number):
    rate = thousandths / 1000
    leaf = jax.ShapeDtypeStruct((size,), jnp.float32)
    count = rates.keep_counts(leaf, rate, number)
    exact = size
    for _ in range(number):
        exact -= exact * thousandths // 1000  # only integers: no float, no string
    assert count == exact == reference.keep_count(size, rate, number)
    assert rates.keep_counts(leaf, rate, number + 1) <= count


@pytest.mark.parametrize(
    ("size", "rate", "removed"),
    [(30, 0.1, 3), (10, 0.7, 7), (100, 0.29, 29), (7, Fraction(1, 3), 2), (9, 1e-7, 0)],
)
@pytest.mark.parametrize("kind", [lambda rate: rate, np.float64], ids=["python", "numpy"])
def test_decimal_arithmetic(size, rate, removed, kind):
    rate = kind(rate) if isinstance(rate, float) else rate
    leaf = jax.ShapeDtypeStruct((size,), jnp.float32)
    assert rates.keep_counts(leaf, rate, 1) == size - removed


NUMBERS = st.one_of(
    st.floats(),
    st.integers(),
    st.fractions(),
    st.decimals(),
    st.text(),
    st.booleans(),
    st.none(),
    st.complex_numbers(),
    st.lists(st.floats(0, 1), max_size=2).map(np.array),
)


@given(rate=NUMBERS, number=NUMBERS)
@example(rate=Decimal("sNaN"), number=1)
@example(rate=0.5, number=np.float32(2))
def test_anything_is_a_rate_or_an_error_in_one_line(rate, number):
    leaf = jax.ShapeDtypeStruct((1000,), jnp.float32)
    number = min(number, 99) if isinstance(number, int) else number
    try:
        count = rates.keep_counts(leaf, rate, number)
    except ValueError as error:
        check_one_line(error)
    else:
        assert 0 <= rate < 1 and type(count) is int
        exact = 1000
        for _ in range(number):
            exact -= math.floor(exact * Fraction(str(rate)))
        assert count == exact


@given(
    pattern=st.one_of(st.text(), st.text("dense1/kernl.*+?[](){}|\\^$\n0,", max_size=12)),
    rate=NUMBERS,
)
@example(pattern="a\nb", rate=0.1)
@example(pattern="(?\n)", rate=0.1)
@example(pattern="a{99999999999}", rate=0.1)
@example(pattern="dense1/kernel", rate=0.1)
def test_anything_is_a_rule_or_an_error_in_one_line(pattern, rate):
    with warnings.catch_warnings(action="ignore"):  # FutureWarnings of `re` about patterns
        try:
            tree = rates.rates_by_path(FC, [(pattern, rate)], default=0.3)
        except ValueError as error:
            check_one_line(error)
        else:
            chosen = {path for path, _ in leaves(FC) if re.fullmatch(pattern, path)}
            assert chosen
            for path, value in leaves(tree):
                default = 0.3 if path.endswith("kernel") else 0
                assert value == (rate if path in chosen else default)


EVERYWHERE = jax.tree.map(lambda _: 0.1, FC)
FC_WEIGHTS = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), FC)


def without_bias(tree):
    return {name: {"kernel": layer["kernel"]} for name, layer in tree.items()}


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda: rates.rates_by_path(FC, [("dense1/kernel", 1)]),
            ["rule 'dense1/kernel'", "is 1,"],
        ),
        (lambda: rates.rates_by_path(FC, [("dense1/kernel", -0.1)]), ["[0, 1)", "-0.1"]),
        (lambda: rates.rates_by_path(FC, [("dense1/kernel", "0.1")]), ["[0, 1)", "'0.1'"]),
        (lambda: rates.rates_by_path(FC, [("dense1/kernel", True)]), ["[0, 1)", "True"]),
        (lambda: rates.rates_by_path(FC, [("dense1/kernel", None)]), ["[0, 1)", "None"]),
        (lambda: rates.rates_by_path(FC, [], default=1.5), ["default", "1.5"]),
        (lambda: rates.rates_by_path(FC, [], default=float("nan")), ["default", "nan"]),
        (
            lambda: rates.rates_by_path(FC, [("fc1/kernel", 0.2)]),
            ["rule 'fc1/kernel' matches no leaf", "whole path", "dense1/bias, dense1/kernel"],
        ),
        (
            lambda: rates.rates_by_path(FC, [("dense1", 0.2)]),
            ["rule 'dense1' matches no leaf", "whole path"],
        ),
        (
            lambda: rates.rates_by_path(FC, [(".*kernel", 0.2), ("output/kernel", 0.1)]),
            ["rule 'output/kernel' matches no leaf that an earlier rule left"],
        ),
        (
            lambda: rates.rates_by_path(FC, [("dense1/kernel", 0.2), ("dense1/kernel", 0.1)]),
            ["rule 'dense1/kernel' matches no leaf that an earlier rule left"],
        ),
        (
            lambda: rates.rates_by_path(FC, [("dense1/.*", 0.2)]),
            ["rule 'dense1/.*'", "leaf 'dense1/bias'", "not prunable", "narrow the pattern"],
        ),
        (
            lambda: rates.rates_by_path(FC, [("kernel", 0.2)]),
            ["rule 'kernel' matches no leaf", "did you mean '.*kernel'?"],
        ),
        (
            lambda: rates.rates_by_path(KINDS["nnx"](), [("kernel", 0.2)]),
            ["rule 'kernel' matches no leaf", "did you mean '.*kernel.*'?"],
        ),
        (
            lambda: rates.rates_by_path(KINDS["nnx"](), [("dense/kernel", 0.2)]),
            ["did you mean 'dense/kernel.*'?", "dense/kernel/value"],
        ),
        (
            lambda: rates.rates_by_path(FC, [("(?i)KERNEL", 0.2)]),
            ["rule '(?i)KERNEL' matches no leaf"],
        ),
        (
            lambda: rates.keep_counts(FC, EVERYWHERE, 1, start=FC_WEIGHTS),
            ["of start has dtype float32, expected bool"],
        ),
        (
            lambda: rates.keep_counts(FC, EVERYWHERE, 1, start={"w": np.ones(2, bool)}),
            ["'dense1/bias' is in params but not in start"],
        ),
        (lambda: rates.rates_by_path(FC, 5), ["rules is 5", "pairs (pattern, rate)"]),
        (lambda: rates.rates_by_path(FC, "dense"), ["rules is 'dense'", "pairs"]),
        (lambda: rates.rates_by_path(FC, [("dense1/kernel",)]), ["('dense1/kernel',)", "pair"]),
        (lambda: rates.rates_by_path(FC, [("dense1/(", 0.2)]), ["'dense1/('", "regular exp"]),
        (
            lambda: rates.rates_by_path(FC, [], prunable={"dense1": True}),
            ["params and prunable", "'dense1/bias'"],
        ),
        (
            lambda: rates.rates_by_path({"dense1": {"bias": FC["dense1"]["bias"]}}, []),
            ["no leaf is prunable", "'dense1/bias' float32[300]"],
        ),
        (
            lambda: rates.keep_counts(FC, jax.tree.map(lambda _: 1.0, FC), 1),
            ["leaf 'dense1/bias'", "1.0", "[0, 1)"],
        ),
        (
            lambda: rates.keep_counts(FC, jax.tree.map(lambda _: 0.1, without_bias(FC)), 1),
            ["'dense1/bias'", "in params but not in rates"],
        ),
        (lambda: rates.keep_counts(FC, EVERYWHERE, -1), ["round is -1"]),
        (lambda: rates.keep_counts(FC, EVERYWHERE, 1.0), ["round is 1.0"]),
    ],
)
def test_errors(call, parts):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", ["flat", "nested_dict", "linen", "nnx"])
def test_the_rule_of_the_documents_holds_on_flat_nested_and_nnx_trees(kind):
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)} if kind == "flat" else KINDS[kind]()
    found = rates.rates_by_path(params, [(".*kernel.*", 0.2)])
    chosen = KERNELS.get(kind, {"kernel"})
    assert {path: float(rate) for path, rate in leaves(found)} == {
        path: 0.2 if path in chosen else 0.0 for path, _ in leaves(params)
    }


@pytest.mark.parametrize("rate", [0.2, 0.1])
def test_a_sparse_start_counts_from_what_it_keeps(rate):
    params = {"kernel": jnp.ones((20, 10)), "bias": jnp.ones(10)}
    start = {"kernel": jnp.arange(200).reshape(20, 10) < 60, "bias": jnp.ones(10, bool)}
    per_round = {"kernel": rate, "bias": 0.0}
    left = [rates.keep_counts(params, per_round, n, start=start)["kernel"] for n in range(6)]
    assert left == [reference.keep_count(60, rate, number) for number in range(6)]
    assert rates.keep_counts(params, per_round, 3, start=start)["bias"] == 10
    shapes = jax.eval_shape(lambda: params)
    assert rates.keep_counts(shapes, per_round, 3, start=start)["kernel"] == left[3]
    dense = jax.tree.map(lambda m: jnp.ones(m.shape, bool), start)
    assert rates.keep_counts(params, per_round, 2, start=dense) == rates.keep_counts(
        params, per_round, 2
    )


def test_a_start_inside_jit_has_no_number():
    start = {"kernel": jnp.ones(9, bool)}
    count = jax.jit(lambda m: rates.keep_counts({"kernel": jnp.ones(9)}, {"kernel": 0.2}, 1, m))
    with pytest.raises(TypeError, match="'kernel' of start is traced; count outside jit"):
        count(start)


def test_leaves_must_be_arrays():
    with pytest.raises(TypeError, match="'dense/kernel' of params is 3"):
        rates.rates_by_path({"dense": {"kernel": 3}}, [])


def test_rounds_that_remove_nothing_cost_nothing():
    params = layers(**dense(784, 300, 10))
    by_path = rates.rates_by_path(params, [("output/kernel", 0.1)], 0.2)
    assert rates.keep_counts(params, by_path, 10**9) == rates.keep_counts(params, by_path, 1000)
