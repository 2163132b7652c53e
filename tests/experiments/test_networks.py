import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.problems import activations, networks
from experiments.problems.networks import MODULES, NETWORKS, VGG, ResNet, as_network, make_network
from supermask_jax.paths import path_name
from tests.experiments.arrays import assert_close, normal, numpy_conv_same

MNIST, CIFAR, DIGITS = (28, 28, 1), (32, 32, 3), (8, 8, 1)
PAPER_SHAPES = {"lenet300": MNIST, "conv2": CIFAR, "conv4": CIFAR, "conv6": CIFAR}

# The paper's table: weights of the convolutions, weights of the dense layers, and all biases.
PAPER_COUNTS = {
    "lenet300": (0, 266_200, 410),
    "conv2": (38_592, 4_262_400, 650),
    "conv4": (259_776, 2_165_248, 906),
    "conv6": (1_144_512, 1_116_672, 1_418),
}


def init_shapes(name):
    return jax.eval_shape(make_network(name, PAPER_SHAPES[name]).init, jax.random.key(0))


def size_of(params, kind, prefixes):
    return sum(
        math.prod(leaves[kind].shape)
        for layer, leaves in params.items()
        if layer.startswith(prefixes)
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_parameter_counts_are_the_papers(name):
    params = init_shapes(name)
    counts = (
        size_of(params, "kernel", "conv"),
        size_of(params, "kernel", ("dense", "output")),
        size_of(params, "bias", ""),
    )
    assert counts == PAPER_COUNTS[name]


@pytest.mark.parametrize(
    ("name", "num_convolutions"), [("lenet300", 0), ("conv2", 2), ("conv4", 4), ("conv6", 6)]
)
def test_layer_names(name, num_convolutions):
    params = init_shapes(name)
    convolutions = {f"conv{i + 1}" for i in range(num_convolutions)}
    assert set(params) == convolutions | {"dense1", "dense2", "output"}
    assert all(set(leaves) == {"kernel", "bias"} for leaves in params.values())


def test_layer_sizes_of_conv2():
    shapes = {layer: leaves["kernel"].shape for layer, leaves in init_shapes("conv2").items()}
    assert shapes == {
        "conv1": (3, 3, 3, 64),
        "conv2": (3, 3, 64, 64),
        "dense1": (16_384, 256),
        "dense2": (256, 256),
        "output": (256, 10),
    }


def test_initial_kernels_are_truncated_glorot_and_biases_zero():
    params = jax.jit(make_network("conv2", CIFAR).init)(jax.random.key(0))
    for leaves in params.values():
        kernel = np.asarray(leaves["kernel"])
        receptive_field = math.prod(kernel.shape[:-2])
        expected = math.sqrt(2 / (receptive_field * (kernel.shape[-2] + kernel.shape[-1])))
        np.testing.assert_allclose(kernel.std(), expected, rtol=4 / math.sqrt(2 * kernel.size))
        # Two standard deviations of the normal before truncation, which is the wider one.
        assert np.abs(kernel).max() <= 2 * expected / 0.8796
        assert not np.asarray(leaves["bias"]).any()


@pytest.mark.parametrize("shape", [DIGITS, CIFAR, (13, 9, 2)])
@pytest.mark.parametrize("name", [*NETWORKS, *MODULES])
def test_apply_gives_logits_for_any_image_size(name, shape):
    network = make_network(name, shape, num_classes=7)
    assert network.input_shape == shape
    inputs = [jax.eval_shape(network.init, jax.random.key(0))]
    inputs.append(jax.ShapeDtypeStruct((5, *shape), jnp.float32))
    if network.init_state:
        inputs.append(jax.eval_shape(network.init_state, jax.random.key(0)))
        trained, state = jax.eval_shape(network.apply_training, *inputs)
        assert (trained.shape, state) == ((5, 7), inputs[2])
    logits = jax.eval_shape(network.apply, *inputs)
    assert (logits.shape, logits.dtype) == ((5, 7), jnp.float32)


def test_classifier_equals_the_one_of_lax_and_flax():
    widths = networks.Widths(pairs=(2, 3), hidden=(4,))
    modules = (
        networks.Classifier(widths),
        networks.Classifier(
            widths,
            convolve=lax.conv_general_dilated,
            pool=lambda images: nn.max_pool(images, (2, 2), (2, 2)),
        ),
    )
    ours, theirs = (networks.as_network(module, DIGITS) for module in modules)
    params = jax.tree.map(
        lambda leaf: normal(0, leaf.shape), jax.eval_shape(ours.init, jax.random.key(0))
    )
    images = normal(1, (3, *DIGITS))

    def value_and_grad(network):
        return jax.jit(jax.value_and_grad(lambda p: jnp.mean(network.apply(p, images))))(params)

    assert_close(value_and_grad(ours), value_and_grad(theirs))


def leaf_shapes(name, shape=CIFAR):
    params = jax.eval_shape(make_network(name, shape).init, jax.random.key(0))
    return {path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize(
    ("name", "layers", "kernels", "norms"),
    [("resnet20", 20, 270_896, 784), ("vgg16", 14, 14_715_584, 4_224)],
)
def test_networks_with_batchnorm_have_the_sizes_of_the_literature(name, layers, kernels, norms):
    """Kernels, also those of 1x1 on shortcuts; channels, each with a scale and a bias."""
    shapes = leaf_shapes(name)
    of_kind = {
        kind: sum(math.prod(x) for path, x in shapes.items() if path.endswith(kind))
        for kind in ("conv/kernel", "output/kernel", "norm/scale", "norm/bias")
    }
    assert of_kind["conv/kernel"] + of_kind["output/kernel"] == kernels
    assert of_kind["norm/scale"] == of_kind["norm/bias"] == norms
    deep = [path for path in shapes if path.endswith("kernel") and "shortcut" not in path]
    assert len(deep) == layers
    assert sum(math.prod(x) for x in shapes.values()) == kernels + 2 * norms + 10


def test_resnet20_widens_and_adds_shortcuts_where_the_stages_begin():
    shapes = leaf_shapes("resnet20")
    inputs = [shapes[f"block{number}/first/conv/kernel"][2:] for number in range(1, 10)]
    stages = [(16, 16)] * 3, [(16, 32), *[(32, 32)] * 2], [(32, 64), *[(64, 64)] * 2]
    assert inputs == [pair for stage in stages for pair in stage]
    shortcuts = {path: x for path, x in shapes.items() if path.endswith("shortcut/conv/kernel")}
    assert shortcuts == {
        "block4/shortcut/conv/kernel": (1, 1, 16, 32),
        "block7/shortcut/conv/kernel": (1, 1, 32, 64),
    }


def test_networks_with_batchnorm_start_as_in_the_literature():
    params = jax.jit(make_network("resnet8_narrow", DIGITS).init)(jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, leaf = path_name(path), np.asarray(leaf)
        if name.endswith("kernel"):
            fan_in = math.prod(leaf.shape[:-1])
            expected = math.sqrt(2 / fan_in)
            np.testing.assert_allclose(leaf.std(), expected, rtol=4 / math.sqrt(2 * leaf.size))
        elif name.endswith("scale"):
            assert 0 <= leaf.min() < leaf.max() < 1
        else:
            assert not leaf.any()


class NumpyLayers:
    """The layers of networks with BatchNorm in float64; `state` gets their new statistics."""

    def __init__(self, params, state, train):
        self.params, self.old, self.train = params, state["batch_stats"], train
        self.state = {"batch_stats": jax.tree.map(np.float64, self.old)}

    def conv(self, values, path, stride=1):
        own, old, new = self.params, self.old, self.state["batch_stats"]
        for word in path.split("/"):
            own, old, new = own[word], old[word], new[word]
        values = numpy_conv_same(values, np.float64(own["conv"]["kernel"]))[:, ::stride, ::stride]
        mean, var = old["norm"]["mean"], old["norm"]["var"]
        if self.train:
            mean, var = values.mean((0, 1, 2)), values.var((0, 1, 2))
            for name, now in (("mean", mean), ("var", var)):
                new["norm"][name] = 0.9 * np.float64(old["norm"][name]) + 0.1 * now
        norm = own["norm"]
        return (values - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]

    def output(self, values):
        own = self.params["output"]
        return values.mean((1, 2)) @ np.float64(own["kernel"]) + own["bias"]


def relu(values):
    return np.maximum(values, 0)


def numpy_resnet(layers, images):
    values = relu(layers.conv(images, "stem"))
    for number, stride in ((1, 1), (2, 2), (3, 2)):
        block = f"block{number}"
        inner = relu(layers.conv(values, f"{block}/first", stride))
        inner = layers.conv(inner, f"{block}/second")
        values = layers.conv(values, f"{block}/shortcut", stride) if stride > 1 else values
        values = relu(values + inner)
    return layers.output(values)


def numpy_vgg(layers, images):
    values = images
    for group, number in ((1, 1), (2, 2), (3, 1)):
        if group > 1:
            b, h, w, c = values.shape
            values = values.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))
        for index in range(1, number + 1):
            values = relu(layers.conv(values, f"conv{group}_{index}"))
    return layers.output(values)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("module", "expected"),
    [(ResNet(blocks=1, width=2), numpy_resnet), (VGG(groups=(1, 2, 1), width=2), numpy_vgg)],
    ids=["resnet", "vgg"],
)
def test_networks_with_batchnorm_equal_numpy_in_training_and_evaluation(module, expected, train):
    network = as_network(module, DIGITS)
    params, state = (
        jax.tree.map(
            lambda x: 0.5 + abs(normal(1, x.shape)), jax.eval_shape(make, jax.random.key(0))
        )
        for make in (network.init, network.init_state)
    )
    params = jax.tree.map(lambda x: normal(2, x.shape) if x.ndim > 1 else x, params)
    images = normal(3, (3, *DIGITS))
    layers = NumpyLayers(params, state, train)
    logits = expected(layers, np.float64(images))
    apply = network.apply_training if train else network.apply
    found = jax.jit(apply)(params, images, state)
    found, new = found if train else (found, state)
    np.testing.assert_allclose(found, logits, rtol=1e-3, atol=1e-3)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3), new, layers.state)


def test_vgg_halves_small_images_less_often():
    module, shapes = VGG(groups=(1, 1, 1, 1, 1), width=1), {}
    for size in (32, 16, 8):
        images = jnp.zeros((1, size, size, 1))
        _, seen = jax.eval_shape(
            lambda x: module.init_with_output(
                jax.random.key(0), x, False, capture_intermediates=True
            ),
            images,
        )
        outs = seen["intermediates"]
        shapes[size] = [outs[f"conv{group}_1"]["__call__"][0].shape[1] for group in range(1, 6)]
    assert shapes == {32: [32, 16, 8, 4, 2], 16: [16, 8, 4, 2, 1], 8: [8, 4, 2, 1, 1]}


def test_unknown_network_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="unknown network 'lenet30'; did you mean 'lenet300'"):
        make_network("lenet30", MNIST)


@pytest.mark.parametrize(("name", "minimum"), [("conv2", 2), ("conv4", 4), ("conv6", 8)])
def test_image_too_small_for_the_pools(name, minimum):
    make_network(name, (minimum, minimum, 1))
    with pytest.raises(ValueError, match=rf"{name} .*{minimum}x{minimum} .*9x{minimum - 1}"):
        make_network(name, (9, minimum - 1, 1))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_networks_of_convolutions_have_second_derivatives(platform):
    """GraSP takes them, by forward-over-reverse mode, on every platform."""
    ordinary = networks.Classifier(NETWORKS["conv2"], convolve=lax.conv_general_dilated)
    both = make_network("conv2", (6, 6, 2), platform=platform), as_network(ordinary, (6, 6, 2))
    params = jax.jit(both[0].init)(jax.random.key(0))
    images = normal(1, (3, 6, 6, 2))

    def hessian_times_itself(network):
        def loss(w):
            return jnp.mean(jax.nn.logsumexp(network.apply(w, images), axis=-1))

        return jax.jit(lambda w: jax.jvp(jax.grad(loss), (w,), (w,))[1])(params)

    with jax.default_matmul_precision("float32"):
        assert_close(*map(hessian_times_itself, both))


@pytest.mark.parametrize(("platform", "keeps"), [("cpu", False), ("cuda", False), ("tpu", True)])
def test_relu_has_the_digits_of_jax_and_keeps_its_result_on_a_tpu_alone(platform, keeps):
    values = jnp.array([[-2.0, -0.0, 0.0], [1e-40, 3.0, jnp.nan]])

    def found(function):
        value, gradient = jax.vjp(function, values)
        return value, *gradient(2 * jnp.ones_like(values)), jax.jvp(function, [values], [values])[1]

    ours, expected = (jnp.stack(found(f)) for f in (activations.relu, jax.nn.relu))
    np.testing.assert_array_equal(ours, expected)

    traced = jax.jit(jax.vmap(jax.grad(lambda x: activations.relu(x).sum()))).trace(values)
    lowered = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in lowered) == keeps
