import itertools

import pytest

from experiments.configs import heuristic_supermasks, learned_supermasks
from tests.tools import simulated
from tools.report import hours, schedule
from tools.report.claims import CLAIMS, CONNECTIVITY, Dense, Heuristic, Learned, Pruned

COSTS = hours.Costs(36.0, {"init": 600})
TICKET, RANDOM = Pruned("large_final", 0.16, 0.18), Pruned("random", 0.028, 0.03)  # rounds 8, 16
OWN = [claim for claim in CLAIMS if claim.network == hours.NETWORK]


def pruning(**options):
    return simulated.pruning_rows(lambda *_: 80.0, variants=("large_final", "random"), **options)


@pytest.mark.parametrize(
    ("sides", "seconds"),
    [
        ([Dense()], 36 * 2),
        ([TICKET], 36 * 2 * 9),
        ([TICKET, Dense()], 36 * 2 * 9),
        ([TICKET, RANDOM], 36 * 2 * (1 + 8 + 16)),
        ([TICKET, Pruned("large_final", 0.028, 0.03)], 36 * 2 * 17),
        ([Heuristic(("random",), "init"), Heuristic(("movement",), "init")], 2 * (36 + 120)),
        ([Learned("init")], 2 * 600 * 0.5),
        ([Learned("signed_constant")], 2 * 2000 * 0.5),
    ],
    ids=str,
)
def test_work_shares_trainings(sides, seconds):
    found = hours.work(sides, (3, 7), COSTS)
    assert sum(low for low, _ in found.values()) == pytest.approx(seconds)
    assert {seed for _, seed, _ in found} == {3, 7}
    assert hours.work(sides, (3, 7), COSTS, found.keys()) == {}


def test_a_seed_that_lacks_a_round_trains_again_with_its_dense_network():
    rows = pruning(seeds=(3, 7), rounds=range(1, 9))
    done = hours.done(rows)
    assert hours.work([TICKET, Dense()], (3, 7), COSTS, done) == {}
    found = hours.work([TICKET], (3, 7), COSTS, done - {("large_final", 7, 8)})
    assert sorted(found) == [("dense", 7, 0), *(("large_final", 7, n) for n in range(1, 9))]


def test_trainings_of_other_networks_and_experiments_are_not_done():
    rows = [*pruning(network="conv2"), *pruning()]
    others = [row | {"experiment": CONNECTIVITY} for row in rows]
    assert hours.done([*others, *rows]) == hours.done(pruning()) != set()


def test_every_training_that_a_claim_needs_is_done_by_the_rows_that_judge_it():
    done = hours.done(simulated.all_rows())
    for claim, seed in itertools.product(OWN, simulated.SEEDS):
        assert hours.work(claim.sides, [seed], COSTS) and not hours.work(
            claim.sides, [seed], COSTS, done
        )


def test_times_are_those_of_the_configs():
    assert hours.SECONDS_PER_EPOCH == (0.5, 1.0)
    assert "half a second to a second per member and epoch" in learned_supermasks.__doc__
    assert hours.SECONDS_OF_MASKS == 120
    words = " ".join(heuristic_supermasks.__doc__.split())
    assert "two minutes per seed for the masks" in words


SIDES = sorted({side for claim in OWN for side in claim.sides}, key=repr)


@pytest.mark.parametrize("side", SIDES, ids=str)
def test_an_experiment_trains_its_side(side):
    config = schedule.settings(hours.experiment(side), hours.NETWORK)
    match side:
        case Pruned(variant):
            assert variant in config["variants"]
        case Learned(variant):
            assert variant in config["variants"]
        case Heuristic(criteria):
            assert set(criteria) <= set(config["criteria"])
        case Dense():
            assert config["runner"] == "iterative"


def test_the_time_of_a_training_is_that_of_the_largest_population(tmp_path):
    path = tmp_path / hours.BENCHMARK
    head = "network,members,mapping,ms_per_member_step\n"
    path.write_text(f"{head}lenet300,5,map/2,9\nlenet300,10,map/2,0.5\nlenet300,10,map/1,7\n")
    assert hours.measured(tmp_path) == pytest.approx(0.0005 * 50_380)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "mapping\nmap/2\n", "mapping\nmap/1\n"])
def test_another_table_is_no_benchmark(tmp_path, text):
    (tmp_path / hours.BENCHMARK).write_text(text)
    with pytest.raises(ValueError, match=r"is not a table of tools\.benchmark with"):
        hours.measured(tmp_path)
