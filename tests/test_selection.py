"""Selection by counting makes the masks of sorting, bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermask_jax import masks, random_bits, selection
from tests.trees import assert_same_bits, draw_mask
from tools.benchmark.sorting import prune_by_sorting

SHAPE = (6, 11)
SIZE = 66
FLOATS = ["float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float64"]
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 448.0, -448.0, 1.0]


def draw_scores(seed, dtype, step, special):
    """Draw scores, a share of them special; rounded to multiples of `step`, many are equal."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(SHAPE)
    scores = np.round(scores / step) * step if step else scores
    scores = np.where(rng.random(SHAPE) < special, rng.choice(SPECIAL, SHAPE), scores)
    return jnp.asarray(scores).astype(dtype)


@functools.cache
def programs(dtype, impl):
    select = jax.jit(lambda *args: selection.highest(args[0], [args[1]], [args[2]], args[3])[0])
    return select, jax.jit(prune_by_sorting)


@pytest.mark.parametrize("dtype", FLOATS)
@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([None, 0.5, 8.0]),
    special=st.sampled_from([0.0, 0.1, 1.0]),
    density=st.sampled_from([0.0, 0.5, 1.0]),
    count=st.integers(-3, SIZE + 3),
)
def test_selection_equals_sorting(dtype, seed, step, special, density, count):
    with jax.enable_x64(dtype == "float64"):
        scores = draw_scores(seed, dtype, step, special)
        mask = draw_mask(scores, seed, density)
        select, by_sorting = programs(dtype, "threefry2x32")
        arguments = jax.random.key(seed), scores, mask, jnp.int32(count)
        assert_same_bits(select(*arguments), by_sorting(*arguments))


@pytest.mark.parametrize("impl", ["threefry2x32", "philox4x32", "rbg", "unsafe_rbg"])
def test_ties_fall_as_in_sorting_for_every_kind_of_key(impl):
    scores, mask = draw_scores(1, "float32", 1.0, 0.2), draw_mask(jnp.ones(SHAPE), 2)
    select, by_sorting = programs("float32", impl)
    for count in range(0, SIZE, 5):
        arguments = jax.random.key(count, impl=impl), scores, mask, jnp.int32(count)
        assert_same_bits(select(*arguments), by_sorting(*arguments))


def test_ties_of_an_older_layout_of_the_counters():
    scores, mask = jnp.zeros(SHAPE), jnp.ones(SHAPE, bool)
    with jax.threefry_partitionable(False):
        select, by_sorting = jax.jit(masks.prune), jax.jit(prune_by_sorting)
        key = jax.random.key(0)
        pruned = select(key, scores, mask, jnp.int32(30))
        leaf_key = jax.random.fold_in(key, 0)
        assert_same_bits(pruned, by_sorting(leaf_key, scores, mask, jnp.int32(30)))


@pytest.mark.parametrize("count", range(0, SIZE, 3))
def test_equal_bits_are_taken_by_place(monkeypatch, count):
    """As sorting does, whose last key is the place."""

    def coarse(bits):
        return bits >> np.uint32(30)

    whole, part = jax.random.bits, selection.random_bits
    monkeypatch.setattr(jax.random, "bits", lambda *args: coarse(whole(*args)))
    monkeypatch.setattr(selection, "random_bits", lambda *args: coarse(part(*args)))
    scores, mask = draw_scores(3, "float32", 8.0, 0.0), draw_mask(jnp.ones(SHAPE), 4)
    key, number = jax.random.key(5), jnp.int32(count)
    (chosen,) = selection.highest(key, [scores], [mask], number)
    assert_same_bits(chosen, prune_by_sorting(key, scores, mask, number))


@pytest.mark.parametrize("own", ["key", "scores", "mask", "num_keep"])
def test_members_by_vmap_equal_sorting(own):
    """Whatever differs between members, with ties, equal to sorting one by one."""
    keys, counts = jax.random.split(jax.random.key(0), 3), jnp.array([50, 7, 0], jnp.int32)
    scores = jnp.stack([draw_scores(seed, "float32", 1.0, 0.1) for seed in range(3)])
    kept = jnp.stack([draw_mask(jnp.ones(SHAPE), seed) for seed in range(3)])
    members = {"key": keys, "scores": scores, "mask": kept, "num_keep": counts}
    names = list(members)
    axes = [0 if name == own else None for name in names]
    arguments = [members[name] if name == own else members[name][0] for name in names]

    def select(key, scores, mask, count):
        return selection.highest(key, [scores], [mask], count)[0]

    together = jax.jit(jax.vmap(select, in_axes=axes))(*arguments)
    for m in range(3):
        one = [members[name][m if name == own else 0] for name in names]
        assert_same_bits(together[m], jax.jit(prune_by_sorting)(*one))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 80), step=st.sampled_from([None, 2.0]))
def test_several_leaves_are_selected_as_their_joined_vector(seed, count, step):
    whole = draw_scores(seed, "float32", step, 0.1).ravel()
    kept = draw_mask(whole, seed)
    shapes, ends = [(3, 5), (), (2, 5, 3), (0, 4), (20,)], [15, 16, 46, 46]
    parts, among = (
        [part.reshape(shape) for part, shape in zip(jnp.split(x, ends), shapes, strict=True)]
        for x in (whole, kept)
    )
    key = jax.random.key(seed)
    found = _highest(key, parts, among, jnp.int32(count))
    assert [leaf.shape for leaf in found] == shapes
    joined = jnp.concatenate([leaf.ravel() for leaf in found])
    assert_same_bits(joined, _by_sorting(key, whole, kept, jnp.int32(count)))


_highest, _by_sorting = jax.jit(selection.highest), jax.jit(prune_by_sorting)


def test_subnormal_scores_are_told_apart():
    scores = jnp.array([0.0, 1e-44, 2e-44, -1e-44, 3e-44], jnp.float32)
    (chosen,) = selection.highest(jax.random.key(0), [scores], [jnp.ones(5, bool)], jnp.int32(2))
    assert np.flatnonzero(chosen).tolist() == [2, 4]


@pytest.mark.parametrize("own", ["key", "scores", "num_keep"])
def test_devices_select_for_themselves_inside_shard_map(own):
    """Whatever differs between devices, as the types of values that vary over devices demand."""
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    values = {
        "key": jax.random.split(jax.random.key(1), 4),
        "scores": draw_scores(0, "float32", 1.0, 0.0)[:4],
        "num_keep": jnp.array([4, 9, 0, 1], jnp.int32),
    }
    spec = jax.sharding.PartitionSpec
    specs = tuple(spec("x") if name == own else spec() for name in values)
    arguments = [value if name == own else value[:1] for name, value in values.items()]
    mask = jnp.ones(11, bool)

    def local(key, scores, count):
        return selection.highest(key[0], [scores[0]], [mask], count[0])[0]

    found = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=spec("x")))(
        *arguments
    )
    for device in range(4):
        key, scores, count = (x[device if name == own else 0] for name, x in values.items())
        assert_same_bits(found.reshape(4, 11)[device], prune_by_sorting(key, scores, mask, count))


@pytest.mark.parametrize("impl", ["threefry2x32", "philox4x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (7,), (2, 1, 5)])
def test_random_bits_are_those_of_jax(impl, shape):
    key, like = jax.random.key(7, impl=impl), jnp.ones(shape, jnp.bfloat16)
    size = like.size + 9

    @jax.jit
    def draw(key):
        part = random_bits.random_bits(key, like, 5, size)
        return part, jax.random.bits(key, (size,), jnp.uint32)[5:-4].reshape(shape)

    assert_same_bits(*draw(key))
