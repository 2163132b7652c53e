import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

from supermask_jax import masks, sparse, trees
from tests.bad_input import Case, check_error
from tests.trees import KINDS, assert_same_bits, draw, draw_mask

YES = {"kernel": True, "bias": False}


def layer(shape, density=0.2):
    """A layer with zeros among its kept weights, some of them -0.0, and a mask of its bias, too."""
    params = draw({"kernel": jnp.ones(shape), "bias": jnp.ones(shape[-1])}, seed=0, step=0.5)
    return draw_mask(params, 1, density), params


def two_of_four(shape):
    _, params = layer(shape)
    scores = draw(params, seed=2)
    mask = masks.prune_n_m(jax.random.key(0), scores, masks.ones(params), YES, n=2, m=4, axis=-2)
    return mask, params


# The masked kernel again, from what each function makes of it.
DENSE = {
    sparse.to_bcoo: lambda leaf, mask: leaf.todense(),
    sparse.to_bcsr: lambda leaf, mask: leaf.todense().T.reshape(mask.shape),
    sparse.pack: lambda leaf, mask: sparse.unpack(mask, leaf, True),
}
SHAPES = [(8, 3), (3, 2, 4, 5), (2, 0)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.5])
@pytest.mark.parametrize("convert", DENSE, ids=lambda convert: convert.__name__)
def test_the_masked_weights_come_back(convert, density, shape):
    mask, params = layer(shape, density)
    found, expected = convert(mask, params, YES), masks.apply(mask, params)
    assert_same_bits(found["bias"], expected["bias"])
    again = DENSE[convert](found["kernel"], mask["kernel"])
    np.testing.assert_array_equal(again, expected["kernel"], strict=True)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_kept_weights_are_there_bit_for_bit_with_their_zeros(shape):
    mask, params = layer(shape, 0.7)
    kept, kernel = (np.asarray(tree["kernel"]) for tree in (mask, params))
    assert (kernel[kept] == 0).any() and BCOO.fromdense(kernel * kept).nse < kept.sum()
    bcoo = sparse.to_bcoo(mask, params, YES)["kernel"]
    assert_same_bits(bcoo.data, jnp.asarray(kernel[kept]))
    np.testing.assert_array_equal(bcoo.indices, np.argwhere(kept))
    assert bcoo.indices.dtype == jnp.int32
    assert_same_bits(sparse.pack(mask, params, YES)["kernel"], jnp.asarray(kernel[kept]))
    bcsr = sparse.to_bcsr(mask, params, YES)["kernel"]
    rows = kernel.reshape(-1, shape[-1]).T, kept.reshape(-1, shape[-1]).T
    assert_same_bits(bcsr.data, jnp.asarray(rows[0][rows[1]]))
    assert bcsr.indptr.tolist() == [0, *np.cumsum(rows[1].sum(axis=1))]


@pytest.mark.parametrize("dtype", ["bool", "int8", "bfloat16", "float16", "float32"])
def test_types_stay(dtype):
    mask, params = two_of_four((8, 3))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    for convert in DENSE:
        assert {x.dtype for x in jax.tree.leaves(convert(mask, params, YES))} <= {
            jnp.dtype(dtype),
            jnp.dtype("int32"),
        }
    assert sparse.to_bcoo(mask, params, YES)["kernel"].data.dtype == dtype
    found = sparse.to_n_of_m(mask, params, YES, n=2, m=4)["kernel"]
    assert_same_bits(found.todense(), masks.apply(mask, params)["kernel"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tree(kind):
    params = draw(KINDS[kind](), seed=1)
    prunable, mask = trees.prunable_leaves(params), draw_mask(params, seed=2)
    packed = sparse.pack(mask, params, prunable)
    sizes = [
        m.sum() if yes else m.size
        for m, yes in zip(*map(jax.tree.leaves, (mask, prunable)), strict=True)
    ]
    assert [leaf.size for leaf in jax.tree.leaves(packed)] == sizes
    assert_same_bits(sparse.unpack(mask, packed, prunable), masks.apply(mask, params))
    is_matrix = lambda x: isinstance(x, BCOO)  # noqa: E731
    made = sparse.to_bcoo(mask, params, prunable)
    again = jax.tree.map(lambda x: x.todense() if is_matrix(x) else x, made, is_leaf=is_matrix)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, again, masks.apply(mask, params)))


@pytest.mark.parametrize("kept", [0.2, 0.05, 0.01])
@pytest.mark.parametrize("shape", [(784, 300), (4096, 256)])
def test_products_differ_by_no_more_than_is_said(shape, kept):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((5, shape[0]), shape))
    mask = jnp.asarray(rng.random(shape) < kept)
    masked = jnp.where(mask, kernel, 0)
    bound = 1e-5 * (abs(x) @ abs(masked))
    for product in (
        x @ sparse.to_bcoo(mask, kernel, True),
        (sparse.to_bcsr(mask, kernel, True) @ x.T).T,
    ):
        assert (abs(product - x @ masked) <= bound).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_of_16_bits_are_right_with_a_factor_in_float32(dtype):
    """As the module advises, for `jax.experimental.sparse` adds 16 bits up in 16 bits."""
    kernel, inputs = jnp.ones((5000, 2), dtype), jnp.ones((1, 5000), jnp.float32)
    mask = jnp.ones(kernel.shape, bool)
    by_row = inputs @ sparse.to_bcoo(mask, kernel, True)
    by_column = sparse.to_bcsr(mask, kernel, True) @ inputs.T
    assert by_row.tolist() == by_column.T.tolist() == [[5000, 5000]]


def test_gradients_are_those_of_the_kept_weights():
    mask, params = layer((8, 3))
    x = draw(jnp.ones((4, 8)), seed=3)
    matrix = sparse.to_bcoo(mask, params, YES)["kernel"]

    def loss(data):
        return jnp.sum((x @ BCOO((data, matrix.indices), shape=matrix.shape)) ** 2)

    masked = masks.apply(mask, params)["kernel"]
    expected = jax.grad(lambda kernel: jnp.sum((x @ kernel) ** 2))(masked)[mask["kernel"]]
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(matrix.data), expected, rtol=1e-5)


def test_weights_may_be_traced_under_a_known_mask():
    mask, params = two_of_four((8, 3))

    def forms(params):
        return [*(f(mask, params, YES) for f in DENSE), sparse.to_n_of_m(mask, params, YES, 2, 4)]

    assert_same_bits(jax.jit(forms)(params), forms(params))


@pytest.mark.parametrize("shape", [(8, 3), (2, 3, 4, 5), (4, 0)])
def test_two_of_four_by_hand(shape):
    mask, params = two_of_four(shape)
    found = sparse.to_n_of_m(mask, params, YES, n=2, m=4)["kernel"]
    *start, inputs, outputs = shape
    assert found.values.shape == found.places.shape == (*start, inputs // 4, 2, outputs)
    assert found.places.dtype == jnp.uint8 and found.m == 4
    kernel, kept = np.asarray(params["kernel"]), np.asarray(mask["kernel"])
    for *place, group, output in np.ndindex(*start, inputs // 4, outputs):
        here = (*place, slice(4 * group, 4 * group + 4), output)
        where = np.flatnonzero(kept[here])
        there = (*place, group, slice(None), output)
        assert found.places[there].tolist() == where.tolist()
        assert found.values[there].tolist() == kernel[here][where].tolist()
    assert_same_bits(found.todense(), masks.apply(mask, params)["kernel"])
    assert_same_bits(jax.jit(lambda leaf: leaf.todense())(found), found.todense())


MASK, PARAMS = layer((8, 3))
OTHER = {"kernel": jnp.ones((3, 8), bool), "bias": jnp.ones(3, bool)}
FULL = masks.ones(PARAMS)
WRONG = [
    *(
        case
        for f in (*DENSE, lambda *trees: sparse.to_n_of_m(*trees, n=2, m=4))
        for case in (
            Case(
                "shapes",
                lambda f=f: f(OTHER, PARAMS, YES),
                ValueError,
                r"'kernel' .*8, 3.*3, 8",
            ),
            Case("dtypes", lambda f=f: f(PARAMS, PARAMS, YES), TypeError, "expected bool"),
            Case(
                "types",
                lambda f=f: f(MASK, PARAMS, {"kernel": 1, "bias": 0}),
                TypeError,
                "True or False",
            ),
        )
    ),
    Case(
        "types",
        lambda: jax.jit(lambda mask: sparse.pack(mask, PARAMS, YES))(MASK),
        TypeError,
        r"the mask of leaf 'kernel' \[8, 3\] is traced.*outside jit",
    ),
    Case(
        "shapes",
        lambda: sparse.to_bcsr(MASK["bias"], PARAMS["bias"], True),
        ValueError,
        r"leaf '' \[3\] has 1 axes, expected \[\.\.\., in, out\]",
    ),
    Case(
        "shapes",
        lambda: sparse.unpack(MASK, sparse.pack(FULL, PARAMS, YES), YES),
        ValueError,
        r"leaf 'kernel' \[8, 3\] has \[24\] packed weights, but its mask keeps \d+",
    ),
    Case(
        "shapes",
        lambda: sparse.to_n_of_m(FULL, PARAMS, YES, n=2, m=4),
        ValueError,
        r"6 of the 6 groups of leaf 'kernel' \[8, 3\] keep more or less than 2 of 4",
    ),
    Case(
        "shapes",
        lambda: sparse.to_n_of_m(MASK, PARAMS, YES, n=2, m=3),
        ValueError,
        r"m is 3, which does not divide the 8 inputs of leaf 'kernel' \[8, 3\]",
    ),
    Case("ranges", lambda: sparse.to_n_of_m(MASK, PARAMS, YES, n=0, m=4), ValueError, "n is 0"),
    Case("ranges", lambda: sparse.to_n_of_m(MASK, PARAMS, YES, n=5, m=4), ValueError, "n is 5"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.pattern)
def test_wrong_input_is_one_line(case):
    check_error(case)
