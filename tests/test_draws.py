"""Every draw of `supermasks` against the formulas of its paper, in numpy."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax import masks, supermasks, trees
from tests.bad_input import Case, check_error
from tests.trees import KERNELS, KINDS, assert_structure, draw, leaves

KEY = jax.random.key(3)
NAN, INF = float("nan"), float("inf")
STEP = np.float64(1)  # a derivative of 1


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def logistic(u):
    return np.log(u / (1 - u))


def halves(tree):
    return jax.tree.map(lambda leaf: leaf.size // 2, tree)


def highest(rank):
    """Return which half of the weights has the highest ranks, of which no two are equal."""
    kept = np.zeros(rank.size, bool)
    kept[np.argsort(rank.ravel())[rank.size - rank.size // 2 :]] = True
    return kept.reshape(rank.shape)


# Draws, made for a tree of logits.
DRAWS = {
    "bernoulli": lambda tree: supermasks.bernoulli(),
    "top_k by score": lambda tree: supermasks.top_k(halves(tree)),
    "top_k by size": lambda tree: supermasks.top_k(halves(tree), by="size"),
    "threshold": lambda tree: supermasks.threshold(0.25),
    "ternary": lambda tree: supermasks.ternary(0.5),
    "ternary of two thresholds": lambda tree: supermasks.ternary(0.75, low=0.25),
    "gumbel": lambda tree: supermasks.gumbel(0.5),
    "hard_concrete": lambda tree: supermasks.hard_concrete(),
    "hard_concrete of other ends": lambda tree: supermasks.hard_concrete(0.9, low=-0.4, high=1.2),
    "continuous": lambda tree: supermasks.continuous(3.0),
}


def bernoulli(s, u):
    return u < sigmoid(s), sigmoid(s) * sigmoid(-s), s >= 0


def top_k(rank, slope, s):
    return highest(rank(s)), slope(s), highest(rank(s))


def ternary(high, low, s):
    signs = np.where(s >= high, 1.0, np.where(s <= low, -1.0, 0.0))
    return signs, STEP, signs


def gumbel(s, u, temperature=0.5):
    soft = sigmoid((s + logistic(u)) / temperature)
    return soft, soft * (1 - soft) / temperature, s >= 0


def hard_concrete(s, u, temperature, low, high):
    soft, slope, _ = gumbel(s, u, temperature)
    stretched = soft * (high - low) + low
    inside = (stretched > 0) & (stretched < 1)
    gates = np.clip(sigmoid(s) * (high - low) + low, 0, 1)
    return np.clip(stretched, 0, 1), inside * slope * (high - low), gates


# By draw: `(scores, uniform numbers) -> mask, its derivative, mask to evaluate`, in float64.
FORMULAS = {
    "bernoulli": bernoulli,
    "top_k by score": lambda s, u: top_k(np.asarray, np.ones_like, s),
    "top_k by size": lambda s, u: top_k(np.abs, np.sign, s),
    "threshold": lambda s, u: (s >= 0.25, STEP, s >= 0.25),
    "ternary": lambda s, u: ternary(0.5, -0.5, s),
    "ternary of two thresholds": lambda s, u: ternary(0.75, 0.25, s),
    "gumbel": gumbel,
    "hard_concrete": lambda s, u: hard_concrete(s, u, 2 / 3, -0.1, 1.1),
    "hard_concrete of other ends": lambda s, u: hard_concrete(s, u, 0.9, -0.4, 1.2),
    "continuous": lambda s, u: (sigmoid(3 * s), 3 * sigmoid(3 * s) * sigmoid(-3 * s), s > 0),
}
NUMBERS = ("ternary", "hard_concrete")  # the draws that evaluate no bools
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@functools.cache  # one program is compiled faster than many
def found(kind):
    """Return the mask of all draws, the gradient of a loss of it, and the mask to evaluate."""
    params = KINDS[kind]()
    logits, factors = draw(params, 1), draw(params, 2)
    prunable = trees.prunable_leaves(params)

    def run(logits):
        results = {}
        for name, make in DRAWS.items():
            of_logits = supermasks.loss_of_logits(
                lambda params: sum(map(jnp.sum, jax.tree.leaves(params))),
                factors,
                prunable,
                draw=make(params),
            )
            results[name] = (
                make(params)(KEY, logits, prunable),
                jax.grad(of_logits)(logits, KEY),
                make(params).evaluate(logits, prunable),
            )
        return results

    return logits, factors, jax.jit(run)(logits)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_gradients_of_any_tree_are_those_of_the_paper(kind, name):
    logits, factors, results = found(kind)
    mask, grads, evaluated = results[name]
    for tree in (mask, grads, evaluated):
        assert_structure(tree, logits)
    rows = leaves(logits, factors, mask, grads, evaluated)
    for i, (path, s, factor, m, grad, gate) in enumerate(rows):
        if path not in KERNELS[kind]:
            assert (m == 1).all() and (grad == 0).all() and (gate == 1).all()
            continue
        tiny = 0 if name == "bernoulli" else np.finfo(np.float32).tiny
        u = jax.random.uniform(jax.random.fold_in(KEY, i), s.shape, minval=tiny)
        expected, slope, to_evaluate = FORMULAS[name](np.float64(s), np.float64(u))
        np.testing.assert_allclose(m, expected, **CLOSE)
        np.testing.assert_allclose(grad, factor * slope, **CLOSE)
        np.testing.assert_allclose(gate, to_evaluate, **CLOSE)
        assert gate.dtype == (m.dtype if name.startswith(NUMBERS) else bool)


PARAMS = {
    "hidden": {"kernel": draw(jnp.ones((6, 8)), 1), "bias": draw(jnp.ones(8), 2)},
    "output": {"kernel": draw(jnp.ones((8, 3)), 3), "bias": draw(jnp.ones(3), 4)},
}
PRUNABLE = trees.prunable_leaves(PARAMS)
LOGITS = draw(PARAMS, 5)
X = draw(jnp.ones((16, 6)), 6)


def outputs(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["output"]["kernel"] + params["output"]["bias"]


def loss(params, x):
    labels = jnp.argmax(x[:, :3], axis=1)
    return optax.softmax_cross_entropy_with_integer_labels(outputs(params, x), labels).mean()


def assert_close(a, b, rtol=1e-4, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)


@functools.cache
def jitted_and_mapped():
    """Return all gradients under jit, for one key and mapped over three, from one program."""

    def run(logits, keys):
        results = {}
        for name, make in DRAWS.items():
            of_logits = supermasks.loss_of_logits(
                loss, PARAMS, PRUNABLE, draw=make(PARAMS), rescale=True
            )
            one = lambda key, f=of_logits: jax.grad(f)(logits, key, X)  # noqa: E731
            results[name] = one(keys[0]), jax.vmap(one)(keys)
        return results

    return jax.jit(run)(LOGITS, jax.random.split(KEY, 3))


@pytest.mark.parametrize("name", DRAWS)
def test_jit_is_eager_and_vmap_is_a_loop(name):
    jitted, mapped = jitted_and_mapped()[name]
    of_logits = supermasks.loss_of_logits(
        loss, PARAMS, PRUNABLE, draw=DRAWS[name](PARAMS), rescale=True
    )
    looped = [jax.grad(of_logits)(LOGITS, key, X) for key in jax.random.split(KEY, 3)]
    assert_close(jitted, looped[0])
    assert_close(mapped, jax.tree.map(lambda *parts: jnp.stack(parts), *looped))


@pytest.mark.parametrize("name", ["gumbel", "hard_concrete", "continuous"])
def test_the_temperature_may_be_traced(name):
    make = getattr(supermasks, name)

    def mask(temperature):
        return make(temperature)(KEY, LOGITS, PRUNABLE)

    temperatures = jnp.array([0.5, 1.0, 20.0])
    mapped = jax.jit(jax.vmap(mask))(temperatures)
    looped = jax.tree.map(lambda *parts: jnp.stack(parts), *(mask(float(t)) for t in temperatures))
    assert_close(mapped, looped)
    assert np.ptp(mapped["hidden"]["kernel"], axis=0).max() > 0.1


@pytest.mark.parametrize("name", ["threshold", "ternary"])
def test_thresholds_may_be_traced(name):
    make = getattr(supermasks, name)
    traced = jax.jit(lambda value: make(value)(KEY, LOGITS, PRUNABLE))(0.5)
    assert_close(traced, make(0.5)(KEY, LOGITS, PRUNABLE))


@functools.cache
def per_device():
    """Return the gradients of all draws inside shard_map, summed, and those of each device alone.

    Every device draws its own mask. shard_map is used with its default check of values that vary.
    """
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    def device(logits, key, place, x):
        def total(logits, name):
            of_logits = supermasks.loss_of_logits(
                loss, PARAMS, PRUNABLE, draw=DRAWS[name](PARAMS), rescale=True
            )
            return of_logits(logits, jax.random.fold_in(key, place), x)

        return {name: jax.grad(total)(logits, name) for name in DRAWS}

    sharded = jax.shard_map(
        lambda logits, key, x: device(logits, key, jax.lax.axis_index("data"), x),
        mesh=mesh, in_specs=(spec(), spec(), spec("data")), out_specs=spec(),
    )  # fmt: skip
    alone = jax.jit(device)
    parts = [alone(LOGITS, KEY, place, X[4 * place : 4 * place + 4]) for place in range(4)]
    return jax.jit(sharded)(LOGITS, KEY, X), jax.tree.map(lambda *parts: sum(parts), *parts)


@pytest.mark.parametrize("name", DRAWS)
def test_gradients_inside_shard_map_are_the_sum_over_devices(name):
    summed, expected = per_device()
    assert_close(summed[name], expected[name])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
@pytest.mark.parametrize("name", DRAWS)
def test_narrow_logits_draw_the_masks_of_wide_ones(name, dtype):
    narrow = jax.tree.map(lambda leaf: leaf.astype(dtype), LOGITS)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    make = DRAWS[name](PARAMS)
    with jax.numpy_dtype_promotion("strict"):
        for few, many in (
            (make(KEY, narrow, PRUNABLE), make(KEY, wide, PRUNABLE)),
            (make.evaluate(narrow, PRUNABLE), make.evaluate(wide, PRUNABLE)),
        ):
            for _, a, b in leaves(few, many):
                assert a.dtype in (dtype, bool)
                np.testing.assert_array_equal(np.float32(a), np.float32(b.astype(a.dtype)))


@functools.cache
def learned():
    """Train the logits of all draws; return their losses before and after, with evaluated masks."""
    optimizer = optax.adam(0.05)
    start = supermasks.init_scores(KEY, PARAMS, PRUNABLE)

    def learn(make):
        of_logits = supermasks.loss_of_logits(loss, PARAMS, PRUNABLE, draw=make)

        def step(carry, key):
            logits, state = carry
            updates, state = optimizer.update(jax.grad(of_logits)(logits, key, X), state)
            return (optax.apply_updates(logits, updates), state), None

        keys = jax.random.split(KEY, 200)
        (logits, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys)
        mask = jax.tree.map(lambda *parts: jnp.stack(parts), *(
            make.evaluate(tree, PRUNABLE) for tree in (start, logits)
        ))  # fmt: skip
        return jax.vmap(
            lambda mask: loss(supermasks.masked_params(mask, PARAMS, PRUNABLE), X)
        )(mask)  # fmt: skip

    return jax.jit(lambda: {name: learn(make(PARAMS)) for name, make in DRAWS.items()})()


@pytest.mark.parametrize("name", DRAWS)
def test_every_draw_learns_a_mask(name):
    before, after = learned()[name]
    assert after < 0.6 * before, (before, after)


# Edge-popup


def test_top_k_prunes_as_masks_do():
    counts = halves(PARAMS) | {"output": {"kernel": 5, "bias": 3}}
    ties = jax.tree.map(lambda leaf: jnp.round(2 * leaf), LOGITS)
    whole = {"hidden": {"kernel": 24, "bias": 8}, "output": {"kernel": 5, "bias": 3}}
    pruned = masks.prune(KEY, ties, masks.ones(ties), whole)
    drawn = supermasks.top_k(counts)(KEY, ties, PRUNABLE)
    assert_close(drawn, jax.tree.map(lambda m: m.astype(jnp.float32), pruned), 0, 0)


def test_equal_scores_are_kept_at_random_in_training_and_not_in_evaluation():
    equal = jnp.zeros((5, 8))
    keys = jax.random.split(KEY, 3)
    top_k = supermasks.top_k(7)
    drawn = jax.jit(jax.vmap(lambda key: top_k(key, equal + 0 * jax.random.uniform(key), True)))
    chosen = drawn(keys)
    assert (chosen.sum((1, 2)) == 7).all() and (chosen[0] != chosen[1]).any()
    evaluate = jax.jit(lambda scores: top_k.evaluate(scores, True))
    np.testing.assert_array_equal(evaluate(equal), evaluate(equal))
    assert evaluate(equal).sum() == 7


@pytest.mark.parametrize("count", [0, 40, 99])
def test_equal_scores_of_which_all_or_none_are_kept_are_no_error(count):
    drawn = supermasks.top_k(count)(KEY, jnp.ones((5, 8)), True)
    assert drawn.sum() == min(count, 40)


def test_the_number_to_keep_may_be_traced():
    scores = draw(jnp.ones((5, 8)), 1)
    keep = jax.jit(jax.vmap(lambda n: supermasks.top_k(n)(KEY, scores, True)))
    assert keep(jnp.array([3, 8, 50])).sum((1, 2)).tolist() == [3, 8, 40]


EQUINOX = jax.nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2
)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "arguments", "fan_in"),
    [((50, 90), (), 50), ((3, 3, 20, 30), (), 180), ((50, 90), (EQUINOX,), 90)],
)
def test_start_scores_are_uniform_within_the_bound_of_the_fan_in(shape, arguments, fan_in):
    scores = np.asarray(supermasks.init_scores(KEY, jnp.ones(shape), True, *arguments), float)
    bound = fan_in**-0.5
    assert 0.99 * bound < np.abs(scores).max() <= bound * (1 + 1e-6)
    assert abs(scores.std() - bound / np.sqrt(3)) < 0.05 * bound


@pytest.mark.parametrize("kind", KINDS)
def test_start_scores_of_any_tree(kind):
    params = KINDS[kind]()
    prunable = trees.prunable_leaves(params)
    scores = supermasks.init_scores(KEY, jax.eval_shape(lambda: params), prunable)
    assert_structure(scores, params)
    for path, leaf in leaves(scores):
        assert (len(np.unique(leaf)) == leaf.size) if path in KERNELS[kind] else (leaf == 0).all()


def test_start_scores_of_the_kernels_of_equinox_rank_every_layer():
    module = eqx.nn.MLP(4, 3, 50, depth=1, key=KEY)
    params = eqx.filter(module, eqx.is_array)
    scores = supermasks.init_scores(KEY, params, trees.prunable_leaves(params), EQUINOX)
    assert 0.45 < abs(scores.layers[0].weight).max() <= 0.5
    assert 0.13 < abs(scores.layers[1].weight).max() <= 50**-0.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_start_scores_have_the_types_and_empty_leaves_of_the_parameters(dtype):
    params = {"kernel": jnp.ones((9, 5), dtype), "nothing": jnp.ones((0, 3), dtype)}
    scores = supermasks.init_scores(KEY, params, {"kernel": True, "nothing": True})
    assert_structure(scores, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(scores)} == {jnp.dtype(dtype)}


# Relaxations


def test_concrete_masks_of_low_temperature_are_bernoulli_masks():
    logits = jnp.repeat(jnp.array([-2.0, 0.0, 1.0]), 20_000).reshape(3, -1)
    drawn = np.asarray(supermasks.gumbel(1e-3)(KEY, logits, True))
    assert (np.minimum(drawn, 1 - drawn) < 1e-3).mean() > 0.99
    np.testing.assert_allclose(drawn.mean(1), sigmoid([-2.0, 0.0, 1.0]), atol=0.015)


@pytest.mark.parametrize("ends", [{}, {"temperature": 0.4, "low": -0.3, "high": 1.4}])
def test_the_penalty_counts_the_gates_that_are_not_zero(ends):
    logits = {"kernel": jnp.linspace(-4, 4, 60_000).reshape(3, -1), "bias": jnp.ones(7)}
    prunable = {"kernel": True, "bias": False}
    drawn = supermasks.hard_concrete(**ends)(KEY, logits, prunable)["kernel"]
    penalty, grads = jax.value_and_grad(supermasks.hard_concrete_penalty)(logits, prunable, **ends)
    temperature, low, high = (2 / 3, -0.1, 1.1) if not ends else ends.values()
    alive = sigmoid(np.float64(logits["kernel"]) - temperature * np.log(-low / high))
    np.testing.assert_allclose(penalty, alive.sum(), rtol=1e-5)
    np.testing.assert_allclose(grads["kernel"], alive * (1 - alive), **CLOSE)
    assert not grads["bias"].any()
    assert abs((drawn != 0).sum() - penalty) < 5 * np.sqrt((alive * (1 - alive)).sum())


def test_the_penalty_of_leaves_of_several_types():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        logits = {"a": jnp.full(70_000, 99, "float16"), "b": jnp.full(3, 99, "float64")}
        penalty = supermasks.hard_concrete_penalty(logits, {"a": True, "b": True})
        assert penalty == 70_003 and penalty.dtype == jnp.float64


def test_the_temperature_rises_by_the_same_factor_in_every_step():
    steps = np.arange(8)
    expected = 200.0 ** (np.minimum(steps, 5) / 5)
    eager = [supermasks.temperature_at(int(step), 5, final=200) for step in steps]
    traced = jax.jit(jax.vmap(lambda step, final: supermasks.temperature_at(step, 5, final)))
    np.testing.assert_allclose(eager, expected, rtol=1e-5)
    np.testing.assert_allclose(traced(steps, jnp.full(8, 200.0)), expected, rtol=1e-5)


# Rescaling


@pytest.mark.parametrize("count_gradient", [False, True])
def test_rescaling_counts_kept_and_inverted_weights(count_gradient):
    mask, w = np.array([[1.0, -1.0, 0.0, 1.0, 0.0]]), np.array([[2.0, -3.0, 5.0, 0.5, 1.0]])
    d = np.array([[1.0, 2.0, -1.0, 0.5, 3.0]])  # of a loss by the rescaled weights

    def total(mask):
        rescaled = supermasks.masked_params(
            mask, jnp.asarray(w, jnp.float32), True, rescale=True, count_gradient=count_gradient
        )
        return jnp.sum(rescaled * d), rescaled

    grads, rescaled = jax.grad(total, has_aux=True)(jnp.asarray(mask, jnp.float32))
    np.testing.assert_allclose(rescaled, w * mask * 5 / 3, rtol=1e-6)
    through_count = (d * w * mask).sum() * 5 / 3**2 * np.where(mask < 0, -1, 1)
    np.testing.assert_allclose(grads, d * w * 5 / 3 - count_gradient * through_count, rtol=1e-5)


def test_rescaling_counts_gates_by_what_they_let_through():
    gates = jnp.array([[0.25, 0.0, 1.0, 0.75]])
    rescaled = supermasks.masked_params(gates, jnp.ones((1, 4)), True, rescale=True)
    np.testing.assert_allclose(rescaled, gates * 4 / 2, rtol=1e-6)


# Wrong input

SCORES = {"kernel": draw(jnp.ones((3, 2)), 1), "bias": jnp.ones(2)}
YES = {"kernel": True, "bias": False}
COUNTS = {"kernel": 2, "bias": 2}
EQUAL = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
TOP_2 = supermasks.top_k(COUNTS)


def of_draw(draw):
    return supermasks.loss_of_logits(lambda params: params["kernel"].sum(), SCORES, YES, draw=draw)


ALL_EQUAL = r"'kernel' are all equal, .* start from supermasks\.init_scores"
POSITIVE = "expected a finite number above 0"
FACTORIES = ("bernoulli", "top_k", "threshold", "ternary", "gumbel", "hard_concrete", "continuous")
WRONG = [
    Case("types", lambda: of_draw("top_k"), TypeError, "draw is 'top_k', expected a function"),
    Case("types", lambda: of_draw(None), TypeError, "draw is None, expected a function"),
    *(
        Case(
            "types", lambda name=name: of_draw(getattr(supermasks, name)), TypeError,
            rf"draw {name} does not take \(key, logits, prunable\); .* pass that function: {name}",
        )
        for name in FACTORIES
    ),
    *(
        Case(
            "types", lambda name=name: DRAWS[name](SCORES)(0, SCORES, YES), TypeError,
            "expected a typed key",
        )
        for name in DRAWS
    ),
    *(
        Case(
            "names", lambda name=name: DRAWS[name](SCORES)(KEY, SCORES, {"kernel": True}),
            ValueError, "leaf 'bias' is in logits but not in prunable",
        )
        for name in DRAWS
    ),
    *(
        Case(
            "names", lambda name=name: DRAWS[name](SCORES).evaluate(SCORES, {"kernel": True}),
            ValueError, "leaf 'bias' is in logits but not in prunable",
        )
        for name in DRAWS
    ),
    *(
        Case("ranges", lambda f=f, t=t: f(t), ValueError, f"temperature is .*, {POSITIVE}")
        for f in (supermasks.gumbel, supermasks.hard_concrete, supermasks.continuous)
        for t in (0, -1.0, NAN, INF, "1", None, True, np.ones(2))
    ),
    *(
        Case("ranges", lambda f=f, v=v: f(v), ValueError, "threshold.* is .*, expected a finite")
        for f in (supermasks.threshold, supermasks.ternary)
        for v in (NAN, INF, "1", None, True, np.ones(2))
    ),
    Case(
        "shapes", lambda: jax.jit(lambda t: supermasks.gumbel(t)(KEY, SCORES, YES))(jnp.ones(2)),
        ValueError, "temperature is JitTracer",
    ),
    Case("ranges", lambda: supermasks.ternary(0.5, 0.5), ValueError, "expected low below high"),
    Case("ranges", lambda: supermasks.ternary(-0.5), ValueError, "expected low below high"),
    Case("types", lambda: supermasks.ternary(0.5, "0"), ValueError, "threshold low is '0'"),
    *(
        Case("ranges", lambda f=f, e=e: f(**e), ValueError, "low is .* low below 0 and high above")
        for f in (
            supermasks.hard_concrete,
            lambda **e: supermasks.hard_concrete_penalty(SCORES, YES, **e),
        )
        for e in ({"low": 0.0}, {"high": 1})
    ),
    Case("types", lambda: supermasks.hard_concrete(high="1"), ValueError, "high is '1', expected"),
    Case(
        "types", lambda: jax.jit(lambda low: supermasks.hard_concrete(low=low))(-0.1), ValueError,
        "low is traced, expected a Python number",
    ),
    Case(
        "empty lists",
        lambda: supermasks.hard_concrete_penalty(SCORES, {"kernel": False, "bias": False}),
        ValueError, "no leaf is prunable",
    ),
    Case("names", lambda: supermasks.top_k(COUNTS, "abs"), ValueError, "known: score, size"),
    Case("ranges", lambda: TOP_2(KEY, EQUAL, YES), ValueError, ALL_EQUAL),
    Case("ranges", lambda: TOP_2.evaluate(EQUAL, YES), ValueError, ALL_EQUAL),
    Case("ranges", lambda: jax.grad(of_draw(TOP_2))(EQUAL, KEY), ValueError, ALL_EQUAL),
    Case(
        "types", lambda: supermasks.top_k(2)(KEY, SCORES, YES), ValueError,
        "logits and num_keep are different trees",
    ),
    Case(
        "types", lambda: supermasks.top_k({"kernel": 0.5, "bias": 2})(KEY, SCORES, YES), TypeError,
        "num_keep of leaf 'kernel' is 0.5, expected one integer",
    ),
    Case(
        "ranges", lambda: supermasks.top_k({"kernel": -1, "bias": 2})(KEY, SCORES, YES), ValueError,
        "num_keep of leaf 'kernel' is -1, expected 0 or more",
    ),
    Case(
        "ranges", lambda: TOP_2(KEY, SCORES | {"kernel": NAN * SCORES["kernel"]}, YES), ValueError,
        "6 of the 6 scores of leaf 'kernel' are NaN",
    ),
    Case("ranges", lambda: supermasks.temperature_at(-1, 5, 200), ValueError, "step is -1"),
    Case("types", lambda: supermasks.temperature_at(0.5, 5, 200), TypeError, "one integer"),
    Case("ranges", lambda: supermasks.temperature_at(1, 0, 200), ValueError, "num_steps is 0"),
    Case("ranges", lambda: supermasks.temperature_at(1, 5, 0), ValueError, f"final .*, {POSITIVE}"),
    Case("types", lambda: supermasks.init_scores(0, SCORES, YES), TypeError, "a typed key"),
    Case(
        "types", lambda: supermasks.init_scores(KEY, SCORES, YES, "kaiming"), TypeError,
        r"initializer is 'kaiming', expected a function, such as jax\.nn\.initializers",
    ),
    Case(
        "types",
        lambda: supermasks.init_scores(KEY, SCORES, YES, jax.nn.initializers.he_uniform),
        ValueError, r"makes <function .* for leaf 'kernel' of shape \[3, 2\]",
    ),
    Case(
        "shapes", lambda: supermasks.init_scores(KEY, SCORES, {"kernel": True, "bias": True}),
        ValueError, r"no scores for leaf 'bias' of shape \[2\] .* such as jax\.nn\.initializers",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.pattern[:40])
def test_wrong_input_gets_a_clear_error(case):
    check_error(case)
