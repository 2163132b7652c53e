"""State dicts of PyTorch, from files that tests/torch_files/make.py wrote, and back."""

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supermask_jax import masks
from supermask_jax.interop import from_torch, to_bools, to_torch
from tests.bad_input import Case, check_error
from tests.trees import KINDS, assert_same_bits, draw, draw_mask

FOLDER = Path(__file__).parent / "torch_files"
NAMES = ("mlp", "mlp_removed", "conv2", "resnet")


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(20, name="dense1")(x))
        x = nn.relu(nn.Dense(20, name="dense2")(x))
        return nn.Dense(5, name="output")(x)


class Conv2(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="conv1")(x))
        x = nn.relu(nn.Conv(8, (3, 3), name="conv2")(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        for name in ("dense1", "dense2"):
            x = nn.relu(nn.Dense(16, name=name)(x))
        return nn.Dense(5, name="output")(x)


def conv(outputs, size, stride, name):
    padding = [(size // 2, size // 2)] * 2  # as PyTorch pads, which SAME does not at stride 2
    return nn.Conv(outputs, (size, size), stride, padding=padding, use_bias=False, name=name)


class Block(nn.Module):
    outputs: int
    stride: int

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        y = nn.relu(norm(name="norm1")(conv(self.outputs, 3, self.stride, "conv1")(x)))
        y = norm(name="norm2")(conv(self.outputs, 3, 1, "conv2")(y))
        if self.stride > 1:
            x = norm(name="norm3")(conv(self.outputs, 1, self.stride, "conv3")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = conv(8, 3, 1, "stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(x))
        x = Block(16, 2, name="block1")(Block(8, 1, name="block0")(x))
        return nn.Dense(5, name="output")(x.mean((1, 2)))


OF_RESNET = {
    "stem": "conv1",
    "norm": "bn1",
    **{
        f"block{i}/{ours}{j}": f"blocks.{i}.{theirs}{j}"
        for i in (0, 1)
        for j in (1, 2)
        for ours, theirs in (("conv", "conv"), ("norm", "bn"))
    },
    "block1/conv3": "blocks.1.shortcut.0",
    "block1/norm3": "blocks.1.shortcut.1",
    "output": "fc",
}
NETWORKS = {
    "mlp": (Mlp(), {}),
    "mlp_removed": (Mlp(), {"zeros_are_pruned": True}),
    "conv2": (Conv2(), {"flatten": (8, 4, 6)}),
    "resnet": (ResNet(), {"flatten": (16, 1, 1), "names": OF_RESNET}),
}


@functools.cache
def stored(name):
    """A state dict, inputs in the layout of flax, and PyTorch's logits."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    inputs, logits = arrays.pop("inputs"), arrays.pop("logits")
    return arrays, inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs, logits


@functools.cache
def likes(name):
    """The shapes of parameters and running statistics."""
    inputs = jax.ShapeDtypeStruct(stored(name)[1].shape, jnp.float32)
    made = jax.eval_shape(NETWORKS[name][0].init, jax.random.key(0), inputs)
    return made["params"], made.get("batch_stats")


def ticket_of(name, state_dict=None, **changes):
    like, state_like = likes(name)
    options = {"state_like": state_like, **NETWORKS[name][1], **changes}
    return from_torch(stored(name)[0] if state_dict is None else state_dict, like, **options)


@functools.cache
def ticket(name):
    return ticket_of(name)


def logits_of(name, params, model_state):
    variables = {"params": params, **({"batch_stats": model_state} if model_state else {})}
    return jax.jit(NETWORKS[name][0].apply)(variables, stored(name)[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_those_of_pytorch(name):
    found = ticket(name)
    params = masks.apply(found.mask, found.params)
    expected = stored(name)[2]
    np.testing.assert_allclose(logits_of(name, params, found.model_state), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("name", ["conv2", "mlp"])
def test_these_networks_tell_a_wrong_layout(name):
    """Kernels that are turned back and turned differently, where the shapes allow it."""
    found = ticket(name)
    params = jax.tree.map(np.copy, masks.apply(found.mask, found.params))
    if name == "conv2":
        kernel = params["dense1"]["kernel"]
        params["dense1"]["kernel"] = (
            kernel.reshape(4, 6, 8, -1).transpose(2, 0, 1, 3).reshape(192, -1)
        )
    else:
        params["dense2"]["kernel"] = params["dense2"]["kernel"].T
    wrong = np.abs(logits_of(name, params, found.model_state) - stored(name)[2])
    assert wrong.max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_tensors_come_back_bit_for_bit(name):
    arrays, _, _ = stored(name)
    found = ticket(name)
    flatten = NETWORKS[name][1].get("flatten")
    back = to_torch(found.params, found.mask, found.model_state, names=found.names, flatten=flatten)
    forms = {"parametrizations.weight.original": "weight_orig"}
    forms["parametrizations.weight.0.mask"] = "weight_mask"
    expected = {}
    for key, x in arrays.items():
        key = functools.reduce(lambda key, form: key.replace(*form), forms.items(), key)
        expected[key] = x.astype(np.float32) if key.endswith("_mask") else x
    if name == "mlp_removed":  # the zeros, some of them -0.0, became masks
        for key in [key for key in expected if key.endswith("weight")]:
            expected[f"{key}_mask"] = (expected[key] != 0).astype(np.float32)
            expected[f"{key}_orig"] = expected.pop(key)
    expected = {k: x for k, x in expected.items() if not k.endswith("num_batches_tracked")}
    assert_same_bits(dict(sorted(back.items())), dict(sorted(expected.items())))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_trip_changes_nothing(name):
    found = ticket(name)
    flatten = NETWORKS[name][1].get("flatten")
    back = to_torch(found.params, found.mask, found.model_state, flatten=flatten)
    own = {leaf: leaf.replace("/", ".") for leaf in found.names}
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    own = {
        k: functools.reduce(lambda x, n: x.replace(*n), names.items(), v) for k, v in own.items()
    }
    again = ticket_of(name, back, names=own, zeros_are_pruned=False)
    assert_same_bits(again[:3], found[:3])


def test_what_pytorch_gets_has_memory_of_its_own_in_c_order():
    """A file of safetensors has the memory of an array: of a view, it would have other values."""
    found = ticket("conv2")
    back = to_torch(found.params, found.mask, flatten=(8, 4, 6))
    assert all(x.flags.c_contiguous and x.flags.owndata for x in back.values())
    back["conv1.bias"][:] = 7
    assert not (found.params["conv1"]["bias"] == 7).any()
    for leaf in jax.tree.leaves(found[:2]):
        assert leaf.flags.c_contiguous and not np.shares_memory(
            leaf, stored("conv2")[0]["fc1.bias"]
        )


# The layouts, by hand


def test_every_weight_of_a_convolution_is_where_it_belongs():
    for window in ((3,), (2, 3), (2, 3, 4)):
        tensor = np.random.default_rng(0).standard_normal((5, 6, *window)).astype(np.float32)
        like = {"conv": {"kernel": jax.ShapeDtypeStruct((*window, 6, 5), np.float32)}}
        kernel = from_torch({"c.weight": tensor}, like).params["conv"]["kernel"]
        for place in np.ndindex(tensor.shape):
            assert kernel[(*place[2:], place[1], place[0])] == tensor[place]


def test_every_weight_after_a_flatten_is_where_it_belongs():
    channels, height, width = 2, 3, 4
    tensor = np.arange(5 * 24, dtype=np.float32).reshape(5, 24)
    mask = tensor % 3 < 2
    like = {"kernel": jax.ShapeDtypeStruct((24, 5), np.float32)}
    state_dict = {"weight_orig": tensor, "weight_mask": mask}
    found = from_torch(state_dict, like, flatten=(channels, height, width))
    for out, c, h, w in np.ndindex(5, channels, height, width):
        here, there = (h * width + w) * channels + c, (c * height + h) * width + w
        assert found.params["kernel"][here, out] == tensor[out, there]
        assert found.mask["kernel"][here, out] == mask[out, there]
    back = to_torch(found.params, found.mask, flatten=(channels, height, width))
    np.testing.assert_array_equal(back["weight_orig"], tensor)


def test_embeddings_and_scales_are_not_turned():
    like = {"a": {"embedding": np.ones((3, 3))}, "norm": {"scale": np.ones(3), "bias": np.ones(3)}}
    tensor = np.arange(9.0).reshape(3, 3)
    state_dict = {"e.weight": tensor, "n.weight": tensor[0], "n.bias": tensor[1]}
    found = from_torch(state_dict, like)
    assert found.params["a"]["embedding"].tolist() == tensor.tolist()
    assert found.params["norm"]["scale"].tolist() == [0, 1, 2]
    assert jax.tree.all(jax.tree.map(np.all, found.mask))  # the zeros, too


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"equinox"}))
def test_every_kind_of_tree_comes_back(kind):
    params = draw(KINDS[kind](), seed=1)
    mask = draw_mask(params, seed=2)
    flatten = {"nested_dict": (5, 1, 1), "linen": (5, 1, 1)}.get(kind)
    found = from_torch(to_torch(params, mask, flatten=flatten), params, flatten=flatten)
    host = jax.tree.map(np.asarray, (params, mask))
    assert_same_bits(found[:2], host)


# Which tensor goes where


def test_the_order_of_a_state_dict_does_not_matter():
    """Files of safetensors are sorted by type and name, so "10" may come before "2"."""
    sizes = [(4, 4)] * 11 + [(4, 2)]
    rng = np.random.default_rng(0)
    arrays = {f"{2 * i}.weight": rng.random((b, a)) for i, (a, b) in enumerate(sizes)}
    like = {f"dense{i}": {"kernel": np.ones(size)} for i, size in enumerate(sizes)}
    found = from_torch(dict(sorted(arrays.items())), like)
    assert found.names == {f"dense{i}/kernel": f"{2 * i}.weight" for i in range(len(sizes))} | {}
    for i in range(len(sizes)):
        np.testing.assert_array_equal(
            found.params[f"dense{i}"]["kernel"], arrays[f"{2 * i}.weight"].T
        )


def test_names_of_leaves_go_before_those_of_layers():
    arrays, like = (
        {"a.weight": np.ones((2, 3)), "b": np.ones(2)},
        {"l": {"w": np.ones((3, 2)), "b": np.ones(2)}},
    )
    found = from_torch(arrays, like, names={"l": "a", "l/b": "b"})
    assert found.names == {"l/b": "b", "l/w": "a.weight"}


# Forms of masks


def mlp_with(rename, convert=lambda mask: mask):
    """The state dict of the pruned network with other names and types of masks."""
    arrays = stored("mlp")[0]
    found = {}
    for name, x in arrays.items():
        layer, _, part = name.partition(".")
        found[rename(layer, part)] = convert(x) if part == "weight_mask" else x
    return found


FORMS = {
    "parametrizations": {
        "weight_orig": "{}.parametrizations.weight.original",
        "weight_mask": "{}.parametrizations.weight.0.mask",
        "bias": "{}.bias",
    },
    "open_lth": {
        "weight_orig": "model.fc_layers.{}.weight",
        "weight_mask": "mask_fc_layers___{}___weight",
        "bias": "model.fc_layers.{}.bias",
    },
    "masks of another file": {
        "weight_orig": "fc_layers.{}.weight",
        "weight_mask": "fc_layers.{}.weight_mask",
        "bias": "fc_layers.{}.bias",
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_mask_is_the_same_ticket(form):
    state_dict = mlp_with(lambda layer, part: FORMS[form][part].format(layer))
    assert_same_bits(ticket_of("mlp", state_dict)[:3], ticket("mlp")[:3])


TYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64", "bfloat16")


@pytest.mark.parametrize("dtype", TYPES)
def test_masks_of_every_type_become_bools(dtype):
    state_dict = mlp_with("{}.{}".format, lambda mask: mask.astype(jnp.dtype(dtype)))
    assert_same_bits(ticket_of("mlp", state_dict)[:3], ticket("mlp")[:3])
    mask = {"kernel": np.array([[1, 0], [0, 1]]).astype(jnp.dtype(dtype))}
    assert to_bools(mask)["kernel"].tolist() == [[True, False], [False, True]]
    assert to_bools(jax.tree.map(jnp.asarray, mask))["kernel"].dtype == bool


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_the_types_of_weights_are_those_of_the_tree(dtype):
    state_dict = {"weight": np.full((2, 3), 0.5).astype(jnp.dtype(dtype))}
    for own in ("float32", "bfloat16", "float64"):
        like = {"kernel": jax.ShapeDtypeStruct((3, 2), jnp.dtype(own))}
        kernel = from_torch(state_dict, like).params["kernel"]
        assert kernel.dtype == own and (kernel == 0.5).all()


def test_zeros_are_kept_weights_unless_asked_and_a_warning_says_so():
    with pytest.warns(UserWarning, match=r"'dense1/kernel' \[12, 20\]: 144.*zeros_are_pruned=True"):
        found = ticket_of("mlp_removed", zeros_are_pruned=False)
    assert all(leaf.all() for leaf in jax.tree.leaves(found.mask))
    counts = jax.tree.map(np.count_nonzero, ticket("mlp_removed").mask)
    assert {name: layer["kernel"] for name, layer in counts.items()} == {
        "dense1": 96,
        "dense2": 160,
        "output": 40,
    }


def test_some_of_the_zeros_are_negative():
    kernels = [x for name, x in stored("mlp_removed")[0].items() if name.endswith("weight")]
    assert any((np.signbit(x) & (x == 0)).any() for x in kernels)


def test_a_mask_that_is_there_is_taken_and_not_the_zeros():
    state_dict = {"weight_orig": np.eye(2), "weight_mask": np.array([[1, 1], [0, 1]])}
    found = from_torch(state_dict, {"kernel": np.ones((2, 2))}, zeros_are_pruned=True)
    assert found.mask["kernel"].tolist() == [[True, False], [True, True]]


# Wrong input

X = np.random.default_rng(0).random((4, 3))
LIKE = {"dense": {"kernel": np.ones((3, 4)), "bias": np.ones(4)}}
DENSE = {"fc.weight": X, "fc.bias": X[:, 0]}
CONV = {
    "conv": {"kernel": np.ones((3, 3, 2, 8))},
    "dense": {"kernel": np.ones((32, 4))},
}
CONV_DICT = {"c.weight": np.ones((8, 2, 3, 3)), "d.weight": np.ones((4, 32))}
SQUARE = {"a": {"kernel": np.ones((2, 2))}, "b": {"kernel": np.ones((2, 2))}}
SQUARE_DICT = {"0.weight": np.ones((2, 2)), "2.weight": np.ones((2, 2))}


def read(changes=None, like=LIKE, leave=(), **options):
    state_dict = {k: x for k, x in {**DENSE, **(changes or {})}.items() if k not in leave}
    return lambda: from_torch(state_dict, like, **options)


def convolve(flatten, like=CONV):
    return lambda: from_torch(CONV_DICT, like, flatten=flatten)


def spoiled(place, value):
    x = X.copy()
    x[place] = value
    return x


class Tensor:
    shape, dtype = (2, 2), "torch.bfloat16"


Tensor.__module__ = "torch"

WRONG = [
    # Another network
    Case(
        "shapes",
        read(like={"dense": {"kernel": np.ones((3, 5))}}),
        ValueError,
        r"leaf 'dense/kernel' \[3, 5\].*fc \(bias \[4\], weight \[4, 3\]\).*another",
    ),
    Case(
        "shapes",
        read(like={"dense": {"kernel": np.ones((4, 3)), "bias": np.ones(4)}}),
        ValueError,
        r"'dense/bias' \[4\]",
    ),
    Case(
        "shapes", read(leave=["fc.bias"]), ValueError, r"leaf 'dense/bias' \[4\].*weight \[4, 3\]"
    ),
    Case("shapes", read({"more.weight": X}), ValueError, r"'more.weight' \[4, 3\] goes to no leaf"),
    Case(
        "shapes",
        read(
            like={"dense": {"kernel": np.ones((4, 3)), "bias": np.ones(4)}}, names={"dense": "fc"}
        ),
        ValueError,
        r"'dense/kernel' \[4, 3\] takes a tensor \[3, 4\], but .* \[4, 3\]; \[out, in\] is how",
    ),
    # Which belongs to which
    Case(
        "names",
        lambda: from_torch(SQUARE_DICT, SQUARE),
        ValueError,
        r"'a' and 'b' have the same shapes \(weight \[2, 2\]\).*names",
    ),
    Case(
        "names",
        lambda: from_torch(
            {"x.weight": np.eye(2), "y.weight": np.eye(2)}, {"1": np.eye(2), "2": np.eye(2)}
        ),
        ValueError,
        "'x' and 'y' have the same shapes",
    ),
    Case(
        "names",
        read(names={"dens": "fc"}),
        ValueError,
        "no leaf or layer 'dens'; did you mean 'dense'?",
    ),
    Case(
        "names",
        read(names={"dense": "fx"}),
        ValueError,
        r"no tensor for leaf 'dense/bias' \[4\]: 'fx.bias'; did you mean 'fc.bias'",
    ),
    Case(
        "names",
        read(names={"dense/kernel": "fc.weight"}),
        ValueError,
        r"names has neither leaf 'dense/bias' \[4\] nor its layer",
    ),
    Case("types", read(names="fc"), TypeError, "names is 'fc', expected a dict"),
    Case("types", read(names={"dense": 1}), TypeError, "expected a dict of names"),
    Case(
        "duplicates",
        lambda: from_torch(SQUARE_DICT, SQUARE, names={"a": "0", "b": "0"}),
        ValueError,
        "'a/kernel', 'b/kernel' share '0.weight'",
    ),
    Case(
        "duplicates",
        read({"fc.weight_orig": X, "fc.weight_mask": X > 0}),
        ValueError,
        "'fc.weight' and 'fc.weight_orig' are both values",
    ),
    Case(
        "duplicates",
        read(state_like={"dense": {"bias": np.ones(4)}}),
        ValueError,
        "like and state_like both have a leaf 'dense/bias'",
    ),
    # Layouts that cannot be known
    Case(
        "shapes",
        convolve(None),
        ValueError,
        r"'conv/kernel' \[3, 3, 2, 8\] is a convolution and leaf 'dense/kernel' \[32, 4\].*flatten",
    ),
    Case(
        "shapes",
        convolve((2, 2, 8)),
        ValueError,
        r"begins with 2, but .* \[8\] outputs.*'dense/kernel' \[32, 4\].*\(C, H, W\)",
    ),
    Case(
        "shapes",
        convolve((8, 3, 3)),
        ValueError,
        r"gives 72 inputs, which no dense layer has.*'dense/kernel' \[32, 4\]",
    ),
    Case(
        "shapes",
        convolve({"dense/kernel": (8, 3, 3)}),
        ValueError,
        r"gives 72 inputs, not those of leaf 'dense/kernel' \[32, 4\]",
    ),
    Case(
        "shapes",
        convolve((8, 2, 2), {**CONV, "other": {"kernel": np.ones((32, 4))}}),
        ValueError,
        r"several dense layers have.*'other/kernel' \[32, 4\]; say which: flatten={'dense/kernel'",
    ),
    Case("names", convolve({"conv/kernel": (8, 2, 2)}), ValueError, "no kernel 'conv/kernel'"),
    Case("ranges", convolve((8, 0, 2)), ValueError, "a size of flatten is 0"),
    Case("types", convolve(32), ValueError, r"flatten is 32, expected a shape \(C, H, W\)"),
    Case("types", convolve((32,)), ValueError, r"expected a shape \(C, H, W\)"),
    Case(
        "types",
        lambda: to_torch(KINDS["equinox"]()),
        ValueError,
        r"'layers/0/weight' \[5, 4\] is a weight of equinox",
    ),
    Case(
        "types",
        lambda: to_torch({"ConvTranspose_0": {"kernel": np.ones((3, 3, 2, 2))}}),
        ValueError,
        r"\[3, 3, 2, 2\] is of a transposed convolution",
    ),
    Case(
        "types",
        lambda: from_torch(
            {"pos": np.ones((2, 2))}, {"pos": np.ones((2, 2))}, names={"pos": "pos"}
        ),
        ValueError,
        r"'pos', the tensor of leaf 'pos' \[2, 2\], is not the weight of a layer",
    ),
    Case(
        "types",
        lambda: to_torch({"pos": np.ones((2, 2))}, names={"pos": "pos"}),
        ValueError,
        r"'pos', the tensor of leaf 'pos' \[2, 2\], is not the weight of a layer",
    ),
    Case(
        "types",
        lambda: to_torch({"attention": {"query": {"kernel": np.ones((8, 2, 4))}}}),
        ValueError,
        r"leaf 'attention/query/kernel' \[8, 2, 4\] is of attention",
    ),
    # Values
    Case(
        "ranges",
        read({"fc.weight": spoiled((1, 2), np.nan)}),
        ValueError,
        r"'dense/kernel' \[3, 4\] from 'fc.weight' has 1 of 12 values that are NaN",
    ),
    Case(
        "precision",
        read({"fc.weight": X * 1e300}, like=jax.tree.map(np.float32, LIKE)),
        ValueError,
        r"'dense/kernel' \[3, 4\] from 'fc.weight' has 12 of 12",
    ),
    Case(
        "ranges",
        lambda: to_torch({"kernel": np.full((2, 2), np.inf)}),
        ValueError,
        r"leaf 'kernel' \[2, 2\] has 4 of 4 values that are NaN or infinite",
    ),
    Case(
        "dtypes",
        read({"fc.weight": X > 0}),
        TypeError,
        r"'fc.weight' \[4, 3\] has dtype bool.*if it is a mask, name it 'fc.weight_mask",
    ),
    Case(
        "dtypes",
        read(like={"dense": {"kernel": np.ones((3, 4), int)}}),
        TypeError,
        r"'dense/kernel' \[3, 4\] has dtype int64",
    ),
    Case(
        "dtypes",
        lambda: to_torch({"kernel": jnp.ones((2, 2), jnp.bfloat16)}),
        TypeError,
        r"'kernel' \[2, 2\] has dtype bfloat16, which PyTorch does not take",
    ),
    Case(
        "types",
        read({"fc.weight": Tensor()}),
        TypeError,
        r"'fc.weight' of state_dict is a torch tensor.*numpy\(force=True\)",
    ),
    Case(
        "types",
        lambda: from_torch([X], LIKE),
        TypeError,
        "the state dict is a list, expected a dict of names",
    ),
    Case("types", lambda: from_torch({0: X}, LIKE), TypeError, "expected a dict of names"),
    Case(
        "types",
        lambda: from_torch({"state_dict": DENSE}, LIKE),
        TypeError,
        "'state_dict' is a dict; pass the state dict that is inside",
    ),
    Case(
        "types",
        lambda: jax.jit(to_torch)({"kernel": np.ones((2, 2))}),
        TypeError,
        r"'kernel' \[2, 2\] is traced",
    ),
    # Masks
    Case(
        "ranges",
        read({"fc.weight_mask": X}),
        ValueError,
        r"the mask of 'fc.weight_mask' \[4, 3\] has 12 values other than 0 and 1, such as 0\.6",
    ),
    Case(
        "ranges",
        read({"fc.weight_mask": np.full((4, 3), np.nan)}),
        ValueError,
        "has 12 values other than 0 and 1, such as nan",
    ),
    Case(
        "ranges",
        lambda: to_bools({"a": np.array([0.5, 1])}),
        ValueError,
        r"the mask of leaf 'a' \[2\] has 1 values other than 0 and 1, such as 0.5",
    ),
    Case(
        "shapes",
        read({"fc.weight_mask": X.T > 0}),
        ValueError,
        r"'fc.weight' is \[4, 3\] and its mask \[3, 4\]",
    ),
    Case(
        "names",
        read({"fx.weight_mask": X > 0}),
        ValueError,
        r"a mask \[4, 3\] of 'fx.weight', but no such tensor",
    ),
    Case(
        "names",
        read({"fc.parametrizations.weight.original": X}, leave=["fc.weight"]),
        ValueError,
        r"'fc.parametrizations.weight.original' \[4, 3\] has no mask beside it.*squash_mask",
    ),
    Case(
        "names",
        read({"fc.weight_orig": X}, leave=["fc.weight"]),
        ValueError,
        r"'fc.weight_orig' \[4, 3\] has no mask",
    ),
    Case(
        "names",
        lambda: from_torch({"n.weight": X[0], "n.running_mean": X[0]}, {"n": {"scale": X[0]}}),
        ValueError,
        r"'n.running_mean' \[3\] is a running statistic.*state_like",
    ),
    Case(
        "shapes",
        lambda: to_torch(
            LIKE, {"dense": {"kernel": np.ones((4, 3), bool), "bias": np.ones(4, bool)}}
        ),
        ValueError,
        r"leaf 'dense/kernel' has shape \[3, 4\] in params but \[4, 3\] in mask",
    ),
    Case(
        "dtypes",
        lambda: to_torch(LIKE, jax.tree.map(np.ones_like, LIKE)),
        TypeError,
        "has dtype float64, expected bool",
    ),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.pattern)
def test_wrong_input_is_one_line(case):
    check_error(case)


# PyTorch itself, where it is installed


@pytest.mark.parametrize("name", NAMES)
def test_pytorch_makes_and_takes_the_same(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch.nn.utils import prune

    from tests.torch_files import make

    net, x = make.make(name)
    found = ticket_of(name, make.arrays(net))
    flatten = NETWORKS[name][1].get("flatten")
    back = to_torch(found.params, found.mask, found.model_state, names=found.names, flatten=flatten)
    fresh = make.NETWORKS[name][0]()
    for layer, module in fresh.named_modules():
        if f"{layer}.weight_mask" in back:
            prune.identity(module, "weight")
    fresh.load_state_dict({key: torch.tensor(value) for key, value in back.items()})
    assert any(f"{layer}.weight_mask" in back for layer, _ in fresh.named_modules())
    assert torch.equal(fresh.eval()(x), net(x))
    params = masks.apply(found.mask, found.params)
    inputs = np.moveaxis(x.numpy(), 1, -1)
    variables = {
        "params": params,
        **({"batch_stats": found.model_state} if found.model_state else {}),
    }
    logits = NETWORKS[name][0].apply(variables, inputs)
    np.testing.assert_allclose(logits, net(x).numpy(force=True), atol=1e-5)


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 300_000
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(NAMES)
