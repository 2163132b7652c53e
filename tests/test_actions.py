import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermask_jax import actions
from supermask_jax.actions import MASK_ONE, MASK_ZERO
from tests import reference
from tests.trees import (
    KINDS,
    assert_same_bits,
    assert_structure,
    draw,
    draw_mask,
    leaves,
)

KEY = jax.random.key(0)
ACTIONS = MASK_ONE | MASK_ZERO
REFERENCE = reference.MASK_ONE | reference.MASK_ZERO
RANDOM = [
    "reinit",
    "reshuffle",
    "constant",
    "reinit_keep_sign",
    "reshuffle_keep_sign",
    "zero_shuffled",
]
LEAF = jnp.ones((5, 4))


def call(name, key, params, seed=1):
    return ACTIONS[name](key, draw(params, seed), draw(params, seed + 1), draw_mask(params, seed))


def test_reference_has_every_action():
    assert set(reference.MASK_ONE) == set(MASK_ONE)
    assert set(reference.MASK_ZERO) == set(MASK_ZERO)


@pytest.mark.parametrize("step", [None, 0.5], ids=["distinct", "with_zeros_and_ties"])
@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_reference(kind, name, step):
    params = KINDS[kind]()
    w_i, w_f, mask = draw(params, 1, step), draw(params, 2, step), draw_mask(params, 3)
    values = ACTIONS[name](KEY, w_i, w_f, mask)
    assert_structure(values, params)
    for _, value, i, f, chosen in leaves(values, w_i, w_f, mask):
        assert value.dtype == i.dtype
        REFERENCE[name](value, i, f, chosen)


@pytest.mark.parametrize("name", ACTIONS)
def test_eager_equals_jit_and_loop_equals_vmap(name):
    members = [
        (jax.random.key(m), draw(LEAF, m), draw(LEAF, m + 9), draw_mask(LEAF, m)) for m in range(3)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(ACTIONS[name]))(*stacked)
    for m, member in enumerate(members):
        eager = ACTIONS[name](*member)
        for other in (jax.jit(ACTIONS[name])(*member), together[m]):
            np.testing.assert_allclose(other, eager, rtol=1e-6)  # std may round differently


@pytest.mark.parametrize("name", ACTIONS)
def test_low_precision_and_numpy(name):
    params = LEAF.astype(jnp.bfloat16)
    w_i, w_f = (draw(params, seed, 0.25).astype(jnp.bfloat16) for seed in (1, 2))
    mask = draw_mask(params, 3)
    values = ACTIONS[name](KEY, w_i, w_f, mask)
    assert values.dtype == jnp.bfloat16
    assert_same_bits(
        jnp.asarray(ACTIONS[name](KEY, np.asarray(w_i), np.asarray(w_f), np.asarray(mask))), values
    )


all_actions = jax.jit(lambda *inputs: {name: action(*inputs) for name, action in ACTIONS.items()})


@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([0.25, 1.0, 4.0]),
    density=st.floats(0, 1),
    dtype=st.sampled_from([jnp.float32, jnp.float16, jnp.bfloat16]),
)
def test_properties_whatever_the_weights(seed, step, density, dtype):
    """Few, many or only ties and zeros; few or all weights to set; also in 16 bits."""
    w_i, w_f = (draw(LEAF, s, step).astype(dtype) for s in (seed, seed + 1))
    mask = draw_mask(LEAF, seed, density)
    wide = [np.asarray(w, np.float64) for w in (w_i, w_f)]
    for name, values in all_actions(jax.random.key(seed), w_i, w_f, mask).items():
        assert (values.dtype, values.shape) == (dtype, LEAF.shape)
        if dtype == jnp.float32 or "constant" not in name:  # its std rounds to 16 bits
            REFERENCE[name](np.asarray(values, np.float64), *wide, np.asarray(mask))
        if name in ("reshuffle", "zero_shuffled"):
            np.testing.assert_array_equal(values[~mask], w_i[~mask])


@pytest.mark.parametrize("name", ACTIONS)
def test_the_key_decides_and_only_for_random_actions(name):
    params = {"a": LEAF, "b": LEAF}
    first, again, other = (call(name, jax.random.key(seed), params) for seed in (0, 0, 1))
    assert_same_bits(first, again)
    for _, a, b in leaves(first, other):
        assert (a != b).any() == (name in RANDOM)


@pytest.mark.parametrize("name", RANDOM)
def test_equal_leaves_draw_differently(name):
    w_i, w_f, mask = draw(LEAF, 1), draw(LEAF, 2), draw_mask(LEAF, 3)
    values = ACTIONS[name](KEY, (w_i, w_i), (w_f, w_f), (mask, mask))
    assert (values[0] != values[1]).any()


@pytest.mark.parametrize("name", ["reinit", "reshuffle", "zero_shuffled", "constant"])
def test_every_place_is_equally_likely(name):
    """The first of six weights is special; over many keys, it lands on all places equally often."""
    w_i = jnp.array([-9.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    w_f = w_i * jnp.array([0.5, 1, 1, 1, 1, 1])  # the first has shrunk
    mask = jnp.array([True, True, True, True, False, False])
    places = 4 if name in ("reshuffle", "zero_shuffled") else 6
    keys = jax.random.split(KEY, 3000)
    values = jax.jit(jax.vmap(lambda key: ACTIONS[name](key, w_i, w_f, mask)))(keys)
    special = values == 0 if name == "zero_shuffled" else values < 0
    assert (special.sum(axis=1) == 1).all()
    share = np.asarray(special.mean(axis=0))
    sigma = np.sqrt((1 / places) * (1 - 1 / places) / len(keys))
    assert (np.abs(share[:places] - 1 / places) < 5 * sigma).all()
    assert (share[places:] == 0).all()


@pytest.mark.parametrize("name", ["reshuffle", "zero_shuffled"])
@pytest.mark.parametrize("chosen", [False, True])
def test_all_or_nothing_asked_for(name, chosen):
    w_i, w_f, mask = draw(LEAF, 1), draw(LEAF, 2), jnp.full(LEAF.shape, chosen)
    values = np.asarray(ACTIONS[name](KEY, w_i, w_f, mask))
    REFERENCE[name](values, np.asarray(w_i), np.asarray(w_f), np.asarray(mask))
    assert chosen == (values != w_i).any()


def test_resample_draws_from_the_initialiser():
    def init(key):
        return {"kernel": jax.random.normal(key, (5, 4)), "bias": jnp.zeros(4)}

    w_i, mask = init(jax.random.key(7)), {"kernel": LEAF > 0, "bias": jnp.ones(4, bool)}
    assert_same_bits(actions.resample(init)(KEY, w_i, w_i, mask), init(KEY))
    signed = actions.keep_sign(actions.resample(init))(KEY, w_i, w_i, mask)
    np.testing.assert_array_equal(np.abs(signed["kernel"]), np.abs(init(KEY)["kernel"]))
    np.testing.assert_array_equal(np.sign(signed["kernel"]), np.sign(w_i["kernel"]))


ONE = {"dense": {"kernel": jnp.ones((3, 2))}}
KEEP = {"dense": {"kernel": jnp.ones((3, 2), bool)}}


@pytest.mark.parametrize("place", ["w_f", "mask"])
@pytest.mark.parametrize(
    ("wrong", "error", "part"),
    [
        ({"dense": {"weight": jnp.ones((3, 2))}}, ValueError, "'dense/kernel' is in w_i"),
        ({"dense": {"kernel": jnp.ones((2, 3))}}, ValueError, "'dense/kernel' has shape [3, 2]"),
        ({"dense": {"kernel": [1.0]}}, TypeError, "'dense/kernel/0' of"),
    ],
)
@pytest.mark.parametrize("name", ACTIONS)
def test_errors_name_the_leaf(name, wrong, error, part, place):
    arguments = {"w_f": ONE, "mask": KEEP} | {place: wrong}
    with pytest.raises(error) as caught:
        ACTIONS[name](KEY, ONE, arguments["w_f"], arguments["mask"])
    assert part in str(caught.value)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("key", [jax.random.PRNGKey(0), jax.random.split(KEY, 2), 0])
def test_a_wrong_key_is_an_error(name, key):
    with pytest.raises(TypeError, match=r"expected (a typed|one) key"):
        ACTIONS[name](key, ONE, ONE, KEEP)


def test_an_initialiser_of_another_network_is_an_error():
    action = actions.resample(lambda key: {"dense": {"kernel": jnp.ones((2, 3))}})
    with pytest.raises(ValueError, match=r"'dense/kernel' has shape .* in initialised"):
        action(KEY, ONE, ONE, KEEP)


@pytest.mark.parametrize("name", ["reshuffle", "zero_shuffled"])
def test_a_mask_of_integers_is_an_error(name):
    with pytest.raises(TypeError, match=r"'dense/kernel'.*bool"):
        ACTIONS[name](KEY, ONE, ONE, jax.tree.map(lambda m: m.astype(int), KEEP))
