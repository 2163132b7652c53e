#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6, jax 0.10.2, on the CPU
#
# Expected: safetensors.numpy.save_file stores the values of the array it is given. It requires
# contiguous, dense arrays; the transpose of a matrix is dense and (Fortran-)contiguous, and np.save
# and flax.serialization store it correctly.
#
# What happens: the bytes are written in memory order, under the shape of the transpose. The file is
# well formed and loads without an error, with the right shape and dtype but with values in the
# wrong places. safetensors 0.7.0 stored the right values. The same expression on a jax array
# through safetensors.flax is correct, too, because `.T` of a jax array is a new array.
#
# Why it matters: `np.asarray(kernel).T` is the way from flax or haiku (in, out) to PyTorch (out,
# in), for weights and for their masks. The statistics one would use to check a pruned network
# (density, norm, sorted values) are those of the true mask; its rows, and so the neurons that lost
# their inputs, are not. Weights and mask agree with each other, because both are scrambled in the
# same way.
#
# Seen, for the mask [[1 0 0] [1 1 0]]:
#   0.7.0: numpy .T [[1, 1], [0, 1], [0, 0]]   flax .T [[1, 1], [0, 1], [0, 0]]
#   0.8.0: numpy .T [[1, 0], [0, 1], [1, 0]]   flax .T [[1, 1], [0, 1], [0, 0]]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'numpy==2.4.6' 'flax==0.12.8'

for version in 0.7.0 0.8.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "safetensors==$version"
    JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - "$folder" <<'EOF'
import sys

import flax.serialization
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax
import safetensors.numpy

path = sys.argv[1] + "/mask.safetensors"
mask = jnp.array([[1, 0, 0], [1, 1, 0]], bool)  # (in, out)
right = [[1, 1], [0, 1], [0, 0]]  # (out, in)
turned = np.asarray(mask).T
assert turned.flags.f_contiguous
np.save(sys.argv[1] + "/mask.npy", turned)
assert np.load(sys.argv[1] + "/mask.npy").tolist() == right
packed = flax.serialization.msgpack_serialize({"mask": turned})
assert flax.serialization.msgpack_restore(packed)["mask"].tolist() == right

safetensors.numpy.save_file({"mask": turned}, path)
by_numpy = safetensors.numpy.load_file(path)["mask"]
safetensors.flax.save_file({"mask": mask.T}, path)
by_flax = np.asarray(safetensors.flax.load_file(path)["mask"])

print(
    f"{safetensors.__version__}: numpy .T {by_numpy.astype(int).tolist()}"
    f"   flax .T {by_flax.astype(int).tolist()}"
)
wrong = [[1, 0], [0, 1], [1, 0]]
assert by_numpy.tolist() == {"0.7.0": right, "0.8.0": wrong}[safetensors.__version__], by_numpy
assert by_flax.tolist() == right, by_flax
assert by_numpy.shape == (3, 2) and by_numpy.dtype == bool and by_numpy.sum() == mask.sum()

# not only masks, and not only through a file
kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
loaded = safetensors.numpy.load(safetensors.numpy.save({"w": kernel.T}))["w"]
if safetensors.__version__ == "0.8.0":
    assert loaded.tolist() == [[0, 1], [2, 3], [4, 5]], loaded
else:
    assert loaded.tolist() == [[0, 3], [1, 4], [2, 5]], loaded
EOF
done
