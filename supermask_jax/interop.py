"""Tickets of PyTorch in the layout of JAX, and back: weights, masks and running statistics.

PyTorch keeps dense weights as `[out, in]` and convolutions as `[out, in, height, width]`; flax and
haiku keep `[in, out]` and `[height, width, in, out]`. The first dense layer after a flatten counts
its inputs by (C, H, W) there and by (H, W, C) here. Where sizes agree, neither shows in the shapes.
So no layout is guessed: every kernel is turned, and what a flatten flattened is asked for. Arrays
are NumPy's on both sides, and PyTorch is not needed.

A state dict holds masks as `torch.nn.utils.prune` does (`weight_orig` and `weight_mask`), as a
parametrization with a mask (`parametrizations.weight.original` and
`parametrizations.weight.0.mask`), as open_lth (`mask_fc_layers___0___weight` beside
`model.fc_layers.0.weight`), or as weights that are 0.

Examples:
  >>> state_dict = {
  ...     "fc.weight_orig": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32),
  ...     "fc.weight_mask": np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], np.float32),
  ...     "fc.bias": np.zeros(2, np.float32),
  ... }
  >>> like = {"dense": {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}}
  >>> ticket = from_torch(state_dict, like)
  >>> ticket.params["dense"]["kernel"].tolist()
  [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
  >>> ticket.mask["dense"]["kernel"].tolist()
  [[True, False], [False, False], [True, True]]
  >>> ticket.names
  {'dense/bias': 'fc.bias', 'dense/kernel': 'fc.weight'}
  >>> list(to_torch(ticket.params, ticket.mask, names=ticket.names))
  ['fc.bias', 'fc.weight_orig', 'fc.weight_mask']
"""

import difflib
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from supermask_jax.checks import (
    check_integer,
    check_mask,
    check_shaped,
    check_trees,
    concrete,
    is_floating,
    shown,
    warn,
)
from supermask_jax.paths import Path, PyTree, bare_names, leaf_names, path_name

Image = Sequence[int]  # (C, H, W)

# The last word of the name of a leaf, and of that of its tensor. A leaf that ends in another word
# is a layer by itself, and its tensor is the weight of one.
_ROLES = {
    **dict.fromkeys(("kernel", "w", "weight", "scale", "embedding", "embeddings"), "weight"),
    **dict.fromkeys(("bias", "b", "offset"), "bias"),
    "mean": "running_mean",
    "var": "running_var",
}
_NO_KERNELS = ("scale", "embedding", "embeddings")

# How the value and the mask of a tensor are stored, if they are two.
_PARAMETRIZED = re.compile(r"(.*?)parametrizations\.(\w+)\.(original|0\.mask)")
_PRUNED = re.compile(r"((?:.*\.)?)(\w*(?:weight|bias)\w*)_(orig|mask)")
_OF_OPEN_LTH = re.compile(r"mask_(\w+___\w+)")


class Ticket(NamedTuple):
    """A network and its mask, in NumPy arrays.

    Attributes:
      params: `[...]` per leaf, in the structure and the types of `like`. Of a pruned tensor these
        are the values of `weight_orig`, those that the mask prunes included: the network computes
        with `masks.apply(mask, params)`.
      mask: bool `[...]` per leaf.
      model_state: running statistics, in the structure of `state_like`; None without it.
      names: what went where: the name of every leaf and that of its tensor, as `names` of
        `from_torch` and `to_torch` takes them.
    """

    params: PyTree
    mask: PyTree
    model_state: PyTree
    names: dict[str, str]


def from_torch(
    state_dict: Mapping[str, Any],
    like: PyTree,
    *,
    names: Mapping[str, str] | None = None,
    flatten: Image | Mapping[str, Image] | None = None,
    state_like: PyTree = None,
    zeros_are_pruned: bool = False,
) -> Ticket:
    """Return what a state dict of PyTorch holds, as trees.

    `weight_orig` is not the initialisation: training moves it, and weight decay moves even the
    pruned weights. To rewind, convert the state dict of the start, too.

    Running statistics are copied as they are. PyTorch updates the variance by the unbiased estimate
    and flax by the biased one, which matters only where training goes on.

    Args:
      state_dict: names of tensors to arrays, `tensor.numpy(force=True)`. NumPy has no bfloat16:
        call `tensor.float()` first. The masks of another file join as `a.weight_mask`.
      like: the parameters, arrays or `jax.ShapeDtypeStruct`s, with kernels as in flax and haiku.
      names: a map from layers or leaves to those of PyTorch: `{"dense1": "fc1"}` stands for
        `{"dense1/kernel": "fc1.weight", "dense1/bias": "fc1.bias"}`. By default a layer goes to the
        one of the same shapes. Several of the same shapes go by the numbers in their names, which
        may differ in nothing else.
      flatten: the shape (C, H, W) that is flattened before a dense layer. Needed if there are
        convolutions; (C, 1, 1) after global pooling. If several dense layers have C H W inputs, a
        map from their kernels to shapes.
      state_like: the running statistics, if there are any: `batch_stats` in flax.
      zeros_are_pruned: take the zeros of a kernel without a mask as pruned, as `prune.remove` and
        `squash_mask` leave them.

    Returns:
      The ticket. A mask that is missing keeps everything.

    Warns:
      UserWarning: if a kernel without a mask has zeros and `zeros_are_pruned` is False.

    Raises:
      ValueError: if leaves and tensors do not fit one to one; if the shapes do not tell which
        belong together; if a value is NaN or infinite; if a mask has a value other than 0 and 1.
        Names the leaf or the tensor, and its shape.
      TypeError: if a leaf or a tensor is not an array of floats.

    Examples:
      >>> state_dict = {"0.weight": np.eye(2), "2.weight": np.full((2, 2), 3.0)}
      >>> like = {"hidden": np.ones((2, 2)), "output": np.ones((2, 2))}
      >>> from_torch(state_dict, like)
      Traceback (most recent call last):
      ValueError: 'hidden' and 'output' have the same shapes (weight [2, 2]), and their names differ
      in more than numbers: which comes first? Say what goes where in names.
      >>> names = {"hidden": "0.weight", "output": "2.weight"}
      >>> ticket = from_torch(state_dict, like, names=names, zeros_are_pruned=True)
      >>> ticket.mask["hidden"].tolist()
      [[True, False], [False, True]]
    """
    tensors, masks = _read(state_dict)
    places = _with_images(_places(like=like, state_like=state_like), flatten)
    _check_statistics(tensors, places)
    named = _by_shapes(places, tensors) if names is None else _by_names(places, names)
    _check_fit(places, named, tensors)
    values = [_value_from_torch(place, named, tensors) for place in places]
    treedef = jax.tree.structure(like)
    number = treedef.num_leaves  # those of the state follow
    kept = [_mask_from_torch(place, named, masks) for place in places[:number]]
    kept = _with_zeros(places, values, kept, zeros_are_pruned)
    return Ticket(
        params=treedef.unflatten(values[:number]),
        mask=treedef.unflatten(kept),
        model_state=jax.tree.structure(state_like).unflatten(values[number:]),
        names=named,
    )


def to_torch(
    params: PyTree,
    mask: PyTree = None,
    model_state: PyTree = None,
    *,
    names: Mapping[str, str] | None = None,
    flatten: Image | Mapping[str, Image] | None = None,
) -> dict[str, np.ndarray]:
    """Return a state dict of PyTorch: the inverse of `from_torch`.

    A leaf of which the mask prunes weights becomes `a.weight_orig` and `a.weight_mask`, which a
    module takes after `torch.nn.utils.prune.identity(module, "weight")`. For weights that are 0
    where they are pruned, give `masks.apply(mask, params)` as `params` and no mask.

    Args:
      params: `[...]` per leaf, with kernels as in flax and haiku.
      mask: bool `[...]` per leaf; None keeps everything.
      model_state: running statistics, if there are any.
      names: as in `from_torch`; by default `dense1/kernel` becomes `dense1.weight`.
      flatten: as in `from_torch`.

    Returns:
      Names of tensors to arrays, each with memory of its own in C order, as files need it. Masks
      are float32, as PyTorch's are. The counter of a BatchNorm is left out; PyTorch sets it to 0.

    Raises:
      ValueError: if a value is NaN or infinite, if names are missing or shared, if a kernel goes to
        a tensor that is not the weight of a layer, or if trees or shapes differ; names the leaf and
        its shape.
      TypeError: if a leaf is not an array of floats that NumPy has, or has no values under `jit`.

    Examples:
      >>> params = {"dense1": {"kernel": np.array([[1.0, 2.0, 3.0]])}}
      >>> to_torch(params)["dense1.weight"].tolist()
      [[1.0], [2.0], [3.0]]
      >>> mask = {"dense1": {"kernel": np.array([[True, False, True]])}}
      >>> {name: x.ravel().tolist() for name, x in to_torch(params, mask).items()}
      {'dense1.weight_orig': [1.0, 2.0, 3.0], 'dense1.weight_mask': [1.0, 0.0, 1.0]}
    """
    check_trees(params=params)
    check_trees(model_state=model_state)
    if mask is not None:
        check_mask(mask, params=params)
    places = _with_images(_places(params=params, model_state=model_state), flatten)
    named = _by_names(places, _own_names(places) if names is None else names)
    _check_distinct(named)
    for place in places:
        _check_weight(place, named[place.name])
    leaves = [*jax.tree.leaves(params), *jax.tree.leaves(model_state)]
    state_dict = {}
    for place, leaf, keep in itertools.zip_longest(places, leaves, jax.tree.leaves(mask)):
        tensor, value = named[place.name], _value_to_torch(place, leaf)
        if keep is None or _known(place, keep).all():
            state_dict[tensor] = value
        else:
            of_value = _turned_back(place, _known(place, keep)).astype(np.float32)
            state_dict |= {f"{tensor}_orig": value, f"{tensor}_mask": of_value}
    return state_dict


def to_bools(mask: PyTree) -> PyTree:
    """Convert a mask of numbers, as most programs store it, to the bools of this library.

    Args:
      mask: 0 and 1 in any type, `[...]` per leaf.

    Returns:
      Bools `[...]` per leaf.

    Raises:
      ValueError: if a leaf has another value, such as 0.5; names it.
      TypeError: if a leaf is not an array.

    Examples:
      >>> to_bools({"kernel": np.array([0.0, 1.0])})["kernel"].tolist()
      [False, True]
      >>> to_bools({"kernel": np.array([0.0, 0.5])})
      Traceback (most recent call last):
      ValueError: the mask of leaf 'kernel' [2] has 1 values other than 0 and 1, such as 0.5.
    """
    check_trees(mask=mask)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _bools(f"leaf '{path_name(path)}'", leaf), mask
    )


class _Place(NamedTuple):
    """A leaf, and how its tensor differs.

    Attributes:
      name: of the leaf.
      layer: of the leaf, the beginning of its name.
      role: of the tensor, the end of its name.
      shape: of the leaf.
      dtype: of the leaf.
      is_kernel: whether PyTorch has its axes in another order.
      image: the shape (C, H, W) of the images that its inputs were before a flatten, or ().
    """

    name: str
    layer: str
    role: str
    shape: tuple[int, ...]
    dtype: np.dtype
    is_kernel: bool
    image: tuple[int, ...] = ()

    @property
    def torch_shape(self) -> tuple[int, ...]:
        if not self.is_kernel:
            return self.shape
        *window, inputs, outputs = self.shape
        return (outputs, inputs, *window)

    def __str__(self) -> str:
        return f"leaf '{self.name}' {list(self.shape)}"


def _places(**trees: PyTree) -> list[_Place]:
    places = []
    for what, tree in trees.items():
        check_shaped(**{what: tree})
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        names = bare_names(leaf_names(tree))
        places += [_place(name, *leaf) for name, leaf in zip(names, leaves, strict=True)]
    name, number = Counter(place.name for place in places).most_common(1)[0] if places else ("", 1)
    if number > 1:
        raise ValueError(f"{' and '.join(trees)} both have a leaf '{name}'.")
    return places


def _place(name: str, path: Path, leaf: Any) -> _Place:
    parts = re.fullmatch(r"(?:(.*)[/.])?(\w+)", name)
    last = parts[2] if parts and parts[2] in _ROLES else ""
    layer = (parts[1] or "") if parts and last else name
    role = _ROLES.get(last, "weight")
    is_kernel = role == "weight" and len(leaf.shape) > 1 and last not in _NO_KERNELS
    place = _Place(name, layer, role, tuple(leaf.shape), np.dtype(leaf.dtype), is_kernel)
    if not is_floating(leaf):
        raise TypeError(f"{place} has dtype {leaf.dtype}, expected floats.")
    if is_kernel and last == "weight" and isinstance(path[-1], jax.tree_util.GetAttrKey):
        raise ValueError(
            f"{place} is a weight of equinox, which keeps kernels as PyTorch does; copy the arrays "
            "as they are."
        )
    if is_kernel and re.search("conv_?transpose", name, flags=re.I):
        raise ValueError(
            f"{place} is of a transposed convolution, whose kernels are not converted: PyTorch "
            "keeps them as [in, out, height, width], to be flipped; leave the layer out."
        )
    if len(place.shape) == 3 and re.search(r"\b(query|key|value)[/.]kernel$", name):
        raise ValueError(
            f"{place} is of attention, whose kernels are not converted: PyTorch keeps them in one "
            "tensor; leave the layer out."
        )
    return place


def _with_images(places: list[_Place], flatten: Image | Mapping[str, Image] | None) -> list[_Place]:
    """Add to the kernels that follow a flatten what it flattened."""
    kernels = [place for place in places if place.is_kernel]
    dense = {place.name: place for place in kernels if len(place.shape) == 2}
    convolutions = [place for place in kernels if len(place.shape) > 2]
    if flatten is None:
        if dense and convolutions:
            first = next(iter(dense.values()))
            raise ValueError(
                f"{convolutions[0]} is a convolution and {first} a dense layer: pass flatten="
                "(C, H, W), the shape that is flattened between them, (C, 1, 1) after global "
                "pooling; PyTorch counts it in another order."
            )
        return places
    if isinstance(flatten, Mapping):
        images = {_known_name("kernel", name, dense): _image(flatten[name]) for name in flatten}
    else:
        images = _only_one(dense.values(), _image(flatten))
    for name, image in images.items():
        _check_image(dense[name], image, {place.shape[-1] for place in convolutions})
    return [place._replace(image=images.get(place.name, ())) for place in places]


def _only_one(dense: Iterable[_Place], image: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    fit = [place for place in dense if place.shape[0] == math.prod(image)]
    if not fit:
        raise ValueError(
            f"flatten={image} gives {math.prod(image)} inputs, which no dense layer has; they are: "
            f"{', '.join(map(str, dense)) or 'none'}."
        )
    if math.prod(image[1:]) == 1:  # one number per channel has one order
        return {}
    if len(fit) > 1:
        raise ValueError(
            f"flatten={image} gives {math.prod(image)} inputs, which several dense layers have: "
            f"{', '.join(map(str, fit))}; say which: flatten={{'{fit[0].name}': {image}}}."
        )
    return {fit[0].name: image}


def _image(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) < 2:
        raise ValueError(f"flatten is {shown(shape)}, expected a shape (C, H, W).")
    return tuple(check_integer("a size of flatten", size, 1) for size in shape)


def _check_image(place: _Place, image: tuple[int, ...], channels: Collection[int]) -> None:
    if place.shape[0] != math.prod(image):
        raise ValueError(f"flatten={image} gives {math.prod(image)} inputs, not those of {place}.")
    if image[0] not in channels and image[-1] in channels:
        raise ValueError(
            f"flatten={image} begins with {image[0]}, but the convolutions have {sorted(channels)} "
            f"outputs; for {place} it must be (C, H, W), as PyTorch orders it."
        )


# Which tensor belongs to which leaf


def _by_names(places: list[_Place], names: Mapping[str, str]) -> dict[str, str]:
    """Look every leaf up, or its layer."""
    if not isinstance(names, Mapping) or not all(isinstance(x, str) for x in names.values()):
        raise TypeError(f"names is {shown(names)}, expected a dict of names.")
    known = {place.name for place in places} | {place.layer for place in places}
    for name in names:
        _known_name("leaf or layer", name, known)
    named = {}
    for place in places:
        if place.name in names:
            named[place.name] = names[place.name]
        elif place.layer in names:
            named[place.name] = _joined(names[place.layer], place.role)
        else:
            raise ValueError(
                f"names has neither {place} nor its layer, '{place.layer}'; add one of them."
            )
    return named


def _own_names(places: list[_Place]) -> dict[str, str]:
    """Return for every leaf the name that PyTorch would give it."""
    return {place.name: _joined(re.sub("[/.]+", ".", place.layer), place.role) for place in places}


def _joined(layer: str, role: str) -> str:
    return f"{layer}.{role}" if layer else role


def _known_name(kind: str, name: Any, known: Collection[str]) -> str:
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else "."
        raise ValueError(f"there is no {kind} {shown(name)}{hint}")
    return name


Shapes = tuple[tuple[str, tuple[int, ...]], ...]  # of a layer: role and shape of every tensor
Layers = dict[str, dict[str, str]]  # by their names: the name of every tensor by its role


def _by_shapes(places: list[_Place], tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Give every layer that of the same shapes; several of the same shapes by their numbers."""
    ours = _layers((p.layer, p.role, p.torch_shape, p.name) for p in places)
    theirs = _layers((*_split(name), tensors[name].shape, name) for name in tensors)
    found = {}
    for shapes, layers in ours.items():
        others = theirs.get(shapes, {})
        if len(others) != len(layers):
            raise ValueError(_no_layer(places, layers, shapes, theirs))
        for own, other in zip(_numbered(layers, shapes), _numbered(others, shapes), strict=True):
            found |= {layers[own][role]: others[other][role] for role in layers[own]}
    return {place.name: found[place.name] for place in places}


def _split(name: str) -> tuple[str, str]:
    layer, _, role = name.rpartition(".")
    return layer, role


def _layers(
    tensors: Iterable[tuple[str, str, tuple[int, ...], str]],
) -> dict[Shapes, Layers]:
    """Collect tensors, each as (layer, role, shape, name), into layers by their shapes."""
    of_layer: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {}
    for layer, role, shape, name in tensors:
        of_layer.setdefault(layer, {})[role] = (shape, name)
    found: dict[Shapes, Layers] = {}
    for layer, roles in of_layer.items():
        shapes = tuple(sorted((role, shape) for role, (shape, _) in roles.items()))
        found.setdefault(shapes, {})[layer] = {role: name for role, (_, name) in roles.items()}
    return found


def _numbered(layers: Collection[str], shapes: Shapes) -> list[str]:
    """Order layers by the numbers in their names."""
    first, *others = layers
    for other in others:
        if re.sub(r"\d+", "#", first) != re.sub(r"\d+", "#", other):
            raise ValueError(
                f"'{first}' and '{other}' have the same shapes ({_spelled(shapes)}), and their "
                "names differ in more than numbers: which comes first? Say what goes where in "
                "names."
            )
    return sorted(layers, key=lambda layer: [int(number) for number in re.findall(r"\d+", layer)])


def _no_layer(
    places: list[_Place], layers: Layers, shapes: Shapes, theirs: Mapping[Shapes, Layers]
) -> str:
    first = next(place for place in places if place.layer in layers)
    number = len(theirs.get(shapes, ()))
    there = [f"{name} ({_spelled(own)})" for own, named in theirs.items() for name in named]
    listed = ", ".join(there[:4]) + (", ..." if there[4:] else "")
    return (
        f"the tree has {len(layers)} and the state dict {number} layers with the "
        f"shapes of that of {first}, which are {_spelled(shapes)} in PyTorch; the state dict has "
        f"{listed or 'none'}; is it another network's?"
    )


def _spelled(shapes: Shapes) -> str:
    return ", ".join(f"{role} {list(shape)}" for role, shape in shapes)


def _check_fit(
    places: list[_Place], named: Mapping[str, str], tensors: Mapping[str, np.ndarray]
) -> None:
    """Check that leaves and tensors fit one to one."""
    _check_distinct(named)
    for place in places:
        name = _known_name(f"tensor for {place}:", named[place.name], tensors)
        shape = tensors[name].shape
        if shape != place.torch_shape:
            own = " [out, in] is how PyTorch keeps it;" if shape == place.shape else ""
            raise ValueError(
                f"{place} takes a tensor {list(place.torch_shape)}, but '{name}' is {list(shape)};"
                f"{own} is it another network's?"
            )
        _check_weight(place, name)
    left = [name for name in tensors if name not in named.values()]
    if left:
        raise ValueError(
            f"'{left[0]}' {list(tensors[left[0]].shape)} goes to no leaf; is it another network's? "
            "If not, leave it out of the state dict."
        )


def _check_weight(place: _Place, name: str) -> None:
    """Check that a kernel goes to a tensor whose axes have a known order, or comes from one."""
    if place.is_kernel and _split(name)[1] != "weight":
        raise ValueError(
            f"'{name}', the tensor of {place}, is not the weight of a layer, so the order of its "
            "axes is not known; leave it out and copy it yourself."
        )


def _check_distinct(named: Mapping[str, str]) -> None:
    tensor, number = Counter(named.values()).most_common(1)[0] if named else ("", 1)
    if number > 1:
        leaves = ", ".join(f"'{leaf}'" for leaf, name in named.items() if name == tensor)
        raise ValueError(f"the leaves {leaves} share '{tensor}'; each needs a tensor of its own.")


# State dicts


def _read(
    state_dict: Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the tensors of a state dict, and the masks that it has of them, by name."""
    if not isinstance(state_dict, Mapping) or not all(isinstance(x, str) for x in state_dict):
        kind = type(state_dict).__name__
        raise TypeError(f"the state dict is a {kind}, expected a dict of names (str) and arrays.")
    for name, value in state_dict.items():
        if isinstance(value, Mapping):
            raise TypeError(f"'{name}' is a dict; pass the state dict that is inside, and no more.")
    check_trees(state_dict=dict(state_dict))
    tensors, masks, stored_as = {}, {}, {}
    for stored, x in state_dict.items():
        name, kind = _meaning(stored)
        if kind == "mask":
            masks[name] = _bools(f"'{stored}'", x)
        elif name in tensors:
            raise ValueError(f"'{stored_as[name]}' and '{stored}' are both values of '{name}'.")
        elif kind != "counter":
            tensors[name], stored_as[name] = np.asarray(x), stored
    masks = {_in_wrapper(name, tensors): mask for name, mask in masks.items()}
    _check_tensors(tensors, masks, stored_as)
    return tensors, masks


def _meaning(stored: str) -> tuple[str, str]:
    """Return the name of a tensor, and which part of it this is."""
    if found := _PARAMETRIZED.fullmatch(stored) or _PRUNED.fullmatch(stored):
        layer, role, part = found.groups()
        return layer + role, "mask" if part.endswith("mask") else "original"
    if found := _OF_OPEN_LTH.fullmatch(stored):
        return found[1].replace("___", "."), "mask"
    return stored, "counter" if stored.endswith("num_batches_tracked") else "value"


def _in_wrapper(name: str, tensors: Collection[str]) -> str:
    """Return the name of a tensor in open_lth's wrapper of the network, if it has one."""
    return f"model.{name}" if name not in tensors and f"model.{name}" in tensors else name


def _check_tensors(
    tensors: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    stored_as: Mapping[str, str],
) -> None:
    for name, x in tensors.items():
        if not is_floating(x):
            raise TypeError(
                f"'{name}' {list(x.shape)} has dtype {x.dtype}, expected floats; if it is a mask, "
                f"name it '{name}_mask' and add the weights."
            )
    for name, stored in stored_as.items():
        if stored != name and name not in masks:
            raise ValueError(
                f"'{stored}' {list(tensors[name].shape)} has no mask beside it (torch.ao.pruning "
                f"saves none); add it as '{name}_mask', or save after squash_mask or remove."
            )
    for name, mask in masks.items():
        if name not in tensors:
            raise ValueError(f"there is a mask {list(mask.shape)} of '{name}', but no such tensor.")
        if mask.shape != tensors[name].shape:
            raise ValueError(
                f"'{name}' is {list(tensors[name].shape)} and its mask {list(mask.shape)}; "
                "expected one shape."
            )


def _check_statistics(tensors: Mapping[str, np.ndarray], places: list[_Place]) -> None:
    statistics = [name for name in tensors if re.search(r"(^|\.)running_(mean|var)$", name)]
    if statistics and not any(place.role.startswith("running") for place in places):
        first = statistics[0]
        raise ValueError(
            f"'{first}' {list(tensors[first].shape)} is a running statistic; pass the tree of them "
            "as state_like (flax: batch_stats)."
        )


# Values


def _value_from_torch(
    place: _Place, named: Mapping[str, str], tensors: Mapping[str, np.ndarray]
) -> np.ndarray:
    name = named[place.name]
    with np.errstate(over="ignore"):  # what is too large for the leaf counts as infinite
        value = np.array(_turned(place, tensors[name]), place.dtype, order="C")
    _check_finite(f"{place} from '{name}'", value)
    return value


def _mask_from_torch(
    place: _Place, named: Mapping[str, str], masks: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    mask = masks.get(named[place.name])
    return None if mask is None else np.array(_turned(place, mask), order="C")


def _with_zeros(
    places: list[_Place],
    values: list[np.ndarray],
    masks: list[np.ndarray | None],
    zeros_are_pruned: bool,
) -> list[np.ndarray]:
    """Fill in the masks that are missing."""
    found, doubtful = [], []
    for place, value, mask in zip(places, values, masks, strict=False):
        if mask is None:
            mask = value != 0 if place.is_kernel else np.ones(place.shape, bool)
            if not (mask.all() or zeros_are_pruned):
                doubtful.append(f"{place}: {np.count_nonzero(~mask)}")
                mask = np.ones(place.shape, bool)
        found.append(mask)
    if doubtful:
        warn(
            f"kernels without a mask have zeros ({', '.join(doubtful)}), and all of their weights "
            "count as kept; zeros_are_pruned=True takes zeros as pruned."
        )
    return found


def _value_to_torch(place: _Place, leaf: Any) -> np.ndarray:
    value = _known(place, leaf)
    if value.dtype.kind != "f":
        raise TypeError(
            f"{place} has dtype {value.dtype}, which PyTorch does not take from NumPy; convert it: "
            "leaf.astype(float32)."
        )
    _check_finite(str(place), value)
    return _turned_back(place, value)


def _known(place: _Place, leaf: Any) -> np.ndarray:
    value = concrete(leaf)
    if value is None:
        raise TypeError(f"{place} is traced and has no values; call to_torch outside jit.")
    return value


def _turned(place: _Place, x: np.ndarray) -> np.ndarray:
    """Put the axes of a tensor in the order of the leaf."""
    if place.image:
        x = x.reshape(len(x), *place.image)
    if place.is_kernel:
        x = x.transpose(*range(2, x.ndim), 1, 0)
    return x.reshape(place.shape)


def _turned_back(place: _Place, x: np.ndarray) -> np.ndarray:
    """Put the axes of a leaf in the order of the tensor.

    A copy: files of safetensors hold the memory of an array, in whatever order its view has it.
    """
    if place.image:
        channels, *window = place.image
        x = x.reshape(*window, channels, -1)
    if place.is_kernel:
        x = x.transpose(-1, -2, *range(x.ndim - 2))
    return np.array(x.reshape(place.torch_shape), order="C")


def _bools(where: str, numbers: Any) -> np.ndarray:
    x = np.asarray(numbers)
    other = x[(x != 0) & (x != 1)]
    if other.size:
        raise ValueError(
            f"the mask of {where} {list(x.shape)} has {other.size} values other than 0 and 1, such "
            f"as {other[0]}."
        )
    return x == 1


def _check_finite(what: str, x: np.ndarray) -> None:
    bad = np.count_nonzero(~np.isfinite(x))
    if bad:
        raise ValueError(
            f"{what} has {bad} of {x.size} values that are NaN or infinite; did training diverge?"
        )
