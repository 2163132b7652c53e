import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from supermask_jax import analysis, masks, trees
from tests import reference
from tests.trees import KERNELS, KINDS, draw, draw_mask, leaves

MATRIX = jnp.ones((9, 8))
YES = {"a": True, "b": True}
overlap = jax.jit(functools.partial(analysis.overlap_beyond_chance, prunable=YES))


def prunable_of(params):
    return trees.prunable_leaves(params)


def share(values):
    return sum(values) / len(values) if values else math.nan


def assert_per_layer(found, expected, overall):
    assert {name: float(value) for name, value in found.layers.items()} == pytest.approx(
        expected, rel=1e-5, abs=1e-6, nan_ok=True
    )
    assert float(found.overall) == pytest.approx(overall, rel=1e-5, abs=1e-6, nan_ok=True)
    assert all(x.dtype == jnp.float32 and x.shape == () for x in jax.tree.leaves(found))


FRACTIONS = {
    analysis.sign_agreement: lambda i, f: reference.sign(i) == reference.sign(f),
    analysis.fraction_shrunk: lambda i, f: abs(f) < abs(i),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", FRACTIONS, ids=lambda function: function.__name__)
def test_fractions_equal_one_weight_at_a_time(function, kind):
    params = KINDS[kind]()
    w_i, w_f, chosen = draw(params, 1, 0.5), draw(params, 2, 0.5), draw_mask(params, 3)
    found = function(w_i, w_f, chosen, prunable_of(params))
    true = {
        path: [FRACTIONS[function](i[place], f[place]) for place in np.ndindex(c.shape) if c[place]]
        for path, i, f, c in leaves(w_i, w_f, chosen)
        if path in KERNELS[kind]
    }
    everything = [value for values in true.values() for value in values]
    assert_per_layer(
        found, {path: share(values) for path, values in true.items()}, share(everything)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_densities_equal_a_count(kind):
    params = KINDS[kind]()
    mask, prunable = draw_mask(params, 1, 0.3), prunable_of(params)
    kept = {path: m.ravel().tolist() for path, m in leaves(mask) if path in KERNELS[kind]}
    found = analysis.layer_densities(mask, prunable)
    assert_per_layer(
        found,
        {path: share(m) for path, m in kept.items()},
        share([x for m in kept.values() for x in m]),
    )
    assert found.overall == masks.density(mask, prunable)


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_is_cohens_kappa(kind):
    params = KINDS[kind]()
    a, b = draw_mask(params, 1, 0.4), draw_mask(params, 2, 0.7)
    found = analysis.overlap_beyond_chance(a, b, prunable_of(params))
    kappas, beyond, possible = {}, 0.0, 0.0
    for path, x, y in leaves(a, b):
        if path in KERNELS[kind]:
            kappas[path] = cohen_kappa_score(x.ravel(), y.ravel())
            by_chance = x.mean() * y.mean() + (1 - x.mean()) * (1 - y.mean())
            beyond += x.size * ((x == y).mean() - by_chance)
            possible += x.size * (1 - by_chance)
    assert_per_layer(found, kappas, beyond / possible)


@given(
    seed=st.integers(0, 2**32 - 1),
    densities=st.tuples(*[st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])] * 2),
)
def test_overlap_properties(seed, densities):
    tree = {"a": MATRIX, "b": MATRIX}
    a, b = (draw_mask(tree, seed + place, d) for place, d in enumerate(densities))
    assert_per_layer(overlap(a, a), {"a": 1.0, "b": 1.0}, 1.0)
    one, other = overlap(a, b), overlap(b, a)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert -1 <= x <= 1 and x == y
    # Keeping and pruning are symmetric.
    mirrored = overlap(masks.complement(a, YES), masks.complement(b, YES))
    np.testing.assert_allclose(jax.tree.leaves(mirrored), jax.tree.leaves(one), atol=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(0.0, 0.0, 1), (1.0, 1.0, 1), (0.0, 1.0, 0), (1.0, 0.5, 0), (0.5, 0.0, 0)],
)
def test_overlap_of_masks_that_keep_all_or_nothing(one, other, expected):
    a, b = (draw_mask(MATRIX, seed, density) for seed, density in ((1, one), (2, other)))
    assert_per_layer(analysis.overlap_beyond_chance(a, b, True), {"": expected}, expected)


def test_overlap_of_independent_masks_is_zero_on_average_whatever_the_densities():
    """Equal densities per layer do not count as agreement."""
    tree = {"a": jnp.ones((40, 30)), "b": jnp.ones((50, 10))}
    density = {"a": 0.05, "b": 0.9}

    rng = np.random.default_rng(0)
    a, b = (
        {name: rng.random((200, *tree[name].shape)) < density[name] for name in tree}
        for _ in range(2)
    )
    found = jax.vmap(overlap)(a, b)
    for values in (*found.layers.values(), found.overall):
        assert abs(values.mean()) < 5 * values.std() / math.sqrt(len(values))
        assert values.std() > 0
    a, b = (draw_mask(tree, seed, 0.05) | {"b": jnp.ones((50, 10), bool)} for seed in (1, 2))
    assert masks.overlap(a, b, YES) > 0.2
    assert abs(analysis.overlap_beyond_chance(a, b, YES).overall) < 0.1


def test_opposite_masks_have_overlap_minus_one():
    mask = jnp.arange(8) < 4
    assert float(analysis.overlap_beyond_chance(mask, ~mask, True).overall) == -1


def test_large_layers_are_counted_to_four_digits():
    """A layer of four million weights: k_a k_b does not fit an int32."""
    size = 2**22
    a, b = jnp.arange(size) < size // 2, jnp.arange(size) % 4 != 0
    b = b.at[: size // 2].set(True)
    found = analysis.overlap_beyond_chance(a, b, True).overall
    k_a, k_b = size / 2, size * 7 / 8
    chance = k_a * k_b / size
    assert float(found) == pytest.approx(2 * (k_a - chance) / (k_a + k_b - 2 * chance), rel=1e-4)


@pytest.mark.parametrize("function", FRACTIONS, ids=lambda function: function.__name__)
def test_leaves_without_signs_beside_the_kernels(function):
    w = {"a": MATRIX, "flags": jnp.ones(3, bool), "codes": jnp.ones(3, "int4")}
    chosen = jax.tree.map(lambda x: jnp.ones(x.shape, bool), w)
    found = function(w, w, chosen, {"a": True, "flags": False, "codes": False})
    assert set(found.layers) == {"a"} and found.overall == found.layers["a"]


def test_paths_that_read_alike_are_told_apart():
    mask = {"a/b": jnp.array([True, False]), "a": {"b": jnp.array([True, True])}}
    found = analysis.layer_densities(mask, {"a/b": True, "a": {"b": True}})
    assert found.layers == {"['a/b']": 0.5, "['a']['b']": 1.0} and found.overall == 0.75


@pytest.mark.parametrize("function", FRACTIONS, ids=lambda function: function.__name__)
def test_a_fraction_of_nothing_is_nan_in_its_layer_alone(function):
    w = {"a": MATRIX, "b": MATRIX}
    chosen = {"a": jnp.zeros(MATRIX.shape, bool), "b": jnp.ones(MATRIX.shape, bool)}
    found = function(w, w, chosen, YES)
    assert np.isnan(found.layers["a"])
    assert found.overall == found.layers["b"] == (function is analysis.sign_agreement)


@pytest.mark.parametrize("kind", ["nested_dict", "nnx", "equinox"])
def test_jit_and_vmap_equal_eager(kind):
    params = KINDS[kind]()
    prunable = prunable_of(params)

    def everything(w_i, w_f, a, b):
        return (
            analysis.overlap_beyond_chance(a, b, prunable),
            analysis.sign_agreement(w_i, w_f, a, prunable),
            analysis.fraction_shrunk(w_i, w_f, a, prunable),
            analysis.layer_densities(a, prunable),
        )

    members = [
        (
            draw(params, seed, 0.5),
            draw(params, seed + 9, 0.5),
            *(draw_mask(params, seed + s) for s in (0, 1)),
        )
        for seed in range(3)
    ]
    together = jax.jit(jax.vmap(everything))(*jax.tree.map(lambda *x: jnp.stack(x), *members))
    for place, member in enumerate(members):
        alone = everything(*member)
        assert jax.tree.structure(alone) == jax.tree.structure(together)
        for x, y, z in zip(
            *map(jax.tree.leaves, (alone, together, jax.jit(everything)(*member))), strict=True
        ):
            np.testing.assert_allclose(y[place], x, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(z, x, rtol=1e-6, atol=1e-7)


MASK = {"dense": {"kernel": jnp.ones((2, 5), bool)}}
WEIGHTS = {"dense": {"kernel": jnp.ones((2, 5))}}
KERNEL = {"dense": {"kernel": True}}
SMALLER = {"dense": {"kernel": jnp.ones((2, 4), bool)}}


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: analysis.layer_densities(WEIGHTS, KERNEL), TypeError, ["'dense/kernel'", "bool"]),
        (lambda: analysis.layer_densities(MASK, {}), ValueError, ["mask and prunable"]),
        (
            lambda: analysis.layer_densities(MASK, {"dense": {"kernel": False}}),
            ValueError,
            ["no leaf is prunable; the leaves are: 'dense/kernel' bool[2, 5]"],
        ),
        (
            lambda: analysis.overlap_beyond_chance(MASK, MASK, {"dense": {"kernel": False}}),
            ValueError,
            ["no leaf is prunable"],
        ),
        (
            lambda: analysis.overlap_beyond_chance(MASK, WEIGHTS, KERNEL),
            TypeError,
            ["'dense/kernel'", "float32, expected bool"],
        ),
        (
            lambda: analysis.overlap_beyond_chance(MASK, SMALLER, KERNEL),
            ValueError,
            ["'dense/kernel'", "[2, 4]"],
        ),
        (
            lambda: analysis.sign_agreement(WEIGHTS, WEIGHTS, WEIGHTS, KERNEL),
            TypeError,
            ["'dense/kernel'", "float32, expected bool"],
        ),
        (
            lambda: analysis.fraction_shrunk(WEIGHTS, {}, MASK, KERNEL),
            ValueError,
            ["'dense/kernel'", "not in w_f"],
        ),
    ],
)
def test_errors(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
