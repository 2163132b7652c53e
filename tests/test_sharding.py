"""Trees sharded over a mesh give the bits of unsharded ones, with the shardings of their leaves."""

import functools
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from supermask_jax import (
    actions,
    analysis,
    criteria,
    masks,
    population,
    rounds,
    supermasks,
)
from tests.trees import assert_same_bits, draw, draw_mask

KEY = jax.random.key(0)
SHAPES = {"kernel": (8, 4), "bias": (4,), "other": (4, 8)}
PARAMS = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
PRUNABLE = {"kernel": True, "bias": False, "other": True}
COUNTS = {"kernel": 11, "bias": 4, "other": 9}
W_I, W_F, MASK = draw(PARAMS, 1, step=0.25), draw(PARAMS, 2, step=0.25), draw_mask(PARAMS, 3)


def advance(criterion, mask_one, mask_zero, num_keep=COUNTS):
    def call(w_i, w_f, mask):
        state = rounds.RoundState(w_i, jax.tree.map(jnp.zeros_like, w_i), mask)
        return rounds.advance(
            KEY, state, w_f,
            criterion=criteria.CRITERIA[criterion],
            mask_one=actions.MASK_ONE[mask_one],
            mask_zero=actions.MASK_ZERO[mask_zero],
            num_keep=num_keep,
            prunable=PRUNABLE,
        )  # fmt: skip

    return call


def other(w_f):
    return jax.tree.map(lambda w: w > 0, w_f)


# Functions (w_i, w_f, mask) -> trees of the network, or numbers.
TREES = {
    **criteria.CRITERIA,
    **{
        name: lambda w_i, w_f, mask, action=action: action(KEY, w_i, w_f, mask)
        for name, action in (actions.MASK_ONE | actions.MASK_ZERO).items()
    },
    "prune": lambda w_i, w_f, mask: masks.prune(KEY, w_f, mask, COUNTS),
    "prune_global": lambda w_i, w_f, mask: masks.prune_global(KEY, w_f, mask, 20, PRUNABLE, 2),
    "prune_n_m": lambda w_i, w_f, mask: masks.prune_n_m(KEY, w_f, mask, PRUNABLE, n=2, m=4, axis=0),
    "units": lambda w_i, w_f, mask: masks.prune_groups(
        KEY, w_f, mask, jax.tree.map(lambda w: 2, w_f), PRUNABLE, axes=-1
    ),
    "blocks": lambda w_i, w_f, mask: masks.prune_groups(
        KEY, w_f, mask, jax.tree.map(lambda w: 3, w_f), PRUNABLE, axes=(0, 1), block=(4, 2)
    ),
    "ones": lambda w_i, w_f, mask: masks.ones(w_i),
    "init_logits": lambda w_i, w_f, mask: supermasks.init_logits(w_i, PRUNABLE, 1.0),
    "sample": lambda w_i, w_f, mask: supermasks.sample(KEY, w_i, PRUNABLE),
    "init_scores": lambda w_i, w_f, mask: supermasks.init_scores(KEY, w_i, PRUNABLE),
    "top_k": lambda w_i, w_f, mask: supermasks.top_k(COUNTS)(KEY, w_i, PRUNABLE),
    "ternary": lambda w_i, w_f, mask: supermasks.ternary(0.5).evaluate(w_i, PRUNABLE),
    "hard_concrete": lambda w_i, w_f, mask: supermasks.hard_concrete()(KEY, w_i, PRUNABLE),
    "advance": advance("large_init_large_final", "reshuffle", "zero_shuffled"),
    "advance globally": advance("random", "constant_keep_sign", "freeze", 20),
}
NUMBERS = {
    "density": lambda w_i, w_f, mask: masks.density(mask, PRUNABLE),
    "overlap": lambda w_i, w_f, mask: masks.overlap(mask, other(w_f), PRUNABLE),
    "kappa": lambda w_i, w_f, mask: analysis.overlap_beyond_chance(mask, other(w_f), PRUNABLE),
    "signs": lambda w_i, w_f, mask: analysis.sign_agreement(w_i, w_f, mask, PRUNABLE),
    "shrunk": lambda w_i, w_f, mask: analysis.fraction_shrunk(w_i, w_f, mask, PRUNABLE),
    "densities": lambda w_i, w_f, mask: analysis.layer_densities(mask, PRUNABLE),
}
MEMBERS = {
    "take": lambda w: population.take({"w": w}, 3),
    "take_some": lambda w: population.take({"w": w}, np.array([5, 1])),
    "take_slice": lambda w: population.take({"w": w}, slice(0, 4)),
    "pad": lambda w: population.pad({"w": w}, 12),
    "stack": lambda w: population.stack([{"w": w}, {"w": w}]),
    "concatenate": lambda w: population.concatenate([{"w": w}, {"w": w}]),
}


def shard(kind, spec):
    """Return the trees on a mesh of 2 x 2 devices; vectors are whole on all devices."""
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind, kind))

    def put(leaf):
        own = spec if leaf.ndim == 2 else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, own))

    return mesh, *(jax.tree.map(put, tree) for tree in (W_I, W_F, MASK))


def assert_shardings(tree, params):
    for leaf, own in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True):
        assert leaf.sharding.is_equivalent_to(own.sharding, own.ndim)


PLACES = [
    (AxisType.Explicit, PartitionSpec("x", "y")),
    (AxisType.Auto, PartitionSpec("y", "x")),
]
IN_TURN = pytest.mark.parametrize("place", [0, pytest.param(1, marks=pytest.mark.slow)])


@functools.cache  # one program is compiled faster than many
def jitted(place):
    """Return the results of all functions, in one program on a mesh; of no mesh for None."""

    def run(w_i, w_f, mask):
        return {name: function(w_i, w_f, mask) for name, function in (TREES | NUMBERS).items()}

    if place is None:
        return jax.jit(run)(W_I, W_F, MASK)
    mesh, *trees = shard(*PLACES[place])
    with jax.set_mesh(mesh):
        return jax.jit(run)(*trees)


def check(found, expected, kind, params):
    assert_same_bits(found, expected)
    for field in found if isinstance(found, rounds.RoundState) else [found]:
        if kind is AxisType.Explicit:
            assert_shardings(field, params)


@IN_TURN
@pytest.mark.parametrize("name", TREES)
def test_a_sharded_tree_gives_the_unsharded_bits(name, place):
    _, params, *_ = shard(*PLACES[place])
    check(jitted(place)[name], jitted(None)[name], PLACES[place][0], params)


@pytest.mark.parametrize("name", TREES)
def test_a_sharded_tree_gives_the_unsharded_bits_eagerly(name):
    kind, spec = PLACES[0]
    mesh, *trees = shard(kind, spec)
    with jax.set_mesh(mesh):
        found = TREES[name](*trees)
    check(found, TREES[name](W_I, W_F, MASK), kind, trees[0])


AXES = {"whole": PartitionSpec(), "x": PartitionSpec("x"), "both": PartitionSpec(None, ("x", "y"))}


@pytest.mark.parametrize(
    ("kind", "axes"),
    [
        *[(AxisType.Explicit, axes) for axes in AXES],
        (AxisType.Auto, "both"),
        *[pytest.param(AxisType.Auto, axes, marks=pytest.mark.slow) for axes in ("whole", "x")],
    ],
)
def test_a_round_on_any_axis(kind, axes):
    run = TREES["advance"]
    mesh, w_i, w_f, mask = shard(kind, AXES[axes])
    with jax.set_mesh(mesh):
        found = jax.jit(run)(w_i, w_f, mask)
    assert_same_bits(found, jax.jit(run)(W_I, W_F, MASK))


@IN_TURN
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_sharded_trees(name, place):
    assert_same_bits(jitted(place)[name], jitted(None)[name])


@pytest.mark.parametrize("name", MEMBERS)
def test_populations_of_sharded_leaves(name):
    expected = MEMBERS[name](W_I["kernel"])
    for kind, spec in PLACES:
        mesh, w_i, _, _ = shard(kind, spec)
        with jax.set_mesh(mesh):
            assert_same_bits(MEMBERS[name](w_i["kernel"]), expected)
            assert_same_bits(jax.jit(MEMBERS[name])(w_i["kernel"]), expected)


def test_padding_keeps_the_sharding():
    mesh, w_i, _, _ = shard(AxisType.Explicit, PartitionSpec("x", "y"))
    with jax.set_mesh(mesh):
        padded = population.pad({"w": w_i["kernel"]}, 12)
    assert padded["w"].sharding.spec == PartitionSpec("x", "y")


COLLECTIVE = re.compile(r"= (.*) (all-\w+|reduce-scatter|collective-\w+)(?:-start)?\(")


def numbers_moved(compiled):
    """Return the sizes of the results of all collectives in a compiled program."""
    found = COLLECTIVE.findall(compiled.as_text())
    shapes = [shape for results, _ in found for shape in re.findall(r"\w+\[([\d,]*)\]", results)]
    return [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes]


IN_EIGHT = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from supermask_jax import masks
from tests.test_sharding import numbers_moved
key, scores = jax.random.key(0), np.random.default_rng(0).standard_normal((64, 32)).round(1)
scores = {"a": scores.astype("float32"), "b": scores[:16].astype("float32")}
counts, prunable = {"a": 700, "b": 100}, {"a": True, "b": True}
calls = [
    lambda scores, mask: masks.prune(key, scores, mask, counts),
    lambda scores, mask: masks.prune_global(key, scores, mask, 800, prunable, least=3),
]
expected = [jax.jit(call)(scores, masks.ones(scores)) for call in calls]
for kind, spec in (
    (AxisType.Explicit, P("x")), (AxisType.Auto, P("x", "y")), (AxisType.Explicit, P(("x", "y"))),
):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        put = jax.device_put(scores, NamedSharding(mesh, spec))
        for call, want in zip(calls, expected, strict=True):
            compiled = jax.jit(call).lower(put, masks.ones(put)).compile()
            moved = numbers_moved(compiled)
            assert moved and max(moved) <= 8, moved
            found = compiled(put, masks.ones(put))
            for leaf in scores:
                assert (np.asarray(found[leaf]) == np.asarray(want[leaf])).all()
                assert found[leaf].sharding.is_equivalent_to(put[leaf].sharding, 2)
print("equal")
"""


def run_script(script, *arguments, devices):
    code = f"import jax; jax.config.update('jax_num_cpu_devices', {devices})\n{script}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out


def test_eight_devices_exchange_counts_only():
    """No leaf moves: each collective carries at most one count of every device."""
    assert finished(run_script(IN_EIGHT, devices=8)) == "equal\n"


IN_PROCESSES = """
import sys
import jax, numpy as np
import jax.numpy as jnp
from jax.experimental import multihost_utils
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from jax.sharding import NamedSharding, PartitionSpec as P
from supermask_jax import actions, criteria, masks, rounds
key, rng = jax.random.key(0), np.random.default_rng(0)
w_i, w_f = ({"a": rng.standard_normal((16, 6)).astype("float32")} for _ in range(2))
kwargs = dict(
    criterion=criteria.large_init_large_final, mask_one=actions.reshuffle,
    mask_zero=actions.zero_shuffled, num_keep={"a": 40}, prunable={"a": True},
)
expected = rounds.advance(key, rounds.begin(w_i), w_f, **kwargs)
mesh = jax.make_mesh((8,), ("x",))
place = NamedSharding(mesh, P("x"))

def put(leaf):
    return jax.make_array_from_callback(leaf.shape, place, lambda index: leaf[index])

with jax.set_mesh(mesh):
    w_i, w_f = (jax.tree.map(put, tree) for tree in (w_i, w_f))
    found = rounds.advance(key, rounds.begin(w_i), w_f, **kwargs)
    try:
        masks.prune(key, {"a": w_f["a"] * jnp.inf}, found.mask, {"a": 3})
    except ValueError as error:
        print(error)
for leaf, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert leaf.sharding.is_equivalent_to(place, 2), leaf.sharding
    whole = multihost_utils.process_allgather(leaf, tiled=True)
    assert np.asarray(whole).tobytes() == np.asarray(want).tobytes()
print("equal")
"""


def test_two_processes_with_four_devices_each():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [run_script(IN_PROCESSES, address, str(i), devices=4) for i in range(2)]
    for process in processes:
        lines = finished(process).splitlines()
        assert any(line.startswith("40 of the 96 scores of leaf 'a' are NaN") for line in lines)
        assert lines[-1] == "equal"
