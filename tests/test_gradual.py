"""Optimizers that change their mask, against loops in NumPy: gradual pruning and regrowth."""

import functools
import itertools
import math

import equinox as eqx
import flax.nnx
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax import criteria, masks, optimizers, population, rates, trees
from supermask_jax.transforms import (
    GradualState,
    freeze_pruned,
    mask_of,
    prune_gradually,
    regrow,
    set_mask,
)
from tests import reference
from tests.bad_input import Case, check_error
from tests.trees import KINDS, assert_same_bits, assert_structure, draw, leaves

KEY = jax.random.key(0)
SCHEDULE = rates.linear(0.25, begin=1, every=2, number=2)  # events at steps 1, 3 and 5
STEPS = 7
PARAMS = draw({"kernel": jnp.ones((4, 5)), "bias": jnp.ones(5)}, 0, 0.25)
PRUNABLE = {"kernel": True, "bias": False}


def gradually(prunable=PRUNABLE, inner=None, criterion=criteria.large_final, key=KEY, **options):
    inner = optax.sgd(0.125) if inner is None else inner
    return prune_gradually(inner, criterion, SCHEDULE, prunable, key=key, **options)


def regrowing(prunable=PRUNABLE, inner=None, key=KEY, **options):
    inner = optax.sgd(0.125) if inner is None else inner
    chosen = {"every": 2, "last": 6, "fraction": 0.5} | options
    return regrow(inner, 0.4, prunable, key=key, **chosen)


MAKERS = {"prune_gradually": gradually, "regrow": regrowing}


def make_step(optimizer):
    """Return a function of parameters, state and gradients that takes one step."""

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def run(optimizer, params=PARAMS, steps=STEPS, step=None, rounded=0.25):
    """Yield parameters, the state and the gradients of the step before, from the first on."""
    step = step or jax.jit(make_step(optimizer))
    state, grads = optimizer.init(params), None
    yield params, state, grads
    for seed in range(steps):
        grads = draw(params, seed, rounded)
        params, state = step(params, state, grads)
        yield params, state, grads


def last(optimizer, **options):
    *_, (params, state, _) = run(optimizer, **options)
    return params, state


# Pruning by a schedule


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_every_criterion_prunes_to_the_counts_of_the_schedule(name):
    """Values are multiples of 1/32, so NumPy computes the same; many scores tie."""
    kept = np.ones((4, 5), bool)
    w_i = w = np.asarray(PARAMS["kernel"])
    for step, (params, state, grads) in enumerate(
        run(gradually(criterion=criteria.CRITERIA[name]))
    ):
        if grads is None:
            continue
        new = np.asarray(state.mask["kernel"])
        count = math.ceil(20 * SCHEDULE(step - 1))
        if SCHEDULE.num_events(step - 1) != SCHEDULE.num_events(step - 2):
            reference.check_pruned(new, reference.CRITERIA[name](w_i, w, kept), kept, count)
        else:
            np.testing.assert_array_equal(new, kept)
        w = np.where(new, w - 0.125 * np.asarray(grads["kernel"]), 0)
        np.testing.assert_array_equal(params["kernel"], w)
        kept = new
    assert state.mask["bias"].all() and state.step == STEPS and kept.sum() == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_of_tree(name, kind):
    params = draw(KINDS[kind](), 1)
    prunable = trees.prunable_leaves(params)
    optimizer = MAKERS[name](prunable, optax.adamw(0.1, weight_decay=0.1))
    after, state = last(optimizer, params=params)
    assert_structure(after, params)
    assert_structure(mask_of(state), params)
    if name == "regrow":
        counts = rates.layer_counts(params, 0.4, "erk")
    else:
        counts = jax.tree.map(lambda c: c[-1], rates.schedule_counts(params, SCHEDULE))
    for path, weights, kept, count in leaves(after, mask_of(state), counts):
        assert kept.sum() == count, path
        assert not weights[~kept].any() and np.isfinite(weights).all(), path


def test_only_criteria_that_look_at_the_start_keep_it():
    hidden = jax.tree.map(lambda w: w * jnp.nan, PARAMS)
    for criterion in criteria.CRITERIA.values():
        same = jax.tree.map(
            lambda a, b: bool((a == b).all()), criterion(hidden, PARAMS), criterion(PARAMS, PARAMS)
        )
        needless = criterion in criteria.OF_FINAL_WEIGHTS
        assert all(jax.tree.leaves(same)) == needless
        w_i = gradually(criterion=criterion).init(PARAMS).w_i
        assert w_i is None if needless else w_i["kernel"] is not PARAMS["kernel"]


def test_the_inner_optimizer_sees_zeros_for_pruned_weights():
    """Weights, gradients and norms are those of a network in which they are 0."""
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra, grads=updates, params=params)
        return updates, state

    asking = optax.GradientTransformationExtraArgs(lambda params: (), update)
    optimizer = prune_gradually(
        asking, criteria.large_final, rates.one_shot(0.25, at=0), PRUNABLE, key=KEY
    )
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(draw(PARAMS, 1), state, PARAMS, grad=draw(PARAMS, 2), value=3.0)
    pruned = ~np.asarray(state.mask["kernel"])
    assert pruned.sum() == 15 and seen["value"] == 3.0
    for tree in (seen["grads"], seen["params"], seen["grad"]):
        assert not np.asarray(tree["kernel"])[pruned].any()
        assert np.asarray(tree["kernel"])[~pruned].any()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("weights", "gradients"),
    [("float16", "float32"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")],
)
def test_pruned_weights_are_zero_in_every_precision(name, weights, gradients):
    optimizer = MAKERS[name]()
    params = jax.tree.map(lambda w: (w + 0.001).astype(weights), PARAMS)
    state = optimizer.init(params)
    for seed in range(STEPS):
        grads = jax.tree.map(lambda g: g.astype(gradients), draw(params, seed))
        params, state = make_step(optimizer)(params, state, grads)
        assert params["kernel"].dtype == weights
        assert not params["kernel"][~state.mask["kernel"]].any()


@pytest.mark.parametrize("name", MAKERS)
def test_one_compiled_step_serves_all_events_and_is_the_step_outside_of_jit(name):
    optimizer, traces = MAKERS[name](inner=optax.adam(0.1)), []

    @jax.jit
    def step(params, state, grads):
        traces.append(1)
        return make_step(optimizer)(params, state, grads)

    compiled, eager = last(optimizer, step=step), last(optimizer, step=make_step(optimizer))
    assert len(traces) == 1
    assert_same_bits(compiled[1].mask, eager[1].mask)
    for _, a, b in leaves(compiled[0], eager[0]):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# Members


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shared", [False, True], ids=["a step each", "one step for all"])
def test_members_under_vmap_are_those_of_a_loop(name, shared):
    options = {"criterion": criteria.random} if name == "prune_gradually" else {}
    make, keys = functools.partial(MAKERS[name], **options), jax.random.split(KEY, 3)
    optimizer = make()
    states = jax.vmap(lambda key: make(key=key).init(PARAMS))(keys)
    axes = jax.tree.map(lambda _: 0, states)
    if shared:
        states, axes = states._replace(step=jnp.int32(0)), axes._replace(step=None)
    params = population.stack([PARAMS] * 3)
    mapped = jax.jit(jax.vmap(make_step(optimizer), (0, axes, None), (0, axes)))
    for seed in range(STEPS):
        params, states = mapped(params, states, draw(PARAMS, seed, 0.25))
    alone = [last(make(key=key)) for key in keys]
    assert_same_bits(params, population.stack([one for one, _ in alone]))
    assert_same_bits(mask_of(states), population.stack([mask_of(state) for _, state in alone]))
    different = {leaf.tobytes() for leaf in np.asarray(mask_of(states)["kernel"])}
    assert len(different) > 1  # each member has its own key


def names_of(jaxpr):
    """Yield the primitives of a jaxpr, except those of the branches of conditionals and loops."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        if equation.primitive.name in ("jit", "pjit"):
            yield from names_of(equation.params["jaxpr"].jaxpr)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shared", [False, True], ids=["a step each", "one step for all"])
def test_vmap_keeps_the_conditional_if_members_share_the_step(name, shared):
    optimizer = MAKERS[name]()
    states = jax.vmap(lambda key: MAKERS[name](key=key).init(PARAMS))(jax.random.split(KEY, 2))
    axes = jax.tree.map(lambda _: 0, states)
    if shared:
        states, axes = states._replace(step=jnp.int32(0)), axes._replace(step=None)
    params = population.stack([PARAMS] * 2)
    mapped = jax.vmap(make_step(optimizer), (0, axes, None), (0, axes))
    found = set(names_of(jax.make_jaxpr(mapped)(params, states, PARAMS).jaxpr))
    # A loop of at most one turn is what is left of the conditional: it ranks when a member must.
    assert ({"cond", "while"} & found) == ({"cond"} if shared else {"while"})


def test_members_one_after_the_other():
    keys = jax.random.split(KEY, 2)
    states = jax.vmap(lambda key: (PARAMS, gradually(key=key).init(PARAMS)))(keys)

    def train(state, inputs):
        for seed in range(STEPS):
            state = make_step(gradually())(*state, draw(PARAMS, seed, 0.25))
        return state, inputs

    (params, states), _ = jax.jit(population.map_members(train))(states, jnp.arange(2))
    for m, key in enumerate(keys):
        expected, state = last(gradually(key=key))
        assert_same_bits(population.take((params, mask_of(states)), m), (expected, mask_of(state)))


# Loops of other packages, and places in optax


@pytest.mark.parametrize("name", MAKERS)
def test_flax_s_train_state_needs_no_change(name):
    optimizer = MAKERS[name](inner=optax.adam(0.1))
    state = flax.training.train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=optimizer)
    step = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
    for seed in range(STEPS):
        state = step(state, draw(PARAMS, seed, 0.25))
    expected, expected_state = last(optimizer)
    assert_same_bits((state.params, mask_of(state.opt_state)), (expected, mask_of(expected_state)))


@pytest.mark.parametrize("name", MAKERS)
def test_nnx_s_optimizer_needs_no_change(name):
    model = flax.nnx.Linear(4, 5, rngs=flax.nnx.Rngs(0))
    params = flax.nnx.state(model, flax.nnx.Param)
    prunable = trees.prunable_leaves(params)
    inner = MAKERS[name](prunable, optax.adam(0.1))
    optimizer = flax.nnx.Optimizer(model, inner, wrt=flax.nnx.Param)
    step = flax.nnx.jit(lambda model, optimizer, grads: optimizer.update(model, grads))
    for seed in range(STEPS):
        step(model, optimizer, draw(params, seed))
    mask, found = (flax.nnx.as_pure(x) for x in (mask_of(optimizer.opt_state), prunable))
    assert masks.density(mask, found) == np.float32(0.4 if name == "regrow" else 0.25)
    assert not np.asarray(model.kernel[...])[~np.asarray(mask["kernel"])].any()


def test_equinox_s_loop_needs_no_change():
    model = eqx.nn.MLP(2, 3, 4, 1, key=KEY)
    params = eqx.filter(model, eqx.is_array)
    optimizer = gradually(trees.prunable_leaves(params))

    @eqx.filter_jit
    def step(model, state):
        grads = eqx.filter_grad(lambda model: jnp.sum(model(jnp.ones(2)) ** 2))(model)
        updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state

    state = optimizer.init(params)
    for _ in range(STEPS):
        model, state = step(model, state)
    for _, weights, kept in leaves(eqx.filter(model, eqx.is_array), mask_of(state)):
        assert not weights[~kept].any()


PARTS = {"kernel": "pruned", "bias": "rest"}
INSIDE = {
    "partition": lambda one: optax.partition({"pruned": one, "rest": optax.sgd(0.125)}, PARTS),
    "masked": lambda one: optax.masked(one, PRUNABLE),
    "chain": lambda one: optax.chain(one, optax.scale(1.0)),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("place", INSIDE)
def test_inside_other_transformations(name, place):
    after, state = last(INSIDE[place](MAKERS[name]()))
    kept = np.asarray(mask_of(state)["kernel"])
    assert kept.sum() == (8 if name == "regrow" else 5)
    assert not np.asarray(after["kernel"])[~kept].any()
    assert (after["bias"] != PARAMS["bias"]).any()
    assert_same_bits(set_mask(state, mask_of(state)), state)


@pytest.mark.parametrize("name", MAKERS)
def test_around_partitions(name):
    inner = optax.partition({"pruned": optax.adam(0.1), "rest": optax.sgd(0.1)}, PARTS)
    for params, state, grads in run(MAKERS[name](inner=inner)):
        if grads is not None:
            assert not params["kernel"][~mask_of(state)["kernel"]].any()
    moments = optax.tree.get(state, "mu")
    assert moments["kernel"].shape == (4, 5)


def test_masks_of_parts_are_put_together():
    frozen = freeze_pruned(optax.sgd(0.1), BIAS)
    optimizer = optax.partition({"pruned": gradually(), "rest": frozen}, PARTS)
    state = optimizer.init(PARAMS)
    assert_same_bits(mask_of(state), {"kernel": jnp.ones((4, 5), bool), "bias": BIAS["bias"]})
    other = {"kernel": jnp.zeros((4, 5), bool), "bias": jnp.zeros(5, bool)}
    assert_same_bits(mask_of(set_mask(state, other)), other)


BIAS = {"kernel": jnp.ones((4, 5), bool), "bias": jnp.arange(5) < 2}


def test_a_mask_that_is_set_holds_from_the_next_update_on():
    optimizer = gradually()
    fewer = PRUNABLE | {"kernel": jnp.arange(20).reshape(4, 5) < 3, "bias": jnp.ones(5, bool)}
    state = set_mask(optimizer.init(PARAMS), fewer)
    params = PARAMS
    for seed in range(STEPS):
        params, state = make_step(optimizer)(params, state, draw(PARAMS, seed))
        assert not params["kernel"][~fewer["kernel"]].any()
    assert_same_bits(state.mask, fewer)  # fewer than any event keeps


# Regrowth


@pytest.mark.parametrize("decay", ["cosine", "constant"])
def test_weights_that_are_dropped_and_grown_by_gradient(decay):
    """Without ties, in numpy: drop the smallest of 8 weights, grow the largest gradients."""
    start = draw(PARAMS, 3)
    optimizer = regrowing(decay=decay)
    old, w = None, np.asarray(start["kernel"])
    numbers = []
    for step, (params, state, grads) in enumerate(run(optimizer, start, rounded=None)):
        new = np.asarray(state.mask["kernel"])
        assert new.sum() == 8
        if grads is None:
            old = new
            continue
        g, update = np.asarray(grads["kernel"]), step - 1
        if update in (2, 4):
            share = (1 + math.cos(math.pi * update / 6)) / 2 if decay == "cosine" else 1
            number = math.floor(0.5 * share * 8)
            numbers.append(number)
            dropped = np.argsort(np.where(old, np.abs(w), np.inf), axis=None)[:number]
            left = old.copy()
            left.flat[dropped] = False
            reference.check_pruned(new & ~left, np.abs(g), ~left, number)
            assert (new & left).sum() == 8 - number
            w = np.where(old & new, w, 0)  # an event moves no weight
        else:
            np.testing.assert_array_equal(new, old)
            w = np.where(new, w - np.float32(0.125) * g, 0)
        np.testing.assert_array_equal(params["kernel"], w)
        old = new
    assert numbers == ([3, 1] if decay == "cosine" else [4, 4])


def test_random_growth_is_uniform_over_the_pruned_weights():
    optimizer = regrowing(growth="random", decay="constant", every=1, last=2, fraction=1)

    def grown(key):
        made = regrowing(growth="random", decay="constant", every=1, last=2, fraction=1, key=key)
        state = made.init(PARAMS)._replace(step=jnp.int32(1))
        before = state.mask["kernel"]
        _, state = optimizer.update(PARAMS, state, PARAMS)
        return before, state.mask["kernel"]

    before, after = jax.jit(jax.vmap(grown))(jax.random.split(KEY, 500))
    assert (after.sum((1, 2)) == 8).all()
    for frequency in (before.mean(0), after.mean(0)):  # 0.4, with a deviation of 0.022
        assert np.abs(frequency - 0.4).max() < 0.1


def test_an_event_takes_the_place_of_a_step_and_clears_the_moments_of_what_grows():
    optimizer = regrowing(inner=optax.adam(0.1))
    states = [(params, state) for params, state, _ in run(optimizer)]
    for step, ((before, old), (after, new)) in enumerate(itertools.pairwise(states)):
        event = step in (2, 4)
        counts = [optax.tree.get(state, "count") for state in (old, new)]
        assert counts[1] - counts[0] == (0 if event else 1)
        if not event:
            continue
        stays, fresh = (
            old.mask["kernel"] & new.mask["kernel"],
            ~old.mask["kernel"] & new.mask["kernel"],
        )
        assert fresh.any()
        np.testing.assert_array_equal(before["bias"], after["bias"])
        for tree in ("mu", "nu"):
            a, b = (optax.tree.get(state, tree)["kernel"] for state in (old, new))
            assert not b[fresh].any()
            np.testing.assert_array_equal(a[~fresh], b[~fresh])
        np.testing.assert_array_equal(before["kernel"][stays], after["kernel"][stays])


def test_moments_of_weights_that_return_are_cleared():
    """Dense training leaves moments everywhere; those of pruned weights stay until they grow."""
    inner = optax.adam(0.1)
    optimizer = regrowing(inner=inner, every=1, last=2, decay="constant")
    _, dense = inner.update(draw(PARAMS, 1), inner.init(PARAMS), PARAMS)
    state = optimizer.init(PARAMS)._replace(step=jnp.int32(1), inner_state=dense)
    _, after = optimizer.update(draw(PARAMS, 2), state, PARAMS)
    grown = np.asarray(after.mask["kernel"] & ~state.mask["kernel"])
    assert grown.any()
    np.testing.assert_array_equal(np.asarray(optax.tree.get(after, "nu")["kernel"]) == 0, grown)


@pytest.mark.parametrize(
    ("inner", "part", "first"),
    [
        (optax.adam(0.1), "nu", 0.0),
        (optax.adagrad(0.1, initial_accumulator_value=0.5), "sum_of_squares", 0.5),
        (optax.rprop(0.25), "step_sizes", 0.25),
    ],
    ids=["adam", "adagrad", "rprop"],
)
def test_what_grows_has_the_state_of_a_new_optimizer(inner, part, first):
    optimizer = regrowing(inner=inner, every=2, last=3, decay="constant")
    params, state, grads = PARAMS, optimizer.init(PARAMS), draw(PARAMS, 1)
    for _ in range(2):
        _, state = optimizer.update(grads, state, params)
    _, after = optimizer.update(grads, state, params)
    grown = np.asarray(after.mask["kernel"] & ~state.mask["kernel"])
    old, new = (np.asarray(optax.tree.get(each, part)["kernel"]) for each in (state, after))
    assert grown.any() and (new[grown] == np.float32(first)).all()
    np.testing.assert_array_equal(new[~grown], old[~grown])
    assert (new[np.asarray(state.mask["kernel"])] != np.float32(first)).all()


# What cannot work


def test_a_late_start_needs_the_state():
    with pytest.raises(ValueError, match="GradualState counts the steps"):
        optimizers.with_schedules_at(5, gradually().init(PARAMS))


def call(optimizer, grads=PARAMS, params=PARAMS):
    return optimizer.update(grads, optimizer.init(PARAMS), params)


WRONG = [
    Case("types", lambda: gradually(inner=3), TypeError, "the optimizer is 3, expected one of"),
    Case("types", lambda: gradually(key=0), TypeError, "expected a typed key .*got 0"),
    Case("types", lambda: gradually(key=jax.random.split(KEY)), TypeError, "expected one key"),
    Case("names", lambda: gradually(criterion="large_final"), TypeError, "is 'large_fi"),
    Case("types", lambda: call(gradually(), params=None), TypeError, "prune_gradually needs"),
    Case("types", lambda: call(regrowing(), params=None), TypeError, "regrow needs the weights"),
    Case(
        "types",
        lambda: prune_gradually(
            optax.sgd(1.0), criteria.movement, 0.5, PRUNABLE, key=KEY
        ).init(PARAMS),
        TypeError, "schedule is 0.5, expected a Schedule",
    ),
    Case("names", lambda: gradually(distribution="er").init(PARAMS), ValueError, "unknown dist"),
    Case(
        "shapes", lambda: gradually({"kernel": True}).init(PARAMS), ValueError,
        "'bias' is in params but not in prunable",
    ),
    Case(
        "types", lambda: regrowing({"kernel": 1, "bias": 0}).init(PARAMS), TypeError,
        "'bias' of prunable is 0, expected True or False",
    ),
    Case(
        "shapes", lambda: call(gradually(), {"kernel": PARAMS["kernel"]}), ValueError,
        "'bias' is in mask but not in updates|'bias' is in params but not in updates",
    ),
    Case(
        "shapes", lambda: call(regrowing(), PARAMS | {"bias": jnp.ones(3)}), ValueError,
        r"'bias' has shape \[3\] in updates",
    ),
    Case(
        "types", lambda: gradually(inner=optax.lookahead(optax.sgd(0.1), 2, 0.5)).init(
            optax.LookaheadParams.init_synced(PARAMS)
        ), ValueError, "different trees",
    ),
    Case("ranges", lambda: regrowing(every=0), ValueError, "every is 0, expected an integer of 1"),
    Case("ranges", lambda: regrowing(last=2), ValueError, "last is 2, expected more than every"),
    Case("ranges", lambda: regrowing(fraction=1.5), ValueError, r"fraction of regrow is 1.5"),
    Case("names", lambda: regrowing(decay="cos"), ValueError, "unknown decay 'cos'"),
    Case("names", lambda: regrowing(growth="grad"), ValueError, "unknown growth 'grad'; .*known:"),
    Case(
        "ranges", lambda: regrow(
            optax.sgd(0.1), 2, PRUNABLE, every=1, last=2, key=KEY
        ).init(PARAMS), ValueError, r"density of all weights is 2, expected a number in \[0, 1\]",
    ),
    Case("types", lambda: mask_of(optax.adam(0.1).init(PARAMS)), ValueError, "keeps no mask"),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.pattern[:30])
def test_wrong_input_is_refused_in_one_line(case):
    check_error(case)


def test_a_criterion_of_another_structure_is_refused():
    optimizer = gradually(criterion=lambda w_i, w_f, mask=None: {"kernel": w_f["kernel"]})
    check_error(Case("shapes", lambda: call(optimizer), ValueError, "different trees"))
    assert isinstance(optimizer.init(PARAMS), GradualState)
