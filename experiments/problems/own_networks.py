"""Networks of one's own, made by a function that a setting names ``MODULE:FUNCTION``.

    @schedule(dataset="my_lab.data:load", learning_rate=1e-3, epochs=20)
    def small(image_shape, num_classes):
        return as_network(Small(num_classes), image_shape)

The function gets the shape `(H, W, C)` of the images and the number of classes, and returns a
`Network`. The decorator is for configurations, which the network brings its schedule and its rates.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from experiments import by_name
from experiments.problems.networks import Network, arguments_of
from supermask_jax import trees
from supermask_jax.checks import check_unchanged, shown
from supermask_jax.paths import path_name

ARGUMENTS = ("image_shape", "num_classes")
F = TypeVar("F", bound=Callable[[tuple[int, int, int], int], Network])


class Schedule(NamedTuple):
    """What a network brings a configuration; the command line may change each of it.

    Attributes:
      dataset: the name of a data set, see `experiments.datasets`.
      learning_rate: of Adam.
      epochs: of each training.
      rates: pairs of a regular expression for the whole path of leaves, such as ``conv.*/kernel``,
        and the fraction of their kept weights that a round removes. Other kernels lose 20 %.
      mask_learning_rate: of SGD on the logits of learned masks.
      mask_epochs: of learned masks.
    """

    dataset: str
    learning_rate: float
    epochs: int
    rates: Sequence[tuple[str, float]] = ()
    mask_learning_rate: float = 100.0
    mask_epochs: int = 100


def schedule(**values: Any) -> Callable[[F], F]:
    """Return a decorator that gives the function of a network its `Schedule`.

    Args:
      values: the attributes of `Schedule`, by name.
    """
    made = Schedule(**values)
    made = made._replace(rates=[(pattern, rate) for pattern, rate in made.rates])

    def decorate(function: F) -> F:
        function.schedule = made  # pyright: ignore
        return function

    return decorate


def schedule_of(name: str) -> Schedule:
    """Return the schedule of a network.

    Args:
      name: ``MODULE:FUNCTION``.

    Raises:
      ValueError: if the function cannot be imported, or if it has none.
      TypeError: if it is not a function of the shape of images and the number of classes.
    """
    found = getattr(by_name.find("network", name, ARGUMENTS), "schedule", None)
    if not isinstance(found, Schedule):
        raise ValueError(
            f"the network {name} brings no schedule: put @schedule(dataset=..., learning_rate=..., "
            "epochs=...) of experiments.problems.own_networks above it, or take that of another "
            f"network: --config=FILE.py:lenet300 --config.network={name} --config.dataset=..."
        )
    return found


def make(name: str, input_shape: tuple[int, int, int], num_classes: int) -> Network:
    """Make a network and check it, without computing anything.

    Args:
      name: ``MODULE:FUNCTION``.
      input_shape: `(H, W, C)`.
      num_classes: the number of logits.

    Raises:
      ValueError: if it is not a `Network` that can be trained here on such images.
      TypeError: if it is not made by a function of the shape of images and the number of classes.
    """
    function, module = by_name.find("network", name, ARGUMENTS), by_name.module_of(name)
    with by_name.explained(f"the network {name}", module):
        network = function(input_shape, num_classes)
    if not isinstance(network, Network):
        raise ValueError(
            f"the network {name} is a {type(network).__name__}, expected a Network of "
            "experiments.problems.networks; as_network makes one of a module of flax linen."
        )
    if (network.init_state is None) != (network.apply_training is None):
        raise ValueError(
            f"the network {name} has only one of init_state and apply_training, expected both of "
            "a network with state and none of another one."
        )
    if tuple(network.input_shape) != tuple(input_shape):
        raise ValueError(
            f"the network {name} takes images of shape {shown(network.input_shape)}, expected "
            f"{input_shape}, which the function gets."
        )
    with by_name.explained(f"init of the network {name}", module):
        params = jax.eval_shape(network.init, jax.random.key(0))
    _check_params(name, params)
    state = _state_of(name, module, network)
    images = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
    with by_name.explained(f"apply of the network {name}", module):
        logits = jax.eval_shape(network.apply, params, images, *arguments_of(state))
    _check_logits(f"apply of the network {name}", logits, (2, num_classes))
    if network.apply_training:
        what = f"apply_training of the network {name}"
        with by_name.explained(what, module):
            found = jax.eval_shape(network.apply_training, params, images, state)
        _check_step(what, found, state, (2, num_classes))
    return network


def _state_of(name: str, module: str, network: Network) -> Any:
    """Return the shapes and types of the state of a network; None for one without state."""
    if network.init_state is None:
        return None
    with by_name.explained(f"init_state of the network {name}", module):
        state = jax.eval_shape(network.init_state, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    if not leaves:
        raise ValueError(
            f"the state of the network {name} has no array, expected one or more, or no init_state."
        )
    for path, leaf in leaves:
        if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise ValueError(
                f"the state of the network {name} has '{path_name(path)}' of {leaf.dtype}, "
                "expected floats or integers."
            )
    _check_names(name, "arrays of the state", [path_name(path) for path, _ in leaves])
    return state


def _check_step(what: str, found: Any, state: Any, shape: tuple[int, int]) -> None:
    """Check what a training step of a network with state returns."""
    if not (isinstance(found, tuple | list) and len(found) == 2):
        raise ValueError(f"{what} returns {_kind(found)}, expected (logits, state).")
    logits, new = found
    _check_logits(what, logits, shape)
    if jax.tree.structure(new) != jax.tree.structure(state):
        names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(new)]
        raise ValueError(f"{what} returns a state of {shown(names)}, expected that of init_state.")
    check_unchanged(what, "state", state, new)


def _check_params(name: str, params: Any) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        if leaf.dtype != jnp.float32:
            raise ValueError(
                f"the network {name} has a parameter '{path_name(path)}' of {leaf.dtype}, expected "
                "float32."
            )
    names = [path_name(path) for path, _ in leaves]
    _check_names(name, "parameters", names)
    if not any(trees.is_kernel(path, leaf) for path, leaf in leaves):
        raise ValueError(
            f"the network {name} has no weights that may be pruned among {shown(names)}, expected "
            "a leaf of two axes or more that is not called a bias or a scale."
        )


def _check_names(name: str, what: str, names: list[str]) -> None:
    spelt = [path.replace(".", "/") for path in names]  # checkpoints join the words by dots
    if twice := [path for path, one in zip(names, spelt, strict=True) if spelt.count(one) > 1]:
        raise ValueError(
            f"the network {name} has {what} of one name, {shown(twice)}; checkpoints and rates "
            "tell them apart by their names, with / or . between the words."
        )


def _check_logits(what: str, logits: Any, shape: tuple[int, int]) -> None:
    if getattr(logits, "shape", None) != shape or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(
            f"{what} returns {_kind(logits)} for {shape[0]} images, expected logits "
            f"float32{list(shape)}: one for each of {shape[1]} classes."
        )


def _kind(found: Any) -> str:
    """Return the type and shape of an array, and the type of anything else."""
    shape = getattr(found, "shape", None)
    return type(found).__name__ if shape is None else f"{found.dtype}{list(shape)}"
