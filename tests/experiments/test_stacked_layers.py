"""Networks whose layers are stacked in leaves: the laboratory treats each layer by itself."""

import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.problems import own_networks
from experiments.problems.networks import Network, layer_by_layer
from experiments.runners import iterative, mask_analysis
from experiments.runners.outcomes import abstract_outcome
from experiments.runners.registry import read_table
from experiments.storage import run_folder
from experiments.storage.checkpoints import Checkpoints
from supermask_jax import trees
from supermask_jax.paths import leaf_names, path_name
from tests.bad_input import check_one_line
from tests.conftest import SHARED
from tests.experiments import tiny
from tests.experiments.test_bad_input import CONFIGS

LAYERS, WIDTH = 3, 8
HERE = __name__


def in_a_block(path, leaf):
    return path_name(path).startswith("blocks/")


def init(key):
    def normal(key, *shape):
        return jax.random.normal(key, shape) * (2 / shape[-2]) ** 0.5

    keys = jax.random.split(key, 3)
    return {
        "blocks": {
            "bias": jnp.zeros((LAYERS, WIDTH)),
            "kernel": normal(keys[0], LAYERS, WIDTH, WIDTH),
        },
        "input": {"kernel": normal(keys[1], 64, WIDTH)},
        "output": {"kernel": normal(keys[2], WIDTH, 10)},
    }


def block(values, weights):
    return jax.nn.relu(values @ weights["kernel"] + weights["bias"]), None


def apply(params, images):
    values = images.reshape(len(images), -1) @ params["input"]["kernel"]
    values, _ = lax.scan(block, values, params["blocks"])
    return values @ params["output"]["kernel"]


def in_one_leaf(image_shape, num_classes):
    """A network of stacked layers, as nothing told the laboratory."""
    return Network(init, apply, image_shape)


def scanned(image_shape, num_classes):
    """The same network, layer by layer."""
    return layer_by_layer(in_one_leaf(image_shape, num_classes), in_a_block)


def in_dicts(image_shape, num_classes):
    """The same network with a leaf for each layer, whose names are those of the layers."""

    def init_dicts(key):
        params = init(key)
        blocks = {
            name: {str(i): x[i] for i in range(LAYERS)} for name, x in params["blocks"].items()
        }
        return params | {"blocks": blocks}

    def apply_dicts(params, images):
        blocks = {name: jnp.stack([*x.values()]) for name, x in params["blocks"].items()}
        return apply(params | {"blocks": blocks}, images)

    return Network(init_dicts, apply_dicts, image_shape)


RATES = (("blocks/kernel/1", 0.5), ("blocks/kernel/.*", 0.25), ("output/kernel", 0.1))
SMALL = {"seeds": (0,), "epochs": 1, "eval_every": 10}
EVERYTHING = {
    "iterative": {"variants": ("large_final", "random:reinit"), "rates": RATES},
    "learned": {"draw": "top_k:0.4", "variants": ("reinit", "init:rescale"), "retrain_epochs": 0},
    "one_shot": {"weights": ("reshuffle",), "retrain_power": -1, "rates": RATES},
    "pruning_at_init": {"ticket_rounds": (2,), "rates": RATES},
}


@functools.cache
def finished(runner, network):
    """The folder, the configuration and the rows of a run."""
    config = CONFIGS[runner]()
    config.update(network=f"{HERE}:{network}", **SMALL, **EVERYTHING[runner])
    workdir = Path(tempfile.mkdtemp(dir=SHARED))
    return workdir, config, tiny.run(workdir, config)


def told(rows):
    """What rows say, but for the name of the network."""
    return [{k: str(v) for k, v in row.items() if k not in ("id", "network")} for row in rows]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("one_shot", "pruning_at_init")]


@pytest.mark.parametrize("runner", ["iterative", "learned", *SLOW])
def test_a_run_of_a_stack_has_the_numbers_of_separate_leaves(runner):
    stacked, apart = (told(finished(runner, name)[-1]) for name in ("scanned", "in_dicts"))
    assert stacked == apart


@pytest.fixture(scope="module")
def pruned():
    """The plan of a finished run of iterative pruning, and its first and last outcome."""
    workdir, config, _ = finished("iterative", "scanned")
    plan = iterative.make_plan(config)
    checkpoints = Checkpoints(run_folder.existing(workdir).below("checkpoints"), keep=1)
    rounds = (0, config.num_rounds)
    return plan, *(checkpoints.load(i, abstract_outcome(plan, i)) for i in rounds)


def test_every_layer_keeps_its_own_exact_number(pruned):
    plan, _, outcome = pruned
    rate = {0: 0.25, 1: 0.5, 2: 0.25}
    kept = outcome.state.mask["blocks"]["kernel"]
    for layer, mask in enumerate(kept):
        size = left = WIDTH * WIDTH
        for _ in range(plan.config.num_rounds):
            left -= int(rate[layer] * left)
        assert mask.shape[1:] == (WIDTH, WIDTH) and left < size
        assert [int(own.sum()) for own in mask] == [left] * len(mask)
    assert all(np.all(mask) for mask in outcome.state.mask["blocks"]["bias"])


def test_a_criterion_ranks_each_layer_by_itself(pruned):
    plan, dense, outcome = pruned
    own = [member.variant.criterion == "large_final" for member in plan.pruned]
    w_f = dense.w_f["blocks"]["kernel"]
    kept = outcome.state.mask["blocks"]["kernel"]
    for layer in range(LAYERS):
        for seed, mask in enumerate(kept[layer][own]):
            sizes = np.sort(np.abs(w_f[layer][seed]).ravel())
            first = len(sizes) - int((0.5 if layer == 1 else 0.25) * len(sizes))
            assert np.all(np.abs(w_f[layer][seed])[mask] >= sizes[-first])


def test_the_analysis_has_a_row_per_layer():
    workdir, *_ = finished("iterative", "scanned")
    rows = read_table(workdir / mask_analysis.FILE)
    layers = {row["layer"] for row in rows if row["quantity"] == "density"}
    kernels = {f"blocks/kernel/{layer}" for layer in range(LAYERS)}
    assert layers == {"all", "input/kernel", "output/kernel", *kernels}


def test_names_tell_the_kernels_among_layers():
    """A stacked bias of three axes is a bias in every layer."""

    def init_heads(key):
        heads = {"attention": {"query_bias": jnp.zeros((LAYERS, 2, 4))}}
        return {"blocks": init(key)["blocks"] | heads}

    network = layer_by_layer(Network(init_heads, apply, (8, 8, 1)), in_a_block)
    params = jax.eval_shape(network.init, jax.random.key(0))
    chosen = jax.tree.leaves(trees.prunable_leaves(params))
    names = [name for name, yes in zip(leaf_names(params), chosen, strict=True) if yes]
    assert names == [f"blocks/kernel/{layer}" for layer in range(LAYERS)]


def test_a_network_keeps_its_state():
    def measure(params, images, state):
        return apply(params, images - state)

    def step(params, images, state):
        return measure(params, images, state), state + images.mean()

    whole = Network(init, measure, (8, 8, 1), lambda key: jnp.float32(0.5), step)
    network = layer_by_layer(whole, in_a_block)
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))
    one, other = (net.init(jax.random.key(0)) for net in (whole, network))
    state = network.init_state(jax.random.key(0))
    logits, new = network.apply_training(other, images, state)
    assert new == 0.5 + images.mean()
    np.testing.assert_array_equal(logits, measure(one, images, state))
    np.testing.assert_array_equal(network.apply(other, images, new), measure(one, images, new))


def no_leaf(image_shape, num_classes):
    return layer_by_layer(in_one_leaf(image_shape, num_classes), lambda path, leaf: False)


def no_answer(image_shape, num_classes):
    return layer_by_layer(in_one_leaf(image_shape, num_classes), lambda path, leaf: None)


def no_layers(image_shape, num_classes):
    network = in_one_leaf(image_shape, num_classes)
    scaled = network._replace(init=lambda key: init(key) | {"blocks": {"scale": jnp.ones(())}})
    return layer_by_layer(scaled, in_a_block)


def no_rule(image_shape, num_classes):
    return layer_by_layer(in_one_leaf(image_shape, num_classes), "blocks")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("no_leaf", "raises ValueError: the rule is True for no leaf; the leaves are: 'blocks/b"),
        ("no_answer", "raises TypeError: the rule returns None for leaf 'blocks/bias', expected"),
        ("no_layers", r"raises ValueError: leaf 'blocks/scale' of shape \[\] has no layers; the "),
        ("no_rule", "raises TypeError: the rule is 'blocks', expected a function, such as def"),
    ],
)
def test_a_wrong_rule_is_told_in_one_line(network, said):
    with pytest.raises(ValueError, match=f"the network {HERE}:{network} {said}") as error:
        own_networks.make(f"{HERE}:{network}", (8, 8, 1), 10)
    check_one_line(error.value)


def test_layers_inside_layers_take_two_calls():
    shape, key = (8, 8, 1), jax.random.key(0)

    def init_pairs(key):
        params = init(key)
        return params | {"blocks": jax.tree.map(lambda x: jnp.stack([x, -x]), params["blocks"])}

    def apply_pairs(params, images):
        return apply(params | {"blocks": jax.tree.map(lambda x: x[0], params["blocks"])}, images)

    whole = Network(init_pairs, apply_pairs, shape)
    twice = layer_by_layer(layer_by_layer(whole, in_a_block), in_a_block)
    layers = twice.init(key)["blocks"]["kernel"]
    assert (len(layers), len(layers[0]), layers[1][2].shape) == (2, LAYERS, (WIDTH, WIDTH))
    images = jax.random.uniform(jax.random.key(1), (2, *shape))
    np.testing.assert_array_equal(
        twice.apply(twice.init(key), images), whole.apply(whole.init(key), images)
    )
