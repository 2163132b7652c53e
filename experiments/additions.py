"""What a configuration adds to the laboratory besides its settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import configs
from experiments.datasets import LOADERS
from experiments.problems.networks import NETWORKS
from experiments.runners.registry import RUNNERS
from experiments.runners.untrained_weights import WEIGHTS
from supermask_jax.actions import MASK_ONE, MASK_ZERO
from supermask_jax.criteria import CRITERIA

# What rows depend on and a configuration may add to. Figures make no rows.
REGISTRIES: tuple[Mapping[str, Any], ...] = (
    CRITERIA, MASK_ONE, MASK_ZERO, NETWORKS, LOADERS, WEIGHTS, RUNNERS,
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
