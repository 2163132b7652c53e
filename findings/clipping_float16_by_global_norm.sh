#!/usr/bin/env bash
# optax 0.2.8 (clip_by_global_norm), jax 0.10.2, on the CPU
#
# Expected: clip_by_global_norm(max_norm) leaves updates with a smaller norm unchanged and scales
# all others down to max_norm, never below it. Finite gradients have about the same norm in any
# float type.
#
# What happens: the norm is the square root of a sum of squares in the gradients' own type. In
# float16, a sum above 65504 is infinite. So if the norm exceeds 256, all updates are divided by
# infinity: they become exactly 0, without a NaN as a warning. The limit is 256 for any max_norm,
# even for 1000, which should change nothing. A single float16 leaf is enough to set the float32
# leaves beside it to 0. bfloat16 is not affected. Training stops in the very step that clipping is
# meant to save. The weights stay the same, so the gradients do too, and nothing moves again.
#
# Why it matters: a mask that keeps a fraction d of the weights also shrinks the (masked) gradient,
# by about sqrt(d). So there is a range of norms where the dense network does not learn at all but
# its ticket does, with the same data, learning rate and clipping. That looks like the very result
# one hopes for. In a population under vmap, some members simply never start.
#
# Seen:
#   norm 255 clipped by 1: float16 1.00, float32 1.00
#   norm 257 clipped by 1: float16 0.00, float32 1.00
#   norm 257 clipped by 1000: float16 0.00, float32 257.00
#   a float32 leaf beside a float16 leaf of norm 257: 0.00
#   float16: norm 398 dense, 200 ticket (25 %); loss 19.3, after 300 steps 19.3 and 14.4
#   float32: norm 398 dense, 200 ticket (25 %); loss 19.3, after 300 steps 1.2 and 14.4
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'optax==0.2.8' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import jax
import jax.numpy as jnp
import numpy as np
import optax


def clip(updates, max_norm):
    transform = optax.clip_by_global_norm(max_norm)
    clipped, _ = jax.jit(transform.update)(updates, transform.init(updates))
    return clipped


def length(tree):  # in float64
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))


def gradients(norm, dtype):  # 4096 equal entries
    return jnp.full(4096, norm / 64, dtype)


for norm, max_norm, seen in ((255, 1, 1), (257, 1, 0), (257, 1000, 0)):
    half = length(clip(gradients(norm, jnp.float16), float(max_norm)))
    single = length(clip(gradients(norm, jnp.float32), float(max_norm)))
    brain = length(clip(gradients(norm, jnp.bfloat16), float(max_norm)))
    print(f"norm {norm} clipped by {max_norm}: float16 {half:.2f}, float32 {single:.2f}")
    assert abs(half - seen) < 0.01, half
    assert abs(single - min(norm, max_norm)) < 0.01 * norm, single
    assert abs(brain - single) < 0.02 * single, brain

beside = clip({"a": gradients(257, jnp.float16), "b": gradients(1, jnp.float32)}, 1000.0)
print(f"a float32 leaf beside a float16 leaf of norm 257: {length(beside['b']):.2f}")
assert length(beside["b"]) == 0


# 4096 independent weights, each with a target of its own between 3 and 9
target = jax.random.uniform(jax.random.key(0), (4096,), jnp.float32, 3, 9)
ticket = jax.random.permutation(jax.random.key(1), jnp.arange(4096) < 1024)
dense = jnp.ones(4096, bool)


def train(mask, dtype):
    def loss(w):  # the sum, in float32
        return jnp.sum((jnp.where(mask, w, 0).astype(jnp.float32) - target) ** 2) / 2

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))

    @jax.jit
    def step(w, state):
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        return optax.apply_updates(w, updates), state

    w = jnp.zeros(4096, dtype)
    state = optimizer.init(w)
    norm = length(jax.grad(loss)(w))
    before = float(loss(w)) / 4096
    for _ in range(300):
        w, state = step(w, state)
    return norm, before, float(loss(w)) / 4096


for dtype in (jnp.float16, jnp.float32):
    norm, before, after = train(dense, dtype)
    ticket_norm, _, ticket_after = train(ticket, dtype)
    name = jnp.dtype(dtype).name
    print(
        f"{name}: norm {norm:.0f} dense, {ticket_norm:.0f} ticket (25 %); loss {before:.1f}, "
        f"after 300 steps {after:.1f} and {ticket_after:.1f}"
    )
    assert norm > 257 and ticket_norm < 255, (norm, ticket_norm)
    assert ticket_after < 0.8 * before, ticket_after
    if dtype == jnp.float16:
        assert after == before, after
    else:
        assert after < 0.2 * before, after
EOF
