"""Slices of TPUs: their devices, which only compile, and what their chips have."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.experimental.pallas import tpu as pltpu

from supermask_jax.checks import shown

EXAMPLES = "v4:2x2x1, v5e:1x1, v5e:2x2, v5e:4x4, v5e:16x16, v5p:2x2x1, v6e:4x4 or tpu7x:2x2x1"
VERSIONS = {
    "TPU v4": pltpu.ChipVersion.TPU_V4,
    "TPU v5 lite": pltpu.ChipVersion.TPU_V5E,
    "TPU v5": pltpu.ChipVersion.TPU_V5P,
    "TPU v6 lite": pltpu.ChipVersion.TPU_V6E,
    "TPU7x": pltpu.ChipVersion.TPU_7X,
}


class Slice(NamedTuple):
    """A slice of TPUs.

    Attributes:
      name: such as v5e:4x4.
      devices: those of all hosts; they compile and compute nothing.
      chips: their number. A chip of tpu7x is two devices.
      memory: of a device, in bytes.
      clock: of a device, in Hz.
    """

    name: str
    devices: Sequence[Any]
    chips: int
    memory: int
    clock: float


def find(name: str) -> Slice:
    """Return a slice by its name.

    Args:
      name: the generation and the sizes of the slice in chips, such as v5e:4x4.

    Raises:
      ValueError: if there is no such slice, or if libtpu, which compiles for it, is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "libtpu, which compiles for TPUs, is not installed: pip install -e '.[plan]' on Linux "
            "with x86-64."
        )
    _compile_only()
    generation, _, sizes = name.partition(":")
    options: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if sizes == "1x1" else {}
    if generation == "v4":  # a chip is one device, as JAX has it on these TPUs
        options["chip_config_name"] = "megacore"
    try:
        if not sizes:  # libtpu would choose
            raise ValueError
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception:  # of several types, depending on what is wrong with the name
        raise ValueError(f"{shown(name)} is no slice, expected {EXAMPLES}.") from None
    devices = found.devices
    first = devices[0]
    if first.device_kind not in VERSIONS:
        raise ValueError(
            f"{name} has chips of a kind that is not known here, "
            f"{first.device_kind}; expected {EXAMPLES}."
        )
    core = pltpu.get_tpu_info_for_chip(VERSIONS[first.device_kind], first.num_cores)
    chips = len({tuple(device.coords) for device in devices})
    return Slice(name, devices, chips, core.hbm_capacity_bytes * core.num_cores, _clock(core))


def _clock(core: pltpu.TpuInfo) -> float:
    """Return the clock in Hz at which the MXUs reach the published peak.

    An MXU of 128x128 does a product in each of its cells per cycle. Those of 256x256 are counted
    with two: with one, v6e would have to run at 3.5 GHz.
    """
    per_cell = 1 if core.mxu_column_size == 128 else 2
    products = per_cell * core.num_mxus * core.mxu_column_size**2
    return core.bf16_ops_per_second / (2 * products)


def _compile_only() -> None:
    """Tell libtpu that it only compiles, and need look for no TPU and no metadata server."""
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
        ("TPU_LOG_DIR", "disabled"),
        ("TPU_STDERR_LOG_LEVEL", "3"),
        ("TPU_MIN_LOG_LEVEL", "3"),
    ):
        os.environ.setdefault(name, value)
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # several processes may compile
    jax.config.update("jax_platforms", "cpu")  # where this program itself computes
