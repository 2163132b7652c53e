import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax import population
from supermask_jax.training import Stream, make_training
from supermask_jax.transforms import freeze_pruned
from tests.trees import assert_same_bits, draw, draw_mask

pytestmark = pytest.mark.optimized

PARAMS = {
    "hidden": {"kernel": jnp.ones((6, 16)), "bias": jnp.ones(16)},
    "output": {"kernel": jnp.ones((16, 3)), "bias": jnp.ones(3)},
}
DATA = {
    "x": draw(jnp.ones((64, 6)), 1),
    "y": jnp.asarray(np.random.default_rng(2).integers(0, 3, 64), jnp.int32),
    "order": jnp.asarray(np.random.default_rng(3).integers(0, 64, (8, 25, 10)), jnp.int32),
}


def cross_entropy(params, x, y):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


TRAINING = make_training(
    lambda params, batch, key, context: (cross_entropy(params, *batch), {}),
    lambda params, data, context: {"loss": cross_entropy(params, data["x"], data["y"])},
    freeze_pruned(optax.adam(0.01)),
    lambda data, stream, step: (
        data["x"][data["order"][stream, step]],
        data["y"][data["order"][stream, step]],
    ),
    num_steps=25,
    eval_every=10,
    chunk_evals=4,
)


def train(state, stream, data):
    return TRAINING.run_chunk(state, stream, jnp.int32(0), data)


def member(seed):
    context = {"mask": draw_mask(PARAMS, seed)}
    return (
        TRAINING.init(draw(PARAMS, seed)),
        Stream(jnp.int32(seed), jax.random.key(seed), context),
    )


@functools.cache
def solo(seed):
    return jax.jit(train)(*member(seed), DATA)


@functools.cache
def together(seeds, batch_size=None, devices=0):
    mesh = population.make_mesh(jax.devices()[:devices]) if devices else None
    states, streams = population.stack([member(seed) for seed in seeds])
    data = DATA
    if mesh:
        states, streams = population.shard((states, streams), mesh)
        data = population.replicate(data, mesh)
    mapped = population.map_members(train, batch_size=batch_size, mesh=mesh)
    return jax.jit(mapped)(states, streams, data)


@pytest.mark.parametrize(
    ("seeds", "devices"),
    [((3,), 0), ((5, 0, 1, 3), 0), ((3, 5), 1), ((7, 6, 5, 4, 3, 2, 1, 0), 4)],
)
def test_one_by_one_equals_solo_to_the_bit(seeds, devices):
    """Alone, in any slot, among any others, on any number of devices."""
    result = together(seeds, devices=devices)
    if devices > 1:
        assert len(result[0].step.sharding.device_set) == devices
    for slot, seed in enumerate(seeds):
        assert_same_bits(population.take(result, slot), solo(seed))


@pytest.mark.parametrize(("batch_size", "devices"), [(2, 0), (1, 4), (2, 2)])
def test_vmapped_equals_solo_within_rounding(batch_size, devices):
    seeds = (0, 1, 2, 3)
    result = jax.device_get(together(seeds, batch_size, devices))
    for slot, seed in enumerate(seeds):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            population.take(result, slot),
            solo(seed),
        )


def test_members_differ():
    assert (solo(0)[0].params["hidden"]["kernel"] != solo(1)[0].params["hidden"]["kernel"]).any()


def test_a_donated_state_is_used_up():
    states, streams = population.stack([member(seed) for seed in (0, 1)])
    states = jax.tree.map(jnp.copy, states)
    result = jax.jit(population.map_members(train), donate_argnums=0)(states, streams, DATA)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states))
    assert_same_bits(population.take(result, 1), solo(1))


@pytest.mark.parametrize("devices", [0, 4])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_the_loss_and_the_evaluation_are_traced_once(batch_size, devices):
    traced = []

    def loss(params, batch, key, context):
        traced.append("loss")
        return jnp.sum(params**2), {}

    def evaluate(params, data, context):
        traced.append("evaluate")
        return {"loss": jnp.sum(params)}

    training = make_training(
        loss, evaluate, optax.adam(0.1), lambda data, stream, step: None,
        num_steps=6, eval_every=2, chunk_evals=2,
    )  # fmt: skip
    states = jax.vmap(training.init)(jnp.ones((4, 3)))
    streams = Stream(jnp.arange(4), jax.random.split(jax.random.key(0), 4), {})
    mesh = population.make_mesh(jax.devices()[:devices]) if devices else None
    mapped = population.map_members(training.run_chunk, batch_size=batch_size, mesh=mesh)
    jax.eval_shape(mapped, states, streams, jnp.int32(0), None)
    assert sorted(traced) == ["evaluate", "loss"]


@pytest.mark.parametrize("devices", [0, 1, 4])
@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_any_function_of_a_member(batch_size, devices):
    """States, inputs and outputs have several types and shapes; several arguments are shared."""

    def fn(state, key, scale, shift):
        value = state["value"] * scale + shift
        return {"value": value, "count": state["count"] + 1}, (jax.random.key_data(key), value > 0)

    values = draw(jnp.ones((8, 3)), 0)
    states = {"value": values, "count": jnp.arange(8)}
    keys = jax.random.split(jax.random.key(0), 8)
    mesh = population.make_mesh(jax.devices()[:devices]) if devices else None
    mapped = population.map_members(fn, batch_size=batch_size, mesh=mesh)
    state, (data, positive) = jax.jit(mapped)(states, keys, jnp.float32(2), jnp.ones(3))
    np.testing.assert_array_equal(state["value"], values * 2 + 1)
    np.testing.assert_array_equal(state["count"], np.arange(1, 9))
    np.testing.assert_array_equal(data, jax.random.key_data(keys))
    np.testing.assert_array_equal(positive, values * 2 + 1 > 0)


MEMBERS = [{"a": jnp.full(2, float(m)), "b": jnp.int32(m)} for m in range(5)]


def test_stack_take_concatenate_and_count():
    five = population.stack(MEMBERS)
    assert population.num_members(five) == 5
    assert five["a"].shape == (5, 2)
    for m, one in enumerate(MEMBERS):
        assert_same_bits(population.take(five, m), one)
    parts = [population.take(five, slice(0, 2)), population.take(five, jnp.array([2, 3, 4]))]
    assert_same_bits(population.concatenate(parts), five)


@pytest.mark.parametrize(("multiple", "size"), [(1, 5), (5, 5), (4, 8), (8, 8)])
def test_pad_repeats_the_last_member(multiple, size):
    five = population.stack(MEMBERS)
    padded = population.pad(five, multiple)
    assert population.num_members(padded) == size
    assert padded["b"].tolist() == [0, 1, 2, 3, 4, 4, 4, 4][:size]
    assert_same_bits(population.take(padded, slice(0, 5)), five)


def test_pad_takes_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    padded = population.pad({"key": keys, "mask": jnp.ones((3, 2), bool)}, 4)
    assert padded["key"].shape == (4,)
    assert (jax.random.key_data(padded["key"][3]) == jax.random.key_data(keys[2])).all()


@pytest.mark.parametrize(
    ("impl", "alike"),
    [("threefry2x32", True), ("philox4x32", True), ("rbg", False), ("unsafe_rbg", False)],
)
def test_members_by_vmap_draw_what_they_draw_alone_unless_their_keys_are_rbg(impl, alike):
    keys = jax.random.split(jax.random.key(0, impl=impl), 4)

    def draw_one(state, key):
        return state, jax.random.normal(key, (3,))

    _, alone = population.map_members(draw_one)(jnp.zeros(4), keys)
    _, together = population.map_members(draw_one, batch_size=4)(jnp.zeros(4), keys)
    assert bool((alone == together).all()) == alike


@pytest.mark.parametrize(
    "index", [True, False, np.True_, np.array(True), jnp.array(True), (0, 1), [0, 1], "0", None]
)
def test_what_is_no_index(index):
    with pytest.raises(TypeError, match=r"index is .*, expected an int, a slice or an array"):
        population.take(population.stack(MEMBERS), index)


def test_a_mask_of_members_is_an_index():
    chosen = population.take(population.stack(MEMBERS), np.array([True, False, True, False, False]))
    assert chosen["b"].tolist() == [0, 2]


def test_shard_and_replicate():
    mesh = population.make_mesh()
    assert mesh.size == len(jax.devices()) == 4
    eight = jnp.arange(8.0)
    assert [s.data.shape for s in population.shard(eight, mesh).addressable_shards] == [(2,)] * 4
    assert population.replicate(eight, mesh).sharding.is_fully_replicated


def call(members=4, inputs=4, **options):
    mapped = population.map_members(lambda state, x: (state, x), **options)
    return mapped(jnp.zeros(members), jnp.zeros(inputs))


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (
            lambda: population.map_members(train, batch_size=0),
            ["batch_size is 0", "integer of 1 or more"],
        ),
        (lambda: call(5, 5, batch_size=2), ["5 members", "multiple of 2", "population.pad"]),
        (lambda: call(6, 6, mesh=population.make_mesh()), ["6 members", "multiple of 4", "pad"]),
        (
            lambda: call(4, 4, batch_size=2, mesh=population.make_mesh()),
            ["4 members", "multiple of 8", "devices x batch size"],
        ),
        (lambda: call(4, 3), ["common leading axis", "3", "4"]),
        (lambda: population.num_members({}), ["common leading axis"]),
        (lambda: population.num_members({"a": jnp.float32(1)}), ["common leading axis", "found"]),
        (
            lambda: population.num_members({"a": jnp.ones(2), "b": jnp.ones(3)}),
            ["common leading axis", "2", "3"],
        ),
    ],
)
def test_errors(function, parts):
    with pytest.raises(ValueError) as caught:
        function()
    for part in parts:
        assert part in str(caught.value)
