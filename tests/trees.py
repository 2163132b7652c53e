"""The kinds of parameter trees that the library supports, made by the real packages.

`KINDS` maps a name to a function that makes parameters with kernels and biases. `draw` and
`draw_mask` draw random values in the same structure.
"""

import functools

import equinox as eqx
import flax.linen
import flax.nnx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from supermask_jax.paths import path_name


def array():
    return jnp.ones((5, 4))


def nested_dict():
    return {
        "conv": {"kernel": jnp.ones((2, 2, 1, 5)), "bias": jnp.ones(5)},
        "dense": {"kernel": jnp.ones((5, 4)), "bias": jnp.ones(4)},
    }


def tuples():
    return ((jnp.ones((5, 4)), jnp.ones(4)), [jnp.ones((4, 3)), jnp.ones(3)])


def linen():
    class Net(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            x = flax.linen.Conv(5, (2, 2), name="conv")(x).reshape(1, -1)
            return flax.linen.Dense(4, name="dense")(x)

    return Net().init(jax.random.key(0), jnp.ones((1, 1, 1, 1)))["params"]


def nnx():
    class Net(flax.nnx.Module):
        def __init__(self, rngs):
            self.dense = flax.nnx.Linear(5, 4, rngs=rngs)
            self.output = flax.nnx.Linear(4, 3, rngs=rngs)

    return flax.nnx.state(Net(flax.nnx.Rngs(0)), flax.nnx.Param)


def equinox():
    return eqx.partition(equinox_module(), eqx.is_array)[0]


def equinox_module():
    return eqx.nn.MLP(4, 3, 5, depth=1, key=jax.random.key(0))


def haiku():
    return hk.transform(lambda x: hk.nets.MLP([4, 3])(x)).init(jax.random.key(0), jnp.ones((1, 5)))


KINDS = {
    make.__name__: functools.cache(make)
    for make in (array, nested_dict, tuples, linen, nnx, equinox, haiku)
}

# The prunable leaves by path, written by hand so that the tests do not repeat `is_kernel`.
KERNELS = {
    "array": {""},
    "nested_dict": {"conv/kernel", "dense/kernel"},
    "tuples": {"0/0", "1/0"},
    "linen": {"conv/kernel", "dense/kernel"},
    "nnx": {"dense/kernel/value", "output/kernel/value"},
    "equinox": {"layers/0/weight", "layers/1/weight"},
    "haiku": {"mlp/~/linear_0/w", "mlp/~/linear_1/w"},
}


def draw(tree, seed, step=None):
    """Draw standard normal values; rounded to multiples of `step`, some are equal or zero."""
    rng = np.random.default_rng(seed)

    def values(leaf):
        x = rng.standard_normal(leaf.shape)
        return jnp.asarray(x if step is None else np.round(x / step) * step, jnp.float32)

    return jax.tree.map(values, tree)


def draw_mask(tree, seed, density=0.7):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.random(leaf.shape) < density), tree)


def leaves(*trees):
    """Return for every leaf its path name and its values in all trees, as NumPy arrays."""
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(trees[0])]
    columns = [[np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in trees]
    return list(zip(paths, *columns, strict=True))


def assert_same_bits(a, b):
    """Compare structure, types and bytes; unlike `==`, tell 0.0 from -0.0 and let NaN equal NaN."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for path, x, y in leaves(a, b):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), path
        assert x.tobytes() == y.tobytes(), path


def assert_structure(tree, params):
    """Check the structure and the shapes of a tree against the parameters."""
    assert jax.tree.structure(tree) == jax.tree.structure(params)
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, params)


# Networks whose layers share leaves, each as (parameters, the beginning of a stacked leaf's path,
# the prunable leaves): scanned or vmapped blocks of a dense layer and a normalisation, and a head.


class LinenBlock(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x, _):
        return flax.linen.LayerNorm()(flax.linen.Dense(4)(x)), None


def linen_scan():
    class Net(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            blocks = flax.linen.scan(
                LinenBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=12
            )
            return flax.linen.Dense(3, name="head")(blocks(name="blocks")(x, None)[0])

    params = Net().init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    return params, "blocks", {"blocks/Dense_0/kernel", "head/kernel"}


class NnxBlock(flax.nnx.Module):
    def __init__(self, rngs):
        self.dense = flax.nnx.Linear(4, 4, rngs=rngs)
        self.norm = flax.nnx.BatchNorm(4, rngs=rngs)


def nnx_vmap():
    class Net(flax.nnx.Module):
        def __init__(self, rngs):
            make = flax.nnx.split_rngs(splits=12)(flax.nnx.vmap(NnxBlock))
            self.blocks = make(rngs)
            self.head = flax.nnx.Linear(4, 3, rngs=rngs)

    state = flax.nnx.state(Net(flax.nnx.Rngs(0)), (flax.nnx.Param, flax.nnx.BatchStat))
    return state, "blocks", {"blocks/dense/kernel/value", "head/kernel/value"}


class EquinoxBlock(eqx.Module):
    dense: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, key):
        self.dense = eqx.nn.Linear(4, 4, key=key)
        self.norm = eqx.nn.LayerNorm(4)


def equinox_vmap():
    blocks = eqx.filter_vmap(EquinoxBlock)(jax.random.split(jax.random.key(0), 12))
    head = eqx.nn.Linear(4, 3, key=jax.random.key(1))
    params = eqx.filter({"blocks": blocks, "head": head}, eqx.is_array)
    # The weight of a normalisation has the name of a dense layer's weight; no name separates them.
    return params, "blocks", {"blocks/dense/weight", "blocks/norm/weight", "head/weight"}


def haiku_stack():
    def net(x):
        def block(x):
            return hk.LayerNorm(-1, create_scale=True, create_offset=True)(hk.Linear(4)(x))

        return hk.Linear(3, name="head")(hk.experimental.layer_stack(12)(block)(x))

    params = hk.transform(net).init(jax.random.key(0), jnp.ones((1, 4)))
    (kernel,) = (name for name in params if name.endswith("/linear"))
    return params, "__layer_stack", {f"{kernel}/w", "head/w"}


STACKED = {
    make.__name__: functools.cache(make)
    for make in (linen_scan, nnx_vmap, equinox_vmap, haiku_stack)
}
