import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supermask_jax import masks, rates, rounds, trees
from supermask_jax.actions import (
    MASK_ONE,
    MASK_ZERO,
    freeze,
    on_every_leaf,
    resample,
    rewind,
    zero,
)
from supermask_jax.criteria import CRITERIA, large_final, same_sign
from tests import reference
from tests.trees import KERNELS, KINDS, assert_same_bits, assert_structure, draw, leaves

KEY = jax.random.key(0)
ROUNDS = 4
SMALL = {"kernel": jnp.ones((8, 5)), "bias": jnp.ones(5)}


def train(state, number, step=None):
    """Imitate training: pruned weights stay, and all others move anywhere."""
    start = rounds.start_params(state)
    return masks.apply(state.mask, draw(start, 100 + number, step), start)


def history(criterion, mask_one, mask_zero, params=SMALL, step=None):
    """Return (state, w_f, next state) of every round, with leaves as NumPy arrays."""
    prunable = trees.prunable_leaves(params)
    rate = rates.rates_by_path(params, [], default=0.3, prunable=prunable)
    state, seen = rounds.begin(draw(params, 0)), []
    for number in range(1, ROUNDS + 1):
        w_f = train(state, number, step)
        new = rounds.advance(
            jax.random.fold_in(KEY, number),
            state,
            w_f,
            criterion=criterion,
            mask_one=mask_one,
            mask_zero=mask_zero,
            num_keep=rates.keep_counts(params, rate, number),
            prunable=prunable,
        )
        seen.append(jax.tree.map(np.asarray, (state, w_f, new)))
        state = new
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_one_round_of_every_tree(kind):
    params = draw(KINDS[kind](), 0)
    prunable = trees.prunable_leaves(params)
    num_keep = rates.keep_counts(
        params, rates.rates_by_path(params, [], default=0.2, prunable=prunable), 1
    )
    state, w_f = rounds.begin(params), draw(params, 1)
    assert_same_bits(rounds.start_params(state), params)
    new = rounds.advance(
        KEY,
        state,
        w_f,
        criterion=large_final,
        mask_one=rewind,
        mask_zero=zero,
        num_keep=num_keep,
        prunable=prunable,
    )
    for tree in (*new, rounds.start_params(new)):
        assert_structure(tree, params)
    expected = []
    for path, w_i, f, count in leaves(params, w_f, num_keep):
        mask = reference.prune(np.abs(f), np.ones(f.shape, bool), count)
        assert mask.all() == (path not in KERNELS[kind])
        expected.append(np.where(mask, w_i, np.float32(0)))
    for got, want in zip(jax.tree.leaves(rounds.start_params(new)), expected, strict=True):
        assert np.asarray(got).tobytes() == want.tobytes()


@pytest.mark.parametrize("name", MASK_ZERO)
@pytest.mark.parametrize("one", ["rewind", "reinit", "reshuffle", "rewind_unless_shrunk"])
def test_a_mask_zero_decision_stands(name, one):
    decided = {}
    for state, w_f, new in history(large_final, MASK_ONE[one], MASK_ZERO[name]):
        pruned_now = state.mask["kernel"] & ~new.mask["kernel"]
        assert pruned_now.any()
        assert not (new.mask["kernel"] & ~state.mask["kernel"]).any()
        start = np.asarray(rounds.start_params(new)["kernel"])
        reference.MASK_ZERO[name](start, state.w_i["kernel"], w_f["kernel"], pruned_now)
        decided |= {place: start[place] for place in zip(*np.nonzero(pruned_now), strict=True)}
        assert set(decided) == set(zip(*np.nonzero(~new.mask["kernel"]), strict=True))
        assert all(start[p].tobytes() == value.tobytes() for p, value in decided.items())


@pytest.mark.parametrize("name", MASK_ONE)
def test_no_fill_leaks_and_random_actions_compound(name):
    fill = 777.0

    def sentinel(key, w_i, w_f, mask):
        return jax.tree.map(lambda m, w: jnp.where(m, fill, jnp.nan), mask, w_i)

    for state, w_f, new in history(large_final, MASK_ONE[name], sentinel):
        kept, start = new.mask["kernel"], np.asarray(rounds.start_params(new)["kernel"])
        assert (start[~kept] == fill).all()  # not the NaN of the weights that are kept
        assert np.isfinite(start).all()
        assert (start[kept] != fill).all()
        if name != "finetune":  # finetune returns the trained values of pruned weights, too
            assert (new.w_i["kernel"] != fill).all()
        assert (start[kept] == new.w_i["kernel"][kept]).all()
        values = new.w_i["kernel"]  # all values of the action
        reference.MASK_ONE[name](values, state.w_i["kernel"], w_f["kernel"], kept)


def test_random_actions_draw_anew_every_round():
    seen = [new.w_i["kernel"] for *_, new in history(large_final, MASK_ONE["reinit"], zero)]
    assert len({w.tobytes() for w in seen}) == ROUNDS


def test_rewind_always_returns_to_the_first_weights():
    first = np.asarray(draw(SMALL, 0)["kernel"])
    for *_, new in history(large_final, rewind, freeze):
        assert (np.asarray(rounds.start_params(new)["kernel"]) == first).all()


@pytest.mark.parametrize("name", MASK_ONE)
def test_leaves_that_are_not_prunable_rewind_or_keep_their_training(name):
    bias = draw(SMALL, 0)["bias"]
    for _, w_f, new in history(large_final, MASK_ONE[name], zero):
        assert new.mask["bias"].all()
        expected = jnp.asarray(w_f["bias"]) if name == "finetune" else bias
        assert_same_bits(jnp.asarray(rounds.start_params(new)["bias"]), expected)


def test_variant_2_is_cumulative():
    """A kept weight that shrank starts from zero from then on; one that grew starts from `w_i`."""
    first = np.asarray(draw(SMALL, 0)["kernel"])
    shrunk = np.zeros(first.shape, bool)
    for state, w_f, new in history(
        CRITERIA["random"], MASK_ONE["rewind_unless_shrunk"], MASK_ZERO["zero_if_shrunk"]
    ):
        shrunk |= state.mask["kernel"] & (np.abs(w_f["kernel"]) < np.abs(state.w_i["kernel"]))
        expected = np.where(shrunk, 0, first)
        np.testing.assert_array_equal(rounds.start_params(new)["kernel"], expected)
        assert (shrunk & new.mask["kernel"]).any()
        assert (~shrunk & new.mask["kernel"]).any()
    assert shrunk.sum() > (shrunk & ~state.mask["kernel"]).sum()


@pytest.mark.parametrize("name", CRITERIA)
def test_the_criterion_sees_the_rounds_own_start_weights_and_mask(name):
    for state, w_f, new in history(CRITERIA[name], MASK_ONE["reinit"], freeze, step=0.25):
        before, after = state.mask["kernel"], new.mask["kernel"]
        scores = reference.CRITERIA[name](state.w_i["kernel"], w_f["kernel"], before)
        reference.check_pruned(after, scores, before, int(after.sum()))


def test_exact_counts_over_rounds():
    left = [new.mask["kernel"].sum() for *_, new in history(large_final, rewind, zero)]
    assert left == [reference.keep_count(40, 0.3, number) for number in range(1, ROUNDS + 1)]


def test_begin_masked():
    params = draw(SMALL, 0)
    mask = {"kernel": params["kernel"] > 0, "bias": jnp.ones(5, bool)}
    state = rounds.begin(params, mask)
    expected = {"kernel": jnp.maximum(params["kernel"], 0.0), "bias": params["bias"]}
    assert_same_bits(rounds.start_params(state), expected)


def test_rounds_share_one_program_jitted_or_eager(compilations):
    params = {"kernel": jnp.ones((9, 7)), "bias": jnp.ones(7)}  # shapes of this test alone
    prunable = trees.prunable_leaves(params)
    rate = {"kernel": 0.2, "bias": 0.0}
    advance = functools.partial(
        rounds.advance,
        criterion=CRITERIA["large_init_large_final"],
        mask_one=MASK_ONE["reshuffle"],
        mask_zero=MASK_ZERO["zero_shuffled"],
        prunable=prunable,
    )
    states = {}
    for way, function in {"jit": jax.jit(advance), "eager": advance}.items():
        state, seen = rounds.begin(draw(params, 0)), []
        for number in range(1, 5):
            w_f = train(state, number)
            state = function(
                jax.random.fold_in(KEY, number),
                state,
                w_f,
                num_keep=rates.keep_counts(params, rate, number),
            )
            seen.append(len(compilations))
        assert 0 < seen[0] == seen[-1], way
        states[way] = state
    assert_same_bits(states["jit"], states["eager"])


def test_vmap_over_members_equals_loop():
    advance = functools.partial(
        rounds.advance,
        criterion=CRITERIA["movement"],
        mask_one=MASK_ONE["reshuffle"],
        mask_zero=MASK_ZERO["zero_shuffled"],
        prunable={"kernel": True, "bias": False},
    )
    members = [
        (jax.random.key(m), rounds.begin(draw(SMALL, m)), draw(SMALL, m + 9)) for m in range(3)
    ]
    counts = [{"kernel": jnp.int32(count), "bias": jnp.int32(5)} for count in (10, 20, 40)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    stacked_counts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *counts)
    together = jax.jit(jax.vmap(advance))(*stacked, num_keep=stacked_counts)
    for m, member in enumerate(members):
        alone = advance(*member, num_keep=counts[m])
        assert alone.mask["kernel"].sum() == counts[m]["kernel"]
        assert_same_bits(jax.tree.map(lambda leaf, m=m: leaf[m], together), alone)


ARGUMENTS = {
    "criterion": large_final,
    "mask_one": rewind,
    "mask_zero": zero,
    "num_keep": {"kernel": 7, "bias": 5},
    "prunable": {"kernel": True, "bias": False},
}


@pytest.mark.parametrize(
    ("changes", "error", "parts"),
    [
        ({"w_f": {"kernel": jnp.ones((8, 5))}}, ValueError, ["'bias' is in w_i but not in w_f"]),
        ({"w_f": SMALL | {"kernel": jnp.ones((5, 8))}}, ValueError, ["'kernel'", "[8, 5] in w_i"]),
        ({"w_f": SMALL | {"kernel": [1.0]}}, TypeError, ["'kernel/0' of w_f is 1.0"]),
        (
            {"w_f": SMALL | {"kernel": jnp.full((8, 5), jnp.nan)}},
            ValueError,
            ["40 of the 40 scores of leaf 'kernel' are NaN", "diverge"],
        ),
        ({"num_keep": {"kernel": 7}}, ValueError, ["'bias'", "num_keep"]),
        ({"num_keep": {"kernel": 7.5, "bias": 5}}, TypeError, ["'kernel'", "7.5", "integer"]),
        ({"prunable": {"kernel": True}}, ValueError, ["'bias'", "prunable"]),
        ({"key": jax.random.PRNGKey(0)}, TypeError, ["typed key"]),
        ({"key": jax.random.split(KEY, 3)}, TypeError, ["expected one key", "(3,)"]),
        ({"criterion": lambda i, f, mask: {}}, ValueError, ["'bias'", "scores"]),
        ({"mask_zero": lambda key, i, f, mask: {}}, ValueError, ["'bias'"]),
        (
            {"mask_one": lambda key, i, f, mask: {}},
            ValueError,
            ["'bias'"],
        ),
        (
            {"mask_one": lambda key, i, f, mask: {"kernel": jnp.ones(3), "bias": i["bias"]}},
            ValueError,
            ["'kernel'", "[3]"],
        ),
    ],
)
def test_errors(changes, error, parts):
    call = {"key": KEY, "state": rounds.begin(draw(SMALL, 0)), "w_f": draw(SMALL, 1)}
    with pytest.raises(error) as caught:
        rounds.advance(**(call | ARGUMENTS | changes))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "error", "part"),
    [
        ({"kernel": jnp.ones((8, 5), bool)}, ValueError, "'bias' is in params but not in mask"),
        (
            SMALL,
            TypeError,
            "expected bool",
        ),
    ],
)
def test_begin_errors(mask, error, part):
    with pytest.raises(error) as caught:
        rounds.begin(SMALL, mask)
    assert part in str(caught.value)


def test_leaves_that_are_not_prunable_keep_their_mask_whatever_the_count():
    call = {"key": KEY, "state": rounds.begin(draw(SMALL, 0)), "w_f": draw(SMALL, 1)}
    changes = {"num_keep": {"kernel": 7, "bias": 2}}
    state = rounds.advance(**(call | ARGUMENTS | changes))
    assert state.mask["kernel"].sum() == 7 and state.mask["bias"].all()


# Where a round starts


@pytest.mark.parametrize("given", ["params", "mask"])
def test_begin_copies_what_it_is_given(given):
    params = jax.tree.map(np.array, draw(SMALL, 0))
    mask = {"kernel": np.arange(40).reshape(8, 5) < 20, "bias": np.ones(5, bool)}
    state = rounds.begin(params, mask)
    expected = jax.tree.map(np.array, state)
    for leaf in jax.tree.leaves({"params": params, "mask": mask}[given]):
        leaf[...] = 1 - leaf if given == "params" else False
    assert_same_bits(jax.tree.map(np.asarray, state), expected)


def test_begin_outlives_donated_parameters():
    params = draw(SMALL, 0)
    state = rounds.begin(params)
    expected = jax.tree.map(np.array, state)
    jax.tree.map(lambda leaf: leaf.delete(), params)
    assert_same_bits(jax.tree.map(np.asarray, state), expected)


def test_an_action_s_own_memory_is_not_the_next_start():
    w_f = jax.tree.map(np.array, draw(SMALL, 1))
    call = {"key": KEY, "state": rounds.begin(draw(SMALL, 0)), "w_f": w_f}
    state = rounds.advance(**(call | ARGUMENTS | {"mask_one": MASK_ONE["finetune"]}))
    expected = jax.tree.map(np.array, state)
    w_f["kernel"][:] = 7
    assert_same_bits(jax.tree.map(np.asarray, state), expected)


def test_zeros_behind_the_mask_are_a_warning():
    params = draw({"kernel": jnp.ones((8, 5)), "other": jnp.ones((8, 5)), "bias": jnp.ones(5)}, 0)
    mask = {name: jnp.arange(w.size).reshape(w.shape) % 5 < 2 for name, w in params.items()}
    mask["bias"] = jnp.ones(5, bool)
    rounds.begin(params, mask)  # pruned weights that are not 0: no warning
    pruned = masks.apply(mask, params) | {"other": params["other"], "bias": jnp.zeros(5)}
    with pytest.warns(
        UserWarning, match="start weights of 'kernel' are 0 wherever they are pruned"
    ) as caught:
        state = rounds.begin(pruned, mask)
    assert len(caught) == 1 and caught[0].filename == __file__
    restarts = MASK_ONE["reinit"](KEY, state.w_i, state.w_i, mask)
    zeros = np.asarray(restarts["kernel"])[np.asarray(mask["kernel"])] == 0
    assert zeros.mean() > 0.3  # the effect that the warning describes
    jax.jit(rounds.begin)(pruned, mask)
    rounds.begin(pruned)


# One number for all layers

NET = {"large": jnp.ones((8, 5)), "small": jnp.ones((5, 2)), "bias": jnp.ones(2)}
YES = {"large": True, "small": True, "bias": False}


def globally(num_keep, least=0, seed=0, params=NET, prunable=YES, **changes):
    state, w_f = rounds.begin(draw(params, seed)), draw(params, seed + 1)
    call = ARGUMENTS | {"num_keep": num_keep, "prunable": prunable, "least": least} | changes
    return state, w_f, rounds.advance(KEY, state, w_f, **call)


@pytest.mark.parametrize("least", [0, 2, {"large": 0, "small": 4, "bias": 0}])
@pytest.mark.parametrize("name", ["large_final", "movement", "random"])
def test_an_integer_ranks_all_prunable_leaves_together(name, least):
    state, w_f, new = globally(20, least, criterion=CRITERIA[name])
    prune_key = jax.random.split(KEY, 3)[0]
    scores = CRITERIA[name](state.w_i, w_f)
    expected = masks.prune_global(prune_key, scores, state.mask, 20, YES, least)
    assert_same_bits(new.mask, expected)
    assert new.mask["large"].sum() + new.mask["small"].sum() == 20 and new.mask["bias"].all()


def test_an_integer_may_be_traced():
    state, w_f = rounds.begin(draw(NET, 0)), draw(NET, 1)
    call = ARGUMENTS | {"prunable": YES}

    def advance(num_keep):
        return rounds.advance(KEY, state, w_f, **(call | {"num_keep": num_keep}))

    assert_same_bits(jax.jit(advance)(jnp.int32(20)), advance(20))


def test_an_integer_for_one_array_means_what_it_meant():
    leaf = jnp.ones((8, 5))
    _, _, new = globally(7, params=leaf, prunable=True)
    _, _, floored = globally(7, 3, params=leaf, prunable=True)
    assert new.mask.sum() == 7
    assert_same_bits(new, floored)


def test_a_layer_that_vanishes_is_named():
    def small_last(w_i, w_f, mask=None):
        return {"large": jnp.ones((8, 5)), "small": jnp.zeros((5, 2)), "bias": jnp.zeros(2)}

    with pytest.warns(UserWarning, match="'small' lost the last weight; least=1 ke") as caught:
        globally(20, criterion=small_last)
    assert [one.filename for one in caught] == [__file__]
    _, _, new = globally(20, 1, criterion=small_last)
    assert new.mask["small"].sum() == 1


def test_exact_numbers_for_all_layers_together():
    size = trees.num_prunable(NET, YES)
    whole = jax.ShapeDtypeStruct((size,), jnp.float32)
    counts = [rates.keep_counts(whole, 0.2, number) for number in (1, 2)]
    assert counts == [40, 32]
    assert globally(counts[0])[-1].mask["large"].sum() <= 40


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"num_keep": 20, "least": 11},
            ValueError,
            "least keeps 21 weights in all, but num_keep is 20",
        ),
        ({"num_keep": 2.0}, TypeError, r"num_keep of prune_global is 2\.0, expected one integer"),
        (
            {"num_keep": {"large": 20, "small": 5, "bias": 2}, "least": 1},
            ValueError,
            "least needs one integer num_keep",
        ),
        (
            {"num_keep": 20, "criterion": "large_final"},
            TypeError,
            r"criteria\.CRITERIA\['large_final",
        ),
        ({"num_keep": 20, "mask_one": "reinit"}, TypeError, r"mask-1 action.*MASK_ONE\['reinit'\]"),
        (
            {"num_keep": 20, "mask_zero": None},
            TypeError,
            r"mask-0 action is None, expected a function",
        ),
        ({"num_keep": 20, "mask_one": resample}, TypeError, "mask-1 action resample does not take"),
        ({"num_keep": 20, "criterion": same_sign}, TypeError, "criterion same_sign does not take"),
        (
            {"num_keep": 20, "least": np.array([1, 2])},
            ValueError,
            "least is array",
        ),
    ],
)
def test_global_errors(changes, error, message):
    with pytest.raises(error, match=message):
        globally(**changes)


def test_an_action_marked_by_hand_reaches_every_leaf():
    wrapped = on_every_leaf(lambda *arguments: MASK_ONE["finetune"](*arguments))
    for action, goes_on in ((wrapped, True), (lambda *a: MASK_ONE["finetune"](*a), False)):
        _, w_f, new = globally(20, mask_one=action)
        assert bool((new.w_i["bias"] == w_f["bias"]).all()) == goes_on
