"""N:M sparsity and groups, against loops in NumPy over groups and weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax import actions, criteria, masks, rates, rounds, transforms, trees
from tests.bad_input import Case, check_error
from tests.trees import KINDS, assert_same_bits, assert_structure, draw, draw_mask, leaves

KEY = jax.random.key(0)
DIVIDED = [
    ((8,), 0, 4),
    ((4, 6), 0, 4),
    ((4, 6), -1, 3),
    ((4, 6), -2, 1),
    ((3, 8, 2), 1, 4),
    ((3, 2, 4, 8), 0, 3),
    ((3, 2, 4, 8), -2, 2),
    ((3, 2, 4, 8), -1, 8),
]
GROUPS = [
    ((5, 4), -1, 1),
    ((5, 4), 0, 1),
    ((8, 6), (-2, -1), (4, 2)),
    ((8, 6), (1, 0), (2, 4)),
    ((8, 6), (-1,), 3),
    ((3, 3, 2, 4), -1, 1),
    ((3, 3, 2, 4), (-1, -2), 1),
    ((3, 3, 2, 4), (0, 1), 1),
    ((2, 3, 4, 8), (-2, -1), 4),
    ((6,), 0, 2),
    ((2, 3), (0, 1), 1),  # every weight is a group
]


def best(scores, mask, count):
    """Return the places of the best of a list, where no two scores are equal."""
    order = sorted((i for i in range(len(scores)) if mask[i]), key=lambda i: -scores[i])
    return order[:count]


def n_m_reference(scores, mask, n, m, axis):
    new = np.zeros(mask.shape, bool)
    rows = zip(*(np.moveaxis(x, axis, -1).reshape(-1, m) for x in (scores, mask)), strict=True)
    chosen = np.zeros((mask.size // m, m), bool)
    for group, (score, kept) in enumerate(rows):
        chosen[group, best(score, kept, n)] = True
    turned = np.moveaxis(new, axis, -1)
    turned[...] = chosen.reshape(turned.shape)
    return new


def groups_of(shape, axes, block):
    """Number the group of every weight: one number per place."""
    axes = (axes,) if isinstance(axes, int) else axes
    blocks = (block,) * len(axes) if isinstance(block, int) else block
    names = {}
    number = np.zeros(shape, int)
    for place in np.ndindex(shape):
        name = tuple(place[axis] // size for axis, size in zip(axes, blocks, strict=True))
        number[place] = names.setdefault(name, len(names))
    return number


def groups_reference(scores, mask, count, axes, block=1):
    number = groups_of(mask.shape, axes, block)
    kinds = range(number.max() + 1)
    sums = [scores[mask & (number == kind)].sum() for kind in kinds]
    alive = [mask[number == kind].any() for kind in kinds]
    return mask & np.isin(number, best(sums, alive, count))


# N of every M


@pytest.mark.parametrize(("shape", "axis", "m"), DIVIDED)
def test_n_m_equals_reference(shape, axis, m):
    leaf = jnp.ones(shape)
    scores, mask = draw(leaf, 1), draw_mask(leaf, 2)
    for n in range(m + 1):
        new = masks.prune_n_m(KEY, scores, mask, True, n=n, m=m, axis=axis)
        expected = n_m_reference(np.asarray(scores), np.asarray(mask), n, m, axis)
        np.testing.assert_array_equal(new, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_n_m_of_every_tree(kind):
    """Groups are whole rows along the longest axis, which differs between leaves."""
    params = KINDS[kind]()
    prunable = trees.prunable_leaves(params)
    scores, mask = draw(params, 1), draw_mask(params, 2)
    axis = jax.tree.map(lambda w: w.shape.index(max(w.shape)), params)
    lengths = {max(w.shape) for w in jax.tree.leaves(params)}
    for m in lengths:
        yes = jax.tree.map(lambda w, p, m=m: p and max(w.shape) == m, params, prunable)
        new = masks.prune_n_m(KEY, scores, mask, yes, n=2, m=m, axis=axis)
        assert_structure(new, params)
        for _, score, before, after, chosen, place in leaves(scores, mask, new, yes, axis):
            expected = n_m_reference(score, before, 2, m, int(place)) if chosen else before
            np.testing.assert_array_equal(after, expected)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (3, 8), (4, 4), (0, 4)])
def test_n_of_every_m_are_kept_whatever_ties(n, m):
    for seed, step in itertools.product(range(5), (None, 1.0, 8.0)):
        scores = draw(jnp.ones((3, 16, 5)), seed, step)
        new = masks.prune_n_m(
            jax.random.key(seed), scores, masks.ones(scores), True, n=n, m=m, axis=-2
        )
        counts = new.reshape(3, 16 // m, m, 5).sum(axis=2)
        assert (counts == n).all()
        lost, kept = (
            jnp.where(chosen, scores, worst).reshape(3, -1, m, 5)
            for chosen, worst in ((~new, -jnp.inf), (new, jnp.inf))
        )
        assert (kept.min(axis=2) >= lost.max(axis=2)).all()


def test_ties_of_a_group_fall_at_random_and_apart():
    """Each pair of a group of four is kept equally often, and groups are independent."""
    scores = jnp.zeros((8, 1000))
    new = masks.prune_n_m(KEY, scores, masks.ones(scores), True, n=2, m=4, axis=0)
    codes = (new.reshape(2, 4, 1000) * jnp.array([1, 2, 4, 8])[:, None]).sum(axis=1)
    pairs, numbers = np.unique(codes, return_counts=True)
    assert len(pairs) == 6
    assert (np.abs(numbers - 2000 / 6) < 5 * np.sqrt(2000 * 5 / 36)).all()
    equal = int((codes[0] == codes[1]).sum())
    assert abs(equal - 1000 / 6) < 5 * np.sqrt(1000 * 5 / 36)
    again, other = (
        masks.prune_n_m(jax.random.key(k), scores, masks.ones(scores), True, n=2, m=4, axis=0)
        for k in (0, 1)
    )
    assert_same_bits(new, again)
    assert (new != other).any()


def test_nan_ranks_last_in_its_group_under_jit_and_is_an_error_outside():
    scores = jnp.array([jnp.nan, -1.0, -jnp.inf, 0.0, jnp.nan, jnp.nan, 1.0, -0.0])
    mask = jnp.ones(8, bool)
    call = jax.jit(lambda n: masks.prune_n_m(KEY, scores, mask, True, n=n, m=4, axis=0))
    assert np.flatnonzero(call(1)).tolist() == [3, 6]
    assert np.flatnonzero(call(2)).tolist() == [1, 3, 6, 7]
    assert np.flatnonzero(call(3))[:3].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="4 of the 8 scores of leaf '' are NaN or infinite"):
        masks.prune_n_m(KEY, scores, mask, True, n=2, m=4, axis=0)
    assert masks.prune_n_m(KEY, scores, mask, True, n=4, m=4, axis=0).all()


# Groups


@pytest.mark.parametrize(("shape", "axes", "block"), GROUPS)
def test_groups_equal_reference(shape, axes, block):
    leaf = jnp.ones(shape)
    scores, mask = draw(leaf, 1), draw_mask(leaf, 2)
    number = groups_of(shape, axes, block)
    for count in range(number.max() + 3):
        new = masks.prune_groups(KEY, scores, mask, count, True, axes=axes, block=block)
        expected = groups_reference(np.asarray(scores), np.asarray(mask), count, axes, block)
        np.testing.assert_array_equal(new, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_every_tree(kind):
    params = KINDS[kind]()
    prunable = trees.prunable_leaves(params)
    scores, mask = draw(params, 1), draw_mask(params, 2)
    num_keep = jax.tree.map(lambda w: w.shape[-1] // 2, params)
    new = masks.prune_groups(KEY, scores, mask, num_keep, prunable, axes=-1)
    assert_structure(new, params)
    for _, score, before, after, yes in leaves(scores, mask, new, prunable):
        count = before.shape[-1] // 2
        expected = groups_reference(score, before, count, -1) if yes else before
        np.testing.assert_array_equal(after, expected)


def test_ties_of_groups_fall_at_random():
    scores, mask = jnp.zeros((2, 6)), jnp.ones((2, 6), bool)
    keys = jax.random.split(KEY, 2000)
    prune = jax.vmap(lambda key: masks.prune_groups(key, scores, mask, 3, True, axes=-1))
    new = prune(keys)
    assert (new.any(axis=1) == new.all(axis=1)).all()
    assert (new.any(axis=1).sum(axis=1) == 3).all()
    share = np.asarray(new[:, 0].mean(axis=0))
    assert (np.abs(share - 0.5) < 5 * np.sqrt(0.25 / 2000)).all()
    assert_same_bits(new[7], masks.prune_groups(keys[7], scores, mask, 3, True, axes=-1))


def test_a_group_without_weights_is_pruned_already():
    mask = jnp.ones((3, 4), bool).at[:, 1].set(False)
    scores = jnp.full((3, 4), -1.0).at[:, 1].set(jnp.nan)  # the pruned group is not looked at
    new = masks.prune_groups(KEY, scores, mask, 3, True, axes=-1)
    assert_same_bits(new, mask)
    assert masks.prune_groups(KEY, scores, mask, 2, True, axes=-1).any(axis=0).sum() == 2


def test_large_final_ranks_units_by_their_l1_norm():
    w = draw(jnp.ones((20, 10)), 1)
    new = masks.prune_groups(KEY, criteria.large_final(w, w), masks.ones(w), 4, True, axes=-1)
    norms = np.abs(np.asarray(w)).sum(axis=0)
    assert set(np.flatnonzero(new.all(axis=0))) == set(np.argsort(norms)[-4:])


def test_excluded_weights_whose_sums_overflow_rank_last():
    w = jnp.ones((3, 4))
    scores = criteria.large_final_same_sign(w.at[:, 2].set(-1.0), w)
    new = masks.prune_groups(KEY, scores, masks.ones(w), 3, True, axes=-1)
    assert new.all(axis=0).tolist() == [True, True, False, True]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn])
def test_low_precision(dtype):
    scores = draw(jnp.ones((8, 6)), 1, step=1.0)
    low, mask = scores.astype(dtype), masks.ones(scores)
    with jax.numpy_dtype_promotion("strict"):
        new = [f(low, mask) for f in CALLS.values()]
    assert_same_bits(new, [f(scores, mask) for f in CALLS.values()])


# Both


def test_empty_leaves_stay_empty():
    leaf, mask = jnp.ones((0, 4)), jnp.ones((0, 4), bool)
    for axis in (0, 1):
        assert masks.prune_n_m(KEY, leaf, mask, True, n=1, m=4, axis=axis).shape == (0, 4)
        assert masks.prune_groups(KEY, leaf, mask, 1, True, axes=axis).shape == (0, 4)


CALLS = {
    "n_m": lambda scores, mask, key=KEY, count=1: masks.prune_n_m(
        key, scores, mask, True, n=count, m=4, axis=0
    ),
    "units": lambda scores, mask, key=KEY, count=3: masks.prune_groups(
        key, scores, mask, count, True, axes=-1
    ),
    "blocks": lambda scores, mask, key=KEY, count=3: masks.prune_groups(
        key, scores, mask, count, True, axes=(0, 1), block=(4, 2)
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("step", [None, 1.0])
def test_jit_with_traced_counts_and_vmap_equal_eager(call, step):
    shape = jnp.ones((8, 6))
    scores = jnp.stack([draw(shape, seed, step) for seed in range(4)])
    mask = jnp.stack([draw_mask(shape, seed) for seed in range(4)])
    keys, counts = jax.random.split(KEY, 4), jnp.array([0, 1, 2, 4])
    together = jax.vmap(call)(scores, mask, keys, counts)
    for i in range(4):
        alone = call(scores[i], mask[i], keys[i], int(counts[i]))
        assert_same_bits(together[i], alone)
        assert_same_bits(jax.jit(call)(scores[i], mask[i], keys[i], counts[i]), alone)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_traced_count_compiles_once(call):
    traces = []

    @jax.jit
    def traced(scores, mask, count):
        traces.append(1)
        return call(scores, mask, count=count)

    scores = draw(jnp.ones((8, 6)), 1)
    for count in (2, 1, 0):
        traced(scores, masks.ones(scores), count)
    assert len(traces) == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_inside_shard_map(call):
    mesh = jax.make_mesh((1,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("members")
    scores, mask = draw(jnp.ones((8, 6)), 1, 1.0), draw_mask(jnp.ones((8, 6)), 2)
    mapped = jax.shard_map(
        lambda key, s, m: call(s[0], m[0], key[0])[None], mesh=mesh, in_specs=spec, out_specs=spec
    )
    assert_same_bits(mapped(KEY[None], scores[None], mask[None])[0], call(scores, mask))


def test_masks_of_units_compose_with_the_rest():
    """Units and their biases go for good, then 2:4, then rounds of single weights."""
    shapes = {"kernel": (8, 6), "bias": (6,)}
    params = draw({name: jnp.ones(shape) for name, shape in shapes.items()}, 1)
    prunable = trees.prunable_leaves(params)
    scores, whole = criteria.large_final(params, params), masks.ones(params)
    units = masks.prune_groups(KEY, scores, whole, {"kernel": 4, "bias": 6}, prunable, axes=-1)
    left = units["kernel"].any(axis=0)
    units["bias"] &= left
    mask = masks.prune_n_m(KEY, scores, units, prunable, n=2, m=4, axis=0)
    assert (masks.difference(mask, units)["kernel"].sum(), mask["kernel"].sum()) == (0, 16)
    assert_same_bits(mask["bias"], units["bias"])

    state = rounds.begin(params, mask)
    per_round = rates.rates_by_path(params, [], default=0.25)
    state = rounds.advance(
        KEY, state, params, criterion=criteria.large_final, mask_one=actions.rewind,
        mask_zero=actions.zero, prunable=prunable,
        num_keep=rates.keep_counts(params, per_round, 1, start=mask),
    )  # fmt: skip
    assert state.mask["kernel"].sum() == 12
    start = rounds.start_params(state)
    assert (start["bias"] == jnp.where(left, params["bias"], 0)).all()

    optimizer = transforms.freeze_pruned(optax.adam(0.1))
    updates, _ = optimizer.update(params, optimizer.init(start), start, mask=state.mask)
    assert (updates["bias"] != 0).tolist() == left.tolist()
    assert not (updates["kernel"] * ~left).any()


# Wrong input

TREE = {"dense": {"kernel": jnp.ones((6, 4)), "bias": jnp.ones(4)}}
YES = {"dense": {"kernel": True, "bias": False}}
COUNTS = {"dense": {"kernel": 2, "bias": 4}}


def n_m(**changes):
    call = {"key": KEY, "scores": TREE, "mask": masks.ones(TREE), "prunable": YES}
    return masks.prune_n_m(**(call | {"n": 2, "m": 4, "axis": -1} | changes))


def groups(**changes):
    call = {"key": KEY, "scores": TREE, "mask": masks.ones(TREE), "num_keep": COUNTS}
    return masks.prune_groups(**(call | {"prunable": YES, "axes": -1} | changes))


INTEGERS = jax.tree.map(lambda w: w.astype(int), TREE)
NANS = jax.tree.map(lambda w: w * jnp.nan, TREE)
WRONG = [
    Case("ranges", lambda: n_m(axis=0), ValueError,
         "m is 4, which does not divide the length 6 of axis 0 of leaf 'dense/kernel'; choose"),
    Case("ranges", lambda: n_m(n=5), ValueError, "n is 5, more than m, which is 4"),
    Case("ranges", lambda: n_m(n=-1), ValueError, "n is -1, expected 0 or more"),
    Case("types", lambda: n_m(n=1.5), TypeError, "n is 1.5, expected one integer"),
    Case("ranges", lambda: n_m(m=0), ValueError, "m is 0, expected an integer of 1 or more"),
    Case("ranges", lambda: n_m(axis=2), ValueError,
         r"leaf 'dense/kernel' of shape \[6, 4\] has no axis 2"),
    Case("ranges", lambda: n_m(axis=-3), ValueError,
         "axis of leaf 'dense/kernel' is -3, expected an integer of -2 or more"),
    Case("types", lambda: n_m(axis="in"), ValueError, "axis of leaf 'dense/kernel' is 'in'"),
    Case("names", lambda: n_m(axis={"dense": {"kernel": 0}}), ValueError, "in scores but not in a"),
    Case("types", lambda: n_m(prunable=jax.tree.map(int, YES)), TypeError, "expected True or Fal"),
    Case("dtypes", lambda: n_m(scores=INTEGERS), TypeError, "'dense/kernel' have dtype int32"),
    Case("dtypes", lambda: n_m(mask=TREE), TypeError, "has dtype float32, expected bool"),
    Case("ranges", lambda: n_m(scores=NANS), ValueError, "24 of the 24 scores of leaf 'dense/ker"),
    Case("types", lambda: n_m(key=0), TypeError, "expected a typed key"),
    Case("ranges", lambda: groups(axes=2), ValueError, r"of shape \[6, 4\] has no axis 2"),
    Case("duplicates", lambda: groups(axes=(1, -1)), ValueError,
         r"axes is \(1, -1\), which names axis 1 of leaf 'dense/kernel' twice"),
    Case("empty lists", lambda: groups(axes=()), ValueError, r"axes is \(\) and block is 1, expec"),
    Case("shapes", lambda: groups(block=(2, 2)), ValueError, r"axes is -1|block is \(2, 2\)"),
    Case("ranges", lambda: groups(block=3), ValueError,
         "block is 3, which does not divide the length 4 of axis -1 of leaf 'dense/kernel'"),
    Case("ranges", lambda: groups(block=0), ValueError, "block is 0, expected an integer of 1"),
    Case("types", lambda: groups(axes=1.5), ValueError, "axis of leaf 'dense/kernel' is 1.5"),
    Case("types", lambda: groups(num_keep=jax.tree.map(float, COUNTS)), TypeError,
         "num_keep of leaf 'dense/kernel' is 2.0, expected one integer"),
    Case("ranges", lambda: groups(num_keep={"dense": {"kernel": -1, "bias": 4}}), ValueError,
         "num_keep of leaf 'dense/kernel' is -1, expected 0 or more"),
    Case("names", lambda: groups(num_keep=3), ValueError, "scores and num_keep are different"),
    Case("dtypes", lambda: groups(scores=INTEGERS), TypeError, "'dense/kernel' have dtype int32"),
    Case("ranges", lambda: groups(scores=NANS), ValueError, "24 of the 24 scores of leaf 'dense/k"),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_ends_in_one_line(case):
    check_error(case)


def test_a_full_count_leaves_a_leaf_alone_whatever_its_scores():
    assert_same_bits(n_m(scores=NANS, n=4), masks.ones(TREE))
    full = {"dense": {"kernel": 4, "bias": 0}}
    assert_same_bits(groups(scores=NANS, num_keep=full), masks.ones(TREE))
