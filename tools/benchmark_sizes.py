"""Measure the files of masked networks: dense, as a mask alone, as packed values, as matrices.

    python -m tools.benchmark_sizes --table=results/benchmark_sizes

Every line is a network of which each layer keeps its largest weights at the start. The files are
written to a temporary folder and their bytes are counted; weights are float32 and indices int32.
Lines are printed as Markdown.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.problems.networks import NETWORKS, make_network
from supermask_jax import criteria, mask_files, masks, sparse, trees
from supermask_jax.checks import check_share, lookup
from tools.benchmark import measurements

IMAGES = {"lenet300": (28, 28, 1)}  # the others are for CIFAR-10
PyTree = Any


class Row(NamedTuple):
    """One line of the table, in bytes. All files but that of the mask have the biases, too."""

    network: str
    kept: float
    dense: int
    mask: int
    packed: int
    bcsr: int
    bcoo: int


HEAD = ["network", "kept", "dense", "bit mask", "mask and kept values", "BCSR", "BCOO"]


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells below `HEAD`, sizes in kB and as a share of the dense one."""
    return [
        [row.network, f"{row.kept:.0%}", *(_size(size, row.dense) for size in row[2:])]
        for row in rows
    ]


def markdown(path: Path) -> str:
    """Return a table that this program wrote as Markdown."""
    return measurements.markdown(HEAD, lines(measurements.read(path, Row)))


def measure(name: str, kept: float) -> Row:
    """Write the files of one network of which every layer keeps a share of its weights."""
    params = make_network(name, IMAGES.get(name, (32, 32, 3))).init(jax.random.key(0))
    prunable = trees.prunable_leaves(params)
    counts = jax.tree.map(
        lambda leaf, yes: round(kept * leaf.size) if yes else leaf.size, params, prunable
    )
    scores = criteria.large_init(params, params)
    mask = masks.prune(jax.random.key(1), scores, masks.ones(params), counts)
    with tempfile.TemporaryDirectory() as folder:
        mask_files.save(Path(folder) / "mask", mask)
        of_mask = (Path(folder) / "mask").stat().st_size

    def written(convert: Any) -> int:
        return _bytes(convert(mask, params, prunable))

    return Row(
        network=name,
        kept=kept,
        dense=_bytes(params),
        mask=of_mask,
        packed=of_mask + written(sparse.pack),
        bcsr=written(sparse.to_bcsr),
        bcoo=written(sparse.to_bcoo),
    )


def _bytes(tree: PyTree) -> int:
    """Write all arrays of a tree to one file, and return its size."""
    with tempfile.TemporaryFile() as file:
        np.savez(file, *map(np.asarray, jax.tree.leaves(tree)))
        return file.tell()


def _size(size: int, dense: int) -> str:
    return f"{size / 1000:.0f} ({size / dense:.0%})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks and shares that the flags name."""
    flags = _parser().parse_args(arguments)
    try:
        names = [name for name in flags.networks.split(",") if lookup("network", name, NETWORKS)]
        shares = [_share(text) for text in flags.kept.split(",")]
    except ValueError as error:
        sys.exit(f"error: {error}")
    rows: list[Row] = []
    print(measurements.markdown(HEAD, []))
    for name in names:
        for kept in shares:
            rows.append(measure(name, kept))
            print(measurements.markdown_line(*lines(rows[-1:])), flush=True)
    if flags.table:
        measurements.write(Path(f"{flags.table}.csv"), rows)


def _share(text: str) -> float:
    try:
        return check_share("share", float(text), "--kept")
    except ValueError:
        raise ValueError(f"--kept has {text!r}, expected numbers in [0, 1].") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--networks", default="lenet300,conv6", help="networks of the paper")
    parser.add_argument("--kept", default="0.2,0.05,0.01", help="shares of the weights of a layer")
    parser.add_argument("--table", help="path without suffix for a .csv")
    return parser


if __name__ == "__main__":
    main()
