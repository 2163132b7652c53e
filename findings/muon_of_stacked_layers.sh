#!/usr/bin/env bash
# optax 0.2.8 (optax.contrib.muon), flax 0.12.8 (linen), jax 0.10.2, on the CPU
#
# Expected: muon orthogonalises the update of each weight matrix and leaves biases and normalisation
# scales to Adam. Writing the equal layers of a network as nn.scan changes how fast the network
# compiles, not how it trains: adam, sgd and similar optimizers treat stacked leaves like single
# ones.
#
# What happens: muon decides by the rank of a leaf, and nn.scan adds a leading layer axis. All
# kernels, now of rank 3, silently go to Adam. All biases and LayerNorm scales, now of rank 2, are
# treated as matrices (layers x features) and orthogonalised across layers, so that the gradients of
# one layer move the bias of another. hk.layer_stack and populations stacked by hand have the same
# shapes. Fixes: jax.vmap of optimizer.update over that axis, or muon_weight_dimension_numbers.
#
# Why it matters: (1) "muon" results are really those of Adam. (2) Members of a stacked population,
# or layers pruned at different rates, are no longer independent: changing the gradients of one
# changes the others. (3) A pruned entry of a bias or scale whose gradient is masked to 0 moves
# anyway; with Adam it would stay. The same holds for any rule such as "prune what has rank 2 or
# more".
#
# Seen, for Dense and LayerNorm in three scanned layers:
#   one by one: orthogonalised dense/kernel; by Adam dense/bias norm/bias norm/scale
#   scanned: orthogonalised dense/bias norm/bias norm/scale; by Adam dense/kernel
#   singular values of layer 0's kernel update: one by one 0.068 to 0.113, scanned 0.000 to 0.417
#   layer 2's gradients times -3: layer 0's bias update changes by 0.029
#   layer 0's bias[0] has gradient 0 and update 0.059
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'flax==0.12.8' 'optax==0.2.8' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from optax import contrib


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.LayerNorm(name="norm")(nn.Dense(4, name="dense")(x))), None


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return layers(name="layers")(x, None)[0]


def layer(tree, number):
    return jax.tree.map(lambda leaf: leaf[number], tree)


def update(optimizer, params, grads):
    return optimizer.update(grads, optimizer.init(params), params)[0]


def kinds(optimizer, params):
    """Which leaves have a momentum of muon's, and which of Adam's."""
    parts = optimizer.init(params).inner_states
    return [
        {
            "/".join(key.key for key in path)
            for path, _ in jax.tree.leaves_with_path(parts[name].inner_state[0].mu)
        }
        for name in ("muon", "adam")
    ]


def gap(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


params = Net().init(jax.random.key(0), jnp.ones((8, 4)))["params"]["layers"]
grads = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.ndim), leaf.shape), params)
muon = contrib.muon(0.1)

single, stacked = kinds(muon, layer(params, 0)), kinds(muon, params)
for name, (by_muon, by_adam) in (("one by one", single), ("scanned", stacked)):
    muons, adams = " ".join(sorted(by_muon)), " ".join(sorted(by_adam))
    print(f"{name}: orthogonalised {muons}; by Adam {adams}")
vectors = {"dense/bias", "norm/bias", "norm/scale"}
assert single == [{"dense/kernel"}, vectors], single
assert stacked == [vectors, {"dense/kernel"}], stacked

scanned = update(muon, params, grads)
right = [update(muon, layer(params, i), layer(grads, i)) for i in range(3)]
values = [
    np.linalg.svd(np.asarray(u["dense"]["kernel"]), compute_uv=False)
    for u in (right[0], layer(scanned, 0))
]
print(
    "singular values of layer 0's kernel update: one by one {:.3f} to {:.3f}, "
    "scanned {:.3f} to {:.3f}".format(*(f(v) for v in values for f in (np.min, np.max)))
)
assert 0.06 < values[0].min() and values[0].max() < 0.12, values
assert values[1].min() < 1e-4 and values[1].max() > 0.4, values

# layers (or members) are no longer independent
other = jax.tree.map(lambda leaf: leaf.at[2].multiply(-3.0), grads)
change = gap(
    layer(scanned, 0)["dense"]["bias"], layer(update(muon, params, other), 0)["dense"]["bias"]
)
print(f"layer 2's gradients times -3: layer 0's bias update changes by {change:.3f}")
assert 0.028 < change < 0.031, change

# a masked gradient is no frozen weight
frozen = jax.tree.map(jnp.copy, grads)
frozen["dense"]["bias"] = frozen["dense"]["bias"].at[0, 0].set(0.0)
moved = float(update(muon, params, frozen)["dense"]["bias"][0, 0])
alone = float(update(muon, layer(params, 0), layer(frozen, 0))["dense"]["bias"][0])
print(f"layer 0's bias[0] has gradient 0 and update {moved:.3f}")
assert alone == 0, alone
assert 0.057 < moved < 0.061, moved

# both cures give what the layers get one by one
dims = jax.tree.map(
    lambda leaf: contrib.MuonDimensionNumbers(1, 2) if leaf.ndim == 3 else None, params
)
for cured in (
    jax.vmap(lambda p, g: update(muon, p, g))(params, grads),
    update(contrib.muon(0.1, muon_weight_dimension_numbers=dims), params, grads),
):
    assert max(gap(layer(cured, i), right[i]) for i in range(3)) < 1e-6
assert min(gap(layer(scanned, i), right[i]) for i in range(3)) > 0.1
EOF
