"""Verdicts as blocks of a page: comparisons, the cells of Table 1, the numbers of the rerun.

All numbers come from verdicts, rows and `tools.report.claims`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments.storage import results
from experiments.tables.selection import select_masks
from tools.report import accuracy_tables, claims
from tools.report.claims import (
    CLAIMS,
    COLUMNS,
    NETWORKS,
    NUM_SEEDS,
    SECOND_STAGE,
    STABILITY,
    TRUST,
    Barrier,
    Claim,
    Dense,
    Heuristic,
    Learned,
    Pruned,
    Side,
)
from tools.report.pages import (
    Block,
    Break,
    Bullets,
    Code,
    Details,
    Heading,
    Inline,
    Link,
    Mark,
    Paragraph,
    Table,
    Text,
    anchor,
)
from tools.report.verdicts import (
    INCONCLUSIVE,
    MOST_SEEDS,
    NOT_REPRODUCED,
    NOT_RUN,
    STATUSES,
    Verdict,
)

RERUN = Link(claims.RERUN, "https://github.com/bmiselis/deconstructing-lottery-tickets")
RELATIONS = {">": ">", ">=": "≥", "~": "≈"}
POST_HOC = "post hoc"
FIRST_SEEDS = f"seeds 0 to {NUM_SEEDS - 1}"


def summary(verdicts: Sequence[Verdict]) -> Table:
    """Return the number of claims with each verdict, by network."""
    lines = []
    for network, dataset in NETWORKS.items():
        counts = Counter(v.status for v in verdicts if v.claim.network == network)
        lines.append([f"{network}, {dataset}", *(str(counts[status]) for status in STATUSES)])
    return Table(["claims of the paper on", *STATUSES], lines, is_tall=True)


def in_words(verdicts: Sequence[Verdict]) -> str:
    """Return the same as sentences: one per network that has been run, one for the others."""
    sentences, others, num_claims = [], [], 0
    for network, dataset in NETWORKS.items():
        counts = Counter(v.status for v in verdicts if v.claim.network == network)
        if counts.keys() <= {NOT_RUN}:
            others.append(network)
            num_claims += counts[NOT_RUN]
        else:
            found = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
            sentences.append(f"Claims on {network} ({dataset}): {found}.")
    if others:
        sentences.append(f"Not run: all {num_claims} claims on {', '.join(others)}.")
    return " ".join(sentences)


def post_hoc(verdicts: Sequence[Verdict]) -> str:
    """Return how many verdicts use rows that existed before the claims were written down."""
    tested = [verdict for verdict in verdicts if verdict.status != NOT_RUN]
    return (
        f"{sum(map(is_post_hoc, tested))} of {len(tested)} verdicts are post hoc: they use rows "
        "that existed before the claims and their margins were written down."
    )


def second_stage_in_words(fresh: Sequence[Verdict]) -> str:
    """Return the number of claims with each verdict of the second stage."""
    counts = Counter(verdict.status for verdict in fresh)
    found = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    return (
        f"Second stage, of claims that {FIRST_SEEDS} left inconclusive, on fresh seeds alone "
        f"(confirmatory): {found}."
    )


def network_verdicts(
    network: str, verdicts: Sequence[Verdict], rows: Sequence[results.Row]
) -> list[Block]:
    """Return the verdicts on one network: comparisons, Table 1 and the numbers of the rerun."""
    own = [v for v in verdicts if v.claim.network == network and v.status != NOT_RUN]
    numbers = [v for v in own if v.claim.source == "rerun"]
    comparisons = [v for v in own if v.claim.right_is_measured]
    blocks: list[Block] = [
        Heading(3, f"Claims on {network}"),
        how_to_read(network, comparisons),
        Table(
            ["claim", "verdict", "difference (95 % interval)", "p, corrected", "left (%)",
             "right (%)", "seeds", "difference if validation chooses the densities"],
            [_comparison(v, rows) for v in comparisons],
            is_tall=True,
        ),
        *table_1(network, verdicts, rows),
    ]  # fmt: skip
    if numbers:
        blocks += [
            Heading(3, f"Published rerun on {network}"),
            how_to_read(network, numbers),
            Table(
                ["number", "verdict", "difference (95 % interval)", "margin", "p, corrected",
                 "here (%)"],
                [
                    [[v.claim.text, f" [{v.claim.trust}]"], *_number(v), _values(v.left)]
                    for v in numbers
                ],
                is_tall=True,
            ),
        ]  # fmt: skip
    return blocks


def second_stage(
    network: str, verdicts: Sequence[Verdict], fresh: Sequence[Verdict]
) -> list[Block]:
    """Return the verdicts of both stages on the claims of the second; none without such claims.

    Args:
      network: whose claims.
      verdicts: of the first stage.
      fresh: of the second stage.
    """
    own = [verdict for verdict in fresh if verdict.claim.network == network]
    if not own:
        return []
    first = {verdict.claim.id: verdict.status for verdict in verdicts}
    return [
        Heading(3, _second_stage(network)),
        Paragraph(
            f"What {FIRST_SEEDS} left inconclusive is judged anew by fresh seeds alone. This "
            "second verdict is the confirmatory one. Its p-values are corrected for the "
            f"{len(own)} claims below; intervals are not corrected. {in_trust(own)}"
        ),
        Table(
            ["claim", FIRST_SEEDS, "fresh seeds", "confirmatory verdict",
             "difference (95 % interval)", "p, corrected", "left (%)", "right (%)"],
            [
                [_stated(v.claim), Mark(first[v.claim.id], first[v.claim.id]),
                 f"{v.fresh[0]} to {v.fresh[-1]}", _status(v), difference(v), _p(v), *_means(v)]
                for v in own
            ],
            is_tall=True,
        ),
    ]  # fmt: skip


def stability(verdicts: Sequence[Verdict]) -> list[Block]:
    """Return the verdicts on linear mode connectivity; none before it was run."""
    own = [verdict for verdict in verdicts if verdict.status != NOT_RUN]
    if not own:
        return []
    return [
        Heading(3, "Linear mode connectivity"),
        Paragraph(
            "Claims about error barriers, in percentage points: the highest test error on the line "
            "between two copies of a ticket, minus the mean of the copies' errors. They are a "
            f"family of {len(STABILITY)} claims with its own correction; intervals are not "
            f"corrected. {in_trust(own)}"
        ),
        Table(
            ["claim", "verdict", "difference (95 % interval)", "p, corrected", "left", "right",
             "seeds"],
            [_comparison(verdict, [])[:-1] for verdict in own],
            is_tall=True,
        ),
    ]  # fmt: skip


def how_to_read(network: str, verdicts: Sequence[Verdict]) -> Paragraph:
    """Return the note above a table of verdicts: what is corrected, and what is only recalled."""
    num_claims = sum(claim.network == network for claim in CLAIMS)
    return Paragraph(
        f"Verdicts use p-values corrected for the {num_claims} claims on {network}; intervals are "
        "not corrected, so that one may exclude 0 beside “inconclusive”. "
        f"{in_trust(verdicts)}"
    )


def in_trust(verdicts: Sequence[Verdict]) -> str:
    """Return the explanation of the marks of trust that occur in some verdicts."""
    used = {letter for verdict in verdicts for letter in verdict.claim.trust}
    known = [f"[{letter}] {meaning}" for letter, meaning in TRUST.items() if letter in used]
    return f"Where claims and reported numbers are from: {'; '.join(known)}." if known else ""


def table_1(network: str, verdicts: Sequence[Verdict], rows: Sequence[results.Row]) -> list[Block]:
    """Return every cell of the paper's table beside ours."""
    lines: list[list[Text]] = [
        [
            *_reported(column, verdict),
            *_number(verdict),
            _at_validated_density(verdict, rows),
        ]
        for column, verdict in _cells(network, verdicts)
    ]
    return [
        Heading(3, f"Table 1 on {network}"),
        how_to_read(network, [verdict for _, verdict in _cells(network, verdicts)]),
        Table(
            ["test accuracy (%)", "reported", "here", "verdict", "difference (95 % interval)",
             "margin", "p, corrected", "here, if validation chooses the density"],
            lines,
            is_tall=True,
        ),
    ]  # fmt: skip


def table_1_in_words(network: str, verdicts: Sequence[Verdict]) -> str:
    """Return a sentence with our mean and the reported number of each cell."""
    cells = [(column, v) for column, v in _cells(network, verdicts) if v.left.size]
    numbers = [
        f"{column} {verdict.left.mean():.2f} ({verdict.claim.right} [{verdict.claim.trust}])"
        for column, verdict in cells
    ]
    text = f"Table 1 on {network}, test accuracy in % here (and as reported): {'; '.join(numbers)}."
    if differing := sorted({words for _, verdict in cells for words in deviations(verdict)}):
        text += f" Settings that differ from the paper's: {'; '.join(differing)}."
    return text


def not_run(verdicts: Sequence[Verdict]) -> list[Block]:
    """Return the claims without rows, folded away by network."""
    by_network = defaultdict(list)
    for verdict in verdicts:
        if verdict.status == NOT_RUN:
            by_network[verdict.claim.network].append(verdict)
    return [
        Details(
            f"Not run: {len(own)} claims on {network}",
            f"not-run-{network}",
            [
                Paragraph(in_trust(own)),
                Table(
                    ["claim", "no rows of"],
                    [[_stated(v.claim), listed(map(name_of, v.missing))] for v in own],
                    is_tall=True,
                ),
            ],
        )
        for network, own in by_network.items()
    ]


def rule() -> list[Block]:
    """Return the rule, the margins and the marks of `tools.report.claims`."""
    margins = sorted({claim.margin for claim in CLAIMS if claim.margin.points})
    return [
        Paragraph(
            "A claim is about a difference in test accuracy, left minus right, in percentage "
            "points and seed by seed. It says that the mean difference is above 0 (>), above minus "
            "a margin (≥), or within a margin of 0 (≈); the right side may be a reported number. "
            "Of pruning, the value of a seed is the mean over the rounds in a range of densities. "
            "Of heuristic masks it is the maximum over densities; the paper chooses on the test "
            "set in the same way, so the tables also show what validation would choose. Of learned "
            "masks it is the accuracy at the initial logit that is best on validation. A reported "
            "number counts as exact, although it is itself a mean of five runs, and ≈ cannot tell "
            "apart numbers that are closer than its margin."
        ),
        Bullets(
            [
                [Mark("reproduced", "reproduced"), ": one-sided t-tests reject that the mean "
                 f"difference is outside the claimed range, with p < {claims.ALPHA:g} after Holm's "
                 "correction for all claims on the network, whether they were run or not."],
                [Mark("not reproduced", "not reproduced"), ": the opposite test, corrected in the "
                 "same way, rejects that it is inside."],
                [Mark("inconclusive", "inconclusive"), ": neither, or fewer than "
                 f"{claims.MIN_SEEDS} seeds. The verdict names the number of seeds that would "
                 f"settle the claim with probability {claims.POWER:g} if the difference and its "
                 "spread are as observed."],
                [Mark("not run", "not run"), ": one side has no rows."],
            ]
        ),
        Paragraph(
            "On each network the chance of any wrong “reproduced” is therefore at most "
            f"{claims.ALPHA:g}, and so is that of any wrong “not reproduced”, because the seeds "
            f"are fixed beforehand: {FIRST_SEEDS} count, whatever else was run. The intervals are "
            "of single claims, at 95 % without a correction. A seed that lacks a round or a "
            "density, or that diverged, is left out, and the verdict names it. Only rows with the "
            "paper's settings count, except that learned masks may differ in epochs, initial logit "
            f"and learning rate; their verdicts say how. “{POST_HOC}” marks a verdict that uses "
            "rows from before the claim and its margin were written down."
        ),
        Paragraph(
            ["More seeds of an inconclusive claim would be a second look. A second stage judges it "
             f"anew instead, by fresh seeds alone (from seed {NUM_SEEDS} on) and the same ranges "
             "and margins. Its claims and the number of fresh seeds of each were committed before "
             "the first of these seeds ran: as many as would settle the claim with probability "
             f"{claims.POWER:g}, at the level of this stage, if the difference and its spread are "
             f"as in {FIRST_SEEDS}. Claims that would need more than {claims.MOST_FRESH_SEEDS} "
             "stay open, and so do claims that become inconclusive after the first fresh seed ran. "
             "A claim is tested once it has all its fresh seeds, except for those that diverged, "
             "and no others count. The second stage is a family with a correction of its own: no "
             "verdict of the first stage depends on it, and the chances above hold in each stage. "
             "Its verdicts are confirmatory, because the claims and the numbers of seeds were "
             "chosen without the rows that they rest on. ", Code("experiments/FIGURES.md"),
             " has the commands and their times."]
        ),
        Paragraph("The margins, in percentage points, and the sources:"),
        Bullets([f"{margin.points:g}: {margin.why}" for margin in margins]),
        Bullets(
            [
                [f"[{letter}] {meaning}", *([": ", RERUN] if letter == "R" else [])]
                for letter, meaning in TRUST.items()
            ]
        ),
    ]  # fmt: skip


def rows_behind(verdicts: Sequence[Verdict]) -> list[Block]:
    """Return, for every claim with rows, the values by seed and the ids of their rows."""
    return [
        Paragraph(
            ["Each id names a row, which ", Code("python -m tools.rerun ID"), " computes again."]
        ),
        *(
            Details(
                f"{verdict.claim.network}: {verdict.claim.text}"
                f"{', fresh seeds' if verdict.fresh else ''}",
                rows_anchor(verdict),
                _rows(verdict),
            )
            for verdict in verdicts
            if verdict.rows
        ),
    ]


def _cells(network: str, verdicts: Sequence[Verdict]) -> list[tuple[str, Verdict]]:
    """Return the columns of Table 1 with the verdicts on their numbers."""
    found = {
        v.claim.left: v
        for v in verdicts
        if (v.claim.network, v.claim.source) == (network, "Table 1")
        and not v.claim.right_is_measured
    }
    return [(column, found[side]) for column, side in COLUMNS.items()]


def _reported(column: str, verdict: Verdict) -> list[Text]:
    """Return the name of a number, the number with its mark of trust, and ours."""
    claim = verdict.claim
    return [column, f"{claim.right} [{claim.trust}]", _values(verdict.left)]


def _comparison(verdict: Verdict, rows: Sequence[results.Row]) -> list[Text]:
    return [
        _stated(verdict.claim), _status(verdict), difference(verdict), _p(verdict),
        *_means(verdict), str(len(verdict.seeds)), _difference_by_validation(verdict, rows),
    ]  # fmt: skip


def _means(verdict: Verdict) -> list[str]:
    return [f"{side.mean():.2f}" if side.size else "" for side in (verdict.left, verdict.right)]


def _stated(claim: Claim) -> list[Inline]:
    """Return the claim in words, its source with the mark of trust, and its formula."""
    return [f"{claim.text} ({claim.source}) [{claim.trust}]", Break(), Code(_formula(claim))]


def _number(verdict: Verdict) -> list[Text]:
    """Return verdict, difference with interval, margin and p of a reported number."""
    margin = f"± {verdict.claim.margin.points:g}"
    return [_status(verdict), difference(verdict), margin, _p(verdict)]


def _at_validated_density(verdict: Verdict, rows: Sequence[results.Row]) -> str:
    """Return the accuracy of a heuristic mask if validation, not the test set, chooses it."""
    if not isinstance(verdict.claim.left, Heuristic):
        return ""
    chosen = _by_validation(verdict.claim.left, verdict, rows)
    return accuracy_tables.values(np.array([*chosen.values()])) if chosen else ""


def _difference_by_validation(verdict: Verdict, rows: Sequence[results.Row]) -> str:
    """Return the mean difference if validation chooses the densities of heuristic masks."""
    sides = verdict.claim.sides
    if not any(isinstance(side, Heuristic) for side in sides):
        return ""
    left, right = (_by_validation(side, verdict, rows) for side in sides)
    seeds = left.keys() & right.keys()
    return f"{np.mean([left[seed] - right[seed] for seed in seeds]):+.2f}" if seeds else ""


def _by_validation(side: Side, verdict: Verdict, rows: Sequence[results.Row]) -> dict[int, float]:
    """Return test accuracies in percent by the seeds of a verdict, of masks best on validation."""
    network = verdict.claim.network
    counted = [row for row in rows if row["network"] == network and row["seed"] in verdict.seeds]
    own = [row for row in counted if _is_made_of(side, row)]
    if not own:
        return {}
    best = max(select_masks(own), key=lambda masks: masks.validation)
    return {row["seed"]: 100 * row["test_accuracy"] for row in best.rows}


def _is_made_of(side: Side, row: results.Row) -> bool:
    match side:
        case Heuristic(criteria, weights):
            return row.get("criterion") in criteria and row.get("weights") == weights
        case Learned(variant):
            return "rescale" in row and row["variant"] == variant
    return False


def _values(percents: np.ndarray) -> str:
    return accuracy_tables.values(percents) if percents.size else ""


def difference(verdict: Verdict) -> str:
    """Return the mean difference and its confidence interval as text."""
    if not verdict.seeds:
        return ""
    mean = f"{verdict.differences.mean():+.2f}"
    if verdict.interval is None:
        return mean
    low, high = verdict.interval
    return f"{mean} ({low:+.2f} to {high:+.2f})"


def _p(verdict: Verdict) -> str:
    """Return the corrected p of the test that decided; of the opposite test if that did."""
    if verdict.p_adjusted is None:
        return ""
    p = verdict.p_adjusted[verdict.status == NOT_REPRODUCED]
    return f"{p:.3g}" if p >= 0.001 else "< 0.001"


def _status(verdict: Verdict) -> Text:
    """Return the verdict, notes on its rows, and links to its figure and rows."""
    notes = []
    if verdict.status == INCONCLUSIVE:
        if len(verdict.seeds) < claims.MIN_SEEDS:
            notes.append(f"{len(verdict.seeds)} of at least {claims.MIN_SEEDS} seeds")
        if not verdict.fresh:
            notes.append(seeds_in_words(verdict))
    if verdict.unfinished:
        notes.append(f"unfinished: seed {listed(verdict.unfinished)}")
    if verdict.diverged:
        notes.append(f"diverged: seed {listed(verdict.diverged)}")
    notes += deviations(verdict)
    if is_post_hoc(verdict):
        notes.append(POST_HOC)
    links = _links(verdict)
    return [Mark(verdict.status, verdict.status), *(f"; {note}" for note in notes), *links]


def deviations(verdict: Verdict) -> list[str]:
    """Return how the settings behind a verdict differ from the paper's."""
    return sorted({words for row in verdict.rows for words in row["deviations"]})


def is_post_hoc(verdict: Verdict) -> bool:
    """Return whether rows behind a verdict existed before the claim."""
    return verdict.claim.network == "lenet300" and any(
        row["seed"] in claims.KNOWN.get(name, ())
        for row in verdict.rows
        if row["experiment"] in claims.EXPERIMENTS
        for name in (row["experiment"], row.get("variant", ""))
    )


def seeds_in_words(verdict: Verdict) -> str:
    """Return how many seeds would settle an inconclusive claim."""
    if verdict.seeds_needed is None:
        return f"more than {MOST_SEEDS} seeds would be needed"
    return f"{verdict.seeds_needed} seeds would settle it"


def _links(verdict: Verdict) -> list[Inline]:
    """Return links to the figure, the rows and the second stage."""
    if not verdict.rows:
        return []
    experiment = claims.FIGURES.get(verdict.claim.source)
    row = next((r for r in verdict.rows if r["experiment"] == experiment), verdict.rows[0])
    figure = anchor(f"{row['experiment']} {row['network']} {row['dataset']}")
    links = [Link("figure", f"#{figure}"), Link("rows", f"#{rows_anchor(verdict)}")]
    if not verdict.fresh and verdict.claim.id in dict(SECOND_STAGE):
        place = anchor(_second_stage(verdict.claim.network))
        links.append(Link("second stage", f"#{place}"))
    return [" (", *[part for link in links for part in (", ", link)][1:], ")"]


def rows_anchor(verdict: Verdict) -> str:
    """Return where the page has the rows behind a verdict."""
    return f"rows-{verdict.claim.id}{'-fresh' if verdict.fresh else ''}"


def _second_stage(network: str) -> str:
    """Return the heading of the second stage."""
    return f"Second stage on {network}"


def _formula(claim: Claim) -> str:
    """Return the comparison as a formula, with its range and margin."""
    right = str(claim.right) if isinstance(claim.right, int | float) else name_of(claim.right)
    margin = {">": "", ">=": f" - {claim.margin.points:g}", "~": f" ± {claim.margin.points:g}"}
    return (
        f"{name_of(claim.left)} {RELATIONS[claim.relation]} {right}{margin[claim.relation]}"
        f"{_where(claim)}"
    )


def _where(claim: Claim) -> str:
    for side in claim.sides:
        if isinstance(side, Pruned):
            return f", {100 * side.least:g} to {100 * side.most:g} % of the weights"
    return ""


def name_of(side: Side) -> str:
    """Return a side in a word or a few."""
    match side:
        case Dense():
            return "dense"
        case Pruned(variant):
            return variant
        case Heuristic([criterion], weights):
            return f"{criterion} on {weights}"
        case Heuristic(_, weights):
            return f"best other criterion on {weights}"
        case Barrier(variant, rewind_step, round):
            return f"{variant} in round {round}, rewound to step {rewind_step}"
    return f"learned {side.variant}"


def _rows(verdict: Verdict) -> list[Block]:
    files = dict.fromkeys(row["table"] for row in verdict.rows)
    where = f" Rounds: {listed(verdict.rounds)}." if verdict.rounds else ""
    lines: list[list[Text]] = [
        [str(seed), f"{left:.2f}", f"{right:.2f}", f"{left - right:+.2f}",
         Code(" ".join(row["id"] for row in verdict.rows if row["seed"] == seed))]
        for seed, left, right in zip(verdict.seeds, verdict.left, verdict.right, strict=True)
    ]  # fmt: skip
    names = [part for file in files for part in (", ", Link(file, file))][1:]
    return [
        Paragraph([Code(_formula(verdict.claim)), f".{where} From ", *names, "."]),
        Table(["seed", "left (%)", "right (%)", "difference", "rows"], lines),
    ]


def listed(items: Iterable[Any]) -> str:
    """Return items with commas between."""
    return ", ".join(map(str, items))
