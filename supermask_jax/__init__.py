"""Lottery tickets and supermasks in JAX, as pure functions on any pytree.

The library takes "Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask"
(Zhou et al. 2019, https://arxiv.org/abs/1905.01067) apart into functions: which weights to
keep (`criteria`, `masks`), how many (`rates`), what the kept and the pruned ones are set to
(`actions`), one round of it all (`rounds`), masks that make untrained networks work
(`supermasks`), what masks have in common (`analysis`) and their files (`mask_files`), and the
training of whole populations of networks in one compiled program (`transforms`, `training`,
`population`). `trees` chooses the leaves that are pruned, and `saliency` has scores of other
papers, from gradients. `interop` reads and writes networks of PyTorch, and `sparse` has sparse
matrices of the kept weights.

Every module is an attribute of the package, and so are the functions that most programs call.
Each is imported when it is first used, so importing the package loads neither JAX nor Optax.

>>> import jax.numpy as jnp
>>> import supermask_jax as sm
>>> params = {"kernel": jnp.array([[1.0, -3.0], [2.0, 0.5]]), "bias": jnp.zeros(2)}
>>> sm.prunable_leaves(params)
{'bias': False, 'kernel': True}
>>> sm.criteria.large_final(params, params)["kernel"].tolist()
[[1.0, 3.0], [2.0, 0.5]]
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"

# `__init__.pyi` lists the same names for type checkers and editors; a test compares the two.
_MODULES = (
    "actions",
    "analysis",
    "criteria",
    "interop",
    "mask_files",
    "masks",
    "population",
    "rates",
    "rounds",
    "saliency",
    "sparse",
    "supermasks",
    "training",
    "transforms",
    "trees",
)
_MODULE_OF = {
    "advance": "rounds",
    "begin": "rounds",
    "freeze_pruned": "transforms",
    "make_training": "training",
    "map_members": "population",
    "prunable_leaves": "trees",
    "prune": "masks",
    "start_params": "rounds",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        value = getattr(_import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(_no_attribute(name), name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_MODULE_OF})


def _no_attribute(name: str) -> str:
    from difflib import get_close_matches

    nearest = get_close_matches(name, (*_MODULES, *_MODULE_OF), n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"module '{__name__}' has no attribute '{name}'{hint}"
