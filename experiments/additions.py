"""What a run adds to the laboratory besides settings: code and data of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import configs
from experiments.datasets import LOADERS, Dataset, is_own
from experiments.problems.networks import MODULES, NETWORKS
from experiments.runners.registry import RUNNERS
from experiments.runners.settings import modules_of
from experiments.runners.untrained_weights import WEIGHTS
from experiments.storage.code import Code, identify
from supermask_jax.actions import MASK_ONE, MASK_ZERO
from supermask_jax.criteria import CRITERIA

# What rows depend on and a configuration may add to. Figures make no rows.
REGISTRIES: tuple[Mapping[str, Any], ...] = (
    CRITERIA, MASK_ONE, MASK_ZERO, NETWORKS, MODULES, LOADERS, WEIGHTS, RUNNERS,
)  # fmt: skip
_OWN = [dict(registry) for registry in REGISTRIES]  # before any configuration


def brings_code(config: Path) -> bool:
    """Return whether rows depend on more of a configuration than the settings that it returns.

    Args:
      config: the file of ``--config``, after it ran. A file in `experiments.configs` does if it
        added to a registry; any other file is taken to do so, as it may have changed anything.
    """
    ours = Path(configs.__file__).resolve().parent
    added = any(now != own for now, own in zip(REGISTRIES, _OWN, strict=True))
    return added or config.resolve().parent != ours


def identify_with(config: Path | None, settings: Mapping[str, Any], dataset: Dataset) -> Code:
    """Identify the code of a run with all that it brings of its own.

    Args:
      config: the file of ``--config`` if it brings code.
      settings: the settings of the run.
      dataset: its data set, loaded by its name.
    """
    data = dataset.checksum() if is_own(dataset.name) else None
    return identify(config, modules_of(settings), data)


def brings_own(settings: Mapping[str, Any]) -> bool:
    """Return whether settings name a function or a file of one's own."""
    return bool(modules_of(settings)) or is_own(settings["dataset"])
