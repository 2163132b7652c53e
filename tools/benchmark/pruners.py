"""Ways to prune one leaf by magnitude, each timed in its own process."""

import importlib
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from supermask_jax import masks
from tools.benchmark.sorting import prune_by_sorting

KEPT = 0.2  # of the weights
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux


def draw(size: int) -> np.ndarray:
    """Draw normal weights `[size]`, float32."""
    return np.random.default_rng(0).standard_normal(size, np.float32)


def ours(scores: jax.Array, mask: jax.Array, count: int) -> Any:
    """Select with the library, checks included."""
    return masks.prune(jax.random.key(0), scores, mask, count)


def sorting(scores: jax.Array, mask: jax.Array, count: int) -> Any:
    """Sort by score, random bits and place."""
    return _sort(jax.random.key(0), scores, mask, count)


def top_k(scores: jax.Array, mask: jax.Array, count: int) -> Any:
    """Take the places of the highest from `lax.top_k`; ties fall by place."""
    return _top_k(scores, mask, count)


def partition(scores: np.ndarray, mask: np.ndarray, count: int) -> Any:
    """Compare with the threshold that `np.partition` finds; all ties are kept."""
    return mask & (scores >= np.partition(scores, scores.size - count)[scores.size - count])


_sort = jax.jit(prune_by_sorting)


def _by_places(scores: jax.Array, mask: jax.Array, count: int) -> jax.Array:
    _, places = lax.top_k(jnp.where(mask, scores, -jnp.inf), count)
    return jnp.zeros_like(mask).at[places].set(True) & mask


_top_k = jax.jit(_by_places, static_argnums=2)


class Pruner:
    """A way to prune a leaf to `KEPT` of its weights.

    Attributes:
      bytes_per_weight: working memory at its peak in the last turn, beyond scores and masks; NaN
        where the system does not tell.
    """

    def __init__(self, name: str, size: int, dtype: str) -> None:
        """Make scores, or the weights of a module for PyTorch, and a mask."""
        self.bytes_per_weight = float("nan")
        self._size = size
        if name in TORCH:  # prunes a module in place, so that every turn needs a new one
            self._prepare = lambda: _torch(name, size, dtype)
        else:
            prune = _arrays(name, size, dtype)
            self._prepare = lambda: prune

    def turn(self) -> float:
        """Return the seconds of one pruning."""
        prune = self._prepare()
        before = _reset_peak()
        begin = time.perf_counter()
        result = jax.block_until_ready(prune())
        seconds = time.perf_counter() - begin
        # The new mask, of one byte per weight, is not working memory.
        self.bytes_per_weight = max(0.0, (_peak() - before) / self._size - 1)
        del result
        return seconds


PRUNERS: dict[str, Callable[..., Any]] = {
    "ours": ours,
    "sorting": sorting,
    "np.partition": partition,
    "lax.top_k": top_k,
}
TORCH = {"torch l1_unstructured": 1, "torch global_unstructured": 2}  # modules that share the leaf


def _arrays(name: str, size: int, dtype: str) -> Callable[[], Any]:
    scores, mask = np.abs(draw(size)), np.ones(size, bool)
    if name != "np.partition":
        scores, mask = jnp.asarray(scores, dtype), jnp.asarray(mask)
    jax.block_until_ready((scores, mask))
    return lambda: PRUNERS[name](scores, mask, int(KEPT * size))


def _torch(name: str, size: int, dtype: str) -> Callable[[], Any]:
    torch = importlib.import_module("torch")
    prune = importlib.import_module("torch.nn.utils.prune")
    weights = torch.from_numpy(draw(size)).to(getattr(torch, dtype))
    modules = []
    for part in weights.chunk(TORCH[name]):
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(part.clone())
        modules.append((module, "weight"))
    amount = size - int(KEPT * size)

    def run() -> None:
        if len(modules) == 1:
            prune.l1_unstructured(*modules[0], amount)
        else:
            prune.global_unstructured(modules, prune.L1Unstructured, amount=amount)

    return run


def _reset_peak() -> int:
    """Let the peak begin at the present memory, in bytes, and return that."""
    if CLEAR.exists():
        CLEAR.write_text("5")
    return _peak()


def _peak() -> int:
    if STATUS.exists():
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+)", STATUS.read_text())[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
