"""Every runner trains by the optimizer, schedule, loss and augmentation of its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow.parquet as pq
import pytest

from experiments.problems.losses import cross_entropy, cross_entropy_by_selection, find_losses
from tests.experiments import tiny

ONE_STEP = {  # after which the learning rate is next to zero
    "optimizer": "sgd",
    "momentum": 0.5,
    "nesterov": True,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    "schedule": "step",
    "drop_steps": (1,),
    "drop_factor": 1e-30,
    "loss": "tests.experiments.functions:hinge",
    "augment_shift": 1,
    "seeds": (0,),
    "epochs": 1,
}
RUNS = {
    # Nothing is pruned, so both variants are the same network.
    "iterative": lambda: tiny.config(
        variants=("large_final", "random"), num_rounds=1, default_rate=0.0, rates=(), **ONE_STEP
    ),
    "learned": lambda: tiny.learned(
        variants=("init",), initial_logits=(1.0,), retrain_epochs=1, **ONE_STEP
    ),
    "one_shot": lambda: tiny.one_shot(
        criteria=("random",), weights=("init",), powers=(2,), learning_rate=0.1, **ONE_STEP
    ),
    "pruning_at_init": lambda: tiny.at_init(
        variants=("snip",), ticket_rounds=(2,), learning_rate=0.1, **ONE_STEP
    ),
}


@pytest.mark.parametrize("runner", RUNS)
def test_after_a_step_whose_rate_is_not_zero_nothing_changes(runner, tmp_path):
    rows = tiny.run(tmp_path, RUNS[runner]())
    assert all(np.isfinite(row["test_accuracy"]) for row in rows)
    if runner in ("learned", "one_shot"):
        assert all(row["retrained_test_accuracy"] > 0.05 for row in rows)
    folder = tmp_path / ("dense/curves" if runner == "one_shot" else "curves")
    curves = pq.read_table(folder).to_pandas()
    members = [name for name in ("variant", "round") if name in curves]
    losses = [own.sort_values("step")["validation_loss"] for _, own in curves.groupby(members)]
    for loss in losses:
        assert 4 < loss.iloc[0] < 14, "nine classes are about 1 too near in an untrained network"
        assert loss.iloc[0] != loss.iloc[1] and set(loss.iloc[1:]) == {loss.iloc[1]}
    if runner == "iterative":  # the variants of a seed see the same images
        dense, *others = losses
        assert len(others) == 2 and others[0].tolist() == others[1].tolist() != dense.tolist()


def test_every_platform_has_its_form_of_the_cross_entropy():
    """Where sums are fused with others, a member alone could differ from one in a population."""
    assert cross_entropy is optax.softmax_cross_entropy_with_integer_labels
    assert find_losses("cross_entropy", 10, "cpu") is cross_entropy
    assert find_losses("cross_entropy", 10, "gpu") is cross_entropy
    assert find_losses("cross_entropy", 10, "tpu") is cross_entropy_by_selection


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, 1e4])
@pytest.mark.parametrize("shape", [(60, 10), (61, 10), (7, 2), (60, 100)])
def test_the_cross_entropy_of_a_tpu_and_its_gradients_have_the_digits_of_optax(shape, scale):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(scale * rng.normal(size=shape), jnp.float32)
    labels = jnp.asarray(rng.integers(0, shape[1], shape[0]), jnp.int32)

    def measured(losses):
        def gradient(logits):
            return jax.grad(lambda logits: losses(logits, labels).mean())(logits)

        # The product with the Hessian, as the scores of GraSP need it.
        curved = jax.jvp(gradient, (logits,), (logits,))[1]
        return losses(logits, labels), gradient(logits), curved

    ours, optaxs = (
        jax.jit(measured, static_argnums=0)(losses)
        for losses in (cross_entropy_by_selection, cross_entropy)
    )
    for own, expected in zip(ours[:2], optaxs[:2], strict=True):
        np.testing.assert_array_equal(own.view(jnp.uint32), expected.view(jnp.uint32))
    np.testing.assert_allclose(ours[2], optaxs[2], rtol=1e-5, atol=1e-9)
