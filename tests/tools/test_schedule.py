import pytest

from experiments.configs import learned_supermasks, mask_criteria
from tools import schedule
from tools.claims import EXPERIMENTS, NETWORKS

# Per cent of the weights left in the authors' code after some rounds.
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
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_configurations_have_the_papers_settings(experiment, network):
    config = schedule.settings(experiment, network)
    assert schedule.deviations(config) == {}
    assert schedule.may_be_judged(experiment, {})


def test_what_differs_is_told_and_judged_if_it_may():
    config = mask_criteria.get_config("lenet300").to_dict() | {
        "batch_size": 6,
        "seeds": [7],
        "data": "0",
    }
    differing = schedule.deviations(config)
    assert differing == {"batch_size": "batch_size 6 instead of 60"}
    assert not schedule.may_be_judged("mask_criteria", differing)
    differing = schedule.deviations(learned_supermasks.get_config("lenet300").to_dict())
    assert differing == {"epochs": "epochs 400 instead of 2000"}
    assert schedule.may_be_judged("learned_supermasks", differing)
    del config["epochs"]
    assert "epochs None instead of 55" in schedule.deviations(config).values()
