import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermask_jax import masks, trees
from tests import reference
from tests.trees import KINDS, assert_same_bits, assert_structure, draw, draw_mask, leaves

KEY = jax.random.key(0)
LEAF = jnp.ones((6, 5))
prune = jax.jit(masks.prune)
prune_global = jax.jit(
    lambda key, scores, mask, count: masks.prune_global(
        key, scores, mask, count, {"one": True, "two": True, "bias": False}
    )
)


def half(mask):
    return jax.tree.map(lambda m: int(m.sum()) // 2, mask)


# Prune


@pytest.mark.parametrize("kind", KINDS)
def test_prune_equals_reference(kind):
    params = KINDS[kind]()
    scores, mask = draw(params, 1), draw_mask(params, 2)
    new = masks.prune(KEY, scores, mask, half(mask))
    assert_structure(new, params)
    for _, score, before, after, count in leaves(scores, mask, new, half(mask)):
        np.testing.assert_array_equal(after, reference.prune(score, before, count))


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 40),
    step=st.sampled_from([None, 1.0, 8.0]),
    density=st.floats(0, 1),
)
def test_prune_properties(seed, count, step, density):
    """Exact counts, subsets, and kept scores above pruned ones; with few, many and only ties."""
    scores, mask = draw(LEAF, seed, step), draw_mask(LEAF, seed, density)
    new = prune(jax.random.key(seed), scores, mask, count)
    reference.check_pruned(*map(np.asarray, (new, scores, mask)), count)


@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0, 1),
    count=st.integers(-3, 40),
    density=st.floats(0, 1),
    dtype=st.sampled_from([jnp.float32, jnp.float16, jnp.bfloat16]),
)
def test_prune_under_jit_whatever_the_scores(seed, share, count, density, dtype):
    """With NaN and infinities, too: exact counts, subsets, and a NaN never outranks a number."""
    rng = np.random.default_rng(seed)
    special = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e4], LEAF.shape)
    chosen = rng.random(LEAF.shape) < share
    scores = jnp.where(chosen, special, draw(LEAF, seed, step=0.5)).astype(dtype)
    mask = draw_mask(LEAF, seed, density)
    new = np.asarray(prune(jax.random.key(seed), scores, mask, count))
    ranked = np.nan_to_num(np.asarray(scores, np.float64), nan=-2e9, posinf=1e9, neginf=-1e9)
    reference.check_pruned(new, ranked, np.asarray(mask), max(count, 0))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40), step=st.sampled_from([None, 1.0]))
def test_prune_global_is_prune_of_all_in_one(seed, count, step):
    params = {"one": jnp.ones((3, 4)), "two": jnp.ones((5, 2)), "bias": jnp.ones(3)}
    scores, mask = draw(params, seed, step), draw_mask(params, seed)
    new = prune_global(jax.random.key(seed), scores, mask, count)
    assert_same_bits(new["bias"], mask["bias"])
    joined = (
        np.concatenate([np.ravel(tree[leaf]) for leaf in ("one", "two")])
        for tree in (new, scores, mask)
    )
    reference.check_pruned(*joined, count)


@given(seed=st.integers(0, 2**32 - 1), counts=st.lists(st.integers(0, 30), min_size=3, max_size=3))
def test_a_pruned_weight_never_returns(seed, counts):
    mask, left = jnp.ones(LEAF.shape, bool), LEAF.size
    for number, count in enumerate(counts):
        new = prune(jax.random.key(seed), draw(LEAF, seed + number), mask, count)
        left = min(left, count)
        assert not (new & ~mask).any()
        assert new.sum() == left
        mask = new


def test_a_full_count_leaves_a_leaf_alone():
    scores = {"kernel": LEAF, "bias": jnp.full(5, jnp.nan)}
    mask = masks.ones(scores)
    new = masks.prune(KEY, scores, mask, {"kernel": 7, "bias": 5})
    assert_same_bits(new["bias"], mask["bias"])
    assert new["kernel"].sum() == 7


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_ties_fall_at_random_not_by_index(zero):
    scores = jnp.full(20, zero).at[::2].set(0.0)  # 0.0 and -0.0 tie
    scores = scores.at[5].set(1.0).at[6].set(-1.0)
    keys = jax.random.split(KEY, 2000)
    kept = jax.jit(
        jax.vmap(lambda key: masks.prune(key, scores, jnp.ones(20, bool), jnp.int32(10)))
    )(keys)
    assert (kept.sum(axis=1) == 10).all()
    share = np.asarray(kept.mean(axis=0))
    assert (share[5], share[6]) == (1, 0)
    sigma = np.sqrt(0.25 / len(keys))
    assert (np.abs(np.delete(share, [5, 6]) - 9 / 18) < 5 * sigma).all()
    pairs = np.cov(np.delete(kept, [5, 6], axis=1).T)  # places are kept almost independently
    off_diagonal = pairs[~np.eye(18, dtype=bool)]
    assert (np.abs(off_diagonal + 0.25 / 17) < 5 * 0.25 / np.sqrt(len(keys))).all()


def test_key_decides_ties_leaf_by_leaf():
    scores = {"a": jnp.zeros(50), "b": jnp.zeros(50)}
    num_keep = {"a": 25, "b": 25}
    first, again, other = (
        masks.prune(jax.random.key(seed), scores, masks.ones(scores), num_keep)
        for seed in (0, 0, 1)
    )
    assert_same_bits(first, again)
    assert (first["a"] != other["a"]).any()
    assert (first["a"] != first["b"]).any()


def test_a_traced_count_compiles_once():
    traces = []

    @jax.jit
    def traced(key, scores, mask, num_keep):
        traces.append(1)
        return masks.prune(key, scores, mask, num_keep)

    for count in (30, 17, 0):
        new = traced(KEY, draw(LEAF, 1), masks.ones(LEAF), count)
        assert new.sum() == count
        for number in (count, jnp.int32(count), np.int64(count)):
            assert_same_bits(new, masks.prune(KEY, draw(LEAF, 1), masks.ones(LEAF), number))
    assert len(traces) == 1


def test_eager_rounds_compile_once(compilations):
    leaf = jnp.ones((7, 9))  # a shape that no other test has compiled
    mask = masks.ones(leaf)
    seen = []
    for count in (50, 20, 5):
        mask = masks.prune(KEY, draw(leaf, count), mask, count)
        seen.append(len(compilations))
    assert 0 < seen[0] == seen[1] == seen[2]


def test_vmap_over_members_with_their_own_counts():
    keys, counts = jax.random.split(KEY, 4), jnp.array([30, 12, 1, 0])
    scores = jnp.stack([draw(LEAF, seed, step=1.0) for seed in range(4)])
    mask = jnp.stack([draw_mask(LEAF, seed) for seed in range(4)])
    together = jax.vmap(masks.prune)(keys, scores, mask, counts)
    for m in range(4):
        alone = masks.prune(keys[m], scores[m], mask[m], counts[m])
        assert_same_bits(together[m], alone)


def test_nan_ranks_last_under_jit():
    scores = jnp.array([jnp.nan, -jnp.inf, 3.0, jnp.nan, jnp.inf, -5.0, jnp.nan])
    mask = jnp.array([True, True, True, True, True, True, False])
    expected = [[4], [2, 4], [2, 4, 5], [1, 2, 4, 5]]
    for kept in expected:
        assert np.flatnonzero(prune(KEY, scores, mask, len(kept))).tolist() == kept
    chosen = [np.flatnonzero(prune(jax.random.key(k), scores, mask, 5)) for k in range(20)]
    assert {tuple(c) for c in chosen} == {(0, 1, 2, 4, 5), (1, 2, 3, 4, 5)}
    assert np.flatnonzero(prune(KEY, scores, mask, 7)).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_score_is_an_error_where_it_matters(bad):
    scores = {"dense": {"kernel": LEAF.at[1, 2].set(bad), "bias": jnp.ones(5)}}
    mask = masks.ones(scores)
    num_keep = {"dense": {"kernel": 3, "bias": 5}}
    with pytest.raises(ValueError, match=r"1 of the 30 scores of leaf 'dense/kernel' are NaN"):
        masks.prune(KEY, scores, mask, num_keep)
    mask["dense"]["kernel"] = mask["dense"]["kernel"].at[1, 2].set(False)
    assert masks.prune(KEY, scores, mask, num_keep)["dense"]["kernel"].sum() == 3


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_prune_takes_low_precision(dtype):
    scores = draw(LEAF, 1, step=0.25)
    expected = masks.prune(KEY, scores, masks.ones(LEAF), 11)
    assert_same_bits(masks.prune(KEY, scores.astype(dtype), masks.ones(LEAF), 11), expected)


# Prune to many counts


@pytest.mark.parametrize("jitted", [False, True])
def test_prune_many_is_prune_for_each_number(jitted):
    params = {"few_ties": jnp.ones((5, 7)), "ties": jnp.ones((30,)), "whole": jnp.ones(3)}
    scores = draw(params, 1) | {"ties": draw(params["ties"], 2, step=2.0)}
    scores["whole"] = jnp.full(3, jnp.nan)  # is not looked at
    mask = draw_mask(params, 3, 0.8)
    counts = {
        "few_ties": np.array([35, 20, 0, 36, 8]),
        "ties": np.array([3, 17, 29, 1, 30], np.int8),
        "whole": np.full(5, 3, np.uint64),
    }
    together = (jax.jit(masks.prune_many) if jitted else masks.prune_many)(
        KEY, scores, mask, counts
    )
    for n in range(5):
        alone = masks.prune(KEY, scores, mask, jax.tree.map(lambda count, n=n: count[n], counts))
        assert_same_bits(jax.tree.map(lambda m, n=n: m[n], together), alone)


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        (3, TypeError, r"leaf 'a' is 3, expected an array of integers \[N\]"),
        (np.ones(2), TypeError, r"leaf 'a' is array\(\[1., 1.\]\), expected an array of integers"),
        (np.array([1, -1]), ValueError, r"leaf 'a' is \[1, -1\], expected 0 or more"),
        (np.array([1, 2, 3]), ValueError, r"num_keep has \[2, 3\] numbers in different leaves"),
    ],
)
def test_what_prune_many_refuses(counts, error, message):
    params = {"a": LEAF, "b": LEAF}
    with pytest.raises(error, match=message):
        masks.prune_many(KEY, params, masks.ones(params), {"a": counts, "b": np.array([1, 2])})


# Prune globally


@pytest.mark.parametrize("kind", KINDS)
def test_prune_global_is_one_ranking(kind):
    params = KINDS[kind]()
    scores, mask, prunable = draw(params, 1), draw_mask(params, 2), trees.prunable_leaves(params)
    chosen = [leaf for leaf in leaves(scores, mask, prunable) if leaf[-1]]
    flat_scores, flat_mask = (np.concatenate([leaf[i].ravel() for leaf in chosen]) for i in (1, 2))
    count = int(flat_mask.sum()) // 2
    new = masks.prune_global(KEY, scores, mask, count, prunable)
    assert_structure(new, params)
    for _, before, after, yes in leaves(mask, new, prunable):
        assert yes or (before == after).all()
    flat_new = np.concatenate([after.ravel() for _, after, yes in leaves(new, prunable) if yes])
    np.testing.assert_array_equal(flat_new, reference.prune(flat_scores, flat_mask, count))


def test_prune_global_traced_and_mapped():
    params = {"one": jnp.ones((3, 4)), "two": jnp.ones((5, 2)), "bias": jnp.ones(3)}
    prunable = trees.prunable_leaves(params)
    scores = jax.tree.map(lambda *x: jnp.stack(x), *(draw(params, seed, 1.0) for seed in range(3)))
    keys, counts = jax.random.split(KEY, 3), jnp.array([15, 1, 22])
    together = jax.vmap(
        lambda key, score, count: masks.prune_global(
            key, score, masks.ones(params), count, prunable
        )
    )(keys, scores, counts)
    for m in range(3):
        member = jax.tree.map(lambda s, m=m: s[m], scores)
        loses_a_leaf = pytest.warns(UserWarning, match="lost the last weight")
        with loses_a_leaf if counts[m] == 1 else contextlib.nullcontext():
            alone = masks.prune_global(
                keys[m], member, masks.ones(params), int(counts[m]), prunable
            )
        assert_same_bits(jax.tree.map(lambda s, m=m: s[m], together), alone)
        assert alone["one"].sum() + alone["two"].sum() == counts[m]


def test_prune_global_breaks_ties_over_all_leaves():
    params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros((2, 2))}
    prunable = {"a": True, "b": True}
    kept = jax.vmap(lambda key: masks.prune_global(key, params, masks.ones(params), 4, prunable))(
        jax.random.split(KEY, 1000)
    )
    share = np.concatenate([np.ravel(kept[leaf].mean(axis=0)) for leaf in "ab"])
    assert (np.abs(share - 0.5) < 5 * np.sqrt(0.25 / 1000)).all()


def test_prune_global_finds_nan_in_a_leaf_smaller_than_the_count():
    params = {"small": jnp.full((2, 2), jnp.nan), "large": LEAF}
    with pytest.raises(ValueError, match="'small' are NaN"):
        masks.prune_global(KEY, params, masks.ones(params), 20, {"small": True, "large": True})


@pytest.mark.parametrize("least", [0, 1, 3, {"one": 2, "two": 5, "bias": 9}])
@pytest.mark.parametrize("jitted", [False, True])
def test_floors_keep_the_best_of_every_leaf(least, jitted):
    """The best of every leaf up to its floor, then the best of the rest."""
    params = {"one": jnp.ones((3, 4)), "two": jnp.ones((5, 2)), "bias": jnp.ones(3)}
    prunable = {"one": True, "two": True, "bias": False}
    scores = draw(params, 1)
    scores["one"] = scores["one"] - 100  # without a floor, none of its weights is kept
    mask = draw_mask(params, 2, 0.9)
    floors = least if isinstance(least, dict) else dict.fromkeys(params, least)

    def call(scores, mask):
        return masks.prune_global(KEY, scores, mask, 8, prunable, least)

    loses = not least and not jitted
    with pytest.warns(UserWarning, match="'one' lost") if loses else contextlib.nullcontext():
        new = (jax.jit(call) if jitted else call)(scores, mask)
    best = {
        leaf: reference.prune(np.asarray(scores[leaf]), np.asarray(mask[leaf]), floors[leaf])
        for leaf in ("one", "two")
    }
    joined, kept, first = (
        np.concatenate([np.ravel(tree[leaf]) for leaf in ("one", "two")])
        for tree in (scores, mask, best)
    )
    rest = reference.prune(joined, kept & ~first, 8 - first.sum())
    found = np.concatenate([np.ravel(new[leaf]) for leaf in ("one", "two")])
    np.testing.assert_array_equal(found, first | rest)
    assert_same_bits(new["bias"], mask["bias"])


def test_floors_of_zero_change_no_bit():
    params = {"a": jnp.zeros((4, 4)), "b": jnp.zeros((4, 4))}
    prunable = {"a": True, "b": True}
    call = functools.partial(masks.prune_global, KEY, params, masks.ones(params), 9, prunable)
    assert_same_bits(call(), call(least={"a": 0, "b": 0}))


@pytest.mark.parametrize("types", [("bfloat16", "float32"), ("float8_e4m3fn", "float32")])
@pytest.mark.parametrize("least", [0, 3])
def test_leaves_of_several_types_are_ranked_together(types, least):
    scores = {f"{i}": draw(jnp.ones((4, 5)), i, 1.0).astype(t) for i, t in enumerate(types)}
    prunable = dict.fromkeys(scores, True)
    wide = jax.tree.map(lambda s: s.astype(jnp.float32), scores)
    with jax.numpy_dtype_promotion("strict"):
        new = masks.prune_global(KEY, scores, masks.ones(scores), 17, prunable, least)
    assert_same_bits(new, masks.prune_global(KEY, wide, masks.ones(scores), 17, prunable, least))


def test_a_huge_floor_keeps_everything():
    params = {"a": LEAF, "b": LEAF}
    call = (KEY, params, masks.ones(params), 2 * LEAF.size, dict.fromkeys(params, True))
    assert_same_bits(masks.prune_global(*call, least=2**40), masks.ones(params))


def test_a_floor_of_more_than_is_left_keeps_what_is_left():
    params = {"a": draw(jnp.ones((4, 4)), 1), "b": draw(jnp.ones((4, 4)), 2) + 9}
    mask = {"a": jnp.arange(16).reshape(4, 4) < 2, "b": jnp.ones((4, 4), bool)}
    new = masks.prune_global(KEY, params, mask, 8, {"a": True, "b": True}, least=4)
    assert (new["a"].sum(), new["b"].sum()) == (2, 6)


def test_a_layer_that_vanishes_is_named_once():
    params = {"small": jnp.zeros((2, 2)), "tiny": jnp.zeros((2, 2)), "large": jnp.ones((6, 6))}
    prunable = dict.fromkeys(params, True)
    with pytest.warns(UserWarning) as caught:
        masks.prune_global(KEY, params, masks.ones(params), 20, prunable)
    assert [str(one.message) for one in caught] == [
        "'small', 'tiny' lost the last weight; least=1 keeps one in every leaf."
    ]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dtype", [jnp.uint32, jnp.uint8, jnp.int32, jnp.int8])
def test_a_traced_count_of_any_integer_type(dtype):
    largest = jnp.iinfo(dtype).max
    assert prune(KEY, draw(LEAF, 1), masks.ones(LEAF), jnp.asarray(7, dtype)).sum() == 7
    all_of_it = prune(KEY, draw(LEAF, 1), masks.ones(LEAF), jnp.asarray(largest, dtype))
    assert all_of_it.sum() == min(LEAF.size, largest)


# Application and algebra


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Container:
    """A container that has the type of its content as `dtype`, as modules do."""

    kernel: jax.Array
    dtype: str = dataclasses.field(metadata={"static": True}, default="float32")


def test_containers_that_have_a_dtype():
    params, fill = Container(jnp.ones(3)), Container(jnp.full(3, 2.0))
    mask = Container(jnp.array([True, False, True]))
    assert masks.apply(mask, params, fill).kernel.tolist() == [1.0, 2.0, 1.0]
    assert masks.apply(mask, params).kernel.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.slow
def test_numbers_beyond_32_bits():
    """Seventeen leaves share one array, so that the kept weights exceed an int32."""
    tree = dict.fromkeys(range(17), jnp.ones(2**27, bool))
    prunable = dict.fromkeys(tree, True)
    assert masks.density(tree, prunable) == 1
    assert jax.jit(lambda a, b: masks.overlap(a, b, prunable))(tree, tree) == 1


@pytest.mark.parametrize("counts", [[2**31 - 1] * 5, [2**31 - 1, 1], [65535] * 3, [2**24 + 1], []])
def test_a_sum_of_counts_is_the_nearest_float(counts):
    assert masks._nearest_sum([jnp.int32(count) for count in counts]) == np.float32(sum(counts))


def test_leaves_that_are_too_large_are_counted_in_parts(monkeypatch):
    counted = [
        np.asarray(draw_mask(jnp.ones(shape), 1)) for shape in ((1000, 3, 4), (50,), (7, 90))
    ]
    exact = [masks.num_kept(one) for one in counted]
    monkeypatch.setattr(masks, "MOST_COUNTED", 40)
    assert [masks.num_kept(one) for one in counted] == exact == [one.sum() for one in counted]


@pytest.mark.parametrize("fill", [2, 2.0, np.float32(2), jnp.float32(2)])
def test_apply_takes_any_number_as_fill(fill):
    applied = masks.apply(jnp.array([True, False]), jnp.array([1.0, 1.0]), fill)
    assert applied.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", KINDS)
def test_apply_selects(kind):
    params = KINDS[kind]()
    values, fill, mask = draw(params, 1), draw(params, 2), draw_mask(params, 3)
    assert_same_bits(masks.ones(params), jax.tree.map(lambda w: w == w, values))
    for applied, expected in (
        (masks.apply(mask, values), lambda f: 0.0),
        (masks.apply(mask, values, 3), lambda f: 3.0),
        (masks.apply(mask, values, fill), lambda f: f),
    ):
        assert_structure(applied, params)
        for _, a, v, f, m in leaves(applied, values, fill, mask):
            assert a.dtype == v.dtype
            np.testing.assert_array_equal(a, np.where(m, v, expected(f)))


def test_apply_lets_nothing_leak():
    hidden = jnp.array([jnp.nan, jnp.inf, 1.0])
    mask = jnp.array([False, False, True])
    assert_same_bits(masks.apply(mask, hidden), jnp.array([0.0, 0.0, 1.0]))
    assert_same_bits(masks.apply(~mask, jnp.zeros(3), hidden), jnp.array([0.0, 0.0, 1.0]))


@given(seed=st.integers(0, 2**32 - 1), density=st.sampled_from([0.0, 0.3, 0.8, 1.0]))
def test_algebra_density_and_overlap_equal_sets(seed, density):
    params = {"kernel": jnp.ones((3, 2)), "other": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    prunable = {"kernel": True, "other": True, "bias": False}
    a, b = (draw_mask(params, s, density) | {"bias": jnp.ones(3, bool)} for s in (seed, seed + 1))

    def places(mask):
        return {
            (path, i)
            for path, kept, yes in leaves(mask, prunable)
            for i in np.flatnonzero(kept)
            if yes
        }

    everything = places(masks.ones(params))
    assert places(masks.union(a, b)) == places(a) | places(b)
    assert places(masks.intersection(a, b)) == places(a) & places(b)
    assert places(masks.difference(a, b)) == places(a) - places(b)
    assert places(masks.complement(a, prunable)) == everything - places(a)
    assert masks.complement(a, prunable)["bias"].all()
    assert masks.density(a, prunable) == np.float32(len(places(a)) / len(everything))
    either, both = places(a) | places(b), places(a) & places(b)
    expected = np.float32(len(both) / len(either)) if either else 1
    assert masks.overlap(a, b, prunable) == expected


# Errors

SCORES = {"dense": {"kernel": LEAF}}
KEEP = masks.ones(SCORES)
YES = {"dense": {"kernel": True}}


def dense(leaf):
    return {"dense": {"kernel": leaf}}


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"mask": {"dense": {}}}, ValueError, ["'dense/kernel'", "in scores but not in mask"]),
        ({"mask": dense(KEEP["dense"]["kernel"][:2])}, ValueError, ["'dense/kernel'", "[2, 5]"]),
        ({"mask": SCORES}, TypeError, ["'dense/kernel'", "float32", "expected bool"]),
        ({"scores": dense([1.0])}, TypeError, ["'dense/kernel/0' of scores", "not an array"]),
        (
            {"scores": dense(KEEP["dense"]["kernel"])},
            TypeError,
            ["'dense/kernel'", "bool", "expected floats"],
        ),
        ({"num_keep": dense(2.0)}, TypeError, ["'dense/kernel'", "2.0", "integer"]),
        ({"num_keep": dense(True)}, TypeError, ["'dense/kernel'", "True", "integer"]),
        ({"num_keep": dense("2")}, TypeError, ["'dense/kernel'", "'2'", "integer"]),
        ({"num_keep": dense(jnp.ones(2, int))}, TypeError, ["'dense/kernel'", "one integer"]),
        ({"num_keep": dense(-1)}, ValueError, ["'dense/kernel'", "-1", "0 or more"]),
        ({"num_keep": 2}, ValueError, ["'dense/kernel'", "num_keep"]),
        ({"num_keep": dense(None)}, ValueError, ["'dense/kernel'", "num_keep"]),
        ({"key": jax.random.PRNGKey(0)}, TypeError, ["typed key", "uint32"]),
        ({"key": jax.random.split(KEY, 2)}, TypeError, ["one key", "(2,)"]),
    ],
)
def test_prune_errors(arguments, error, parts):
    call = {"key": KEY, "scores": SCORES, "mask": KEEP, "num_keep": dense(3)} | arguments
    with pytest.raises(error) as caught:
        masks.prune(**call)
    for part in parts:
        assert part in str(caught.value)


def test_errors_under_jit_too():
    with pytest.raises(TypeError, match=r"'dense/kernel'.*float32.*expected one integer"):
        prune(KEY, SCORES, KEEP, dense(2.0))
    with pytest.raises(TypeError, match="of the mask has dtype float32, expected bool"):
        prune(KEY, SCORES, SCORES, dense(2))


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (
            lambda: masks.prune_global(KEY, SCORES, KEEP, 2.5, YES),
            TypeError,
            ["prune_global", "2.5", "integer"],
        ),
        (
            lambda: masks.prune_global(KEY, SCORES, KEEP, 2, {"dense": True}),
            ValueError,
            ["scores and prunable", "'dense/kernel'"],
        ),
        (
            lambda: masks.prune_global(KEY, dense(LEAF.at[0, 0].set(jnp.nan)), KEEP, 2, YES),
            ValueError,
            ["'dense/kernel'", "NaN"],
        ),
        (
            lambda: masks.prune_global(KEY, SCORES, KEEP, 2, dense(False)),
            ValueError,
            ["no leaf is prunable", "dense/kernel"],
        ),
        (
            lambda: masks.apply(KEEP, dense(LEAF[:2])),
            ValueError,
            ["'dense/kernel'", "[2, 5] in params", "[6, 5] in mask"],
        ),
        (
            lambda: masks.apply(KEEP, SCORES, dense(LEAF[:2])),
            ValueError,
            ["'dense/kernel'", "[2, 5] in fill"],
        ),
        (lambda: masks.density(KEEP, {"dense": True}), ValueError, ["mask and prunable"]),
        (
            lambda: masks.density(YES, KEEP),
            TypeError,
            ["'dense/kernel' of mask is True", "only prunable is a tree of Python bools"],
        ),
        (
            lambda: masks.prune_global(KEY, SCORES, KEEP, 5, YES, least=6),
            ValueError,
            ["least keeps 6 weights in all, but num_keep is 5"],
        ),
        (
            lambda: masks.prune_global(KEY, SCORES, KEEP, 5, YES, least=-1),
            ValueError,
            ["least is -1, expected an integer of 0 or more"],
        ),
        (
            lambda: masks.prune_global(KEY, SCORES, KEEP, 5, YES, least={"dense": 1}),
            ValueError,
            ["'dense/kernel' is in scores but not in least"],
        ),
        (lambda: masks.union(KEEP, dense(LEAF[:2])), ValueError, ["'dense/kernel'", "[2, 5] in b"]),
        (lambda: masks.intersection(KEEP, {}), ValueError, ["'dense/kernel'", "not in b"]),
        (lambda: masks.difference(KEEP, {}), ValueError, ["'dense/kernel'", "not in b"]),
        (lambda: masks.overlap(KEEP, {}, YES), ValueError, ["'dense/kernel'", "not in b"]),
        (lambda: masks.complement(KEEP, {}), ValueError, ["'dense/kernel'", "not in prunable"]),
        (lambda: masks.ones({"dense": 1.0}), TypeError, ["'dense'", "not an array"]),
        (
            lambda: masks.apply(SCORES, SCORES),
            TypeError,
            ["'dense/kernel'", "bool"],
        ),
    ],
)
def test_errors(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
