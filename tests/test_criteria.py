import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supermask_jax import criteria, masks
from supermask_jax.criteria import CRITERIA
from tests import reference
from tests.trees import (
    KINDS,
    assert_same_bits,
    assert_structure,
    draw,
    draw_mask,
    leaves,
)

TWO_THRESHOLDS = {"large_init_large_final": abs, "small_init_small_final": lambda w: -abs(w)}


@functools.cache
def jitted(name):
    return jax.jit(CRITERIA[name])


def test_reference_has_every_criterion():
    assert set(reference.CRITERIA) == set(CRITERIA)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_reference(kind, name):
    params = KINDS[kind]()
    w_i, w_f = draw(params, 1, step=0.25), draw(params, 2, step=0.25)
    mask = draw_mask(params, 3)
    scores = CRITERIA[name](w_i, w_f, mask)
    assert_structure(scores, params)
    for path, i, f, kept, score in leaves(w_i, w_f, mask, scores):
        expected = reference.CRITERIA[name](i, f, kept)
        np.testing.assert_array_equal(reference.ranked(score)[kept], expected[kept], err_msg=path)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("kind", KINDS)
def test_pruning_by_it_keeps_the_best(kind, name):
    params = KINDS[kind]()
    w_i, w_f, mask = draw(params, 1), draw(params, 2), draw_mask(params, 3)
    scores = CRITERIA[name](w_i, w_f, mask)
    num_keep = jax.tree.map(lambda kept: int(kept.sum()) // 2, mask)
    new = masks.prune(jax.random.key(0), scores, mask, num_keep)
    assert_structure(new, params)
    for _, i, f, kept, after, count in leaves(w_i, w_f, mask, new, num_keep):
        reference.check_pruned(after, reference.CRITERIA[name](i, f, kept), kept, count)


@pytest.mark.parametrize("name", CRITERIA)
def test_no_mask_keeps_everything_and_numpy_will_do(name):
    params = KINDS["nested_dict"]()
    w_i, w_f = (jax.tree.map(np.asarray, draw(params, seed)) for seed in (1, 2))
    expected = CRITERIA[name](w_i, w_f, masks.ones(params))
    assert_same_bits(CRITERIA[name](w_i, w_f), expected)


@pytest.mark.parametrize("name", CRITERIA)
def test_eager_equals_jit_and_loop_equals_vmap(name):
    params = {"kernel": jnp.ones((5, 4)), "bias": jnp.ones(4)}
    members = [
        (draw(params, m, 0.25), draw(params, m + 9, 0.25), draw_mask(params, m)) for m in range(3)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(CRITERIA[name]))(*stacked)
    for m, member in enumerate(members):
        eager = CRITERIA[name](*member)
        assert_same_bits(jitted(name)(*member), eager)
        assert_same_bits(jax.tree.map(lambda leaf, m=m: leaf[m], together), eager)


@pytest.mark.parametrize("name", CRITERIA)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-8, 8),
    step=st.sampled_from([None, 0.5]),
)
def test_positive_scaling_changes_no_ranking(name, seed, exponent, step):
    w_i, w_f = draw(jnp.ones(20), seed, step), draw(jnp.ones(20), seed + 1, step)
    mask = draw_mask(jnp.ones(20), seed)
    scale = 2.0**exponent  # a power of two, so that rounding neither makes nor breaks ties
    ranks = [
        np.unique(np.asarray(jitted(name)(w_i * c, w_f * c, mask))[mask], return_inverse=True)[1]
        for c in (1.0, scale)
    ]
    np.testing.assert_array_equal(*ranks)


@hypothesis.given(seed=st.integers(0, 2**32 - 1), masked=st.booleans())
@pytest.mark.parametrize("name", TWO_THRESHOLDS)
def test_two_thresholds_are_one_percentile_cut(name, seed, masked):
    """The search in the paper, by brute force: cut both magnitudes after t weights, for every t."""
    w_i, w_f = draw(jnp.ones(12), seed), draw(jnp.ones(12), seed + 1)
    mask = draw_mask(jnp.ones(12), seed) if masked else jnp.ones(12, bool)
    scores = np.asarray(jitted(name)(w_i, w_f, mask))[mask]
    i, f = (TWO_THRESHOLDS[name](np.asarray(w, float))[mask] for w in (w_i, w_f))
    for t in range(1, scores.size + 1):
        cut_i, cut_f = np.sort(i)[-t], np.sort(f)[-t]
        passed = (i >= cut_i) & (f >= cut_f)
        alpha = cut_i / cut_f
        np.testing.assert_array_equal(passed, np.minimum(alpha * f, i) >= cut_i - 1e-12)
        top = np.argsort(-scores, kind="stable")[: passed.sum()]
        assert set(top) == set(np.flatnonzero(passed))


@pytest.mark.parametrize("name", ["large_final", "magnitude_increase", "movement", "random"])
def test_same_and_diff_sign_split_a_criterion(name):
    w_i, w_f = draw(jnp.ones(50), 1, step=0.5), draw(jnp.ones(50), 2, step=0.5)
    score = CRITERIA[name](w_i, w_f)
    same = criteria.same_sign(CRITERIA[name])(w_i, w_f)
    diff = criteria.diff_sign(CRITERIA[name])(w_i, w_f)
    agree = np.sign(w_i) == np.sign(w_f)
    for selected, included in ((same, agree), (diff, ~agree)):
        np.testing.assert_array_equal(selected[included], score[included])
        assert (selected[~included] == np.finfo(np.float32).min).all()


@pytest.mark.parametrize("name", [name for name in CRITERIA if "sign" not in name])
@pytest.mark.parametrize("combinator", [criteria.same_sign, criteria.diff_sign])
def test_excluded_signs_rank_last_whatever_the_criterion(combinator, name):
    w_i, w_f = draw(jnp.ones(50), 1), draw(jnp.ones(50), 2)
    included = (np.sign(w_i) == np.sign(w_f)) == (combinator is criteria.same_sign)
    scores = combinator(CRITERIA[name])(w_i, w_f)
    mask = jnp.ones(50, bool)
    for count in (int(included.sum()) - 3, int(included.sum()), int(included.sum()) + 3):
        kept = np.asarray(masks.prune(jax.random.key(0), scores, mask, count))
        assert (kept & included).sum() == min(count, included.sum())


def test_excluded_signs_rank_last_among_leaves_of_several_types_and_of_numpy_s_too():
    w_i = {"half": np.ones((1, 2), np.float16), "wide": np.full((1, 2), 1e5)}
    w_f = {"half": -w_i["half"], "wide": w_i["wide"]}
    scores = criteria.same_sign(criteria.small_final)(w_i, w_f)
    prunable = {"half": True, "wide": True}
    with pytest.warns(UserWarning, match="'half' lost the last weight"):
        kept = masks.prune_global(jax.random.key(0), scores, masks.ones(w_i), 2, prunable)
    assert kept["wide"].all()
    own = criteria.same_sign(lambda i, f, mask=None: jax.tree.map(np.abs, f))(w_i, w_f)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(own))


@pytest.mark.parametrize("dtype", ["float16", "float8_e4m3fn"])
def test_narrow_weights_that_moved_furthest_score_highest(dtype):
    largest = float(jnp.finfo(dtype).max) * 0.75
    w_i, w_f = jnp.array([largest, 1.0], dtype), jnp.array([-largest, 2.0], dtype)
    for name in ("movement", "large_init_large_final"):
        with jax.debug_nans(True):
            scores = CRITERIA[name](w_i, w_f)
        assert jnp.isfinite(scores).all() and scores[0] >= scores[1]


@pytest.mark.parametrize("name", ["magnitude_increase_same_sign", "magnitude_increase_diff_sign"])
def test_the_paper_s_sign_criteria_rank_excluded_weights_above_those_that_shrank(name):
    w_i, w_f = jnp.array([1.0, 1.0, 1.0, 1.0]), jnp.array([2.0, 0.5, -2.0, -0.5])
    expected = [1.0, -0.5, 0.0, 0.0] if "same" in name else [0.0, 0.0, 1.0, -0.5]
    assert CRITERIA[name](w_i, w_f).tolist() == expected


def test_ranks_keep_their_order_where_floats_cannot_count():
    ranks = jnp.arange(2**24 - 5, 2**24 + 2000, dtype=jnp.int32)
    floats = np.asarray(criteria._ordered_floats(ranks, 2**25))
    assert (np.diff(floats) > 0).all() and np.isfinite(floats).all()
    assert floats[:5].tolist() == [float(2**24 - 5 + i) for i in range(5)]
    assert np.isfinite(criteria._ordered_floats(jnp.int32(8 * 10**8), 10**9))


@pytest.mark.slow
def test_a_leaf_of_more_than_two_to_the_24_weights_is_ranked_exactly():
    size = 2**24 + 1000
    w_i = jnp.arange(1, size + 1, dtype=jnp.int32)
    values = jax.lax.bitcast_convert_type(w_i + np.float32(1).view(np.int32), jnp.float32)
    scores = np.asarray(criteria.large_init_large_final(values, values))
    assert (np.diff(scores) > 0).all()


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("dtype", ["bool", "int4", "uint8", "int32", "complex64"])
def test_leaves_without_floats_have_nothing_to_rank(name, dtype):
    tree = {"kernel": jnp.arange(6.0).reshape(2, 3), "other": jnp.ones((2, 2), dtype)}
    scores = CRITERIA[name](tree, tree)
    assert scores["other"].dtype == dtype and not scores["other"].any()
    assert_same_bits(scores["kernel"], CRITERIA[name](tree["kernel"], tree["kernel"]))


def test_sign_combinators_pass_the_mask_on():
    w_i, w_f = draw(jnp.ones(20), 1), jnp.abs(draw(jnp.ones(20), 2))
    mask = draw_mask(w_i, 3)
    base = criteria.large_init_large_final
    got = criteria.same_sign(base)(jnp.abs(w_i), w_f, mask)
    np.testing.assert_array_equal(got, base(w_i, w_f, mask))
    assert (got != base(w_i, w_f)).any()


# Which of (w_i, w_f) a criterion reads: a NaN there must appear in the score.
READS = {
    "large_final": "f",
    "small_final": "f",
    "large_init": "i",
    "small_init": "i",
    "random": "",
}


@pytest.mark.parametrize("source", ["i", "f"])
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_nan_stays_nan_and_harms_no_other(name, source, sign):
    w_i, w_f = jnp.arange(1.0, 9.0), sign * jnp.arange(8.0, 0.0, -1.0)
    mask = jnp.arange(8) < 6
    broken = {"i": w_i, "f": w_f}
    broken[source] = broken[source].at[jnp.array([2, 7])].set(jnp.nan)  # one kept, one pruned
    scores = np.asarray(jitted(name)(broken["i"], broken["f"], mask))
    clean = np.asarray(jitted(name)(w_i, w_f, mask))
    assert np.isnan(scores[2]) == (source in READS.get(name, "if"))
    others = np.array([0, 1, 3, 4, 5])
    assert np.isfinite(scores[others]).all()
    assert (np.argsort(scores[others]) == np.argsort(clean[others])).all()


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision(name, dtype):
    w_i, w_f = draw(jnp.ones(20), 1, 0.25).astype(dtype), draw(jnp.ones(20), 2, 0.25).astype(dtype)
    scores = CRITERIA[name](w_i, w_f)
    assert jnp.issubdtype(scores.dtype, jnp.floating)
    wide = CRITERIA[name](w_i.astype(jnp.float32), w_f.astype(jnp.float32))
    np.testing.assert_array_equal(reference.ranked(scores), reference.ranked(wide))


ONE = {"dense": {"kernel": jnp.ones((3, 2))}}


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize(
    ("w_f", "error", "part"),
    [
        ({"dense": {"weight": jnp.ones((3, 2))}}, ValueError, "'dense/kernel' is in w_i"),
        ({"dense": {"kernel": jnp.ones((2, 3))}}, ValueError, "'dense/kernel' has shape [3, 2]"),
        ({"dense": {"kernel": [1.0]}}, TypeError, "'dense/kernel/0' of w_f"),
    ],
)
def test_errors_name_the_leaf(name, w_f, error, part):
    with pytest.raises(error) as caught:
        CRITERIA[name](ONE, w_f)
    assert part in str(caught.value)


@pytest.mark.parametrize("name", CRITERIA)
def test_a_mask_of_another_network_is_an_error(name):
    with pytest.raises(ValueError, match="'dense/kernel' has shape"):
        CRITERIA[name](ONE, ONE, {"dense": {"kernel": jnp.ones((2, 3), bool)}})
