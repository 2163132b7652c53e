import re
from collections import Counter

import numpy as np
import pytest

from tests.tools import simulated
from tools.report import hours, pages
from tools.report.claims import (
    CLAIMS,
    CONNECTIVITY,
    NUM_SEEDS,
    SECOND_STAGE,
    STABILITY,
)
from tools.report.conclusions import conclude
from tools.report.verdicts import judge, judge_again

COSTS = hours.Costs(36.0, {"init": 600})
OWN = [claim for claim in CLAIMS if claim.network == hours.NETWORK]
FRESH = range(NUM_SEEDS, NUM_SEEDS + max(number for _, number in SECOND_STAGE))


def page(rows):
    first = judge(CLAIMS, rows)
    found = conclude(
        first, judge_again(CLAIMS, rows), judge(STABILITY, rows, [CONNECTIVITY]), rows, COSTS
    )
    return pages.markdown(found)


def chapters(text):
    """The text under each heading."""
    _, holds, fails, unknown, others = re.split(r"^## .*\n", text, flags=re.M)
    return holds, fails, unknown, others


ALL = simulated.all_rows(seeds=(*simulated.SEEDS, *FRESH))
STATES = {
    "nothing": ([], "Not run"),
    "another network": (simulated.all_rows("conv2"), "Not run"),
    "a seed less": ([row for row in ALL if row["seed"] < NUM_SEEDS - 1], "Not run"),
    "the first stage": ([row for row in ALL if row["seed"] < NUM_SEEDS], "Second stage"),
    "a fresh seed less": ([row for row in ALL if row["seed"] != NUM_SEEDS], "Second stage"),
    "both stages": (ALL, "Inconclusive"),
}


@pytest.mark.parametrize("state", STATES)
def test_every_claim_stands_once(state):
    rows, group = STATES[state]
    text = page(rows)
    holds, fails, unknown, _ = chapters(text)
    stated = Counter(claim.text for claim in OWN)
    for words, count in stated.items():
        pattern = rf"(?:\[|: |; ){re.escape(words)}(?:\]|; |$)"
        assert len(re.findall(pattern, text, flags=re.M)) == count, words
    [numbers] = re.findall(
        r"(\d+) claims on lenet300, (\d+) hold, (\d+) do not hold and (\d+)", text
    )
    num_holds, num_fails = (len(re.findall(r"^\* ", part, flags=re.M)) for part in (holds, fails))
    num_unknown = sum(map(int, re.findall(r"^\*\*.*?\*\*: (\d+) claim", unknown, flags=re.M)))
    assert [*map(int, numbers)] == [len(OWN), num_holds, num_fails, num_unknown]
    assert num_holds + num_fails + num_unknown == len(OWN)
    assert f"\n**{group}" in unknown


def pruning(difference, **options):
    """Rows where large_final is some points above random masks, with a little noise."""

    def accuracy(variant, seed, number):
        return 90 + difference * (variant == "large_final") + 0.01 * (seed % 3) * number

    return simulated.pruning_rows(accuracy, variants=("large_final", "random"), **options)


@pytest.mark.parametrize(("difference", "place"), [(1.0, 0), (-1.0, 1)])
def test_a_claim_stands_where_its_verdict_puts_it(difference, place):
    found = chapters(page(pruning(difference)))
    assert "**Post hoc**" in found[place]
    line = "[large_final beats random masks](README.md#rows-lenet300-large-final-above-random)"
    assert f"{line} (Figure 3 [R]): {difference:+.2f} (" in found[place]


def test_a_verdict_of_the_second_stage_comes_first_and_is_marked():
    def accuracy(variant, seed, number):
        return 97.7 + 0.5 * (variant == "large_final") + 0.01 * (seed % 3)

    variants = ("large_final", "large_final:rewind:freeze")
    seeds = (*simulated.SEEDS, *FRESH)
    rows = simulated.pruning_rows(accuracy, seeds=seeds, variants=variants)
    confirmatory, _, rest = chapters(page(rows))[0].partition("**Post hoc**")
    assert confirmatory.startswith("\n**Confirmatory**")
    assert "#rows-lenet300-zero-above-freeze-fresh" in confirmatory
    assert "; 14 fresh seeds" in confirmatory and "fresh" not in rest
    assert "[large_final, round 8" not in confirmatory


def test_an_open_claim_has_its_difference_and_what_it_takes():
    random = np.random.default_rng(0)
    rows = simulated.learned_rows(lambda *_: random.normal(94.8, 0.3), variants=("init",))
    [line] = re.findall(r"^\* \[learned, initial weights: .*$", page(rows), flags=re.M)
    assert re.search(
        r": -[\d.]+ \([+-][\d.]+ to [+-][\d.]+\), where ± 0.5 counts as the same; ", line
    )
    seeds = re.search(r"; (more than )?(\d+) new seeds, (over )?([\d.]+) to ([\d.]+) hours$", line)
    assert seeds and bool(seeds[1]) == bool(seeds[3])
    low, high = (int(seeds[2]) * 600 * seconds / 3600 for seconds in hours.SECONDS_PER_EPOCH)
    assert (seeds[4], seeds[5]) == (f"{low:.1f}", f"{high:.1f}")


def test_what_was_not_run_has_its_trainings_and_hours():
    unknown = chapters(page(simulated.pruning_rows(lambda *_: 80.0, variants=("large_final",))))[2]
    [line] = re.findall(r"^\* \[Figure 4, 9 claims\].*$", unknown, flags=re.M)
    names = re.findall(r"`large_final:(\w+)`", line)
    trainings = NUM_SEEDS * (1 + 10 * len(names))
    assert len(names) == 6 and f", {trainings * 36 / 3600:.1f} hours for " in line
    assert "`large_final`" not in line


@pytest.mark.parametrize("network", ["conv2", "conv4", "conv6"])
def test_a_network_that_was_begun_is_counted(network):
    claims = [claim for claim in CLAIMS if claim.network == network]
    before, after = (chapters(page(rows))[3] for rows in ([], simulated.all_rows(network)))
    assert f"(README.md#not-run-{network})" in before
    assert f"inconclusive, {len(claims)} not run" in before
    assert f"(README.md#claims-on-{network})" in after and ", 0 not run" in after
