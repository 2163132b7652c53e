"""What the quickstarts show, on other seeds."""

import numpy as np

from experiments.configs import quickstart, supermask_quickstart
from tests.experiments.test_configs import run


def test_quickstart_shows_the_main_result_on_other_seeds_in_an_eighth_of_its_time(tmp_path):
    config, compared = quickstart.get_config(), ("large_final", "random")
    assert config.num_rounds >= 8 and len(config.variants) >= 4
    assert set(compared) < set(config.variants)
    config.update(seeds=(10, 11, 12), epochs=config.epochs // 8)
    config.variants = compared  # a member's numbers are its own
    rows = run(config, tmp_path)
    last = [row for row in rows if row["round"] == config.num_rounds]
    assert max(row["density"] for row in last) <= 0.03
    accuracy = {
        name: [row["test_accuracy"] for row in last if row["variant"] == name] for name in compared
    }
    spread = max(max(values) - min(values) for values in accuracy.values())
    assert np.mean(accuracy["large_final"]) - np.mean(accuracy["random"]) > spread


def test_supermask_quickstart_works_on_another_seed_in_a_tenth_of_its_time(tmp_path):
    config = supermask_quickstart.get_config()
    config.update(seeds=(10,), epochs=config.epochs // 10)
    rows = run(config, tmp_path)
    assert [row["variant"] for row in rows] == list(config.variants)
    assert min(row["test_accuracy"] for row in rows) > 0.8
    assert all(0.4 < row["density"] < 0.8 for row in rows)
