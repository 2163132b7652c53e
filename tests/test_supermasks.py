import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax import supermasks, trees

KEY = jax.random.key(7)
RNG = np.random.default_rng(0)
PARAMS = {
    "dense1": {"kernel": RNG.normal(size=(5, 4)).astype(np.float32), "bias": np.zeros(4, "f4")},
    "output": {"kernel": RNG.normal(size=(4, 3)).astype(np.float32), "bias": np.ones(3, "f4")},
}
PARAMS = jax.tree.map(jnp.asarray, PARAMS)
PRUNABLE = trees.prunable_leaves(PARAMS)
LOGITS = jax.tree.map(
    lambda w, yes: jnp.asarray(RNG.normal(size=w.shape), jnp.float32) if yes else 0 * w,
    PARAMS, PRUNABLE,
)  # fmt: skip
BATCH = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32)


def loss(params, batch):
    hidden = jnp.maximum(batch @ params["dense1"]["kernel"] + params["dense1"]["bias"], 0)
    out = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    return jnp.sum(out**2) / 2


def reference_gradient(mask, rescale, count_gradient):
    """Compute the gradient by hand, in float64."""
    as64 = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float64), tree)  # noqa: E731
    w, b, m, x = as64(PARAMS), as64(mask), as64(LOGITS), np.asarray(BATCH, np.float64)

    def factor(name):
        return b[name]["kernel"].size / b[name]["kernel"].sum() if rescale else 1.0

    def effective(name):
        return w[name]["kernel"] * b[name]["kernel"] * factor(name)

    before = x @ effective("dense1") + w["dense1"]["bias"]
    hidden = np.maximum(before, 0)
    out = hidden @ effective("output") + w["output"]["bias"]
    d_output = hidden.T @ out
    d_dense1 = x.T @ ((out @ effective("output").T) * (before > 0))
    grads = {}
    for name, d in (("dense1", d_dense1), ("output", d_output)):
        own = d * w[name]["kernel"] * factor(name)
        if rescale and count_gradient:
            count = b[name]["kernel"].sum()
            own -= (d * w[name]["kernel"] * b[name]["kernel"]).sum() * factor(name) / count
        p = 1 / (1 + np.exp(-m[name]["kernel"]))
        grads[name] = own * p * (1 - p)
    return grads


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("count_gradient", [False, True])
def test_gradients_are_those_worked_out_by_hand(rescale, count_gradient):
    of_logits = supermasks.loss_of_logits(
        loss, PARAMS, PRUNABLE, rescale=rescale, count_gradient=count_gradient
    )
    grads = jax.grad(of_logits)(LOGITS, KEY, BATCH)
    mask = supermasks.sample(KEY, LOGITS, PRUNABLE)
    for name, expected in reference_gradient(mask, rescale, count_gradient).items():
        np.testing.assert_allclose(grads[name]["kernel"], expected, rtol=2e-4, atol=1e-5)
        assert not np.any(grads[name]["bias"])


@pytest.mark.parametrize("rescale", [False, True])
def test_forward_and_reverse_mode_agree(rescale):
    of_logits = supermasks.loss_of_logits(loss, PARAMS, PRUNABLE, rescale=rescale)
    tangent = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), x.dtype), LOGITS)
    f = lambda logits: of_logits(logits, KEY, BATCH)  # noqa: E731
    value, forward = jax.jvp(f, (LOGITS,), (tangent,))
    grads = jax.grad(f)(LOGITS)
    reverse = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, tangent)))
    np.testing.assert_allclose(forward, reverse, rtol=1e-4)
    np.testing.assert_array_equal(value, f(LOGITS))


@pytest.mark.parametrize(
    "dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2]
)
def test_samples_are_exactly_zero_or_one_and_average_to_the_probability(dtype):
    logits = jnp.asarray([[-4.0, -1.0, 0.0, 0.5, 3.0]], dtype)
    keys = jax.random.split(KEY, 4000)
    draws = jax.jit(jax.vmap(lambda key: supermasks.sample(key, logits, True)))(keys)
    assert draws.dtype == dtype and set(np.unique(np.float32(draws))) == {0.0, 1.0}
    probability = 1 / (1 + np.exp(-np.float64(logits)))
    expected = supermasks.expected(logits, True)
    assert expected.dtype == jnp.float32
    np.testing.assert_allclose(expected, probability, 1e-6)
    np.testing.assert_allclose(supermasks.expected_density(logits, True), probability.mean(), 1e-6)
    error = 4 * np.sqrt(probability * (1 - probability) / len(keys))
    assert (np.abs(np.float64(draws).mean(0) - probability) < error).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("logit", [-8.0, -6.0, 6.0])
def test_narrow_logits_draw_rare_weights_as_rarely_as_wide_ones(dtype, logit):
    logits = jnp.full(2**20, logit, dtype)
    drawn = supermasks.sample(KEY, logits, True)
    assert drawn.dtype == dtype
    wide = supermasks.sample(KEY, logits.astype(jnp.float32), True)
    np.testing.assert_array_equal(np.float32(drawn), wide)
    probability = 1 / (1 + np.exp(-logit))
    error = 5 * np.sqrt(probability * (1 - probability) / logits.size)
    assert abs(np.float64(np.float32(drawn)).mean() - probability) < error


def test_the_density_of_leaves_of_several_types():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        logits = {"a": jnp.zeros(3, "bfloat16"), "b": jnp.zeros(3, "float64")}
        density = supermasks.expected_density(logits, {"a": True, "b": True})
        assert density == 0.5 and density.dtype == jnp.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_logits_draw_in_their_own_type(dtype):
    """A mask compares one uniform number per weight with the sigmoid, in the type of the logits."""
    with jax.enable_x64(True):
        logits = jnp.asarray(RNG.normal(size=(50, 40)), dtype)
        key = jax.tree.leaves(trees.leaf_keys(KEY, logits))[0]
        expected = jax.random.bernoulli(key, jax.nn.sigmoid(logits))
        np.testing.assert_array_equal(supermasks.sample(KEY, logits, True), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_narrow_types_have_gradients(dtype):
    weights = jnp.asarray([[1.0, -1.0, 2.0]], dtype)

    def total(logits):
        mask = supermasks.sample(KEY, logits, True)
        return jnp.sum(supermasks.masked_params(mask, weights, True).astype(jnp.float32))

    grads = jax.grad(total)(jnp.zeros((1, 3), dtype))
    assert grads.dtype == dtype
    np.testing.assert_array_equal(np.float32(grads), [[0.25, -0.25, 0.5]])


SHARDED = {
    "same draw everywhere": (lambda key, place: key, lambda logits, place: logits),
    "a draw per device": (jax.random.fold_in, lambda logits, place: logits),
    "logits per device": (lambda key, place: key, lambda logits, place: logits + 0.1 * place),
}


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("name", SHARDED)
def test_gradients_inside_shard_map_are_the_sum_over_devices(name, rescale):
    """With shard_map's default check of values that vary between devices."""
    own_key, own_logits = SHARDED[name]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    batches = jnp.asarray(RNG.normal(size=(8, 5)), jnp.float32)
    of_logits = supermasks.loss_of_logits(loss, PARAMS, PRUNABLE, rescale=rescale)

    def of_device(logits, key, place, batch):
        own = jax.tree.map(lambda m: own_logits(m, place), logits)
        return of_logits(own, own_key(key, place), batch)

    def device(logits, key, batch):
        return jax.grad(of_device)(logits, key, jax.lax.axis_index("data"), batch)

    sharded = jax.shard_map(
        device, mesh=mesh, in_specs=(spec(), spec(), spec("data")), out_specs=spec()
    )
    found = jax.jit(sharded)(LOGITS, KEY, batches)
    alone = [
        jax.grad(of_device)(LOGITS, KEY, place, batches[2 * place : 2 * place + 2])
        for place in range(4)
    ]
    expected = jax.tree.map(lambda *parts: sum(parts), *alone)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )


def test_leaves_that_are_not_prunable_are_whole():
    biases = [layer["bias"] for layer in supermasks.sample(KEY, LOGITS, PRUNABLE).values()]
    biases += [layer["bias"] for layer in supermasks.most_probable(LOGITS, PRUNABLE).values()]
    assert all(np.all(bias == 1) for bias in biases)
    mask = supermasks.sample(KEY, LOGITS, PRUNABLE)
    masked = supermasks.masked_params(mask, PARAMS, PRUNABLE, rescale=True)
    for name in PARAMS:
        np.testing.assert_array_equal(masked[name]["bias"], PARAMS[name]["bias"])


@pytest.mark.parametrize("rescale", [False, True])
def test_masked_weights_are_zero_or_weight_times_factor(rescale):
    mask = supermasks.sample(KEY, LOGITS, PRUNABLE)
    masked = supermasks.masked_params(mask, PARAMS, PRUNABLE, rescale=jnp.asarray(rescale))
    for name in PARAMS:
        b, w = np.asarray(mask[name]["kernel"]), np.asarray(PARAMS[name]["kernel"])
        factor = np.float32(b.size / b.sum()) if rescale else np.float32(1)
        np.testing.assert_array_equal(masked[name]["kernel"], np.where(b == 1, w * factor, 0 * w))


def test_a_mask_of_zeros_under_rescaling_is_a_network_of_zeros():
    none = jnp.full((2, 3), -1e4)
    weights = jnp.ones((2, 3))

    def total(logits):
        mask = supermasks.sample(KEY, logits, True)
        return jnp.sum(supermasks.masked_params(mask, weights, True, rescale=True))

    value, grad = jax.value_and_grad(total)(none)
    assert value == 0 and np.isfinite(grad).all()


def test_eager_is_jit_and_a_population_is_a_loop():
    of_logits = supermasks.loss_of_logits(loss, PARAMS, PRUNABLE, rescale=True)
    f = jax.grad(of_logits)
    eager, jitted = f(LOGITS, KEY, BATCH), jax.jit(f)(LOGITS, KEY, BATCH)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), eager, jitted)
    keys = jax.random.split(KEY, 3)
    many = jax.vmap(f, in_axes=(None, 0, None))(LOGITS, keys, BATCH)
    looped = jax.tree.map(lambda *x: jnp.stack(x), *(f(LOGITS, key, BATCH) for key in keys))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), many, looped)


def test_a_supermask_of_a_linen_network_learns():
    nn = pytest.importorskip("flax.linen")
    images = jnp.asarray(RNG.normal(size=(64, 8)), jnp.float32)
    labels = jnp.argmax(images[:, :3], axis=1)
    model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(3)])
    params = model.init(jax.random.key(1), images)
    check_learning(params, lambda p: model.apply(p, images), labels)


def test_a_supermask_of_an_equinox_network_learns():
    eqx = pytest.importorskip("equinox")
    images = jnp.asarray(RNG.normal(size=(64, 8)), jnp.float32)
    labels = jnp.argmax(images[:, :3], axis=1)
    params, rest = eqx.partition(eqx.nn.MLP(8, 3, 64, 1, key=jax.random.key(1)), eqx.is_array)
    check_learning(params, lambda p: jax.vmap(eqx.combine(p, rest))(images), labels)


def check_learning(params, apply, labels):
    prunable = trees.prunable_leaves(params)
    logits = supermasks.init_logits(params, prunable)

    def cross_entropy(params):
        losses = optax.softmax_cross_entropy_with_integer_labels(apply(params), labels)
        return losses.mean()

    of_logits = supermasks.loss_of_logits(cross_entropy, params, prunable)
    optimizer = optax.sgd(20.0, momentum=0.9)

    @jax.jit
    def step(logits, state, key):
        value, grads = jax.value_and_grad(of_logits)(logits, key)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(logits, updates), state, value

    state, values = optimizer.init(logits), []
    for i in range(150):
        logits, state, value = step(logits, state, jax.random.fold_in(KEY, i))
        values.append(float(value))
    assert np.mean(values[-20:]) < 0.8 * np.mean(values[:5])
    best = supermasks.masked_params(supermasks.most_probable(logits, prunable), params, prunable)
    untrained, masked = (float(jnp.mean(apply(p).argmax(axis=1) == labels)) for p in (params, best))
    assert masked > 0.75 and masked - untrained > 0.3, (masked, untrained)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.zeros(2)])
def test_wrong_initial_logits(value):
    with pytest.raises(ValueError, match="the initial logit is"):
        supermasks.init_logits(PARAMS, PRUNABLE, value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", 1e39), ("float16", 1e5), ("float16", -1e5), ("float8_e4m3fn", 500)],
)
def test_an_initial_logit_that_its_leaf_cannot_hold_is_an_error(dtype, value):
    params = {"dense": {"kernel": jnp.ones((2, 2), dtype), "bias": jnp.ones(2)}}
    prunable = {"dense": {"kernel": True, "bias": False}}
    with pytest.raises(ValueError, match=rf"finite as {dtype}, the type of leaf 'dense/kernel'"):
        supermasks.init_logits(params, prunable, value)
    assert supermasks.init_logits(params, prunable, 8)["dense"]["kernel"].dtype == dtype


def test_no_prunable_leaf():
    with pytest.raises(ValueError, match="no leaf is prunable"):
        supermasks.init_logits({"bias": jnp.zeros(3)}, {"bias": False})


@pytest.mark.parametrize(
    "call",
    [
        lambda: supermasks.sample(KEY, {"other": jnp.ones((2, 2))}, PRUNABLE),
        lambda: supermasks.expected(LOGITS, {"dense1": True}),
        lambda: supermasks.masked_params(LOGITS, {"dense1": jnp.ones((5, 4))}, PRUNABLE),
    ],
)
def test_trees_that_differ(call):
    with pytest.raises(ValueError, match="different trees"):
        call()


def test_no_typed_key():
    with pytest.raises(TypeError, match="expected a typed key"):
        supermasks.sample(jnp.zeros(2, jnp.uint32), LOGITS, PRUNABLE)
