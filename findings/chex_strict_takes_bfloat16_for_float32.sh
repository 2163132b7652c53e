#!/usr/bin/env bash
# chex 0.1.92 (assert_trees_all_equal, assert_trees_all_close), jax 0.10.2, numpy 2.4.6, on the CPU
#
# Expected: with strict=True, both assertions fail where the types of two leaves differ. The
# docstring of assert_trees_all_close promises it for shapes and types; that of
# assert_trees_all_equal refers to the strict mode of np.testing, which compares types.
#
# What happens: this holds for float16 and for both 8-bit floats, but a bfloat16 leaf equals a
# float32 one of the same values, in either order. Leaves of bfloat16 are converted to float32
# before NumPy compares them, jax's and NumPy's alike. There is no warning.
# assert_trees_all_equal_dtypes tells them apart, and so does
# assert_trees_all_equal_shapes_and_dtypes.
#
# Why it matters: masks, signed constants and weights that were just rounded have the same values
# in both types. A test that a training step in bfloat16 gives back bfloat16, or that a checkpoint
# comes back as it was saved, passes when everything has become float32, which takes twice the
# memory.
#
# Seen, for weights 0.25, -0.25 and 0.5 against the same in float32, strict=True:
#   float16: equal fails, close fails
#   float8_e4m3fn: equal fails, close fails
#   float8_e5m2: equal fails, close fails
#   bfloat16: equal passes, close passes
#   a step that adds updates of float32 to bfloat16 weights: float32, and "equal" to bfloat16
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'chex==0.1.92' 'jax==0.10.2' 'jaxlib==0.10.2' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import chex
import jax.numpy as jnp
import numpy as np

SINGLE = {"kernel": jnp.array([0.25, -0.25, 0.5])}


def passes(check, *trees, **options):
    try:
        check(*trees, **options)
    except AssertionError:
        return False
    return True


def strictly(*trees):
    checks = chex.assert_trees_all_equal, chex.assert_trees_all_close
    return [passes(check, *trees, strict=True) for check in checks]


for dtype in (jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.bfloat16):
    tree = {"kernel": SINGLE["kernel"].astype(dtype)}
    assert (tree["kernel"].astype(jnp.float32) == SINGLE["kernel"]).all()  # no value is rounded
    found, swapped = strictly(tree, SINGLE), strictly(SINGLE, tree)
    of_numpy = strictly({"kernel": np.asarray(tree["kernel"])}, SINGLE)
    equal, close = ("passes" if yes else "fails" for yes in found)
    print(f"{dtype.__name__}: equal {equal}, close {close}")
    assert found == swapped == of_numpy == [dtype == jnp.bfloat16] * 2, (dtype, found)
    assert not passes(chex.assert_trees_all_equal_dtypes, tree, SINGLE)
    assert not passes(chex.assert_trees_all_equal_shapes_and_dtypes, tree, SINGLE)

before = {"kernel": SINGLE["kernel"].astype(jnp.bfloat16)}
after = {"kernel": before["kernel"] + jnp.zeros(3, jnp.float32)}
said = "equal" if all(strictly(before, after)) else "different"
print(
    "a step that adds updates of float32 to bfloat16 weights: "
    f'{after["kernel"].dtype}, and "{said}" to {before["kernel"].dtype}'
)
assert after["kernel"].dtype == jnp.float32 and said == "equal"
EOF
