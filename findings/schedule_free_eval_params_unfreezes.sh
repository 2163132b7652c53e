#!/usr/bin/env bash
# optax 0.2.8 (optax.contrib.schedule_free_sgd and schedule_free_adamw), jax 0.10.2, on the CPU
#
# Expected: an optimizer whose updates are multiplied by a mask in the last step leaves pruned
# weights where they are. That holds for every optimizer, whatever its state, because only its
# update moves a weight. So the weights used for evaluation are pruned as well.
#
# What happens: during training, the pruned weights are exactly 0. But schedule-free optimizers are
# evaluated at weights extrapolated from the state, in which z moves before the mask is applied:
# eval = (w - (1 - b1) z) / b1. The gradient of a weight held at 0 need not vanish: then z drifts
# away for ever, and the evaluation weights drift in the opposite direction, up the gradient,
# without bound. If the mask is applied to the gradients, before the optimizer, they are 0.
#
# Why it matters: masking the updates is the usual way to keep a ticket pruned, and elsewhere the
# safe one: with masked gradients alone, momentum and weight decay move pruned weights. Here every
# check during training passes (exact zeros, a falling loss), but the network that is evaluated and
# saved is dense, and gets worse with every step.
#
# Seen, after 10, 100 and 1000 steps towards [1, 2, 1, -2], the last two weights pruned:
#   sgd, updates masked: pruned 0, for evaluation [-0.11, 0.22] [-1.11, 2.22] [-11.11, 22.22]
#     loss in training 2.84 2.50 2.50, in evaluation 3.47 11.15 366.69
#   sgd, gradients masked: pruned 0, for evaluation [0.00, 0.00] [0.00, 0.00] [0.00, 0.00]
#     loss in training 2.84 2.50 2.50, in evaluation 2.88 2.50 2.50
#   adamw, updates masked: pruned 0, for evaluation [-0.11, 0.11] [-1.11, 1.11] [-11.11, 11.11]
#     loss in training 2.95 2.50 2.50, in evaluation 3.34 7.07 159.29
#   adamw, gradients masked: pruned 0, for evaluation [0.00, 0.00] [0.00, 0.00] [0.00, 0.00]
#     loss in training 2.95 2.50 2.50, in evaluation 2.99 2.50 2.50
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
from optax import contrib

mask = jnp.array([1.0, 1.0, 0.0, 0.0])
target = jnp.array([1.0, 2.0, 1.0, -2.0])
masked = optax.stateless(lambda updates, _: updates * mask)
seen = {
    "sgd": ([[-0.11, 0.22], [-1.11, 2.22], [-11.11, 22.22]], [3.47, 11.15, 366.69]),
    "adamw": ([[-0.11, 0.11], [-1.11, 1.11], [-11.11, 11.11]], [3.34, 7.07, 159.29]),
}


def loss(w):
    return 0.5 * jnp.sum((w - target) ** 2)


def train(optimizer, which):
    @jax.jit
    def step(w, state):
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        return optax.apply_updates(w, updates), state

    w = jnp.array([0.5, 0.5, 0.0, 0.0])
    state = optimizer.init(w)
    pruned, losses, eval_losses = [], [], []
    for number in range(1, 1001):
        w, state = step(w, state)
        assert np.all(np.asarray(w)[2:] == 0), w
        if number in (10, 100, 1000):
            w_eval = contrib.schedule_free_eval_params(state[which], w)
            pruned.append(np.asarray(w_eval)[2:])
            losses.append(float(loss(w)))
            eval_losses.append(float(loss(w_eval)))
    return np.array(pruned), np.array(losses), np.array(eval_losses)


for name in seen:
    for where in ("updates", "gradients"):
        base = {"sgd": contrib.schedule_free_sgd, "adamw": contrib.schedule_free_adamw}[name](0.1)
        parts, which = ([base, masked], 0) if where == "updates" else ([masked, base], 1)
        pruned, losses, eval_losses = train(optax.chain(*parts), which)
        rows = " ".join(f"[{a:.2f}, {b:.2f}]" for a, b in pruned)
        print(f"{name}, {where} masked: pruned 0, for evaluation {rows}")
        print(
            f"  loss in training {' '.join(f'{x:.2f}' for x in losses)}, "
            f"in evaluation {' '.join(f'{x:.2f}' for x in eval_losses)}"
        )
        if where == "updates":
            assert np.allclose(pruned, seen[name][0], atol=0.006), pruned
            assert np.allclose(eval_losses, seen[name][1], rtol=0.01), eval_losses
        else:
            assert np.all(pruned == 0), pruned
            assert eval_losses[-1] < 2.51, eval_losses
        assert losses[-1] < 2.51, losses
EOF
