"""Scores from gradients, against numpy on closed forms and on a network derived by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from supermask_jax import actions, masks, rounds, saliency, trees
from tests.bad_input import Case, check_error
from tests.trees import KINDS, assert_same_bits, assert_structure, draw, draw_mask, leaves

KEY = jax.random.key(0)
OF_A_LOSS = {
    "gradient_magnitude": saliency.gradient_magnitude,
    "snip": saliency.snip,
    "grasp": saliency.grasp,
    "empirical_fisher": saliency.empirical_fisher,
}
SCORES = {**OF_A_LOSS, "synflow": saliency.synflow}


# Functions of any tree, and their scores in closed form.


def square_of_sines(params, x):
    """mean(x**2) S**2 / 2, where S is the sum of the sines of all weights."""
    total = sum(jnp.sum(jnp.sin(w)) for w in jax.tree.leaves(params))
    return jnp.mean((x * total) ** 2) / 2


def product_of_sums(params, x):
    return x * jnp.prod(jnp.stack([jnp.sum(w) for w in jax.tree.leaves(params)]))


def closed_form(name, weights, kept, x):
    """The scores of `square_of_sines` and `product_of_sums`, per leaf, in float64."""
    weights = [w.astype(np.float64) * m for w, m in zip(weights, kept, strict=True)]
    total, c = sum(np.sin(w).sum() for w in weights), np.mean(x**2)
    grads = [c * total * np.cos(w) * m for w, m in zip(weights, kept, strict=True)]
    along = c * sum((np.cos(w) * g).sum() for w, g in zip(weights, grads, strict=True))
    sums = [np.abs(w).sum() for w in weights]
    others = [np.prod(sums[:i] + sums[i + 1 :]) for i in range(len(sums))]
    formulas = {
        "gradient_magnitude": lambda w, g, other: np.abs(g),
        "snip": lambda w, g, other: np.abs(w * g),
        "grasp": lambda w, g, other: w * (along * np.cos(w) - c * total * np.sin(w) * g),
        "empirical_fisher": lambda w, g, other: np.mean(x**4) * (g / c) ** 2,
        "synflow": lambda w, g, other: np.abs(w) * x.sum() * other,
    }
    return [formulas[name](*parts) for parts in zip(weights, grads, others, strict=True)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_of_any_tree_have_its_structure_and_their_closed_form(kind, name, masked):
    params = draw(KINDS[kind](), 1)
    mask = draw_mask(params, 2) if masked else masks.ones(params)
    x = np.array([0.5, -1.0, 2.0], np.float32)
    function = product_of_sums if name == "synflow" else square_of_sines
    scores = SCORES[name](function, params, x, mask=mask if masked else None)
    assert_structure(scores, params)
    _, weights, kept, found = zip(*leaves(params, mask, scores), strict=True)
    for score, expected in zip(found, closed_form(name, weights, kept, x), strict=True):
        np.testing.assert_allclose(score, expected, rtol=2e-4, atol=1e-5)


# A network of two layers, derived by hand.

LAYERS = {"hidden": {"kernel": (4, 5), "bias": (5,)}, "output": {"kernel": (5, 3), "bias": (3,)}}
PARAMS = draw(jax.tree.map(jnp.zeros, LAYERS, is_leaf=lambda node: isinstance(node, tuple)), seed=1)
PRUNABLE = trees.prunable_leaves(PARAMS)
X, Y = draw(jnp.zeros((6, 4)), 2), draw(jnp.zeros((6, 3)), 3)


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    out = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    return jnp.mean(jnp.sum((out - y) ** 2, axis=-1)) / 2


def linear(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["output"]["kernel"] + params["output"]["bias"]


ARGUMENTS = dict.fromkeys(OF_A_LOSS, (loss, PARAMS, X, Y)) | {
    "synflow": (linear, PARAMS, jnp.ones((1, 4)))
}


def as64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def gradient(params, x, y):
    hidden = np.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    out = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    d_out = (out - y) / len(x)
    d_hidden = (d_out @ params["output"]["kernel"].T) * (1 - hidden**2)
    return {
        "hidden": {"kernel": x.T @ d_hidden, "bias": d_hidden.sum(0)},
        "output": {"kernel": hidden.T @ d_out, "bias": d_out.sum(0)},
    }


def hessian_times_gradient(params, x, y, step=1e-5):
    grads = gradient(params, x, y)
    ahead, behind = (
        gradient(jax.tree.map(lambda w, g, s=sign: w + s * step * g, params, grads), x, y)
        for sign in (1, -1)
    )
    return jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)


def mean_square(params, x, y):
    squares = [
        jax.tree.map(np.square, gradient(params, x[n : n + 1], y[n : n + 1])) for n in range(len(x))
    ]
    return jax.tree.map(lambda *parts: np.mean(parts, axis=0), *squares)


def flow_through(params, x, y):
    """The sum of all paths from an input of ones to the outputs that pass a weight."""
    w, b, v, c = (
        np.abs(params[layer][leaf]) for layer in ("hidden", "output") for leaf in ("kernel", "bias")
    )
    after = v.sum(axis=1)
    hidden = w.sum(axis=0) + b
    return {
        "hidden": {"kernel": w * after, "bias": b * after},
        "output": {"kernel": v * hidden[:, None], "bias": c},
    }


ORACLES = {
    "gradient_magnitude": lambda *at: jax.tree.map(np.abs, gradient(*at)),
    "snip": lambda *at: jax.tree.map(lambda w, g: np.abs(w * g), at[0], gradient(*at)),
    "grasp": lambda *at: jax.tree.map(np.multiply, at[0], hessian_times_gradient(*at)),
    "empirical_fisher": mean_square,
    "synflow": flow_through,
}


@pytest.mark.parametrize("name", SCORES)
def test_the_scores_of_a_network_are_those_derived_by_hand(name):
    scores = SCORES[name](*ARGUMENTS[name])
    expected = ORACLES[name](*as64((PARAMS, X, Y)))
    for path, found, oracle in leaves(scores, expected):
        np.testing.assert_allclose(found, oracle, rtol=1e-3, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", SCORES)
def test_jit_and_vmap_change_nothing(name):
    function, _, *batch = ARGUMENTS[name]
    members = [(draw(PARAMS, m), draw_mask(PARAMS, m + 9)) for m in range(3)]

    def score(params, mask):
        return SCORES[name](function, params, *batch, mask=mask)

    together = jax.jit(jax.vmap(score))(*jax.tree.map(lambda *parts: jnp.stack(parts), *members))
    for m, member in enumerate(members):
        alone = score(*member)
        for found in (jax.jit(score)(*member), jax.tree.map(lambda leaf, m=m: leaf[m], together)):
            for path, a, b in leaves(found, alone):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", SCORES)
def test_pruned_weights_do_not_count_whatever_their_values(name):
    function, params, *batch = ARGUMENTS[name]
    mask = draw_mask(params, 5)
    clean = SCORES[name](function, masks.apply(mask, params), *batch, mask=mask)
    broken = masks.apply(mask, params, fill=jnp.nan)
    assert_same_bits(SCORES[name](function, broken, *batch, mask=mask), clean)
    assert all((score[~kept] == 0).all() for _, score, kept in leaves(clean, mask))
    assert any((score[kept] != 0).any() for _, score, kept in leaves(clean, mask))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_weights_reach_the_loss_as_they_are_and_score_in_32_bits(name, dtype):
    params = jnp.array([300.0, -200.0], dtype)

    def function(params, x):
        assert params.dtype == dtype
        return jnp.sum(x * params.astype(jnp.float32) ** 2) / 2

    scores = SCORES[name](function, params, jnp.ones(1))
    expected = SCORES[name](function_of_wide, params.astype(jnp.float32), jnp.ones(1))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-2)
    assert jnp.isfinite(scores).all()


def function_of_wide(params, x):
    return jnp.sum(x * params**2) / 2


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "complex64"])
def test_leaves_without_floats_are_constants_and_score_zeros(name, dtype):
    params = {"kernel": jnp.array([[1.0, -2.0]]), "other": jnp.full(2, 3, dtype)}

    def function(params, x):
        return x * jnp.sum(params["kernel"] * params["other"].real.astype(jnp.float32)) ** 2

    scores = SCORES[name](function, params, jnp.ones(1) if "fisher" in name else 1.0)
    assert scores["other"].dtype == dtype and not scores["other"].any()
    assert (scores["kernel"] != 0).all()


@pytest.mark.parametrize("name", SCORES)
def test_sharded_parameters_and_those_that_jit_closes_over(name):
    function, params, *batch = ARGUMENTS[name]
    params = {"hidden": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)},
              "output": {"kernel": jnp.ones((8, 3)), "bias": jnp.ones(3)}}  # fmt: skip
    params = draw(params, 1)
    expected = SCORES[name](function, params, *batch)
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spec = PartitionSpec(None, "x")
        kernel = jax.device_put(params["hidden"]["kernel"], NamedSharding(mesh, spec))
        params["hidden"]["kernel"] = kernel
        score = functools.partial(SCORES[name], function, params, *batch)
        for found in (score(), jax.jit(score)()):
            for path, a, b in leaves(found, expected):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=path)
            assert found["hidden"]["kernel"].sharding.spec == spec
        kept = saliency.prune_iteratively(KEY, score, masks.ones(params), [30, 9], PRUNABLE)
    assert round(float(masks.density(kept, PRUNABLE)) * 56) == 9


@pytest.mark.parametrize("name", SCORES)
def test_pruning_takes_the_scores(name):
    scores = SCORES[name](*ARGUMENTS[name])
    counts = jax.tree.map(lambda w, yes: w.size // 2 if yes else w.size, PARAMS, PRUNABLE)
    layerwise = masks.prune(KEY, scores, masks.ones(PARAMS), counts)
    together = masks.prune_global(KEY, scores, masks.ones(PARAMS), 12, PRUNABLE)
    assert jax.tree.map(lambda leaf: int(leaf.sum()), layerwise) == counts
    assert round(float(masks.density(together, PRUNABLE)) * 35) == 12
    state = rounds.advance(
        KEY, rounds.begin(PARAMS), PARAMS,
        criterion=lambda w_i, w_f, mask=None: scores,
        mask_one=actions.rewind, mask_zero=actions.zero, num_keep=counts, prunable=PRUNABLE,
    )  # fmt: skip
    kept = zip(jax.tree.leaves(state.mask), jax.tree.leaves(scores), strict=True)
    assert all(mask.all() or score[mask].min() >= score[~mask].max() for mask, score in kept)


# The sign of GraSP.


def test_without_a_small_weight_the_squared_gradient_falls_by_twice_its_score():
    params, x, y = as64((PARAMS, X, Y))
    params["hidden"]["kernel"] *= 1e-3
    scores = saliency.grasp(loss, jax.tree.map(jnp.float32, params), X, Y)["hidden"]["kernel"]

    def flow(params):
        return sum((g**2).sum() for g in jax.tree.leaves(gradient(params, x, y)))

    lost = np.zeros_like(params["hidden"]["kernel"])
    for place in np.ndindex(lost.shape):
        fewer = jax.tree.map(np.copy, params)
        fewer["hidden"]["kernel"][place] = 0
        lost[place] = flow(params) - flow(fewer)
    assert (lost > 0).any() and (lost < 0).any()
    np.testing.assert_allclose(2 * scores, lost, rtol=2e-2, atol=1e-3 * np.abs(lost).max())


# The memory of the empirical Fisher.


def test_the_memory_of_the_fisher_does_not_grow_with_the_examples():
    def temporary(number):
        x, y = jnp.ones((number, 50)), jnp.ones((number, 40))
        fisher = functools.partial(
            saliency.empirical_fisher, lambda w, x, y: jnp.sum((x @ w - y) ** 2)
        )
        compiled = jax.jit(fisher).lower(jnp.ones((50, 40)), x, y).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(512) < temporary(8) + 50 * 40 * 4


# SynFlow, and pruning in rounds.


def stack(*widths):
    """Kernels of untrained dense layers with ReLU: normal, with variance 2 / inputs."""
    keys = jax.random.split(KEY, len(widths) - 1)
    pairs = zip(keys, widths, widths[1:], strict=False)
    return [jax.random.normal(key, (i, o)) * (2 / i) ** 0.5 for key, i, o in pairs]


def feed_forward(kernels, x):
    for kernel in kernels[:-1]:
        x = jax.nn.relu(x @ kernel)
    return x @ kernels[-1]


def test_synflow_in_100_rounds_keeps_every_layer_of_lenet300_where_one_shot_loses_the_largest():
    """At 1 % density, 2662 of the 266200 weights of 784-300-100-10."""
    params = stack(784, 300, 100, 10)
    score = functools.partial(saliency.synflow, feed_forward, params, jnp.ones((1, 784)))
    start, yes = masks.ones(params), [True] * 3
    counts = saliency.exponential_counts(266200, 2662, num_rounds=100)
    with pytest.warns(UserWarning, match="'0' lost the last weight"):
        one_shot = masks.prune_global(KEY, score(), start, 2662, yes)
    in_rounds = saliency.prune_iteratively(KEY, score, start, counts, yes)
    assert not one_shot[0].any()
    assert [int(m.sum()) > 500 for m in in_rounds] == [True] * 3
    assert sum(int(m.sum()) for m in in_rounds) == 2662
    assert score(mask=in_rounds)[0].any() and not any(s.any() for s in score(mask=one_shot))


def test_synflow_gives_all_layers_the_same_sum_and_no_scale_of_input_or_output_changes_a_rank():
    params, x = stack(8, 6, 5, 3), jnp.ones((1, 8))
    scores = saliency.synflow(feed_forward, params, x)
    sums = [float(leaf.sum()) for leaf in scores]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-5)
    scaled = saliency.synflow(lambda w, x: 2.0**-40 * feed_forward(w, x), params, x * 2.0**-30)
    assert_same_bits(jax.tree.map(lambda leaf: leaf * 2.0**70, scaled), scores)


def test_scores_that_overflow_are_refused_and_a_scale_of_input_and_output_helps():
    params, x, factor = [jnp.full((8, 8), 1e10)] * 4, jnp.ones((1, 8)), 2.0**-70
    start, yes = masks.ones(params), [True] * 4
    score = functools.partial(saliency.synflow, feed_forward, params, x)
    with pytest.raises(ValueError, match=r"^scores of '0', '1', '2', '3' are NaN or infinite in s"):
        saliency.prune_iteratively(KEY, score, start, [200, 100], yes)
    scaled = functools.partial(
        saliency.synflow, lambda w, x: factor * feed_forward(w, x), params, factor * x
    )
    kept = saliency.prune_iteratively(KEY, scaled, start, [200, 100], yes)
    assert sum(int(leaf.sum()) for leaf in kept) == 100


def prune_one_by_one(key, score, mask, counts, least):
    for number, count in enumerate(counts):
        round_key = jax.random.fold_in(key, number)
        mask = masks.prune_global(round_key, score(mask=mask), mask, count, PRUNABLE, least)
    return mask


@pytest.mark.parametrize(("name", "least"), [*((name, 0) for name in SCORES), ("snip", 4)])
def test_pruning_in_rounds_is_global_pruning_round_by_round(name, least):
    function, params, *batch = ARGUMENTS[name]
    score = jax.jit(functools.partial(SCORES[name], function, params, *batch))
    start = jax.tree.map(lambda m, yes: m | (not yes), draw_mask(params, 4, 0.9), PRUNABLE)
    counts = [24, 17, 11]
    expected = prune_one_by_one(KEY, score, start, counts, least)
    assert_same_bits(
        saliency.prune_iteratively(KEY, score, start, counts, PRUNABLE, least), expected
    )


def test_traced_counts_and_members_have_the_masks_of_single_calls():
    members = jax.tree.map(lambda *parts: jnp.stack(parts), *(draw(PARAMS, m) for m in range(3)))
    keys, counts = jax.random.split(KEY, 3), jnp.array([[30, 20], [25, 12], [35, 6]])

    def prune(key, params, counts):
        score = functools.partial(saliency.snip, loss, params, X, Y)
        return saliency.prune_iteratively(key, score, masks.ones(params), counts, PRUNABLE, 1)

    together = jax.jit(jax.vmap(prune))(keys, members, counts)
    for m in range(3):
        at = lambda tree, m=m: jax.tree.map(lambda leaf: leaf[m], tree)  # noqa: E731
        assert_same_bits(at(together), prune(keys[m], at(members), counts[m].tolist()))


def test_leaves_that_are_not_prunable_keep_their_mask_and_may_have_any_scores():
    params = {"kernel": jnp.ones((2, 3)), "count": jnp.ones(2, int), "bias": jnp.ones(3)}
    yes = {"kernel": True, "count": False, "bias": False}
    start = masks.ones(params) | {"bias": np.array([True, False, True])}

    def score(mask):
        return {"kernel": jnp.arange(6.0).reshape(2, 3), "count": mask["count"],
                "bias": jnp.full(3, jnp.nan)}  # fmt: skip

    new = saliency.prune_iteratively(KEY, score, start, np.array([4, 2]), yes)
    assert new["kernel"].tolist() == [[False] * 3, [False, True, True]]
    assert new["count"].all() and new["bias"].tolist() == [True, False, True]


def test_a_layer_that_is_lost_in_any_round_is_named_in_a_warning():
    scores = {"small": jnp.arange(3.0), "large": jnp.arange(10.0, 20.0)}
    yes = {"small": True, "large": True}
    with pytest.warns(UserWarning, match="'small' lost the last weight; least=1") as caught:
        saliency.prune_iteratively(KEY, lambda mask: scores, masks.ones(scores), [8, 5], yes)
    assert caught[0].filename == __file__
    kept = saliency.prune_iteratively(KEY, lambda mask: scores, masks.ones(scores), [8, 5], yes, 1)
    assert kept["small"].tolist() == [False, False, True]


@pytest.mark.parametrize("end", [1, 7, 500, 1000])
def test_exponential_counts_fall_by_one_factor_to_the_end(end):
    counts = saliency.exponential_counts(1000, end, num_rounds=20)
    factor = (end / 1000) ** (1 / 20)
    expected = [1000 * factor**k for k in range(1, 21)]
    assert len(counts) == 20 and counts[-1] == end
    assert all(isinstance(count, int) for count in counts)
    np.testing.assert_allclose(counts, expected, atol=0.5 + 1e-6)
    assert len(saliency.exponential_counts(9, 1)) == 100
    assert saliency.exponential_counts(10**17, 10**17, 1) == [10**17]


def rounds_of(**changes):
    scores = jnp.arange(4.0)
    call = {
        "key": KEY, "score": lambda mask: scores, "mask": jnp.ones(4, bool), "num_keep": [2],
        "prunable": True,
    }  # fmt: skip
    return saliency.prune_iteratively(**(call | changes))


W = jnp.ones((3, 2))
NAN = float("nan")

WRONG = [
    *(
        case
        for name, score in OF_A_LOSS.items()
        for case in (
            Case("types", lambda s=score: s("snip", W, W), TypeError,
                 r"^loss is 'snip', expected a function \(params, \*batch\) -> scalar"),
            Case("types", lambda s=score: s(lambda w, x: w.sum(0), W, W), TypeError,
                 r"^the loss returns float32\[2\], expected one float"),
            Case("types", lambda s=score: s(lambda w, x: (w.sum(), {}), W, W), TypeError,
                 "^the loss returns a value of type tuple, expected one float"),
            Case("types", lambda s=score: s(lambda w, x: 3, W, W), TypeError, "of type int"),
            Case("dtypes", lambda s=score: s(lambda w, x: (w > 0).sum(), W, W), TypeError,
                 r"returns int32\[\], expected one float"),
            Case("types", lambda s=score: s(lambda w, x: w, {"a": 1.0}, W), TypeError,
                 "leaf 'a' of params is 1.0"),
            Case("shapes", lambda s=score: s(jnp.vdot, W, W, mask=W.T > 0), ValueError,
                 r"has shape \[3, 2\] in params but \[2, 3\] in mask"),
            Case("dtypes", lambda s=score: s(jnp.vdot, W, W, mask=W), TypeError, "expected bool"),
        )
    ),
    Case("types", lambda: saliency.synflow(None, W), TypeError,
         r"^apply is None, expected a function \(params, \*inputs\) -> outputs"),
    Case("types", lambda: saliency.synflow(lambda w: (w, w), W), TypeError,
         "^apply returns a value of type tuple, expected an array of floats"),
    Case("dtypes", lambda: saliency.synflow(lambda w: w > 0, W), TypeError,
         r"^apply returns bool\[3, 2\], expected an array of floats"),
    *(
        Case("shapes", lambda b=batch: saliency.empirical_fisher(lambda w, *b: w.sum(), W, *b),
             ValueError, r"^the batch has arrays of shapes .*, expected \[N, ...\] with as many")
        for batch in ((), (W, W.T), (W[:0],), (W, 1.0))
    ),
    Case("types", lambda: rounds_of(key=0), TypeError, "expected a typed key"),
    Case("types", lambda: rounds_of(score="snip"), TypeError,
         r"^score is 'snip', expected a function \(mask=mask\) -> scores"),
    Case("types", lambda: rounds_of(score=saliency.snip), TypeError,
         r"^score does not take \(mask=mask\) alone; give it the rest first: functools.partial"),
    Case("types", lambda: rounds_of(score=lambda mask: 3.0), TypeError, "of scores is 3.0"),
    Case("shapes", lambda: rounds_of(score=lambda mask: jnp.ones(3)), ValueError, "has shape"),
    Case("dtypes", lambda: rounds_of(score=lambda mask: mask), TypeError, "expected floats"),
    Case("dtypes", lambda: rounds_of(mask=jnp.ones(4)), TypeError, "expected bool"),
    Case("types", lambda: rounds_of(prunable=1), TypeError, "expected True or False"),
    Case("ranges", lambda: rounds_of(prunable=False), ValueError, "no leaf is prunable"),
    *(
        Case("shapes", lambda n=n: rounds_of(num_keep=n), ValueError,
             r"^num_keep is .*, expected a number for every round")
        for n in (2, [], [[2]], "two", None)
    ),
    Case("types", lambda: rounds_of(num_keep=[2.0]), TypeError, r"is \[2.0\], expected integers"),
    Case("ranges", lambda: rounds_of(num_keep=[3, -1]), ValueError, r"\[3, -1\], expected numbers"),
    Case("ranges", lambda: rounds_of(least=-1), ValueError, "least is -1, expected an integer"),
    Case("ranges", lambda: rounds_of(score=lambda mask: jnp.array([1.0, NAN, 2.0, 3.0])),
         ValueError, "^scores of '' are NaN or infinite in some round"),
    Case("ranges", lambda: saliency.exponential_counts(10, 11), ValueError,
         "^end is 11, expected at most the 10 weights of the start"),
    Case("ranges", lambda: saliency.exponential_counts(10, 0), ValueError, "^end is 0, expected"),
    Case("types", lambda: saliency.exponential_counts(10.5, 1), ValueError, "^start is 10.5"),
    Case("ranges", lambda: saliency.exponential_counts(10, 1, 0), ValueError, "^num_rounds is 0"),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.pattern)
def test_wrong_input_is_an_error_of_one_line(case):
    check_error(case)
