import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supermask_jax import actions, checks, criteria, masks, paths, trees
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
        # Other spellings of paths: flat, as tuples, with dots.
        ({"attn/query/bias": 0}, jnp.ones((2, 2)), False),
        ({"attn/query/kernel": 0}, jnp.ones((2, 2)), True),
        ({"attn/bias/kernel": 0}, jnp.ones((2, 2)), True),
        ({"0.bias": 0}, jnp.ones((2, 2)), False),
        ({"0.weight": 0}, jnp.ones((2, 2)), True),
        ({"attn": {"bias/value": 0}}, jnp.ones((2, 2)), False),
        ({("attn", "query", "bias"): 0}, jnp.ones((2, 2)), False),
        ({("attn", "query", "kernel"): 0}, jnp.ones((2, 2)), True),
        ({"bias": [0]}, jnp.ones((2, 2)), True),
        ({"dense/bias:0": 0}, jnp.ones((2, 2)), False),
        ({"dense/kernel:0": 0}, jnp.ones((2, 2)), True),
        # "value" is an attribute of nnx variables, and the name of a projection in a block.
        ({"dense": {"scale": {"value": 0}}}, jnp.ones((2, 2)), False),
        ({"dense/running_var/value": 0}, jnp.ones((2, 2)), False),
        ({"b1": {"value": 0}}, jnp.ones((2, 2)), True),
        ({"b2/value": 0}, jnp.ones((2, 2)), True),
        ({"attention": {"value": 0}}, jnp.ones((2, 2)), True),
    ],
)
def test_is_kernel(path, leaf, expected):
    ((keys, _),) = jax.tree_util.tree_leaves_with_path(path)
    assert trees.is_kernel(keys, leaf) is expected


NO_KERNELS = (
    *("b", "b1", "b_1", "bias", "bias_0", "biases", "in_proj_bias", "b_in", "b_out", "b_Q"),
    *("bias_ih_l0", "bias_hh_l1_reverse", "bias_k", "bias_n"),
    *("scale", "offset", "gamma", "beta", "gamma_1", "ln_scale", "ln1_gamma", "block_norm_scale"),
    *("mean", "var", "running_mean", "running_var", "moving_mean", "moving_variance"),
)
MATRICES = (
    *("kernel", "weight", "w", "W", "B", "b_proj", "in_proj_weight", "embedding", "cls_token"),
    *("pos_embed", "scaled", "biased", "meanfield", "w_mean", "log_scale", "value", "weight_hh_l0"),
)


@pytest.mark.parametrize("name", NO_KERNELS + MATRICES)
def test_names_tell_kernels_from_other_leaves_of_stacked_layers(name):
    ((path, leaf),) = jax.tree_util.tree_leaves_with_path({"block": {name: jnp.ones((3, 4))}})
    assert trees.is_kernel(path, leaf) == (name in MATRICES)


def test_a_table_of_what_was_chosen():
    tree = PARAMS | {"scale": jnp.float32(1), "steps": jax.ShapeDtypeStruct((2, 2), int)}
    assert trees.describe(tree, trees.prunable_leaves(tree)).splitlines() == [
        "leaf          shape   size  prunable",
        "dense/bias    2          2  no",
        "dense/kernel  3 x 2      6  yes",
        "scale         scalar     1  no",
        "steps         2 x 2      4  no",
        "6 of 13 weights in 1 of 4 leaves may be pruned.",
    ]


def test_a_table_tells_paths_that_read_alike_apart():
    tree = {"a/c": jnp.ones((2, 2)), "a": {"c": jnp.ones((2, 2))}}
    table = trees.describe(tree, trees.prunable_leaves(tree))
    assert "['a/c']" in table and "['a']['c']" in table


def test_leaf_names_are_no_two_alike():
    assert paths.leaf_names({"a/b": 1, "a": {"b": 2}, "c": 3}) == ["['a']['b']", "['a/b']", "c"]
    assert paths.leaf_names(PARAMS) == ["dense/bias", "dense/kernel"]
    assert paths.leaf_names(jnp.ones(2)) == [""]


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


class Tensor:
    """An object with the interface of a torch tensor."""

    shape, dtype = (2, 2), "torch.float32"


Tensor.__module__ = "torch"

LEAVES = {
    "ref": (
        lambda: jax.new_ref(jnp.ones((2, 2))),
        r"a jax\.Ref, expected an array; read it: ref\[",
    ),
    "shape": (lambda: jax.ShapeDtypeStruct((2, 2), jnp.float32), "a shape without values"),
    "torch": (Tensor, r"a torch tensor.*tensor\.numpy\(force=True\)"),
    "big endian": (
        lambda: np.ones((2, 2), ">f4"),
        r"array of >f4, not in the byte order.*astype\(array\.dtype\.newbyteorder\('='\)\)",
    ),
    "lost type": (
        lambda: np.ones((2, 2), jnp.bfloat16).view("V2"),
        r"array of \|V2, raw bytes whose type was lost in a file.*array\.view\(jnp\.bfloat16\)",
    ),
    "lost byte": (
        lambda: np.ones((2, 2), jnp.float8_e4m3fn).view("V1"),
        r"array of \|V1, raw bytes whose type.*array\.view\(jnp\.float8_e4m3fn\)",
    ),
    "bool": (lambda: True, "True, not an array of numbers; only prunable is a tree"),
    "key": (lambda: jax.random.key(0), "an array of key<fry>, not an array of numbers"),
}


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_that_is_not_an_array_gets_a_remedy(name):
    make, message = LEAVES[name]
    tree, keep = {"w": make()}, {"w": jnp.ones((2, 2), bool)}
    for call in (
        lambda: masks.prune(jax.random.key(0), tree, keep, {"w": 1}),
        lambda: criteria.movement(tree, tree),
        lambda: actions.reinit(jax.random.key(0), tree, tree, keep),
    ):
        with pytest.raises(TypeError, match=message) as caught:
            call()
        assert "'w'" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_the_remedies_work():
    lost = np.ones((2, 2), jnp.bfloat16).view("V2").view(jnp.bfloat16)
    foreign = np.ones((2, 2), ">f4")
    native = foreign.astype(foreign.dtype.newbyteorder("="))
    ref = jax.new_ref(jnp.ones((2, 2)))[...]
    for leaf in (lost, native, ref):
        assert trees.prunable_leaves({"w": leaf}) == {"w": True}


def test_states_that_differ_only_in_metadata_get_a_clear_error():
    plain, noted = (flax.nnx.Linear(2, 2, rngs=flax.nnx.Rngs(0)) for _ in range(2))
    noted.kernel.set_metadata(note="sparse")
    one, other = flax.nnx.state(plain), flax.nnx.state(noted)
    with pytest.raises(ValueError, match=r"other containers.*'note'.*nnx\.to_pure_dict"):
        checks.check_trees(w_i=one, w_f=other)
    checks.check_trees(w_i=flax.nnx.to_pure_dict(one), w_f=flax.nnx.to_pure_dict(other))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: criteria.same_sign("large_final"),
            r"criterion is 'large_final'.*CRITERIA\['large",
        ),
        (lambda: actions.keep_sign("reinit"), r"action is 'reinit'.*actions\.MASK_ONE\['reinit'\]"),
        (lambda: actions.resample(None), r"actions\.resample\(init\)"),
        (
            lambda: criteria.same_sign(criteria.same_sign),
            r"criterion same_sign does not take \(w_i, w_f, mask\).*that function: same_sign\(",
        ),
        (
            lambda: actions.keep_sign(actions.resample),
            r"action resample does not take \(key, w_i, w_f, mask\)",
        ),
    ],
)
def test_functions_not_names(call, message):
    with pytest.raises(TypeError, match=message):
        call()
