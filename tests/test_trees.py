import jax
import jax.numpy as jnp
import pytest

from supermask_jax import actions, checks, criteria, trees
from tests.trees import KERNELS, KINDS, equinox_module, leaves

PARAMS = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}


@pytest.mark.parametrize("kind", KINDS)
def test_prunable_leaves_are_the_kernels(kind):
    params = KINDS[kind]()
    prunable = trees.prunable_leaves(params)
    assert jax.tree.structure(prunable) == jax.tree.structure(params)
    assert all(type(leaf) is bool for leaf in jax.tree.leaves(prunable))
    assert {path for path, yes in leaves(prunable) if yes} == KERNELS[kind]
    assert trees.prunable_leaves(jax.eval_shape(lambda: params)) == prunable


@pytest.mark.parametrize(
    ("path", "leaf", "expected"),
    [
        ({"kernel": 0}, jnp.ones((2, 2)), True),
        ({"kernel": 0}, jnp.ones(2), False),
        ({"kernel": 0}, jnp.ones((2, 2), int), False),
        ({"kernel": 0}, jnp.ones((2, 2), jnp.bfloat16), True),
        ({"bias": 0}, jnp.ones((4, 1, 1)), False),
        ({"b": 0}, jnp.ones((2, 2)), False),
        ({"bias": {"value": 0}}, jnp.ones((2, 2)), False),
        ({"value": 0}, jnp.ones((2, 2)), True),
        ({"bias": {"kernel": 0}}, jnp.ones((2, 2)), True),
        (0, jnp.ones((2, 2)), True),
    ],
)
def test_is_kernel(path, leaf, expected):
    ((keys, _),) = jax.tree_util.tree_leaves_with_path(path)
    assert trees.is_kernel(keys, leaf) is expected


def test_predicate_sees_paths_and_leaves():
    chosen = trees.prunable_leaves(
        PARAMS, lambda path, leaf: trees.path_name(path) == "dense/bias" and leaf.ndim == 1
    )
    assert chosen == {"dense": {"kernel": False, "bias": True}}


def test_leaf_keys_differ_by_leaf_and_by_key():
    data = [
        jax.random.key_data(key).tolist()
        for seed in (0, 1)
        for key in jax.tree.leaves(trees.leaf_keys(jax.random.key(seed), KINDS["linen"]()))
    ]
    assert len({tuple(key) for key in data}) == 8
    again = trees.leaf_keys(jax.random.key(0), KINDS["linen"]())
    assert jax.random.key_data(jax.tree.leaves(again)[0]).tolist() == data[0]


def test_lookup_finds_entries():
    assert checks.lookup("criterion", "movement", criteria.CRITERIA) is criteria.movement


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (
            lambda: trees.prunable_leaves({"dense": {"bias": jnp.ones(2)}}),
            ValueError,
            ["no leaf is prunable", "'dense/bias' float32[2]", "predicate"],
        ),
        (lambda: trees.prunable_leaves({}), ValueError, ["no leaf is prunable", "none"]),
        (
            lambda: trees.prunable_leaves({"dense": {"kernel": [1.0, 2.0]}}),
            TypeError,
            ["'dense/kernel/0'", "1.0 (float)", "not an array"],
        ),
        (lambda: trees.prunable_leaves(equinox_module()), TypeError, ["'activation'", "partition"]),
        (
            lambda: checks.check_trees(w_i=PARAMS, w_f={"dense": {"kernel": jnp.ones((3, 2))}}),
            ValueError,
            ["'dense/bias'", "in w_i but not in w_f"],
        ),
        (
            lambda: checks.check_structure(w_i=PARAMS, rates=PARAMS | {"x": 0.1}),
            ValueError,
            ["'x'", "in rates but not in w_i"],
        ),
        (
            lambda: checks.check_trees(a=(jnp.ones(1),), b=[jnp.ones(1)]),
            ValueError,
            ["other containers", "(*,)", "[*]"],
        ),
        (
            lambda: checks.check_trees(
                w_i=PARAMS, mask={"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(2)}}
            ),
            ValueError,
            ["'dense/kernel'", "[3, 2] in w_i", "[2, 3] in mask"],
        ),
        (
            lambda: trees.leaf_keys(jax.random.PRNGKey(0), PARAMS),
            TypeError,
            ["typed key", "uint32", "wrap_key_data"],
        ),
        (lambda: trees.leaf_keys(0, PARAMS), TypeError, ["typed key", "0 (int)"]),
        (
            lambda: trees.leaf_keys(jax.random.split(jax.random.key(0), 3), PARAMS),
            TypeError,
            ["one key", "(3,)"],
        ),
        (
            lambda: checks.lookup("criterion", "large_finel", criteria.CRITERIA),
            ValueError,
            ["'large_finel'", "did you mean 'large_final'?", "known: ", "movement"],
        ),
        (
            lambda: checks.lookup("mask-0 action", "xyz", actions.MASK_ZERO),
            ValueError,
            ["unknown mask-0 action 'xyz'; known: freeze, zero"],
        ),
        (lambda: checks.lookup("criterion", None, criteria.CRITERIA), ValueError, ["None"]),
    ],
)
def test_errors(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


def test_keys_among_the_parameters_are_an_error():
    tree = {"dropout": jax.random.key(0), "kernel": jnp.ones((2, 3))}
    with pytest.raises(TypeError, match=r"'dropout' of params.*nnx\.Param"):
        trees.prunable_leaves(tree)
