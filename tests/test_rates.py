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

from supermask_jax import masks, rates, trees
from tests import reference
from tests.bad_input import check_one_line
from tests.trees import KERNELS, KINDS, draw, leaves


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


# What others remove


@pytest.mark.parametrize(
    ("removed", "size", "rate", "gone"),
    [
        ("floor", 30, 0.1, 3),
        ("floor", 9, 0.5, 4),
        ("round", 9, 0.5, 4),  # 4.5: half to even
        ("round", 7, 0.5, 4),  # 3.5
        ("round", 50, 0.29, 14),  # 14.499999999999998 in float64, 14.5 in decimals
        ("round", 50, Fraction(29, 100), 14),
        ("round", 10, np.float32(0.15), 2),  # the decimal 0.15, not the float32 above it
        ("open_lth", 9, 0.5, 6),  # ceil(4.5), and the weight of the threshold
        ("open_lth", 100, 0.29, 30),  # 28.999999999999996 in float64
        ("open_lth", 2, 0.9, 2),  # no more than there are
        *((name, 12, 0.0, 0) for name in rates.REMOVED),
        *((name, 0, 0.5, 0) for name in rates.REMOVED),
    ],
)
def test_the_number_removed_by_name(removed, size, rate, gone):
    leaf = jax.ShapeDtypeStruct((size,), jnp.float32)
    assert rates.keep_counts(leaf, rate, 1, removed=removed) == size - gone


def test_one_threshold_over_all_layers_is_global_pruning():
    """open_lth keeps what is larger than the weight after the smallest `ceil(rate n)`."""
    params = draw({"a": jnp.ones((9, 5)), "b": jnp.ones((7, 4))}, 1)
    prunable, size = {"a": True, "b": True}, 9 * 5 + 7 * 4
    mask, together = masks.ones(params), jax.ShapeDtypeStruct((size,), float)
    magnitude = jax.tree.map(jnp.abs, params)
    expected = {name: np.ones(leaf.shape, bool) for name, leaf in params.items()}
    for number in (1, 2, 3):
        count = rates.keep_counts(together, 0.3, number, removed="open_lth")
        mask = masks.prune_global(jax.random.key(0), magnitude, mask, count, prunable)
        left = np.sort(np.concatenate([np.abs(params[k])[expected[k]] for k in params]))
        threshold = left[int(np.ceil(0.3 * len(left)))]
        expected = {k: kept & (np.abs(params[k]) > threshold) for k, kept in expected.items()}
        for name in params:
            np.testing.assert_array_equal(mask[name], expected[name])


# Densities of layers


def amount_by_bisection(total, sizes, shares):
    """Share a total by `min(size, e share)`, with `e` between bounds that close in on it."""
    sizes, shares = np.array(sizes, float), np.array(shares, float)
    low, high = 0.0, (sizes / shares).max()
    for _ in range(200):
        e = (low + high) / 2
        low, high = (e, high) if np.minimum(sizes, e * shares).sum() < total else (low, e)
    return np.minimum(sizes, high * shares)


def shares_of(distribution, shape):
    if distribution == "uniform":
        return math.prod(shape)
    *window, n_in, n_out = shape
    ends = n_in + n_out + (sum(window) if distribution == "erk" else 0)
    density = Fraction(ends, n_in * n_out * (math.prod(window) if distribution == "erk" else 1))
    return float(density * math.prod(shape))


NETWORKS = {"fc": FC, "conv2": CONV2, "conv6": CONV6}


@pytest.mark.parametrize("distribution", rates.DISTRIBUTIONS)
@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.95, 1])
@pytest.mark.parametrize("params", NETWORKS.values(), ids=NETWORKS)
def test_densities_are_the_formula_and_meet_the_total(params, density, distribution):
    found = rates.layer_densities(params, density, distribution)
    shapes = [layer["kernel"].shape for layer in params.values()]
    sizes = [math.prod(shape) for shape in shapes]
    shares = [shares_of(distribution, shape) for shape in shapes]
    amounts = amount_by_bisection(density * sum(sizes), sizes, shares)
    kernels = [found[name]["kernel"] for name in params]
    np.testing.assert_allclose([float(d) for d in kernels], amounts / sizes, rtol=1e-9)
    exact = sum(d * size for d, size in zip(kernels, sizes, strict=True))
    assert exact == Fraction(str(density)) * sum(sizes)
    assert all(found[name]["bias"] == 1 for name in params)

    counts = rates.layer_counts(params, density, distribution)
    numbers = [counts[name]["kernel"] for name in params]
    assert sum(numbers) == sum(sizes) - math.floor((1 - Fraction(str(density))) * sum(sizes))
    assert (np.abs(np.array(numbers) - amounts) < len(sizes)).all()
    assert all(number <= size for number, size in zip(numbers, sizes, strict=True))
    assert all(counts[name]["bias"] == params[name]["bias"].size for name in params)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distribution", rates.DISTRIBUTIONS)
def test_layer_counts_of_every_tree_prune_it(kind, distribution):
    params = KINDS[kind]()
    prunable = trees.prunable_leaves(params)
    counts = rates.layer_counts(params, 0.4, distribution)
    assert jax.tree.structure(counts) == jax.tree.structure(params)
    mask = masks.prune(jax.random.key(0), draw(params, 1), masks.ones(params), counts)
    size = trees.num_prunable(params, prunable)
    kept = sum(int(m.sum()) for _, m, yes in leaves(mask, prunable) if yes)
    assert kept == size - (size * 6) // 10


@given(
    shapes=st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=4), min_size=1, max_size=6),
    distribution=st.sampled_from(sorted(rates.DISTRIBUTIONS)),
    thousandths=st.lists(st.integers(0, 1000), min_size=2, max_size=5),
)
def test_counts_meet_any_total_and_only_fall(shapes, distribution, thousandths):
    params = [jax.ShapeDtypeStruct(tuple(shape), jnp.float32) for shape in shapes]
    densities = sorted((Fraction(n, 1000) for n in thousandths), reverse=True)
    schedule = rates.Schedule(0, 1, densities)
    counts = rates.schedule_counts(params, schedule, distribution)
    size = sum(leaf.size for leaf in params)
    for event, density in enumerate(densities):
        assert sum(int(c[event]) for c in counts) == size - math.floor((1 - density) * size)
    for leaf, numbers in zip(params, counts, strict=True):
        assert numbers.dtype == np.int32 and (np.diff(numbers) <= 0).all()
        assert (numbers >= 0).all() and (numbers <= leaf.size).all()


def test_rules_fix_leaves_and_others_share_the_rest():
    rule = [("dense1/kernel", 0.5), ("output/.*", 1)]
    counts = rates.layer_counts(FC, 0.5, "erk", rule)
    kernels = [counts[name]["kernel"] for name in ("dense1", "dense2", "output")]
    assert kernels == [117_600, 14_500, 1000]
    densities = rates.layer_densities(FC, 0.5, "uniform", rule)
    assert (densities["dense1"]["kernel"], densities["output"]["kernel"]) == (Fraction(1, 2), 1)
    assert densities["dense2"]["kernel"] == Fraction(133_100 - 117_600 - 1000, 30_000)


def test_stacked_layers_have_leaves_of_their_own():
    params = {"blocks": jnp.ones((3, 6, 4)), "head": jnp.ones((4, 5))}
    layers, _ = trees.unstack_layers(params, lambda path, leaf: leaf.ndim == 3)
    counts = rates.layer_counts(layers, 0.5, "erdos_renyi")
    apart = {f"{i}": jnp.ones((6, 4)) for i in range(3)} | {"head": params["head"]}
    alone = rates.layer_counts(apart, 0.5, "erdos_renyi")
    assert jax.tree.leaves(counts) == jax.tree.leaves(alone)


def test_empty_leaves_take_no_weights():
    params = {"kernel": jnp.ones((4, 5)), "nothing": jnp.ones((0, 5))}
    for distribution in rates.DISTRIBUTIONS:
        counts = rates.layer_counts(params, 0.5, distribution)
        assert counts == {"kernel": 10, "nothing": 0}
        assert rates.layer_densities(params, 0.5, distribution)["kernel"] == Fraction(1, 2)


# Schedules

REGULAR = {"begin": 100, "every": 10, "number": 4}
FORMULAS = {
    "cubic": lambda a, b, x: b + (a - b) * (1 - x) ** 3,
    "linear": lambda a, b, x: a + (b - a) * x,
    "exponential": lambda a, b, x: a * (b / a) ** x,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("initial", "final"), [(1, 0.1), (0.5, 0.05), (0.3, 0.3), (1, 1)])
def test_schedules_are_their_formulas(name, initial, final):
    schedule = getattr(rates, name)(final, initial=initial, **REGULAR)
    found = [float(schedule(step)) for step in (0, 99, 100, 109, 110, 120, 130, 139, 140, 10**6)]
    at = [FORMULAS[name](initial, final, i / 4) for i in range(5)]
    expected = [1, 1, at[0], at[0], *at[1:4], at[3], at[4], at[4]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    exact = Fraction(str(initial)), Fraction(str(final))
    assert (schedule.densities[0], schedule.densities[-1]) == exact


def test_the_cubic_schedule_is_that_of_the_paper_in_sparsities():
    """s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))**3, computed in fractions."""
    s_i, s_f, t_0, n, dt = Fraction(1, 10), Fraction(7, 8), 30, 7, 5
    schedule = rates.cubic(1 - s_f, initial=1 - s_i, begin=t_0, every=dt, number=n)
    for t in range(t_0, t_0 + n * dt + 1, dt):
        assert 1 - schedule(t) == s_f + (s_i - s_f) * (1 - Fraction(t - t_0, n * dt)) ** 3


def test_exponential_events_remove_equal_fractions_exactly():
    schedule = rates.exponential(Fraction(1, 3) ** 4, begin=0, every=1, number=4)
    assert schedule.densities[-1] == Fraction(1, 81)
    halves = rates.exponential(0.5**6, begin=0, every=1, number=6)
    assert halves.densities == tuple(Fraction(1, 2**i) for i in range(7))


@pytest.mark.parametrize("name", FORMULAS)
def test_a_traced_schedule_is_exact(name):
    """Under jit, the counts of a step are those of the host."""
    params = layers(**dense(784, 300, 100, 10))
    schedule = getattr(rates, name)(0.013, begin=7, every=3, number=5)
    counts = rates.schedule_counts(params, schedule, "erk")["dense1"]["kernel"]
    pick = jax.jit(lambda step: jnp.asarray(counts)[schedule.num_events(step) - 1])
    for step in range(7, 30):
        expected = rates.layer_counts(params, schedule(step), "erk")["dense1"]["kernel"]
        assert int(pick(step)) == expected
    numbers = jax.vmap(schedule.num_events)(jnp.arange(30))
    assert numbers.tolist() == [min(max((t - 7) // 3 + 1, 0), 6) for t in range(30)]
    changes = [t for t in range(1, 30) if numbers[t] != numbers[t - 1]]
    assert changes == [7, 10, 13, 16, 19, 22]


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda: rates.keep_counts(FC, EVERYWHERE, 1, removed="pytorch"),
            ["unknown way to count what is removed 'pytorch'", "known: floor, open_lth, round"],
        ),
        (
            lambda: rates.layer_counts(FC, 0.1, "erdos"),
            ["unknown distribution 'erdos'; did you mean 'erdos_renyi'?"],
        ),
        (
            lambda: rates.layer_counts(FC, 1.1, "erk"),
            ["the density of all weights is 1.1, expected a number in [0, 1]"],
        ),
        (lambda: rates.layer_densities(FC, "0.1", "erk"), ["is '0.1', expected a number"]),
        (
            lambda: rates.layer_counts(FC, 0.1, "erk", [("dense1/kernel", 2)]),
            ["the density of rule 'dense1/kernel' is 2", "[0, 1]"],
        ),
        (
            lambda: rates.layer_counts(FC, 0.1, "erk", [("dense1/.*", 0.5)]),
            ["gives leaf 'dense1/bias' a density of 0.5, but it is not prunable"],
        ),
        (
            lambda: rates.layer_counts(FC, 0.1, "erk", [("fc", 0.5)]),
            ["rule 'fc' matches no leaf"],
        ),
        (lambda: rates.layer_counts(FC, 0.1, "erk", "fc"), ["pairs (pattern, density)"]),
        (lambda: rates.layer_counts(FC, 0.1, "erk", [0.5]), ["not a pair (pattern, density)"]),
        (
            lambda: rates.layer_counts(FC, 0.1, "erk", [("dense1/kernel", 0.5)]),
            ["the rules leave -90980 weights to other leaves, which have 31000", "density 0.1"],
        ),
        (
            lambda: rates.layer_densities(FC, 0.9, "erk", [("dense1/kernel", 0.5)]),
            ["the rules leave 121980 weights to other leaves, which have 31000", "density 0.9"],
        ),
        (
            lambda: rates.layer_counts(jnp.ones(5), 0.5, "erk", prunable=True),
            ["leaf '' of shape [5] has no input and output axis", "take 'uniform'"],
        ),
        (
            lambda: rates.cubic(0.5, initial=0.2, **REGULAR),
            ["final is 0.5, more than initial, which is 0.2", "never returns"],
        ),
        (lambda: rates.cubic(-0.1, **REGULAR), ["the density of final is -0.1"]),
        (lambda: rates.linear(0.1, initial=2, **REGULAR), ["the density of initial is 2"]),
        (lambda: rates.linear(0.1, **(REGULAR | {"number": 0})), ["number is 0", "1 or more"]),
        (lambda: rates.linear(0.1, **(REGULAR | {"begin": -1})), ["begin is -1", "0 or more"]),
        (lambda: rates.linear(0.1, **(REGULAR | {"every": 0})), ["every is 0", "1 or more"]),
        (lambda: rates.exponential(0, **REGULAR), ["final is 0", "never reaches 0"]),
        (lambda: rates.one_shot(1.5, at=3), ["the density of event 0 is 1.5"]),
        (lambda: rates.one_shot(0.5, at=1.5), ["begin is 1.5"]),
        (lambda: rates.Schedule(0, 1, ()), ["densities is (), expected a list of one"]),
        (
            lambda: rates.Schedule(0, 1, (0.2, 0.5)),
            ["the density of event 1 is 0.5, more than 0.2 before it"],
        ),
        (lambda: rates.one_shot(0.5, at=3)(-1), ["step is -1"]),
        (
            lambda: rates.schedule_counts(FC, [0.5, 0.2]),
            ["schedule is [0.5, 0.2], expected a Schedule"],
        ),
    ],
)
def test_errors_of_densities_and_schedules(call, parts):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    check_one_line(caught.value)
    for part in parts:
        assert part in str(caught.value)
