"""What depends on the devices that a sweep runs on: the defaults, and the evidence for them.

* CPU: members one by one, for their weights stay in the cache of a core (measured, and better than
  `vmap` in every line of docs/performance). `convolutions.winograd_conv`, for it needs fewer
  products, and XLA's own gradients are slow in loops there.
* TPU: as many members by `vmap` as on-chip memory holds for a whole chunk, so that their weights
  and moments do not move; one by one where it holds fewer than eight. Pairs of convolutions in the
  form of `packed`, and the cross-entropy by selection. All by the cycles that the compiler
  estimates (docs/performance, "Cycles on a TPU"); nobody has measured them yet.
* GPU: all members of a device by `vmap`, and the convolutions of `lax`. Not measured yet:
  `tools.benchmark_accelerator --short` is the measurement that would decide.

The precision of products is a setting, float32 everywhere, so that results do not depend on the
devices more than rounding makes them.
"""

from typing import Any

# Of a core, in bytes.
ON_CHIP = {
    "TPU v4": 2**27,
    "TPU v5": 2**26,
    "TPU v5 lite": 2**27,
    "TPU v6 lite": 2**27,
    "TPU7x": 2**26,
}
# Where the compiler keeps no weights on chip for a whole loop: more members at once cost no more.
KEEP_NOTHING = {"TPU v4", "TPU v5"}
SHARE = 5 / 8  # of it, for what members keep; the rest is for what a step makes
MULTIPLE = 8  # of members: the tiles of a TPU have eight rows


def takes_tpu_forms(platform: str) -> bool:
    """Return whether networks and losses take the forms that suit a TPU, where they have them."""
    return platform == "tpu"


def members_at_once(device: Any, members: int, member_bytes: int) -> int:
    """Return how many members a device trains at once, by `vmap`; 1 trains them one by one.

    Args:
      device: one of those that share a population.
      members: the members of a device.
      member_bytes: what a step of one member reads and writes: weights, optimizer state, masks.
    """
    if device.platform == "cpu":
        return 1
    on_chip = ON_CHIP.get(device.device_kind)
    if on_chip is None:
        return members
    fitting = SHARE * on_chip / member_bytes
    if fitting < MULTIPLE:
        return 1
    if device.device_kind in KEEP_NOTHING:
        return members
    most = MULTIPLE * round(fitting / MULTIPLE)
    turns = -(-members // most)
    return -(-members // turns)
