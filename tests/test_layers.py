"""Stacked layers: after `trees.unstack_layers`, the library treats each as a layer of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supermask_jax import (
    actions,
    analysis,
    criteria,
    mask_files,
    masks,
    rates,
    rounds,
    supermasks,
    trees,
)
from tests.trees import STACKED, assert_same_bits, assert_structure, draw, draw_mask, leaves

KEY = jax.random.key(0)
LENGTH = 12  # so that "10" comes before "2" wherever names are sorted
RANKED = ("large_final", "small_init_small_final", "random")  # by value, by rank, by ties alone


def rule_of(kind):
    beginning = STACKED[kind]()[1]
    return lambda path, leaf: trees.path_name(path).startswith(beginning)


def unstack(kind, tree, like=None):
    return trees.unstack_layers(tree, rule_of(kind), like)


def scaled(tree, seed):
    """Draw random weights; every layer of a stack has its own scale."""

    def scale(leaf):
        if leaf.ndim < 2 or leaf.shape[0] != LENGTH:
            return leaf
        return leaf * (1.0 + jnp.arange(LENGTH)).reshape(-1, *[1] * (leaf.ndim - 1))

    return jax.tree.map(scale, draw(tree, seed))


def everything(w_i, w_f, mask, prunable):
    """Return the results of every function of the library on a tree of layers."""
    per_round = rates.rates_by_path(w_i, [], default=0.5, prunable=prunable)
    num_keep = rates.keep_counts(w_i, per_round, 1)
    state = rounds.RoundState(w_i, jax.tree.map(jnp.zeros_like, w_i), mask)
    found = {}
    for name in RANKED:
        scores = criteria.CRITERIA[name](w_i, w_f, mask)
        found[name] = masks.prune(KEY, scores, mask, num_keep)
    found["global"] = masks.prune_global(KEY, w_f, mask, 40, prunable, least=2)
    for name, action in (actions.MASK_ONE | actions.MASK_ZERO).items():
        found[f"action {name}"] = action(KEY, w_i, w_f, mask)
    for field, tree in zip(
        rounds.RoundState._fields,
        rounds.advance(
            KEY, state, w_f, criterion=criteria.movement, mask_one=actions.constant,
            mask_zero=actions.zero_shuffled, num_keep=num_keep, prunable=prunable,
        ),
        strict=True,
    ):  # fmt: skip
        found[f"advance {field}"] = tree
    logits = supermasks.init_logits(w_i, prunable, 0.3)
    found["sample"] = supermasks.sample(KEY, logits, prunable)
    found["masked"] = supermasks.masked_params(found["sample"], w_i, prunable, rescale=True)
    return found


@functools.cache
def inputs(kind):
    params = STACKED[kind]()[0]
    return scaled(params, 1), scaled(params, 2), draw_mask(params, 3)


@pytest.mark.parametrize("kind", STACKED)
def test_kernels_of_stacked_networks_are_the_kernels(kind):
    params, _, kernels = STACKED[kind]()
    prunable = trees.prunable_leaves(params)
    assert {path for path, yes in leaves(prunable) if yes} == kernels
    layered, _ = unstack(kind, params)
    found = {path for path, yes in leaves(trees.prunable_leaves(layered)) if yes}
    kernels = {name for name in kernels if name != "blocks/norm/weight"}  # equinox: now of rank 1
    stacked = {name for name in kernels if "head" not in name}
    separate = {f"{name}/{i}" for name in stacked for i in range(LENGTH)}
    assert found == separate | (kernels - stacked)


@pytest.mark.parametrize("kind", STACKED)
def test_layers_of_a_stack_equal_separate_leaves_to_the_bit(kind):
    layered = [unstack(kind, tree)[0] for tree in inputs(kind)]
    prunable = trees.prunable_leaves(layered[0])
    assert [path for path, _ in leaves(prunable) if path.endswith("/10")]
    separate = [dict(enumerate(jax.tree.leaves(tree))) for tree in (*layered, prunable)]
    expected = everything(*separate)
    for name, tree in everything(*layered, prunable).items():
        assert_same_bits(jax.tree.leaves(tree), jax.tree.leaves(expected[name]))
        assert_structure(tree, layered[0])


@pytest.mark.parametrize("kind", STACKED)
@pytest.mark.parametrize("jitted", [False, True])
def test_stacking_undoes_it(kind, jitted):
    w_i, w_f, mask = inputs(kind)
    state = rounds.RoundState(w_i, w_f, mask)

    def there_and_back(tree):
        layered, stack = unstack(kind, tree)
        return stack(layered)

    function = jax.jit(there_and_back) if jitted else there_and_back
    for tree in (w_i, mask, state):
        assert_same_bits(function(tree), tree)
    shapes = jax.eval_shape(lambda: w_i)
    assert there_and_back(shapes) == shapes


def test_what_is_static_goes_to_every_layer_and_back():
    params = {"blocks": {"kernel": jnp.ones((3, 4, 5))}, "head": {"kernel": jnp.ones((5, 2))}}
    rule = lambda path, leaf: leaf.ndim == 3  # noqa: E731
    for number in (np.bool_(True), np.int64(7), jnp.int32(7)):
        tree = {"blocks": {"kernel": number}, "head": {"kernel": number}}
        layered, _ = trees.unstack_layers(tree, rule, like=params)
        assert jax.tree.leaves(layered) == [number] * 4
    for static in (True, 7, 0.5):
        tree = {"blocks": {"kernel": static}, "head": {"kernel": static}}
        layered, stack = trees.unstack_layers(tree, rule, like=params)
        assert jax.tree.leaves(layered) == [static] * 4
        assert all(type(leaf) is type(static) for leaf in jax.tree.leaves(layered))
        assert stack(layered) == tree
    with pytest.raises(ValueError, match=r"layers of leaf 'blocks/kernel' have \[1, 2, 3\]"):
        stack(
            trees.unstack_layers(params, rule)[0] | {"blocks": {"kernel": trees.Layers((1, 2, 3))}}
        )


def test_a_layer_is_pruned_and_measured_by_itself():
    """The scales of three layers differ, but each keeps half of its weights."""
    scales = jnp.array([0.1, 1.0, 10.0])[:, None, None]
    params = {"blocks": draw(jnp.ones((3, 8, 8)), 1) * scales}
    layered, stack = trees.unstack_layers(params, lambda path, leaf: True)
    prunable = trees.prunable_leaves(layered)
    num_keep = rates.keep_counts(layered, rates.rates_by_path(layered, [], 0.5), 1)
    kept = masks.prune(KEY, jax.tree.map(jnp.abs, layered), masks.ones(layered), num_keep)
    assert stack(kept)["blocks"].sum(axis=(1, 2)).tolist() == [32, 32, 32]
    densities = analysis.layer_densities(kept, prunable).layers
    assert densities == {f"blocks/{i}": 0.5 for i in range(3)}
    constant = stack(actions.constant(KEY, layered, layered, kept))["blocks"]
    np.testing.assert_allclose(np.abs(constant[:, 0, 0]), params["blocks"].std(axis=(1, 2)), 1e-5)


def test_rates_may_differ_between_layers():
    params = {"blocks": jnp.ones((12, 10, 10))}
    layered, _ = trees.unstack_layers(params, lambda path, leaf: True)
    per_round = rates.rates_by_path(layered, [("blocks/(0|11)", 0.1)], default=0.5)
    counts = rates.keep_counts(layered, per_round, 1)["blocks"]
    assert list(counts) == [90, *[50] * 10, 90]


def test_layers_of_layers():
    params = {"blocks": draw(jnp.ones((3, 2, 4, 5)), 1), "scale": jnp.ones((3, 2, 4))}
    once, _ = trees.unstack_layers(params, lambda path, leaf: True)
    twice, stack = trees.unstack_layers(once, lambda path, leaf: True)
    prunable = trees.prunable_leaves(twice)
    assert sum(jax.tree.leaves(prunable)) == 6
    assert jax.tree.leaves(twice)[0].shape == (4, 5)
    assert_same_bits(stack(twice), params)
    assert sum(jax.tree.leaves(trees.prunable_leaves(once))) == 3  # not the scales, by their name


def test_layers_on_disk(tmp_path):
    _, _, mask = inputs("linen_scan")
    layered, _ = unstack("linen_scan", mask)
    mask_files.save(tmp_path / "x.mask", layered)
    assert_same_bits(mask_files.load(tmp_path / "x.mask", layered), layered)


def test_unstacking_copies_nothing_under_jit():
    """Only slices of a stack and one concatenation: no loop over weights, no sort, no gather."""
    params = {"blocks": jnp.ones((3, 4, 5))}

    def there_and_back(tree):
        layered, stack = trees.unstack_layers(tree, lambda path, leaf: True)
        return stack(layered)

    used = {eqn.primitive.name for eqn in jax.make_jaxpr(there_and_back)(params).eqns}
    assert used <= {"slice", "squeeze", "broadcast_in_dim", "stack", "concatenate", "reshape"}


STACK = {"blocks": {"kernel": jnp.ones((3, 4, 5))}, "head": jnp.ones((5, 2))}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: trees.unstack_layers(STACK, lambda path, leaf: False),
            ValueError,
            r"the rule is True for no leaf; the leaves are: 'blocks/kernel' float32\[3, 4, 5\]",
        ),
        (
            lambda: trees.unstack_layers(STACK, lambda path, leaf: leaf.ndim),
            TypeError,
            "the rule returns 3 for leaf 'blocks/kernel', expected True or False",
        ),
        (
            lambda: trees.unstack_layers({"scale": jnp.float32(1)}, lambda path, leaf: True),
            ValueError,
            r"leaf 'scale' of shape \[\] has no layers",
        ),
        (
            lambda: trees.unstack_layers({"none": jnp.ones((0, 3))}, lambda path, leaf: True),
            ValueError,
            r"leaf 'none' of shape \[0, 3\] has no layers",
        ),
        (
            lambda: trees.unstack_layers({"kernel": True}, lambda path, leaf: True),
            TypeError,
            "has no arrays to count layers in; pass like=params",
        ),
        (
            lambda: trees.unstack_layers({"head": True}, lambda path, leaf: True, like=STACK),
            ValueError,
            "'blocks/kernel' is in like but not in tree",
        ),
        (
            lambda: trees.unstack_layers(
                jnp.ones((3, 2)), lambda path, leaf: True, jnp.ones((2, 2))
            ),
            ValueError,
            r"leaf '' has shape \[3, 2\] in the tree but \[2, 2\] in like",
        ),
        (
            lambda: trees.unstack_layers(jnp.ones(4), lambda path, leaf: True, jnp.ones(6)),
            ValueError,
            r"leaf '' has shape \[4\] in the tree but \[6\] in like",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
