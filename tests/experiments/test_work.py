import functools

import pytest

from experiments.runners.registry import RUNNERS
from tests.experiments import tiny

CONFIGS = {
    "iterative": tiny.config,
    "one_shot": tiny.one_shot,
    "learned": functools.partial(tiny.learned, retrain_epochs=1),
    "pruning_at_init": tiny.at_init,
    "connectivity": tiny.connected,
}


@functools.cache
def listed(runner):
    made = RUNNERS[runner]
    return made.work(made.make_plan(CONFIGS[runner]()))


def test_every_runner_lists_its_work():
    assert CONFIGS.keys() == RUNNERS.keys()


@pytest.mark.parametrize(
    ("runner", "expected"),
    [
        ("iterative", [("dense networks", 2, 1), ("pruned networks", 4, 2)]),
        # 2 criteria x 4 kinds of weights, seed by seed
        ("one_shot", [("dense networks", 2, 1), ("retrained networks", 8, 2)]),
        ("learned", [("logits", 8, 1), ("retrained networks", 8, 1)]),
        ("pruning_at_init", [("pruned networks", 8, 1)]),
        # 3 copies of every dense network and every ticket
        (
            "connectivity",
            [
                ("dense networks", 2, 1),
                ("pruned networks", 4, 1),
                ("copies", 6, 1),
                ("copies", 12, 1),
            ],
        ),
    ],
)
def test_trainings_have_the_members_of_a_run(runner, expected):
    own = listed(runner)
    found = [(part.what, part.members, part.times) for part in own.trainings]
    assert found == expected


@pytest.mark.parametrize("runner", RUNNERS)
def test_programs_between_trainings_are_made_for_abstract_arguments(runner):
    for program in listed(runner).programs:
        assert program.calls > 0
        assert "func.func public @main" in program.lower().as_text()
