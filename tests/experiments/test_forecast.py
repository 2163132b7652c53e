import jax
import jax.numpy as jnp
import pytest

from experiments.engine import forecast
from experiments.engine.objectives import make_loss
from experiments.problems.networks import make_network
from supermask_jax import population

FORECAST = forecast.Forecast(
    members=45, rounds=25, side_by_side=24, devices=2, memory=3.1e9, budget=8e9, flops=7.2e14,
    speed=2e11,
)  # fmt: skip


def test_a_forecast_is_one_line():
    assert str(FORECAST) == (
        "45 members, 24 side by side on 2 devices; 25 rounds; 3.10 of 8.00 GB; "
        "at least 1:00:00 (7.2e+14 operations at 200 GFLOP/s)"
    )
    alone = FORECAST._replace(members=1, side_by_side=1, devices=1, rounds=1)
    assert str(alone).startswith("1 member, 1 side by side on 1 device; 1 round; ")


def test_a_forecast_of_an_endless_sweep_is_still_a_line():
    endless = FORECAST._replace(flops=1e40)
    assert str(endless).endswith("days, 17:46:40 (1.0e+40 operations at 200 GFLOP/s)")


def test_what_does_not_fit_is_told_in_one_line():
    forecast.check_fits("two arrays", 2e9, 2e9)
    line = "two arrays take 3,000.00 GB of memory, but only 2.00 GB are available; ask for less or"
    with pytest.raises(MemoryError, match=line):
        forecast.check_fits("two arrays", 3e12, 2e9)


def dense(rows, inputs, outputs, products):
    return 2 * rows * inputs * outputs * products


@pytest.mark.parametrize(
    ("name", "shape", "operations"),
    [
        (
            "lenet300",
            (28, 28, 1),
            dense(60, 784, 300, 2) + dense(60, 300, 100, 3) + dense(60, 100, 10, 3),
        ),
        (
            "conv2",
            (32, 32, 3),
            # The first layer needs no gradient with respect to its images.
            dense(60 * 32 * 32, 9 * 3, 64, 2)
            + dense(60 * 32 * 32, 9 * 64, 64, 3)
            + dense(60, 16 * 16 * 64, 256, 3)
            + dense(60, 256, 256, 3)
            + dense(60, 256, 10, 3),
        ),
    ],
)
def test_products_of_a_training_step_are_counted(name, shape, operations):
    network = make_network(name, shape)
    params = jax.eval_shape(network.init, jax.random.key(0))
    batch = {
        "images": jax.ShapeDtypeStruct((60, *shape), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((60,), jnp.int32),
    }
    grad = jax.grad(make_loss(network.apply), has_aux=True)
    counted = forecast.count_products(grad, params, batch, jax.random.key(0), {})
    assert counted == pytest.approx(operations, rel=0.04)


def test_the_machine_has_memory_and_speed():
    assert 1e8 < forecast.available_memory(jax.devices()) < 1e15
    assert forecast.product_speed(population.make_mesh()) > 1e8


def test_the_largest_value_of_conv2_is_its_first_layer():
    network = make_network("conv2", (32, 32, 3))
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert forecast.largest_value(network.apply, params, jnp.zeros((2, 32, 32, 3))) == (
        4 * 2 * 32 * 32 * 64
    )
