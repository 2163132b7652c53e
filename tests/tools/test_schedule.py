import importlib

import pytest

from experiments.configs import learned_supermasks, mask_criteria
from tests.experiments.test_configs import PAPER_STEPS
from tools.report import schedule
from tools.report.claims import EXPERIMENTS, NETWORKS

# Percent of the weights left after some rounds in the authors' code.
LEFT = {
    "lenet300": {1: 80.04, 2: 64.06, 4: 41.05, 8: 16.88, 12: 6.95, 16: 2.88, 24: 0.50},
    "conv2": {4: 41.20, 8: 17.03, 24: 0.54},
    "conv4": {4: 43.63, 8: 19.62, 24: 1.29},
    "conv6": {4: 46.68, 8: 22.11, 24: 1.27},
}


@pytest.mark.parametrize("network", NETWORKS)
def test_densities_are_those_of_the_authors_code(network):
    left = schedule.densities(network)
    assert len(left) == 25 and left[0] == 1
    for round, percent in LEFT[network].items():
        assert round and 100 * left[round] == pytest.approx(percent, abs=0.005)


def test_rounds_of_a_range():
    assert schedule.rounds_between("lenet300", 0.025, 0.1) == {11, 12, 13, 14, 15, 16}
    assert schedule.rounds_between("lenet300", 0.1, 0.3) == {6, 7, 8, 9, 10}
    assert schedule.rounds_between("lenet300", 0.065, 0.2) == {8, 9, 10, 11, 12}
    assert schedule.powers("lenet300") == set(range(25))


@pytest.mark.parametrize("network", NETWORKS)
def test_steps_are_those_of_the_authors_code(network):
    assert schedule.steps(network) == PAPER_STEPS[network]


# Adam's learning rate, steps, and pruning rates of convolutions.
PRUNING = {
    "lenet300": (1.2e-3, 55, None),
    "conv2": (2e-4, 27, 0.1),
    "conv4": (3e-4, 34, 0.1),
    "conv6": (3e-4, 40, 0.15),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("experiment", EXPERIMENTS[:4])
def test_settings_of_pruning_are_those_of_the_authors_code(experiment, network):
    config = schedule.settings(experiment, network)
    learning_rate, epochs, rate = PRUNING[network]
    assert (config["learning_rate"], config["epochs"]) == (learning_rate, epochs)
    assert (config["batch_size"], config["eval_every"]) == (60, 100)
    rates = {"output/kernel": 0.1} | ({"conv[0-9]/kernel": rate} if rate else {})
    assert (dict(config["rates"]), config["default_rate"]) == (rates, 0.2)
    assert config["dataset"] == NETWORKS[network]


def test_settings_of_learned_masks_are_those_of_the_authors_code():
    config = schedule.settings("learned_supermasks", "lenet300")
    numbers = {"learning_rate": 100.0, "momentum": 0.9, "batch_size": 250, "epochs": 2000}
    assert {name: config[name] for name in numbers} == numbers
    assert (config["num_draws"], config["initial_logits"]) == (10, (0.0,))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_run_of_the_configuration_is_judged(experiment, network):
    module = importlib.import_module(f"experiments.configs.{experiment}")
    differing = schedule.deviations(module.get_config(network).to_dict())
    assert schedule.may_be_judged(experiment, differing)
    assert (differing == {}) == (experiment != "learned_supermasks")


def test_differences_are_reported_and_judged_if_allowed():
    config = mask_criteria.get_config("lenet300").to_dict() | {
        "batch_size": 6,
        "seeds": [7],
        "data": "0",
    }
    differing = schedule.deviations(config)
    assert differing == {"batch_size": "batch size 6 instead of 60"}
    assert not schedule.may_be_judged("mask_criteria", differing)
    differing = schedule.deviations(learned_supermasks.get_config("lenet300").to_dict())
    assert [*differing.values()] == [
        "epochs 400 instead of 2000",
        "initial logits 1.0 instead of 0.0",
    ]
    differing = schedule.deviations(learned_supermasks.get_config("conv2").to_dict())
    assert differing["epochs"] == "epochs 100, unknown in the paper"
    del config["epochs"]
    assert "epochs None instead of 55" in schedule.deviations(config).values()
