"""Networks of one's own: what a function may return, what it brings, and what is refused."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import by_name, datasets, plots
from experiments.configs import base, learned_supermasks, mask_criteria
from experiments.problems import own_networks
from experiments.problems.problem import load_problem
from experiments.runners import settings
from experiments.runners.registry import RUNNERS
from experiments.storage import run_folder
from experiments.tables.summary import summary
from supermask_jax import trees
from tests.bad_input import check_one_line
from tests.experiments import tiny
from tests.experiments.test_bad_input import CONFIGS

SOURCE = '''
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.datasets import Dataset, Split, load
from experiments.problems.networks import Network, as_network
from experiments.problems.own_networks import schedule


class Plain(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images):
        values = nn.relu(nn.Conv(2, (3, 3), name="conv1")(images)).mean(axis=(1, 2))
        return nn.Dense(self.classes, name="head")(values)


class Normalised(Plain):
    @nn.compact
    def __call__(self, images):
        return super().__call__(nn.BatchNorm(use_running_average=False)(images))


class Trained(Plain):
    @nn.compact
    def __call__(self, images, train):
        return super().__call__(nn.BatchNorm(use_running_average=not train)(images))


class Dropped(Plain):
    @nn.compact
    def __call__(self, images):
        return super().__call__(nn.Dropout(0.5, deterministic=False)(images))


class TrainedDropped(Plain):
    @nn.compact
    def __call__(self, images, train):
        return super().__call__(nn.Dropout(0.5, deterministic=not train)(images))


class BothDropped(Trained):
    @nn.compact
    def __call__(self, images, train):
        return super().__call__(nn.Dropout(0.5, deterministic=not train)(images), train)


RATES = (("conv1/kernel", 0.1), ("head/kernel", 0.05))


@schedule(dataset="digits", learning_rate=0.01, epochs=3, rates=RATES)
def plain(image_shape, num_classes):
    return as_network(Plain(num_classes), image_shape)


def unscheduled(image_shape, num_classes):
    return plain(image_shape, num_classes)


def of_tuples(image_shape, num_classes):
    """A network of no framework, whose parameters are a list of pairs."""
    size = image_shape[0] * image_shape[1] * image_shape[2]

    def init(key):
        return [(jax.random.normal(key, (size, num_classes)) / size, jnp.zeros(num_classes))]

    def apply(params, images):
        [(w, b)] = params
        return images.reshape(len(images), -1) @ w + b

    return Network(init, apply, image_shape)


def normalised(image_shape, num_classes):
    return as_network(Normalised(num_classes), image_shape)


def dropped(image_shape, num_classes):
    return as_network(Dropped(num_classes), image_shape)


def trained_dropped(image_shape, num_classes):
    return as_network(TrainedDropped(num_classes), image_shape)


def both_dropped(image_shape, num_classes):
    return as_network(BothDropped(num_classes), image_shape)


def trained(image_shape, num_classes):
    return as_network(Trained(num_classes), image_shape)


def counting(image_shape, num_classes):
    """A network of no framework that counts its training steps."""
    network = of_tuples(image_shape, num_classes)

    def init_state(key):
        return [jnp.int32(0)]

    def apply(params, images, state):
        return network.apply(params, images)

    def apply_training(params, images, state):
        return network.apply(params, images), [state[0] + 1]

    return Network(network.init, apply, image_shape, init_state, apply_training)


def with_state(make, step=None):
    """A function of a network that counts in another way."""
    def network(image_shape, num_classes):
        own = counting(image_shape, num_classes)
        train = own.apply_training
        changed = own if step is None else own._replace(
            apply_training=lambda *inputs: step(*train(*inputs)))
        return changed._replace(init_state=make)
    return network


def count(key): return [jnp.int32(0)]


half_state = with_state(None)
empty = with_state(lambda key: {})
of_bools = with_state(lambda key: {"on": jnp.bool_(True)})
of_keys = with_state(lambda key: [key])
of_text = with_state(lambda key: "zero")
state_twins = with_state(lambda key: {"a.b": jnp.zeros(2), "a": {"b": jnp.zeros(2)}})
grows = with_state(count, lambda logits, state: (logits, [jnp.stack(2 * state)]))
turns_float = with_state(count, lambda logits, state: (logits, [state[0] / 2]))
loses = with_state(count, lambda logits, state: (logits, []))
forgets = with_state(count, lambda logits, state: logits)
trains_seven = with_state(count, lambda logits, state: (logits[:, :7], state))
needs_two = with_state(lambda key, shape: [jnp.int32(0)])


def module(image_shape, num_classes):
    return Plain(num_classes)


def deaf(image_shape, num_classes):
    return plain((9, 9, 1), num_classes)


def ten(image_shape, num_classes):
    return plain(image_shape, 7)


def pair(image_shape, num_classes):
    network = plain(image_shape, num_classes)
    return network._replace(apply=lambda *inputs: (network.apply(*inputs), 0))


def fails(image_shape, num_classes):
    raise KeyError("no such thing")


def ends(image_shape, num_classes):
    raise SystemExit


def late(image_shape, num_classes):
    return plain(image_shape, num_classes)._replace(apply=lambda params, images: images @ params)


def half(image_shape, num_classes):
    init = of_tuples(image_shape, num_classes).init
    def cast(key): return jax.tree.map(lambda w: w.astype(jnp.bfloat16), init(key))
    return of_tuples(image_shape, num_classes)._replace(init=cast)


def biases(image_shape, num_classes):
    return Network(lambda key: jnp.zeros(num_classes), lambda w, x: jnp.ones((len(x), 1)) * w,
                   image_shape)


def twins(image_shape, num_classes):
    weights = jnp.zeros((2, 2))
    return of_tuples(image_shape, num_classes)._replace(
        init=lambda key: {"a.b": {"c": weights}, "a": {"b.c": weights}})


def three(image_shape, num_classes, width):
    pass


number = 3


def thirds(data_dir):
    """Which third of a picture is bright, of 90 pictures of 6 x 9 pixels."""
    labels = jnp.arange(90) % 3
    images = jnp.repeat(jnp.eye(3, dtype="uint8")[labels], 3, axis=1)[:, None] * 200
    split = Split(np.asarray(jnp.repeat(images, 6, axis=1)), np.asarray(labels))
    return Dataset("thirds", split, split, split, 3)


def digits(data_dir):
    return load("digits")


def brings_nothing(data_dir):
    return load("digits", str(data_dir / "nowhere")).train


def missing(data_dir):
    return load("mnist", str(data_dir / "nowhere"))
'''
MODULES = {
    "own_nets": SOURCE,
    "own_broken": "def net(:",
    "own_import": "import nowhere_to_be_found",
    "own_rates": SOURCE.replace("rates=RATES", "rates=0.1"),
    "own_word": SOURCE.replace("epochs=3", "epoch=3"),
    "own_exit": "import sys\nsys.exit('bye')",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder that one stands in, with the modules of one's own."""
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["plain", "unscheduled", "of_tuples", "trained", "counting"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 5, 3)])
def test_a_function_makes_a_network(name, shape):
    network = own_networks.make(f"own_nets:{name}", shape, 5)
    params, images = network.init(jax.random.key(0)), jnp.ones((4, *shape))
    if network.init_state:
        state = network.init_state(jax.random.key(0))
        assert network.apply_training(params, images, state)[0].shape == (4, 5)
        assert network.apply(params, images, state).shape == (4, 5)
    else:
        assert network.apply(params, images).shape == (4, 5)
    assert any(jax.tree.leaves(trees.prunable_leaves(params)))


REFUSED = {
    "normalised": r"ValueError: Normalised has state .* \(batch_stats\), expected an argument tr",
    "trained_dropped": "TrainedDropped takes train, but has no state .* dropout, are not trained",
    "both_dropped": "apply_training of the network own_nets:both_dropped raises InvalidRngError",
    "half_state": "half_state has only one of init_state and apply_training, expected both of a ne",
    "empty": "the state of the network own_nets:empty has no array, expected one or more, or",
    "of_bools": "the state of the network own_nets:of_bools has 'on' of bool, expected floats or",
    "of_keys": r"of_keys has '0' of key<.*>, expected floats or integers",
    "of_text": "init_state of the network own_nets:of_text raises TypeError: .*",
    "state_twins": r"state_twins has arrays of the state of one name, \['a/b', 'a.b'\]; check",
    "grows": r"own_nets:grows returns leaf '0' of the state as int32\[2\], expected int32\[\] as",
    "turns_float": r"returns leaf '0' of the state as float32\[\], expected int32\[\] as before",
    "loses": r"own_nets:loses returns a state of \[\], expected that of init_state",
    "forgets": r"own_nets:forgets returns float32\[2, 10\], expected \(logits, state\)",
    "trains_seven": r"apply_training of the network .*:trains_seven returns float32\[2, 7\] for",
    "needs_two": "init_state of the network own_nets:needs_two raises TypeError: .*: 'shape'",
    "dropped": "apply of the network own_nets:dropped raises InvalidRngError: Dropout_0 needs PRNG",
    "module": "own_nets:module is a Plain, expected a Network of experiments.problems.networks",
    "deaf": r"takes images of shape \(9, 9, 1\), expected \(8, 8, 1\), which the function gets",
    "ten": r"returns float32\[2, 7\] for 2 images, expected logits float32\[2, 10\]: one for",
    "pair": "apply of the network own_nets:pair returns tuple for 2 images, expected logits",
    "fails": r"own_nets:fails raises KeyError: 'no such thing' \(.*own_nets.py, line \d+\)$",
    "ends": r"own_nets:ends raises SystemExit: \(.*own_nets.py, line \d+\)$",
    "late": r"apply of the network own_nets:late raises TypeError: .*own_nets.py, line \d+\)$",
    "half": "has a parameter '0/0' of bfloat16, expected float32",
    "biases": "has no weights that may be pruned among",
    "twins": r"has parameters of one name, \['a/b.c', 'a.b/c'\]; checkpoints and rates tell them",
    "three": r"the network three does not take \(image_shape, num_classes\)",
    "number": "the network is 3, expected a function, such as def number",
    "plan": "unknown function of own_nets 'plan'; did you mean 'plain'",
    "9": "the network 'own_nets:9' is not MODULE:FUNCTION, such as my_lab",
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_function_is_refused_in_one_line(name):
    with pytest.raises((ValueError, TypeError), match=REFUSED[name]) as error:
        own_networks.make(f"own_nets:{name}", (8, 8, 1), 10)
    check_one_line(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "own_net:plain",
            r"own_net:plain is in no module: own_net is neither in /.* nor installed",
        ),
        ("own_nets.deep:plain", "is in no module: own_nets.deep is neither"),
        ("own_broken:net", r"importing own_broken raises SyntaxError: .*own_broken.py, line 1\)$"),
        ("own_import:net", r"raises ModuleNotFoundError: No module named 'nowhere_to.*, line 1\)$"),
        ("own_exit:net", r"importing own_exit raises SystemExit: bye \(.*own_exit.py, line 2\)$"),
        (
            "own_rates:plain",
            r"TypeError: 'float' object is not iterable \(.*rates.py, line \d+",
        ),
        ("own_word:plain", r"TypeError: .* argument 'epoch' \(.*own_word.py, line \d+\)$"),
        ("own_nets:", "is not MODULE:FUNCTION"),
        (":plain", "is not MODULE:FUNCTION"),
        ("own_nets:plain:more", "is not MODULE:FUNCTION"),
        ("own nets:plain", "is not MODULE:FUNCTION"),
    ],
)
@pytest.mark.parametrize(("kind", "argument"), [("network", "key"), ("data set", "data_dir")])
def test_a_name_of_nothing_is_told_in_one_line(name, said, kind, argument):
    with pytest.raises(ValueError, match=said) as error:
        by_name.find(kind, name, (argument,))
    check_one_line(error.value)


def problem(network, dataset="own_nets:digits", num_validation=0):
    return load_problem(network, dataset, 60, None, num_validation)


def test_a_problem_has_a_network_and_a_data_set_of_functions():
    made = problem("own_nets:of_tuples")
    assert made.dataset.name == "own_nets:digits" and made.dataset.num_classes == 10
    assert jax.tree.leaves(made.prunable) == [True, False]
    assert made.params[0][0].shape == (64, 10)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "own_nets:brings_nothing"}, "returns a Split, expected a Dataset of exper"),
        ({"dataset": "own_nets:missing"}, "missing raises FileNotFoundError: no data set 'mnist'"),
        ({"dataset": "own_nets:plain"}, r"the data set plain does not take \(data_dir\)"),
        ({"num_validation": 5}, "num_validation is 5, but own_nets:digits has validation images"),
        (
            {"network": "lenet3"},
            "unknown network 'lenet3'; did you .* known: MODULE:FUNCTION, conv2",
        ),
        ({"network": None}, "unknown network None; known: MODULE:FUNCTION, conv2"),
    ],
)
def test_a_wrong_problem_is_refused_in_one_line(changes, said):
    with pytest.raises((ValueError, TypeError), match=said) as error:
        problem(**{"network": "own_nets:plain"} | changes)
    check_one_line(error.value)


def test_a_network_brings_its_schedule_and_its_rates():
    config = mask_criteria.get_config("own_nets:plain")
    assert (config.dataset, config.learning_rate, config.epochs) == ("digits", 0.01, 3)
    assert config.rates == (("conv1/kernel", 0.1), ("head/kernel", 0.05))
    twice = base.iterative("own_nets:plain", experiment="e", variants=("random",), rate_factor=2)
    assert twice.rates == (("conv1/kernel", 0.2), ("head/kernel", 0.1))
    masks = learned_supermasks.get_config("own_nets:plain")
    assert (masks.learning_rate, masks.epochs) == (100.0, 100)
    assert masks.retrain_learning_rate == 0.01
    plan = RUNNERS["iterative"].make_plan(config)
    of_leaves = settings.pruning_rates(plan.config, plan.problem.params)
    assert of_leaves["conv1"]["kernel"] == 0.1 and of_leaves["head"]["kernel"] == 0.05


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "own_nets:unscheduled",
            "brings no schedule: put @schedule.* --config.network=own_nets:unsc",
        ),
        ("own_nets:plan", "unknown function of own_nets 'plan'"),
        ("own_nets:plain,huge", "'own_nets:plain,huge' after the colon of --config is not underst"),
    ],
)
@pytest.mark.parametrize("config", [mask_criteria, learned_supermasks])
def test_a_network_that_brings_none_is_told_what_to_do(config, argument, said):
    with pytest.raises(ValueError, match=said) as error:
        config.get_config(argument)
    check_one_line(error.value)


def test_the_rates_of_another_network_name_the_rule_that_matched_nothing():
    config = mask_criteria.get_config("lenet300,tiny")
    config.network = "own_nets:plain"
    said = "rule 'output/kernel' matches no leaf .* come with --config=FILE.py:own_nets:plain$"
    with pytest.raises(ValueError, match=said) as error:
        RUNNERS["iterative"].make_plan(config)
    check_one_line(error.value)
    config.rates = ()  # a network of one's own needs no rule for its convolutions
    plan = RUNNERS["iterative"].make_plan(config)
    of_leaves = settings.pruning_rates(plan.config, plan.problem.params)
    assert of_leaves["conv1"]["kernel"] == plan.config.default_rate


@pytest.mark.parametrize("runner", CONFIGS)
def test_every_runner_trains_a_network_and_data_of_functions(runner, tmp_path):
    config = CONFIGS[runner](network="own_nets:of_tuples", dataset="own_nets:thirds")
    config.batch_size = 30
    config.update({"rates": ()} if "rates" in config else {})
    config.update({"examples_per_class": 5} if "examples_per_class" in config else {})
    made = RUNNERS[config.runner]
    folder = run_folder.open_workdir(str(tmp_path / "run"), config.to_dict())
    rows, again = (made.run(made.make_plan(config), folder, "a command") for _ in range(2))
    assert repr(rows) == repr(again)
    assert all(0 <= row["test_accuracy"] <= 1 and 0 < row["density"] <= 1 for row in rows)
    assert plots.FIGURES[config.figure](rows).axes and summary(rows).row_count


def test_files_that_lack_the_validation_images_mean_the_default():
    old = mask_criteria.get_config("lenet300,tiny").to_dict()
    del old["num_validation"]
    read = settings.read(RUNNERS["iterative"].Settings, old)
    assert read.num_validation == 0 and "num_validation" not in read.recorded()
    now = settings.read(RUNNERS["iterative"].Settings, old | {"num_validation": 7})
    assert now.of_a_member() == read.of_a_member() | {"num_validation": 7}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("value", [-1, 1.5, "3", True, None])
def test_a_wrong_number_of_validation_images_is_refused(runner, value):
    config = ConfigDict(CONFIGS[runner]().to_dict() | {"num_validation": value})
    said = f"num_validation has {re.escape(repr(value))}, expected an integer of 0 or more"
    with pytest.raises(ValueError, match=said):
        RUNNERS[runner].make_plan(config)


def test_unused_classes_are_no_examples(monkeypatch):
    digits = datasets.load("digits")
    spread = [split._replace(labels=2 * split.labels + 1) for split in digits[1:4]]
    made = datasets.Dataset("spread", *spread, num_classes=21)
    monkeypatch.setitem(datasets.LOADERS, "spread", lambda root: made)
    runner = RUNNERS["pruning_at_init"]
    plan = runner.make_plan(tiny.at_init(dataset="spread"))
    chosen = runner.examples(plan, 0)["labels"]
    number = plan.config.examples_per_class
    np.testing.assert_array_equal(np.bincount(chosen)[1::2], 10 * [number])
    with pytest.raises(ValueError, match=r"expected at most \d+, the training images of class \d"):
        runner.make_plan(tiny.at_init(dataset="spread", examples_per_class=1000))
