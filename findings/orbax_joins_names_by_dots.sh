#!/usr/bin/env bash
# orbax-checkpoint 0.12.8, jax 0.10.2, on the CPU
#
# Expected: a checkpoint of a tree of arrays gives back every leaf, or saving it raises an error.
# The tree is a nest of dicts, so the names on the way to a leaf identify it.
#
# What happens: on disk a leaf is called by these names joined by dots. Two leaves whose names read
# the same when joined share one place, the last writer wins, and both come back as one of them,
# in shape, type and value: nothing is raised or logged, neither when saving nor when restoring. If
# their shapes differ, the place has the shape of one of them.
#
# Why it matters: dots in names are what torch's state_dict has ("encoder.0.weight"), and a network
# that is half ported has both kinds of names in one tree: a dict "encoder.0" of new layers beside a
# dict "encoder" with the old names. One layer then continues from the weights of another one, and a
# ticket is rewound to weights that it never had.
#
# Seen:
#   saved:    encoder.0 / weight = [0. 1. 2.], encoder / 0.weight = [10. 11. 12.]
#   restored: both equal, and equal to one of the two
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'orbax-checkpoint==0.12.8' 'jax==0.10.2' 'jaxlib==0.10.2' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - "$folder" <<'EOF'
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

first, second = np.arange(3.0), np.arange(3.0) + 10
tree = {"encoder.0": {"weight": first}, "encoder": {"0.weight": second}}
print(f"saved:    encoder.0 / weight = {first}, encoder / 0.weight = {second}")

for kind in (ocp.StandardCheckpointer, ocp.PyTreeCheckpointer):
    path = Path(sys.argv[1]) / kind.__name__
    with kind() as checkpointer:
        checkpointer.save(path, tree)
    with kind() as checkpointer:
        found = checkpointer.restore(path, jax.tree.map(np.zeros_like, tree))
    one, other = found["encoder.0"]["weight"], found["encoder"]["0.weight"]
    assert np.array_equal(one, other), (one, other)
    assert np.array_equal(one, first) or np.array_equal(one, second), one
    print(f"restored: {one}, {other} ({kind.__name__})")

# Without the collision, both come back.
tree = {"encoder.1": {"weight": first}, "encoder": {"0.weight": second}}
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(Path(sys.argv[1]) / "apart", tree)
with ocp.StandardCheckpointer() as checkpointer:
    found = checkpointer.restore(Path(sys.argv[1]) / "apart", jax.tree.map(np.zeros_like, tree))
assert jax.tree.all(jax.tree.map(np.array_equal, found, tree))
EOF
