"""Every configuration runs to the end in its tiny form, and quickstart in its full form."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import datasets, plots
from experiments.configs import base
from experiments.problems.networks import MODULES, NETWORKS
from experiments.runners.registry import RUNNERS, read_table
from experiments.runners.settings import defaults
from experiments.storage import run_folder
from experiments.tables.summary import summary
from tests.bad_input import check_one_line

FILES = sorted((Path(base.__file__).parent).glob("[!_]*.py"))
NAMES = [path.stem for path in FILES if path.stem != "base"]
ACCURACIES = ("validation_accuracy", "test_accuracy", "density")
REFUSE_STATE = ("connectivity", "learned", "one_shot")  # runners, of networks with BatchNorm
ABOUT = {"late_rewinding": {"rewind_step", "scope"}}  # settings that an experiment is about


def run(config, workdir):
    folder = run_folder.open_workdir(str(workdir), config.to_dict())
    runner = RUNNERS[config.runner]
    return runner.run(runner.make_plan(config), folder, "a command")


def get_config(name, argument):
    return importlib.import_module(f"experiments.configs.{name}").get_config(argument)


def check(name, network, tmp_path):
    config = get_config(name, f"{network},tiny")
    runner = RUNNERS[config.runner]
    if network in MODULES and config.runner in REFUSE_STATE:
        check_refused(config)
        return
    rows = run(config, tmp_path)
    count = math.prod(len(config[name]) for name in runner.LISTS)
    if config.runner == "iterative":
        count = len(config.seeds) + config.num_rounds * count
    if config.runner == "connectivity":
        tickets = sum(len(config.variants) if round else 1 for round in config.rounds)
        count = len(config.seeds) * tickets * math.comb(config.copies, 2) * config.points
    assert len(rows) == count
    assert repr(read_table(tmp_path / "results.csv")) == repr(rows)
    assert rows == sorted(rows, key=runner.row_key(config.to_dict()))
    assert all(0 <= row[name] <= 1 for row in rows for name in ACCURACIES)
    assert len(plots.FIGURES[config.figure](rows).axes) >= 1
    lines = len(config.criteria if config.runner == "one_shot" else config.variants)
    table = summary(rows)
    assert table.row_count == lines + (config.runner in ("connectivity", "iterative"))


def check_refused(config):
    with pytest.raises(ValueError, match="has state beside its parameters") as error:
        RUNNERS[config.runner].make_plan(config)
    check_one_line(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_tiny_form_of_every_config(name, tmp_path):
    check(name, "lenet300", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("network", [*sorted(NETWORKS.keys() - {"lenet300"}), *base.NARROW])
@pytest.mark.parametrize("name", NAMES)
def test_tiny_form_of_every_config_on_convolutions(name, network, tmp_path):
    check(name, network, tmp_path)


def test_a_convolutional_network_learns(tmp_path):
    config = get_config("mask_criteria", "conv2,tiny")
    config.update(variants=("large_final",), seeds=(0,), num_rounds=1, epochs=2)
    rows = run(config, tmp_path)
    assert min(row["test_accuracy"] for row in rows) > 0.5
    assert 0.8 < rows[1]["density"] < 0.9  # 20 % of the dense layers, 10 % of the convolutions


@pytest.mark.parametrize("name", NAMES)
def test_every_config_opens_with_its_command_and_what_to_expect(name):
    text = importlib.import_module(f"experiments.configs.{name}").__doc__ or ""
    assert "Command:" in text and "Run time:" in text and "Expect" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_config_has_the_settings_that_older_files_lack(name):
    config = get_config(name, "lenet300,tiny").to_dict()
    younger = defaults(RUNNERS[config["runner"]].Settings)
    assert {each for each in younger if config[each] != younger[each]} == ABOUT.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_every_full_config_is_valid(name, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, *_: fake_dataset(name))
    for network in (*NETWORKS, *MODULES):
        config = get_config(name, network)
        if network in MODULES and config.runner in REFUSE_STATE:
            check_refused(config)
            continue
        plan = RUNNERS[config.runner].make_plan(config)
        if config.runner == "one_shot":
            assert plan.dense.num_steps == STEPS[network]
            assert tuple(plan.config.powers) == tuple(range(25)) and len(plan.dense.seeds) == 5
        elif "quickstart" in name:
            assert plan.problem.dataset.name == "digits"
        elif config.runner == "learned":
            assert plan.problem.steps_per_epoch == {"lenet300": 220}.get(network, 180)
        elif config.runner == "pruning_at_init":
            assert plan.num_steps == STEPS[network] and len(plan.members) == 5 * 4 * 5
        elif config.runner == "connectivity":
            shorter = {"lenet300": 9160}  # ten epochs
            assert plan.tickets.num_steps == (STEPS | shorter)[network]
        else:
            assert plan.num_steps == STEPS[network]
            assert plan.config.num_rounds == 24 and len(plan.config.seeds) == 5


PAPER_STEPS = {"lenet300": 50_380, "conv2": 20_250, "conv4": 25_500, "conv6": 30_000}
STEPS = PAPER_STEPS | dict.fromkeys(MODULES, 160 * 351)


def fake_dataset(name):
    size, shape = {
        "mnist": (55_000, (28, 28, 1)),
        "cifar10": (45_000, (32, 32, 3)),
        "digits": (1297, (8, 8, 1)),
    }[name]
    images = np.broadcast_to(np.uint8(0), (size, *shape))
    split = datasets.Split(images, np.arange(size, dtype=np.int32) % 10)
    return datasets.Dataset(name, split, split, split, 10)


@given(st.one_of(st.text(), st.lists(st.sampled_from([*NETWORKS, "tiny", "", "\n"])).map(",".join)))
def test_any_argument_is_understood_or_an_error_in_one_line(argument):
    try:
        network, tiny = base.parse(argument)
    except ValueError as error:
        check_one_line(error)
    else:
        assert (argument or "lenet300").removesuffix(",") == network + ",tiny" * tiny


def test_networks_with_batchnorm_train_as_in_the_literature():
    config = get_config("mask_criteria", "resnet20")
    assert (config.optimizer, config.momentum, config.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (config.learning_rate, config.batch_size, config.drop_factor) == (0.1, 128, 0.1)
    assert config.drop_steps == (80 * 351, 120 * 351) and config.schedule == "step"
    assert config.augment_shift == 4 and config.augment_flip
    assert config.default_rate == 0.2 and config.rates == (("output/kernel", 0.0),)
    assert get_config("mask_criteria", "resnet20,tiny").network == "resnet8_narrow"


@pytest.mark.parametrize("network", [*NETWORKS, *MODULES])
def test_the_short_form_of_late_rewinding_trains_for_two_epochs(network, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, *_: fake_dataset(name))
    config = get_config("late_rewinding", f"{network},short")
    plan = RUNNERS[config.runner].make_plan(config)
    assert plan.num_steps == 2 * plan.problem.steps_per_epoch and config.dataset != "digits"
    assert 0 < config.rewind_step < plan.num_steps / 5 and config.scope == "global"


@pytest.mark.parametrize("argument", ["resnet20,shrt", "resnet20,tiny,short", "resnet2,short"])
def test_another_form_of_late_rewinding_is_refused_in_one_line(argument):
    with pytest.raises(ValueError, match="after the colon of --config is not understood") as error:
        get_config("late_rewinding", argument)
    check_one_line(error.value)


def test_a_network_without_a_schedule_is_told_where_it_goes(monkeypatch):
    with pytest.raises(ValueError, match=r"'narrow' .* \(SCHEDULES of experiments/configs/base.py"):
        get_config("learned_supermasks", "narrow")
    monkeypatch.setitem(base.SCHEDULES, "narrow", base.SCHEDULES["lenet300"])
    assert get_config("mask_criteria", "narrow,tiny").network == "narrow"
    with pytest.raises(ValueError, match=r"narrow has no learning rate and .*; add it to LEARNING"):
        get_config("learned_supermasks", "narrow")


@pytest.mark.parametrize("argument", ["lenet", "lenet300,big", "lenet300,tiny,tiny", ",tiny"])
def test_wrong_argument_of_a_config(argument):
    with pytest.raises(ValueError, match="lenet300, conv2, conv4, conv6"):
        base.parse(argument)


def test_the_draw_after_the_network_brings_its_learning_rate():
    config = get_config("supermask_methods", "lenet300,top_k,tiny")
    assert (config.draw, config.learning_rate, config.dataset) == ("top_k", 1.0, "digits")
    assert get_config("supermask_methods", None).draw == "bernoulli"
    with pytest.raises(ValueError, match=r"'lenet300,topk' after the colon.* one of bernoulli, "):
        get_config("supermask_methods", "lenet300,topk")
    with pytest.raises(ValueError, match="'lenet300,big' after the colon"):
        get_config("supermask_methods", "lenet300,top_k,big")
