#!/usr/bin/env bash
# flax 0.12.8 (linen.tabulate with compute_flops), jax 0.10.2 (cost_analysis), on the CPU
#
# Expected: nn.tabulate(..., compute_flops=True, compute_vjp_flops=True) lists the floating point
# operations of a network. Ten times the layers or ten times the sequence take ten times as many,
# and unroll=, which only trades compile time for speed, does not change them.
#
# What happens: the columns come from XLA's cost analysis, which counts the body of a loop once,
# however often it runs. nn.RNN is such a loop: a GRU of 1, 10 or 1000 steps has the same FLOPs,
# those of one step. So has nn.scan over layers, while the table beside it counts the parameters of
# all layers. unroll=u multiplies the FLOPs by u. There is no warning, and neither docstring
# mentions it. The same holds for lax.scan, lax.map and fori_loop in jitted functions, before and
# after compilation, on CPUs and TPUs (for nn.remat_scan: flax issue 3492). A remedy is to count
# with unroll= set to the number of turns, which needs no compilation in tabulate.
#
# Why it matters: FLOPs are what pruned networks are compared by. (1) A network pruned from 12
# scanned layers to 6 saves nothing, one rewritten from a Python loop to nn.scan saves 92 %. (2) In
# a network of a scanned body and a plain head, the layers of the body weigh too little in a budget
# of FLOPs, by the number of layers. (3) A rate of FLOPs per second measured with such counts is too
# low by the length of the loop, which passes for slow hardware.
#
# Seen, for batches of 32 and 64 features (FLOPs forward, backward, parameters):
#   GRU, 1 step: 1609730, 4862214, 24,832
#   GRU, 10 steps: 1609730, 4862214, 24,832
#   GRU, 1000 steps: 1609730, 4862214, 24,832
#   GRU, 10 steps, unroll=5: 8048642, 24211718, 24,832
#   GRU, 10 steps, unroll=10: 16097280, 48398592, 24,832
#   6 Dense by nn.scan: 266242, 821574, 24,960
#   12 Dense by nn.scan: 266242, 846534, 49,920
#   12 Dense in a Python loop: 3194880, 9609216, 49,920
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'flax==0.12.8' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(64)(x)), None


class Scanned(nn.Module):
    layers: int

    @nn.compact
    def __call__(self, x):
        stack = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.layers
        )
        return stack()(x, None)[0]


class Loop(nn.Module):
    layers: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.layers):
            x, _ = Block()(x, None)
        return x


def counts(name, network, x):
    """Return what nn.tabulate says: FLOPs forward, those backward and the parameters."""
    table = nn.tabulate(
        network,
        KEY,
        compute_flops=True,
        compute_vjp_flops=True,
        console_kwargs={"width": 400, "force_terminal": False},
    )(x)
    whole = next(line for line in table.splitlines() if f"│ {type(network).__name__} " in line)
    forward, backward = re.findall(r"│ (\d+) +│ (\d+) +│", whole)[0]
    total = re.search(r"Total Parameters: ([\d,]+)", table)[1]
    print(f"{name}: {forward}, {backward}, {total}")
    return int(forward), int(backward), int(total.replace(",", ""))


def gru(unroll=1):
    return nn.RNN(nn.GRUCell(64), unroll=unroll)


def sequence(steps):
    return jax.random.normal(KEY, (32, steps, 64))


step = counts("GRU, 1 step", gru(), sequence(1))
for steps in (10, 1000):
    assert counts(f"GRU, {steps} steps", gru(), sequence(steps)) == step
half = counts("GRU, 10 steps, unroll=5", gru(5), sequence(10))
truth = counts("GRU, 10 steps, unroll=10", gru(10), sequence(10))
for part in (0, 1):  # forward, backward; a few are of the counter of the loop
    assert round(half[part] / step[part], 1) == 5, half
    assert round(truth[part] / step[part], 1) == 10, truth

# unrolled or not, it is the same computation
variables = gru().init(KEY, sequence(10))
outputs = [gru(unroll).apply(variables, sequence(10)) for unroll in (1, 10)]
np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)

x = jnp.ones((32, 64))
six = counts("6 Dense by nn.scan", Scanned(6), x)
twelve = counts("12 Dense by nn.scan", Scanned(12), x)
plain = counts("12 Dense in a Python loop", Loop(12), x)
assert six[0] == twelve[0] and 2 * six[2] == twelve[2] == plain[2], (six, twelve)
assert round(plain[0] / twelve[0], 1) == 12, plain
# at least a multiplication and an addition per weight and example
assert twelve[0] < 2 * 32 * 12 * 64 * 64 < plain[0], twelve
EOF
