"""The claims of Zhou et al. 2019 as data: the two sides, the range and the margin of each.

A claim is about left - right: test accuracy in percentage points, paired by seed. It says that the
mean of this difference is above 0 (``>``), above -margin (``>=``), or between -margin and margin
(``~``); `right` may be a reported number, which is taken as exact. The rule by which
`tools.report.verdicts` judges:

* *reproduced*: a one-sided t-test (for ``~`` two of them) of the differences rejects that their
  mean is outside the claimed range, p < ALPHA after Holm's correction over all claims on the
  network, those that were not run among them.
* *not reproduced*: the t-test of the opposite rejects, corrected likewise, that it is inside.
* *inconclusive*: neither, or fewer than MIN_SEEDS seeds; with the number of seeds that would settle
  it with probability POWER if the difference and its spread are as observed.
* *not run*: one side has no rows.

On each network the chance of any wrong *reproduced* is therefore at most ALPHA, and so is that of
any wrong *not reproduced*, if the number of seeds is fixed beforehand: seeds 0 to NUM_SEEDS - 1
count, whatever else was run. A seed counts if both sides have every round or density of the claim's
range, and all values are finite.

Adding seeds to an inconclusive claim would be a second look, for which the correction does not
account. SECOND_STAGE judges it anew instead, by the same rule and margins:

* It counts fresh seeds alone, exactly as many as SECOND_STAGE says from seed NUM_SEEDS on. A claim
  that lacks one of them is *inconclusive*; one that diverged is left out.
* Its claims on a network are a family with a correction of their own, so that no verdict of the
  first stage depends on them, and ALPHA bounds the chance of any wrong verdict in each stage.
* The claims and the numbers of seeds were committed before the first fresh seed ran. Each number
  is the one that would settle the claim, at the level of this family, if difference and spread are
  as in the first stage; claims that would need more than MOST_FRESH_SEEDS stay open, and so do
  claims that become inconclusive after the first fresh seed ran.

A verdict of the second stage is confirmatory: no row that it rests on was seen when the claim and
the number of seeds were chosen.

Rows count if they were made with the paper's settings (`tools.report.schedule`), except for those
in MAY_DEVIATE, which the report states beside every verdict that rests on such rows.

Claims on linear mode connectivity, STABILITY, are about error barriers in place of accuracies. They
are a family of their own, with its own correction.

The ranges, the margins and the correction were committed before the runs that they judge. The runs
in KNOWN existed already, and the report marks the verdicts that use them. On lenet300 the ranges of
density end at round 16 for criteria, 12 for mask-0 actions and 10 for mask-1 actions; convolutions
are pruned more slowly and reach these densities up to four rounds later.
"""

import math
from typing import Any, NamedTuple

from supermask_jax.criteria import CRITERIA

ALPHA = 0.05
POWER = 0.8
MIN_SEEDS = 4
NUM_SEEDS = 5
MOST_FRESH_SEEDS = 20

# Experiments whose rows are judged, by what they show; others are shown only.
FIGURES = {
    "Figure 3": "mask_criteria",
    "Figure 4": "mask_one_actions",
    "Figure 5": "mask_zero_actions",
    "Figure 7": "heuristic_supermasks",
    "Table 1": "learned_supermasks",
}
EXPERIMENTS = tuple(FIGURES.values())
PRUNING = EXPERIMENTS[:3]
CONNECTIVITY = "linear_mode_connectivity"  # judged by the claims of STABILITY
MAY_DEVIATE = {
    "learned_supermasks": ("epochs", "initial_logits", "learning_rate"),
    CONNECTIVITY: ("rewind_step",),
}

# Seeds that had been run on lenet300 when the claims were written down: by variant, or by
# experiment where all variants had.
KNOWN = {
    "dense": range(5),
    "large_final": range(3),
    "random": range(3),
    "heuristic_supermasks": range(5),
    "learned_supermasks": range(5),
}

NETWORKS = {"lenet300": "mnist", "conv2": "cifar10", "conv4": "cifar10", "conv6": "cifar10"}

RERUN = "McGill team, NeurIPS 2019 Reproducibility Challenge, five seeds"
TRUST = {
    "P": "the paper's own text",
    "N": "independent reading notes that agree with each other",
    "R": "a published rerun of the authors' code",
    "M": "recalled from the paper, not checked against it",
}


class Pruned(NamedTuple):
    """Iterative pruning: the mean over the rounds that leave `least` to `most` of the weights."""

    variant: str
    least: float
    most: float


class Dense(NamedTuple):
    """The trained dense network."""


class Heuristic(NamedTuple):
    """One-shot masks on untrained weights: the maximum over criteria and densities."""

    criteria: tuple[str, ...]
    weights: str


class Learned(NamedTuple):
    """Masks learned on frozen weights, at the initial logit that is best on validation."""

    variant: str


class Barrier(NamedTuple):
    """Copies of a ticket: the mean over their pairs of the error barrier, in percentage points."""

    variant: str
    rewind_step: int
    round: int


Side = Pruned | Dense | Heuristic | Learned | Barrier


class Margin(NamedTuple):
    """Percentage points that make no difference, and why."""

    points: float
    why: str


class Claim(NamedTuple):
    """A claim; `name` is unique in a network, `trust` has one or more letters of TRUST."""

    network: str
    name: str
    text: str
    source: str
    trust: str
    left: Side
    relation: str
    right: Side | float
    margin: Margin

    @property
    def id(self) -> str:
        """An id that is unique among all claims."""
        return f"{self.network}-{self.name}".replace("_", "-").replace(":", "-")

    @property
    def sides(self) -> list[Side]:
        """The sides to measure: both, or only the left one if the right is a reported number."""
        return [side for side in (self.left, self.right) if not isinstance(side, int | float)]

    @property
    def right_is_measured(self) -> bool:
        """Whether the claim compares two sides, not one with a reported number."""
        return len(self.sides) == 2

    @property
    def bounds(self) -> tuple[float, float]:
        """The bounds, in points, between which the claim puts left - right."""
        upper = self.margin.points if self.relation == "~" else math.inf
        return 0.0 - self.margin.points, upper


NONE = Margin(0.0, "better means above 0")
SAME = {
    "mnist": Margin(
        0.5,
        "twice the largest half-range over seeds in the rerun through round 16 (0.25, of random "
        "masks); rewind and random masks are 1.4 to 2.5 apart there in rounds 12 to 16",
    ),
    "cifar10": Margin(
        1.5, "about three standard deviations of one accuracy near 70 % on 10,000 images (0.46)"
    ),
}
NO_WORSE = {
    "mnist": Margin(0.25, "the largest half-range over seeds in the rerun through round 16"),
    "cifar10": Margin(
        1.0, "about two standard deviations of one accuracy near 70 % on 10,000 images"
    ),
}
HEURISTIC = Margin(4.0, "the rerun gives its means of such masks as ± 2.1 and ± 4.0")

MODERATE = (0.1, 0.5)
HIGH = (0.025, 0.1)
BOTH = (0.025, 0.5)
COLLAPSE = (0.05, 0.2)  # small_final falls in the rerun, the others do not
MEDIUM = (0.1, 0.3)  # rounds 6 to 10 of lenet300
MEDIUM_HIGH = (0.065, 0.2)  # rounds 8 to 12

Entry = tuple[Any, ...]  # the fields of a claim after its network


def _figure_3(network: str) -> list[Entry]:
    """Return the claims on mask criteria."""
    dataset = NETWORKS[network]
    rerun = "R" if network == "lenet300" else "M"
    both = [Pruned(name, *BOTH) for name in ("large_final", "magnitude_increase")]
    high = [Pruned(name, *HIGH) for name in ("magnitude_increase", "movement")]
    orderings = [
        ("large_final", "random", rerun, HIGH, "large_final beats random masks"),
        ("movement", "large_init_large_final", "M", HIGH,
         "movement beats the criterion that asks for both magnitudes"),
        ("large_init_large_final", "random", "M", HIGH,
         "asking for both magnitudes still beats random masks"),
        ("large_init", "random", "M", HIGH, "large_init beats random masks"),
        ("random", "small_final", rerun, HIGH, "small_final is worse than random masks"),
        ("random", "small_init", "M", HIGH, "small_init is worse than random masks"),
        ("random", "small_init_small_final", "M", HIGH,
         "small_init_small_final is worse than random masks"),
        ("small_init", "small_final", "M", COLLAPSE,
         "small_final collapses before small_init"),
        ("small_init_small_final", "small_final", "M", COLLAPSE,
         "small_final collapses before small_init_small_final"),
    ]  # fmt: skip
    return [
        ("large_final-as-magnitude_increase", "large_final and magnitude_increase do equally well",
         "Figure 3", rerun, both[0], "~", both[1], SAME[dataset]),
        ("magnitude_increase-not-below-movement", "magnitude_increase is no worse than movement",
         "Figure 3", "M", high[0], ">=", high[1], NO_WORSE[dataset]),
        *(
            (f"{better}-above-{worse}", text, "Figure 3", trust,
             Pruned(better, *where), ">", Pruned(worse, *where), NONE)
            for better, worse, trust, where, text in orderings
        ),
    ]  # fmt: skip


def _figure_4(network: str) -> list[Entry]:
    """Return the claims on mask-1 actions."""
    where = MEDIUM
    rewind = Pruned("large_final", *where)
    entries = []
    for action in ("reinit", "reshuffle", "constant"):
        free = Pruned(f"large_final:{action}", *where)
        signed = Pruned(f"large_final:{action}_keep_sign", *where)
        entries += [
            (f"{action}_keep_sign-as-rewind", f"{action} does as well as rewind if signs are kept",
             "Figure 4", "NM", signed, "~", rewind, SAME[NETWORKS[network]]),
            (f"{action}_keep_sign-above-{action}", f"{action} is better if signs are kept",
             "Figure 4", "NM", signed, ">", free, NONE),
            (f"rewind-above-{action}", f"{action} is worse than rewind if signs are not kept",
             "Figure 4", "NM", rewind, ">", free, NONE),
        ]  # fmt: skip
    return entries


def _figure_5(network: str) -> list[Entry]:
    """Return the claims on mask-0 actions."""
    no_worse = NO_WORSE[NETWORKS[network]]
    where = MEDIUM_HIGH
    zero = Pruned("large_final", *where)
    freeze = Pruned("large_final:rewind:freeze", *where)
    variant_1 = Pruned("large_final:rewind:zero_if_shrunk", *where)
    variant_2 = Pruned("large_final:rewind_unless_shrunk:zero_if_shrunk", *where)
    shuffled = Pruned("large_final:rewind:zero_shuffled", *where)
    reversed_rule = Pruned("large_final:rewind:zero_if_grown", *where)
    return [
        ("zero-above-freeze", "freezing pruned weights at their initial values is worse than zero",
         "Figure 5", "NM", zero, ">", freeze, NONE),
        ("variant_1-not-below-zero",
         "at high pruning the paper's variant 1, zero for pruned weights that moved towards it, is "
         "no worse than zero",
         "Figure 5", "NM", variant_1, ">=", zero, no_worse),
        ("variant_2-above-zero",
         "at high pruning the paper's variant 2, the same for kept weights too, is better than "
         "zero",
         "Figure 5", "NM", variant_2, ">", zero, NONE),
        ("variant_2-not-below-variant_1",
         "at high pruning the paper's variant 2 is no worse than its variant 1",
         "Figure 5", "NM", variant_2, ">=", variant_1, no_worse),
        ("variant_2-above-variant_1",
         "at high pruning the paper's variant 2 is better still than its variant 1",
         "Figure 5", "M", variant_2, ">", variant_1, NONE),
        ("variant_1-above-random-zeros",
         "the paper's variant 1 beats as many zeros in random places",
         "Figure 5", "M", variant_1, ">", shuffled, NONE),
        ("variant_1-above-reversed-rule",
         "the paper's variant 1 beats zero for weights that moved away",
         "Figure 5", "M", variant_1, ">", reversed_rule, NONE),
    ]  # fmt: skip


BEST_CRITERION = "large_final_same_sign"
OTHER_CRITERIA = tuple(name for name in CRITERIA if name != BEST_CRITERION)
COLUMNS: dict[str, Side] = {
    "heuristic, initial weights": Heuristic((BEST_CRITERION,), "init"),
    "heuristic, signed constants": Heuristic((BEST_CRITERION,), "signed_constant"),
    "learned, initial weights": Learned("init"),
    "learned, signed constants": Learned("signed_constant"),
    "learned and rescaled, initial weights": Learned("init:rescale"),
    "learned and rescaled, signed constants": Learned("signed_constant:rescale"),
    "trained weights": Dense(),
}
# Test accuracy in percent and how far the number is to be trusted, in the order of COLUMNS.
TABLE_1 = {
    "lenet300": (
        (79.3, "R"), (86.3, "P"), (95.3, "N"), (96.4, "M"), (97.8, "M"), (98.0, "M"), (97.7, "M"),
    ),
    "conv2": (
        (22.3, "M"), (37.4, "M"), (64.4, "M"), (66.3, "M"), (65.0, "M"), (66.0, "M"), (69.2, "M"),
    ),
    "conv4": (
        (23.7, "M"), (39.7, "M"), (65.4, "N"), (66.2, "M"), (71.7, "M"), (72.5, "M"), (75.4, "M"),
    ),
    "conv6": (
        (24.0, "N"), (41.0, "P"), (65.3, "M"), (65.4, "M"), (76.3, "M"), (76.5, "M"), (78.3, "M"),
    ),
}  # fmt: skip


def _figure_7(network: str) -> list[Entry]:
    """Return the comparisons of supermasks."""
    reported = dict(zip(COLUMNS.values(), TABLE_1[network], strict=True))
    best = {kind: Heuristic((BEST_CRITERION,), kind) for kind in ("init", "signed_constant")}
    entries: list[Entry] = [
        ("signed-constants-above-init", f"{BEST_CRITERION} masks are better on signed constants",
         "Figure 7", "M", best["signed_constant"], ">", best["init"], NONE),
    ]  # fmt: skip
    for form, words in (("", "learned masks"), (":rescale", "rescaled learned masks")):
        constants, init = Learned(f"signed_constant{form}"), Learned(f"init{form}")
        if reported[constants] > reported[init]:
            entries.append(
                (f"signed-constants-above-init-learned{form}",
                 f"{words} are better on signed constants", "Table 1", "M", constants, ">", init,
                 NONE)
            )  # fmt: skip
    for kind, heuristic in best.items():
        others = Heuristic(OTHER_CRITERIA, kind)
        learned, rescaled = Learned(kind), Learned(f"{kind}:rescale")
        words = {"init": "initial weights", "signed_constant": "signed constants"}[kind]
        entries += [
            (f"same-sign-best-on-{kind}", f"{BEST_CRITERION} is the best criterion, {words}",
             "Figure 7", "M", heuristic, ">", others, NONE),
            (f"learned-above-heuristic-on-{kind}", f"learned masks beat heuristic ones, {words}",
             "Table 1", "M", learned, ">", heuristic, NONE),
        ]  # fmt: skip
        if reported[rescaled] > reported[learned]:
            entries.append(
                (f"rescaled-above-learned-on-{kind}", f"rescaling improves learned masks, {words}",
                 "Table 1", "M", rescaled, ">", learned, NONE)
            )  # fmt: skip
    return entries


def _table_1(network: str) -> list[Entry]:
    """Return a claim per cell of Table 1."""
    same = SAME[NETWORKS[network]]
    return [
        (f"cell-{place}", f"{column}: {number} %", "Table 1", trust, side, "~", number,
         HEURISTIC if isinstance(side, Heuristic) else same)
        for place, ((column, side), (number, trust)) in enumerate(
            zip(COLUMNS.items(), TABLE_1[network], strict=True), start=1
        )
    ]  # fmt: skip


# Test accuracy in percent of lenet300 in the rerun; the densities single out rounds 8 and 16.
ROUNDS = {8: (0.16, 0.18), 16: (0.028, 0.03)}
RERUN_NUMBERS: tuple[tuple[str, Side, float], ...] = (
    ("dense network", Dense(), 97.92),
    ("large_final, round 8", Pruned("large_final", *ROUNDS[8]), 98.37),
    ("large_final, round 16", Pruned("large_final", *ROUNDS[16]), 97.91),
    ("magnitude_increase, round 8", Pruned("magnitude_increase", *ROUNDS[8]), 98.24),
    ("magnitude_increase, round 16", Pruned("magnitude_increase", *ROUNDS[16]), 97.84),
    ("random, round 8", Pruned("random", *ROUNDS[8]), 97.52),
    ("random, round 16", Pruned("random", *ROUNDS[16]), 95.43),
    ("small_final, round 8", Pruned("small_final", *ROUNDS[8]), 96.64),
    ("large_final mask on initial weights", Heuristic(("large_final",), "init"), 39.85),
)


def _rerun(network: str) -> list[Entry]:
    """Return the numbers of the rerun, and the claims on its network only."""
    if network != "lenet300":
        return []
    tickets, learned = Pruned("large_final", *MODERATE), Learned("signed_constant:rescale")
    return [
        ("tickets-above-dense", "large_final tickets train to more than the dense network",
         "Figure 3", "R", tickets, ">", Dense(), NONE),
        ("learned-not-below-trained", "the best learned supermask is no worse than trained weights",
         "Table 1", "M", learned, ">=", Dense(), NO_WORSE["mnist"]),
        *(
            (f"rerun-{place}", f"{name}: {number} %", "rerun", "R", side, "~", number,
             HEURISTIC if isinstance(side, Heuristic) else SAME["mnist"])
            for place, (name, side, number) in enumerate(RERUN_NUMBERS, start=1)
        ),
    ]  # fmt: skip


GROUPS = (_figure_3, _figure_4, _figure_5, _figure_7, _table_1, _rerun)
CLAIMS = tuple(
    Claim(network, *entry) for network in NETWORKS for group in GROUPS for entry in group(network)
)

# The second stage: what seeds 0 to 4 left inconclusive, and the number of fresh seeds of each.
SECOND_STAGE = (
    ("lenet300-zero-above-freeze", 14),
    ("lenet300-variant-2-not-below-variant-1", 6),
    ("lenet300-signed-constants-above-init-learned-rescale", 11),
    ("lenet300-same-sign-best-on-init", 11),
    ("lenet300-same-sign-best-on-signed-constant", 7),
    ("lenet300-cell-1", 10),
    ("lenet300-cell-2", 12),
    ("lenet300-cell-4", 8),
    ("lenet300-cell-5", 13),
    ("lenet300-cell-7", 14),
    ("lenet300-tickets-above-dense", 8),
    ("lenet300-learned-not-below-trained", 14),
    ("lenet300-rerun-1", 6),
)


# Linear mode connectivity, a family of claims of its own with its own correction: Frankle et al.
# 2020 on a network like lenet300, in the round of the experiment that leaves about as many weights.
STABLE = Margin(2.0, "Frankle et al. 2020 call training stable below 2 points")
REWIND_STEPS = (0, 500)
ROUND = 7  # 2.8 % of the weights


def _stability(step: int) -> list[Claim]:
    """Return the claims on tickets that are rewound to a step."""
    ticket = Barrier("large_final", step, ROUND)
    where, source = f"rewound to step {step}", "Frankle et al. 2020"
    return [
        Claim("lenet300", f"stable-ticket-{step}", f"tickets of large_final are stable, {where}",
              source, "M", ticket, "~", 0.0, STABLE),
        *(
            Claim("lenet300", f"{other}-less-stable-{step}",
                  f"the error barrier of {words} is above that of large_final, {where}",
                  source, "M", Barrier(other, step, ROUND), ">", ticket, NONE)
            for other, words in (
                ("random", "random masks"), ("large_final:reinit", "large_final with reinit")
            )
        ),
    ]  # fmt: skip


STABILITY = (
    Claim("lenet300", "stable-dense-0", "the dense network is stable from the start",
          "Frankle et al. 2020", "M", Barrier("dense", 0, 0), "~", 0.0, STABLE),
    *(claim for step in REWIND_STEPS for claim in _stability(step)),
)  # fmt: skip
