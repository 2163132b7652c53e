"""Wrong calls of the library, by kind, and valid calls that look wrong: small or unusual trees."""

import functools
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax import (
    actions,
    analysis,
    checks,
    criteria,
    mask_files,
    masks,
    population,
    rates,
    rounds,
    supermasks,
    training,
    transforms,
    trees,
)
from tests import reference
from tests.bad_input import KINDS, ROOT, Case, check_error
from tests.trees import assert_same_bits, draw, draw_mask

KEY = jax.random.key(0)
NAN, INF = float("nan"), float("inf")
KERNEL = jnp.ones((3, 2))
PARAMS = {"dense": {"kernel": KERNEL, "bias": jnp.ones(2)}}
MASK = jax.tree.map(lambda w: w > 0, PARAMS)
YES = {"dense": {"kernel": True, "bias": False}}
COUNTS = {"dense": {"kernel": 2, "bias": 2}}
INTEGERS = {"kernel": KERNEL, "number": jnp.ones((2, 2), int)}


def kernel(leaf):
    return {"dense": {"kernel": leaf, "bias": PARAMS["dense"]["bias"]}}


def prune(**changes):
    call = {"key": KEY, "scores": PARAMS, "mask": MASK, "num_keep": COUNTS} | changes
    return masks.prune(**call)


def advance(**changes):
    call = {
        "key": KEY,
        "state": rounds.begin(PARAMS),
        "w_f": PARAMS,
        "criterion": criteria.movement,
        "mask_one": actions.rewind,
        "mask_zero": actions.zero,
        "num_keep": COUNTS,
        "prunable": YES,
    }
    return rounds.advance(**(call | changes))


def make_training(**changes):
    call = {
        "loss": lambda params, batch, key, context: (jnp.sum(params), {}),
        "evaluate": lambda params, data, context: {"loss": jnp.sum(params)},
        "optimizer": optax.sgd(0.1),
        "get_batch": lambda data, stream, step: None,
        "num_steps": 2,
        "eval_every": 1,
        "chunk_evals": 1,
    }
    return training.make_training(**(call | changes))


def train(**changes):
    made = make_training(**changes)
    stream = training.Stream(jnp.int32(0), KEY, {})
    return made.run_chunk(made.init(KERNEL), stream, jnp.int32(0), None)


def map_members(fn=lambda state, x: (state, x), members=3, **options):
    return population.map_members(fn, **options)(jnp.ones(members), jnp.ones(members))


class Foreign:
    """An array of another package."""

    shape = (2, 2)
    dtype = "other.float32"


class ManyLines:
    def __repr__(self):
        return "Module(\n    kernel\n)"


ONE_INTEGER = "expected one integer"
TYPED_KEY = r"expected a typed key from jax\.random\.key"
TRUE_OR_FALSE = "expected True or False"
A_RATE = r"expected a number in \[0, 1\)"
NO_FOLDER = "/no/such/folder"

WRONG = [
    # Types
    Case("types", lambda: masks.ones(kernel(1.0)), TypeError, "'dense/kernel' of params is 1.0"),
    Case("types", lambda: masks.ones("weights"), TypeError, "'weights' .str., not an array"),
    Case("types", lambda: masks.ones({"a": ManyLines()}), TypeError, r"Module\( kernel \)"),
    Case("types", lambda: masks.apply(MASK, PARAMS, "0"), TypeError, "fill is '0' .str."),
    Case("types", lambda: prune(num_keep=jax.tree.map(float, COUNTS)), TypeError, ONE_INTEGER),
    Case("types", lambda: prune(num_keep=jax.tree.map(str, COUNTS)), TypeError, ONE_INTEGER),
    Case("types", lambda: prune(key=0), TypeError, TYPED_KEY),
    Case("types", lambda: prune(key=None), TypeError, TYPED_KEY),
    Case("types", lambda: prune(key="key"), TypeError, TYPED_KEY),
    Case("types", lambda: advance(key=0), TypeError, TYPED_KEY),
    Case(
        "types", lambda: actions.resample(lambda key: PARAMS)(0, PARAMS, PARAMS, MASK), TypeError,
        TYPED_KEY,
    ),
    Case("types", lambda: advance(criterion=lambda i, f, m: 3.0), TypeError, "of scores is 3.0"),
    Case(
        "types", lambda: criteria.same_sign(lambda i, f, m: 3.0)(PARAMS, PARAMS), TypeError,
        "of scores is 3.0",
    ),
    Case(
        "types", lambda: actions.keep_sign(lambda *a: None)(KEY, PARAMS, PARAMS, MASK), ValueError,
        "in w_i but not in action",
    ),
    Case(
        "types", lambda: trees.prunable_leaves(PARAMS, lambda p, w: None), TypeError,
        "the predicate returns None for leaf 'dense/bias', expected True or False",
    ),
    Case(
        "types", lambda: trees.prunable_leaves(PARAMS, lambda p, w: "False"), TypeError,
        "the predicate returns 'False' for leaf",
    ),
    Case(
        "types", lambda: trees.prunable_leaves(PARAMS, lambda p, w: w > 0), TypeError,
        "the predicate returns Array.* for leaf 'dense/bias'",
    ),
    Case("types", lambda: masks.density(MASK, MASK), TypeError, TRUE_OR_FALSE),
    Case("types", lambda: masks.density(MASK, kernel("yes")), TypeError, TRUE_OR_FALSE),
    Case(
        "types", lambda: jax.jit(lambda yes: masks.density(MASK, yes))(YES), TypeError,
        "static: make it with trees.prunable_leaves, outside jit",
    ),
    Case(
        "types", lambda: supermasks.init_logits(PARAMS, YES, "1"), ValueError,
        "initial logit is '1', expected a finite number",
    ),
    Case("types", lambda: supermasks.init_logits(PARAMS, YES, None), ValueError, "logit is None"),
    Case("types", lambda: supermasks.init_logits(PARAMS, YES, True), ValueError, "logit is True"),
    Case(
        "types", lambda: supermasks.masked_params(MASK, PARAMS, YES, rescale="yes"), TypeError,
        "rescale is 'yes', expected one bool",
    ),
    Case(
        "types", lambda: supermasks.masked_params(MASK, PARAMS, YES, rescale=None), TypeError,
        "rescale is None, expected one bool",
    ),
    Case("types", lambda: transforms.freeze_pruned(None), TypeError, "optimizer is None, expected"),
    Case(
        "types", lambda: transforms.freeze_pruned(optax.sgd(1.0)).update(PARAMS, (), PARAMS),
        TypeError, "freeze_pruned needs the mask",
    ),
    Case("types", lambda: make_training(optimizer="adam"), TypeError, "optimizer is 'adam'"),
    Case(
        "types", lambda: make_training(num_steps=1.5), ValueError,
        "num_steps is 1.5, expected an",
    ),
    Case("types", lambda: make_training(eval_every="3"), ValueError, "eval_every is '3', expected"),
    Case("types", lambda: make_training(chunk_evals=True), ValueError, "chunk_evals is True"),
    Case(
        "types", lambda: map_members(batch_size=1.5), ValueError,
        "batch_size is 1.5, expected an",
    ),
    Case(
        "types", lambda: map_members(batch_size="2"), ValueError,
        "batch_size is '2', expected an",
    ),
    Case(
        "types", lambda: map_members(lambda state, x: state), TypeError,
        r"expected a pair \(state, outputs\)",
    ),
    Case(
        "types", lambda: population.take(jnp.ones(3), 1.5), TypeError,
        "index is 1.5, expected an",
    ),
    Case(
        "types", lambda: population.take(jnp.ones(3), "a"), TypeError,
        "index is 'a', expected an",
    ),
    Case(
        "types", lambda: rates.keep_counts(KERNEL, 0.1, 1.0), ValueError,
        "round is 1.0, expected",
    ),
    Case(
        "types", lambda: rates.keep_counts(KERNEL, 0.1, "1"), ValueError,
        "round is '1', expected",
    ),
    Case("types", lambda: rates.keep_counts(KERNEL, "0.1", 1), ValueError, A_RATE),
    Case(
        "types", lambda: rates.rates_by_path(PARAMS, 5), ValueError,
        "rules is 5, expected a list",
    ),
    Case(
        "types", lambda: rates.rates_by_path(PARAMS, [(b"dense/kernel", 0.1)]), ValueError,
        "is not a regular expression: it must be text",
    ),
    Case(
        "types", lambda: mask_files.save("x.mask", MASK, 5), TypeError,
        "metadata is 5, expected a dict",
    ),
    Case(
        "types", lambda: mask_files.save("x.mask", MASK, {"x": np.ones(2)}), TypeError,
        "metadata cannot be written as JSON: Object of type ndarray",
    ),
    # Names
    Case(
        "names", lambda: checks.lookup("criterion", "movment", criteria.CRITERIA), ValueError,
        "unknown criterion 'movment'; did you mean 'movement'.* known: large_final",
    ),
    Case(
        "names", lambda: checks.lookup("mask-1 action", "zero", actions.MASK_ONE), ValueError,
        "unknown mask-1 action 'zero'; .*known: constant",
    ),
    Case(
        "names", lambda: checks.lookup("mask-0 action", "two\nlines", actions.MASK_ZERO),
        ValueError, r"unknown mask-0 action 'two\\nlines'; known: freeze",
    ),
    Case(
        "names", lambda: checks.lookup("mask-0 action", None, actions.MASK_ZERO), ValueError,
        "unknown mask-0 action None; known",
    ),
    Case(
        "names", lambda: rates.rates_by_path(PARAMS, [("fc/kernel", 0.1)]), ValueError,
        "rule 'fc/kernel' matches no leaf .*The leaves are: dense/bias, dense/kernel",
    ),
    Case(
        "names", lambda: rates.rates_by_path(PARAMS, [("dense(", 0.1)]), ValueError,
        r"rule 'dense\(' is not a regular expression",
    ),
    Case(
        "names", lambda: rates.rates_by_path(PARAMS, [("dense/bias", 0.1)]), ValueError,
        "leaf 'dense/bias' .* not prunable; narrow the pattern",
    ),
    Case(
        "names", lambda: prune(mask={"fc": MASK["dense"]}), ValueError,
        "'dense/bias' is in scores",
    ),
    Case(
        "names", lambda: train(evaluate=lambda params, data, context: {"cost": 0.0}), ValueError,
        "evaluate returns cost, expected 'loss' among them",
    ),
    # Ranges
    *(
        Case(
            "ranges", lambda n=n: prune(num_keep=kernel(n) | {"dense": {"kernel": n, "bias": 2}}),
            ValueError, f"num_keep of leaf 'dense/kernel' is {n}, expected 0 or more",
        )
        for n in (-1, np.int64(-5))
    ),
    Case(
        "ranges", lambda: masks.prune_global(KEY, PARAMS, MASK, -1, YES), ValueError,
        "num_keep of prune_global is -1, expected 0 or more",
    ),
    *(
        Case("ranges", lambda r=r: rates.keep_counts(KERNEL, r, 1), ValueError, A_RATE)
        for r in (1, 1.0, -0.1, NAN, INF, Decimal("nan"), 0.1j, True)
    ),
    Case("ranges", lambda: rates.rates_by_path(PARAMS, [], 1.5), ValueError, f"1.5, {A_RATE}"),
    Case("ranges", lambda: rates.keep_counts(KERNEL, 0.1, -1), ValueError, "round is -1, expected"),
    *(
        Case(
            "ranges", lambda v=v: supermasks.init_logits(PARAMS, YES, v), ValueError,
            "initial logit is .*, expected a finite number",
        )
        for v in (NAN, INF, -INF, 10**400, 10**5000, 1j)
    ),
    *(
        Case(
            "ranges", lambda n=n: map_members(batch_size=n), ValueError,
            f"batch_size is {n}, expected an integer of 1 or more",
        )
        for n in (0, -1)
    ),
    Case("ranges", lambda: make_training(num_steps=0), ValueError, "num_steps is 0, expected an"),
    Case("ranges", lambda: make_training(eval_every=-1), ValueError, "eval_every is -1, expected"),
    Case(
        "ranges", lambda: make_training(chunk_evals=0), ValueError,
        "chunk_evals is 0, expected an",
    ),
    Case(
        "ranges", lambda: population.take(jnp.ones(3), 3), IndexError,
        "3, but there are 3 members",
    ),
    Case("ranges", lambda: population.take(jnp.ones(3), -4), IndexError, "-4, but there are 3"),
    Case(
        "ranges", lambda: population.take(jnp.ones(3), np.array([0, 7])), IndexError,
        r"index is array\(\[0, 7\]\), but there are 3 members",
    ),
    Case(
        "ranges", lambda: population.pad(jnp.ones(3), 0), ValueError,
        "multiple is 0, expected an",
    ),
    Case("ranges", lambda: prune(scores=kernel(KERNEL * NAN)), ValueError, "6 of the 6 scores of"),
    Case(
        "ranges", lambda: mask_files.save("x.mask", MASK, {"x": "y" * 4000}), ValueError,
        "metadata has 4009 bytes, expected at most 3072",
    ),
    Case(
        "ranges", lambda: mask_files.save("x.mask", MASK, {"x": NAN}), ValueError,
        "metadata cannot be written as JSON: Out of range float",
    ),
    # Shapes
    Case(
        "shapes", lambda: criteria.movement(PARAMS, kernel(KERNEL.T)), ValueError,
        r"leaf 'dense/kernel' has shape \[3, 2\] in w_i but \[2, 3\] in w_f",
    ),
    Case(
        "shapes", lambda: actions.reinit(KEY, PARAMS, PARAMS, kernel(KERNEL[:1] > 0)), ValueError,
        r"'dense/kernel' has shape \[3, 2\] in w_i but \[1, 2\] in mask",
    ),
    Case("shapes", lambda: masks.union(MASK, kernel(KERNEL.T > 0)), ValueError, r"\[2, 3\] in b"),
    Case("shapes", lambda: masks.apply(MASK, PARAMS, kernel(KERNEL.T)), ValueError, "in fill"),
    Case("shapes", lambda: masks.apply(MASK, PARAMS, jnp.ones(2)), ValueError, "but not in fill"),
    Case("shapes", lambda: prune(key=jax.random.split(KEY, 2)), TypeError, r"one key, .*\(2,\)"),
    Case("shapes", lambda: advance(key=jax.random.split(KEY, 2)), TypeError, r"one key, .*\(2,\)"),
    Case(
        "shapes", lambda: prune(num_keep={"dense": {"kernel": np.ones((2, 2), int), "bias": 2}}),
        TypeError, r"array\(\[\[1, 1\], \[1, 1\]\]\), expected one integer",
    ),
    Case("shapes", lambda: rates.keep_counts(KERNEL, np.ones(2) / 9, 1), ValueError, A_RATE),
    Case("shapes", lambda: rates.keep_counts(KERNEL, np.ones(1) / 9, 1), ValueError, A_RATE),
    Case(
        "shapes", lambda: rates.keep_counts(KERNEL, 0.1, np.array([1, 2])), ValueError,
        r"round is array\(\[1, 2\]\), expected an integer",
    ),
    Case("shapes", lambda: supermasks.init_logits(PARAMS, YES, [1.0, 2.0]), ValueError, "finite"),
    Case(
        "shapes",
        lambda: supermasks.masked_params(MASK, PARAMS, YES, rescale=jnp.ones(2, bool)), TypeError,
        "rescale is Array.*, expected one bool",
    ),
    Case(
        "shapes", lambda: prune(mask={"dense": MASK["dense"], "more": None}), ValueError,
        "scores and mask are different trees",
    ),
    Case(
        "shapes", lambda: checks.check_trees(a=(KERNEL,), b=[KERNEL]), ValueError,
        "a and b are different trees: the same leaves in other containers",
    ),
    Case(
        "shapes", lambda: rounds.begin(PARAMS, {"dense": MASK["dense"], "more": None}), ValueError,
        "params and mask are different trees",
    ),
    Case(
        "shapes", lambda: population.stack([KERNEL, KERNEL.T]), ValueError,
        r"shape \[3, 2\] in member 0 but \[2, 3\] in member 1",
    ),
    Case(
        "shapes", lambda: population.stack([{"a": KERNEL}, {"b": KERNEL}]), ValueError,
        "'a' is in member 0 but not in member 1",
    ),
    Case(
        "shapes", lambda: population.concatenate([KERNEL, KERNEL.T]), ValueError,
        r"shape \[2\] in population 0 but \[3\] in population 1",
    ),
    Case(
        "shapes", lambda: population.num_members([jnp.ones(2), jnp.ones(3)]), ValueError,
        r"one common leading axis of members, found \[2\], \[3\]",
    ),
    Case(
        "shapes", lambda: map_members(batch_size=2), ValueError,
        "3 members are not a multiple of 2",
    ),
    Case(
        "shapes", lambda: population.shard(jnp.ones(3), population.make_mesh()), ValueError,
        "3 members are not a multiple of 4 .*pad them",
    ),
    Case(
        "shapes", lambda: map_members(lambda state, x: (state[None], x)), ValueError,
        r"fn returns leaf '' of the state as float32\[1\], expected float32\[\]",
    ),
    # Types of numbers
    Case("dtypes", lambda: masks.apply(PARAMS, PARAMS), TypeError, "float32, expected bool"),
    Case(
        "dtypes", lambda: masks.union(MASK, PARAMS), TypeError,
        "'dense/bias' of b has dtype float32, expected bool",
    ),
    Case(
        "dtypes", lambda: masks.density(jax.tree.map(jnp.int32, MASK), YES), TypeError,
        "'dense/bias' of mask has dtype int32, expected bool",
    ),
    Case("dtypes", lambda: masks.overlap(PARAMS, MASK, YES), TypeError, "of a has dtype float32"),
    Case("dtypes", lambda: masks.complement(PARAMS, YES), TypeError, "mask has dtype float32"),
    Case(
        "dtypes", lambda: prune(scores=kernel(KERNEL.astype(int))), TypeError,
        "scores of leaf 'dense/kernel' have dtype int32, expected floats",
    ),
    Case("dtypes", lambda: prune(key=jax.random.PRNGKey(0)), TypeError, f"{TYPED_KEY}.*uint32"),
    Case("dtypes", lambda: advance(key=jax.random.PRNGKey(0)), TypeError, f"{TYPED_KEY}.*uint32"),
    Case(
        "dtypes", lambda: masks.ones({"a": np.array(["x"])}), TypeError,
        "not an array of numbers",
    ),
    Case(
        "dtypes", lambda: masks.ones({"a": np.array([None])}), TypeError,
        "not an array of numbers",
    ),
    Case(
        "dtypes", lambda: masks.ones({"a": Foreign()}), TypeError,
        "array of other.float32, not an",
    ),
    Case("dtypes", lambda: masks.ones({"a": KEY}), TypeError, "array of key<fry>, not an"),
    Case(
        "dtypes", lambda: trees.prunable_leaves(INTEGERS, lambda path, leaf: True), TypeError,
        "leaf 'number' has dtype int32; only floats may be pruned",
    ),
    Case(
        "dtypes",
        lambda: supermasks.init_logits(INTEGERS, {"kernel": True, "number": True}), TypeError,
        "leaf 'number' has dtype int32; only floats may be pruned",
    ),
    Case(
        "dtypes",
        lambda: supermasks.sample(KEY, INTEGERS, {"kernel": True, "number": True}), TypeError,
        "leaf 'number' has dtype int32; only floats may be pruned",
    ),
    Case(
        "dtypes", lambda: map_members(lambda state, x: (state.astype(int), x)), ValueError,
        r"fn returns leaf '' of the state as int32\[\], expected float32\[\]",
    ),
    Case(
        "dtypes", lambda: mask_files.save("x.mask", PARAMS), TypeError,
        "'dense/bias' of the mask has dtype float32, expected bool",
    ),
    # Paths
    Case(
        "paths", lambda: mask_files.save(ROOT / "tests", MASK), IsADirectoryError,
        "tests is a folder, expected the path of a file",
    ),
    Case(
        "paths", lambda: mask_files.save(f"{NO_FOLDER}/x.mask", MASK), FileNotFoundError,
        f"there is no folder {NO_FOLDER} to save x.mask in",
    ),
    Case("paths", lambda: mask_files.read(__file__), ValueError, f"{__file__} is not a mask of"),
    Case("paths", lambda: mask_files.load(__file__, MASK), ValueError, "is not a mask of"),
    # Empty lists
    Case(
        "empty lists", lambda: population.stack([]), ValueError,
        "no member, expected at least one",
    ),
    Case(
        "empty lists", lambda: population.concatenate([]), ValueError,
        "no population, expected at least one",
    ),
    Case(
        "empty lists", lambda: population.make_mesh([]), ValueError,
        "devices is empty, expected at least one",
    ),
    Case("empty lists", lambda: population.num_members({}), ValueError, "found no leaf"),
    Case("empty lists", lambda: population.num_members({"a": None}), ValueError, "found no leaf"),
    Case(
        "empty lists", lambda: map_members(members=0), ValueError,
        "no members, expected at least",
    ),
    Case("empty lists", lambda: trees.prunable_leaves({}), ValueError, "the leaves are: none"),
    Case("empty lists", lambda: masks.density({}, {}), ValueError, "no leaf is prunable"),
    # Duplicates
    Case(
        "duplicates",
        lambda: rates.rates_by_path(PARAMS, [("dense/kernel", 0.1), ("dense/kernel", 0.2)]),
        ValueError, "rule 'dense/kernel' matches no leaf that an earlier rule left",
    ),
    # Empty leaves: wrong only if no weight at all is left to prune
    Case(
        "empty leaves", lambda: trees.prunable_leaves({"a": jnp.ones((0, 3))}), ValueError,
        r"no leaf is prunable; the leaves are: 'a' float32\[0, 3\]",
    ),
    Case(
        "empty leaves", lambda: masks.density({"a": jnp.ones((0, 3), bool)}, {"a": True}),
        ValueError, "no leaf is prunable",
    ),
    Case(
        "empty leaves", lambda: supermasks.expected_density(jnp.ones((0, 3)), True), ValueError,
        "no leaf is prunable",
    ),
    Case(
        "empty leaves", lambda: masks.prune_global(KEY, jnp.ones((0, 3)), jnp.ones((0, 3), bool), 0,
        True), ValueError, "no leaf is prunable",
    ),
    # Scalars
    Case(
        "scalars", lambda: trees.prunable_leaves({"scale": jnp.float32(2)}), ValueError,
        r"no leaf is prunable; the leaves are: 'scale' float32\[\]",
    ),
    Case(
        "scalars", lambda: masks.ones({"scale": 2.0}), TypeError,
        "'scale' of params is 2.0 .float.",
    ),
    Case("scalars", lambda: population.num_members(jnp.float32(1)), ValueError, r"found \[\]"),
    Case("scalars", lambda: population.concatenate([jnp.float32(1)]), ValueError, r"found \[\]"),
    Case("scalars", lambda: mask_files.load(__file__, {"scale": 1.0}), TypeError, "of like is 1.0"),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.kind)
def test_a_wrong_call_ends_in_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_error(case)
    assert not list(tmp_path.iterdir())


# Trees of other precisions, with empty leaves and with scalars are valid, and give correct results.

SHAPE = (3, 4)
DTYPES = ("bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2")
TREES = {
    **{name: {"kernel": SHAPE} for name in DTYPES},
    "empty leaves": {"kernel": SHAPE, "nothing": (0, 3)},
    "scalars": {"kernel": SHAPE, "scale": ()},
}
FUNCTIONS = criteria.CRITERIA | actions.MASK_ONE | actions.MASK_ZERO
LEGAL = [
    ("precision" if name in DTYPES else name, name, function)
    for name in TREES
    for function in (*FUNCTIONS, "prune")
]


def count_of(shape):
    return int(np.prod(shape)) // 2


@functools.cache
def inputs(name):
    """Return start weights, final weights and mask as NumPy arrays; all values are exact."""
    shapes = {leaf: np.zeros(shape) for leaf, shape in TREES[name].items()}
    dtype = jnp.dtype(name) if name in DTYPES else np.dtype(np.float32)
    step = 1.0 if name.startswith("float8") else 0.25
    w_i, w_f = (
        jax.tree.map(lambda w: np.asarray(w).astype(dtype), draw(shapes, seed, step))
        for seed in (1, 2)
    )
    return w_i, w_f, jax.tree.map(np.asarray, draw_mask(shapes, 3))


@functools.cache
def results(name):
    """Return the results of all criteria, all actions and pruning, computed in one program.

    No type is promoted, except where a formula says so.
    """
    num_keep = {leaf: count_of(shape) for leaf, shape in TREES[name].items()}

    def everything(w_i, w_f, mask):
        scores = {name: f(w_i, w_f, mask) for name, f in criteria.CRITERIA.items()}
        values = {
            name: f(KEY, w_i, w_f, mask)
            for name, f in (actions.MASK_ONE | actions.MASK_ZERO).items()
        }
        pruned = masks.prune(KEY, scores["movement"], mask, num_keep)
        return scores | values | {"prune": pruned}

    with jax.enable_x64(name == "float64"), jax.numpy_dtype_promotion("strict"):
        return jax.device_get(jax.jit(everything)(*inputs(name)))


@pytest.mark.parametrize(("name", "function"), [case[1:] for case in LEGAL])
def test_unusual_trees_give_what_the_reference_gives(name, function):
    w_i, w_f, mask = inputs(name)
    result = results(name)[function]
    for leaf, shape in TREES[name].items():
        i, f, kept, got = w_i[leaf], w_f[leaf], mask[leaf], result[leaf]
        assert got.shape == shape
        wide_i, wide_f = i.astype(np.float64), f.astype(np.float64)
        if function == "prune":
            scores = np.abs(wide_f - wide_i)
            reference.check_pruned(got, scores, kept, count_of(shape))
        elif function in criteria.CRITERIA:
            expected = reference.CRITERIA[function](wide_i, wide_f, kept)
            np.testing.assert_array_equal(reference.ranked(got)[kept], expected[kept])
        else:
            assert got.dtype == i.dtype
            assert np.isfinite(got.astype(np.float64)).all()
            if "constant" not in function:  # its standard deviation rounds to the type of the leaf
                check = (reference.MASK_ONE | reference.MASK_ZERO)[function]
                check(got.astype(np.float64), wide_i, wide_f, kept)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_numpy_s_float64_is_converted_as_by_jax(function):
    w_i, w_f, mask = (tree["kernel"] for tree in inputs("float64"))
    arguments = (w_i, w_f, mask) if function in criteria.CRITERIA else (KEY, w_i, w_f, mask)
    narrow = [x.astype(np.float32) if x is w_i or x is w_f else x for x in arguments]
    values, expected = (jnp.asarray(FUNCTIONS[function](*x)) for x in (arguments, narrow))
    assert_same_bits(values, expected)


def test_the_other_functions_convert_numpy_s_float64_too():
    w_i, w_f, mask = (tree["kernel"] for tree in inputs("float64"))
    state = rounds.advance(
        KEY, rounds.begin(w_i), w_f, criterion=criteria.movement, mask_one=actions.constant,
        mask_zero=actions.freeze, num_keep=5, prunable=True,
    )  # fmt: skip
    assert rounds.start_params(state).dtype == jnp.float32
    logits = supermasks.init_logits(w_i, True, 0.5)
    assert masks.apply(mask, w_i).dtype == logits.dtype == jnp.float32
    assert supermasks.masked_params(mask, w_i, True, rescale=True).dtype == jnp.float32
    with pytest.raises(ValueError, match="12 of the 12 scores"):
        masks.prune(KEY, np.full(SHAPE, 1e300), np.ones(SHAPE, bool), 5)


def test_float64_tells_scores_apart_that_float32_does_not():
    scores = 1 + np.arange(12).reshape(SHAPE) * 1e-12
    with jax.enable_x64(True):
        kept = masks.prune(KEY, scores, np.ones(SHAPE, bool), 3)
        assert np.flatnonzero(kept).tolist() == [9, 10, 11]
        assert masks.prune(KEY, scores * 1e300, np.ones(SHAPE, bool), 3).sum() == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_count_large_layers_exactly(dtype):
    """The largest float16 is 65504, and bfloat16 represents all integers only up to 256."""
    size, kept = 70_001, 70_000
    mask = jnp.arange(size) < kept
    weights = jnp.ones(size, dtype)
    rescaled = supermasks.masked_params(mask, weights, True, rescale=True)
    assert rescaled.dtype == dtype
    np.testing.assert_array_equal(np.asarray(rescaled, np.float32), np.float32(mask))
    assert supermasks.expected_density(jnp.zeros(size, dtype), True) == 0.5
    assert masks.density(mask, True) == np.float32(kept / size)


def test_one_kept_weight_of_float16_does_not_make_the_others_nan():
    weights = jnp.ones(70_000, jnp.float16)
    rescaled = supermasks.masked_params(jnp.arange(70_000) < 1, weights, True, rescale=True)
    assert (rescaled[1:] == 0).all()


@pytest.mark.parametrize("count", [2**31, 2**40, np.int64(2**40), np.uint64(2**63)])
def test_a_huge_count_keeps_everything(count):
    mask = KERNEL > 0
    assert masks.prune(KEY, KERNEL, mask, count).all()
    assert masks.prune_global(KEY, KERNEL, mask, count, True).all()


def test_integers_among_the_parameters_are_left_alone():
    prunable = trees.prunable_leaves(INTEGERS)
    assert prunable == {"kernel": True, "number": False}
    for mask_one in (actions.constant, actions.reinit):
        state = rounds.advance(
            KEY, rounds.begin(INTEGERS), INTEGERS, criterion=criteria.large_final,
            mask_one=mask_one, mask_zero=actions.zero, num_keep={"kernel": 2, "number": 4},
            prunable=prunable,
        )  # fmt: skip
        assert state.mask["kernel"].sum() == 2
        assert_same_bits(rounds.start_params(state)["number"], INTEGERS["number"])
    logits = supermasks.init_logits(INTEGERS, prunable)
    drawn = supermasks.sample(KEY, logits, prunable)
    made = supermasks.masked_params(drawn, INTEGERS, prunable, rescale=True)
    assert_same_bits(made["number"], INTEGERS["number"])


def test_an_action_of_another_precision_does_not_change_that_of_the_weights():
    w_i = jnp.arange(12.0, dtype=jnp.bfloat16).reshape(SHAPE)
    wide = actions.resample(lambda key: jax.random.normal(key, SHAPE))
    state = rounds.advance(
        KEY, rounds.begin(w_i), w_i, criterion=criteria.large_final, mask_one=wide, mask_zero=wide,
        num_keep=5, prunable=True,
    )  # fmt: skip
    assert state.w_i.dtype == state.fill.dtype == rounds.start_params(state).dtype == jnp.bfloat16


def test_empty_leaves_elsewhere(tmp_path):
    tree = {"kernel": jnp.ones(SHAPE), "nothing": jnp.ones((0, 3))}
    prunable = trees.prunable_leaves(tree)
    mask = masks.prune_global(KEY, tree, masks.ones(tree), 5, prunable)
    assert (mask["kernel"].sum(), mask["nothing"].shape) == (5, (0, 3))
    assert masks.density(mask, prunable) == np.float32(5 / 12)
    assert masks.overlap(mask, mask, prunable) == 1
    assert rates.keep_counts(tree, {"kernel": 0.5, "nothing": 0.5}, 2) == {
        "kernel": 3,
        "nothing": 0,
    }
    mask_files.save(tmp_path / "x.mask", mask)
    assert_same_bits(mask_files.load(tmp_path / "x.mask", tree), mask)
    logits = supermasks.init_logits(tree, prunable)
    assert supermasks.expected_density(logits, prunable) == 0.5
    made = supermasks.masked_params(mask, tree, prunable, rescale=True)
    assert (made["kernel"].sum(), made["nothing"].shape) == (12, (0, 3))


def test_a_predicate_may_choose_a_scalar():
    tree = {"scale": jnp.float32(2)}
    prunable = trees.prunable_leaves(tree, lambda path, leaf: True)
    assert prunable == {"scale": True}
    assert rates.keep_counts(tree, {"scale": 0.9}, 3) == {"scale": 1}
    gone = masks.prune(KEY, tree, masks.ones(tree), {"scale": 0})
    assert not gone["scale"] and masks.apply(gone, tree)["scale"] == 0


def everything_else(w_i, w_f, mask):
    """Call the functions that `results` does not, on a tree of kernels and a bias."""
    prunable = {"kernel": True, "bias": False}
    num_keep = {"kernel": 4, "bias": 4}
    state = rounds.advance(
        KEY, rounds.begin(w_i, mask), w_f, criterion=criteria.large_init_large_final,
        mask_one=actions.constant, mask_zero=actions.zero_shuffled, num_keep=7,
        prunable=prunable, least=2,
    )  # fmt: skip
    logits = supermasks.init_logits(w_i, prunable, 0.5)
    network = lambda params: sum(  # noqa: E731
        jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(params)
    )
    of_logits = supermasks.loss_of_logits(network, w_i, prunable, rescale=True)
    optimizer = transforms.freeze_pruned(optax.sgd(0.1, momentum=0.9))
    trained = training.make_training(
        lambda params, batch, key, context: (network(params), {"count": 1}),
        lambda params, data, context: {"loss": network(params)},
        optimizer, lambda data, stream, step: None, num_steps=3, eval_every=2, chunk_evals=3,
    )  # fmt: skip
    stream = training.Stream(jnp.int32(0), KEY, {"mask": mask})
    return {
        "prune": masks.prune(KEY, w_f, mask, num_keep),
        "start": rounds.start_params(state),
        "fill": masks.apply(mask, w_i, 2.0),
        "numbers": (
            masks.density(mask, prunable), masks.overlap(mask, mask, prunable),
            analysis.overlap_beyond_chance(mask, mask, prunable),
            analysis.sign_agreement(w_i, w_f, mask, prunable),
            analysis.fraction_shrunk(w_i, w_f, mask, prunable),
            supermasks.expected_density(logits, prunable),
        ),
        "sample": supermasks.sample(KEY, logits, prunable),
        "gradient": jax.grad(of_logits)(logits, KEY),
        "trained": trained.run_chunk(trained.init(w_i), stream, jnp.int32(0), None),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", *DTYPES])
def test_no_type_is_promoted_on_the_way(dtype):
    """Strict promotion raises no error and changes no result."""
    with jax.enable_x64(dtype == "float64"):
        tree = {"kernel": jnp.ones(SHAPE), "bias": jnp.ones(4)}
        w_i, w_f = (jax.tree.map(lambda w: w.astype(dtype), draw(tree, s, 1.0)) for s in (1, 2))
        mask = draw_mask(tree, 3) | {"bias": jnp.ones(4, bool)}
        with jax.numpy_dtype_promotion("strict"):
            strict = jax.jit(everything_else)(w_i, w_f, mask)
        assert_same_bits(strict, jax.jit(everything_else)(w_i, w_f, mask))
    for name in ("start", "fill", "sample", "gradient"):
        assert {leaf.dtype.name for leaf in jax.tree.leaves(strict[name])} == {dtype}
        for leaf in jax.tree.leaves(strict[name]):
            assert np.isfinite(np.asarray(leaf, np.float64)).all()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e5m2"])
def test_the_deviation_of_narrow_weights_is_that_of_wide_ones(dtype, scale):
    w_i = (draw(jnp.ones((40, 30)), 1) * scale).astype(dtype)
    values = np.asarray(actions.constant(KEY, w_i, w_i, w_i == w_i), np.float64)
    expected = np.asarray(w_i, np.float64).std()
    largest, resolution = float(jnp.finfo(dtype).max), float(jnp.finfo(dtype).eps)
    assert expected < largest
    np.testing.assert_allclose(np.abs(values[values != 0]), expected, resolution)


@pytest.mark.parametrize("name", actions.MASK_ONE | actions.MASK_ZERO)
@pytest.mark.parametrize("dtype", ["bool", "int4", "uint8", "complex64"])
def test_actions_ignore_leaves_without_floats(name, dtype):
    tree = {"kernel": draw(jnp.ones(SHAPE), 1), "other": jnp.ones(SHAPE, dtype)}
    mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), tree)
    values = (actions.MASK_ONE | actions.MASK_ZERO)[name](KEY, tree, tree, mask)
    assert values["other"].dtype == dtype
    assert values["other"].all() == (name != "zero")


def test_all_kinds_are_known():
    assert {case.kind for case in WRONG} | {case[0] for case in LEGAL} <= set(KINDS)
