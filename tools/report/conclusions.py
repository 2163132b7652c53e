"""What a reader may conclude: which claims hold, which do not, and what nobody knows yet.

All numbers come from verdicts, rows and `tools.report.claims`.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from experiments.storage import results
from tools.report import evidence, hours
from tools.report.claims import FIGURES, NETWORKS, NUM_SEEDS, POWER, Side
from tools.report.pages import (
    Block,
    Bullets,
    Code,
    Heading,
    Inline,
    Link,
    Mark,
    Paragraph,
    Text,
    anchor,
)
from tools.report.verdicts import (
    INCONCLUSIVE,
    MOST_SEEDS,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    STATUSES,
    Verdict,
)

NETWORK = hours.NETWORK
REPORT = "README.md"  # beside the tables
OTHER_SETTINGS = "other settings"
CONFIRMATORY, BEFOREHAND, POST_HOC = "Confirmatory", "Claimed beforehand", "Post hoc"
RESTS_ON = {
    CONFIRMATORY: ", by fresh seeds alone: nobody had seen a row of them when the claim and their "
    "number were chosen.",
    BEFOREHAND: f", and run then, with {evidence.FIRST_SEEDS}.",
    POST_HOC: ": some of the rows were there before the claim was written down.",
}


def conclude(
    first: Sequence[Verdict],
    fresh: Sequence[Verdict],
    on_stability: Sequence[Verdict],
    rows: Sequence[results.Row],
    costs: hours.Costs,
) -> list[Block]:
    """Return what a reader may conclude.

    Args:
      first: the verdicts of the first stage.
      fresh: those of the second stage.
      on_stability: those on linear mode connectivity.
      rows: the rows that count.
      costs: what trainings cost.
    """
    again = {verdict.claim.id: verdict for verdict in fresh}
    final = [_final(v, again) for v in first if v.claim.network == NETWORK]
    holds = [verdict for verdict in final if verdict.status == REPRODUCED]
    fails = [verdict for verdict in final if verdict.status == NOT_REPRODUCED]
    unknown = [verdict for verdict in final if verdict.status in (INCONCLUSIVE, NOT_RUN)]
    return [
        Paragraph(
            f"Of {len(final)} claims on {NETWORK}, {len(holds)} hold, {len(fails)} do not hold and "
            f"{len(unknown)} are open. Each line has a claim, where it is from, and the mean "
            "difference in test accuracy that was found, in percentage points, with its 95 % "
            f"interval. {evidence.in_trust(final)}{_other_settings(final)}"
        ),
        Heading(2, f"What holds on {NETWORK}"),
        *(_decided(holds) or [Paragraph("Nothing so far.")]),
        Heading(2, f"What does not hold on {NETWORK}"),
        *(_decided(fails) or [Paragraph("Nothing so far: no test shows the opposite of a claim.")]),
        Heading(2, f"What nobody knows yet on {NETWORK}"),
        *_unknown(unknown, again, hours.done(rows), costs),
        Heading(2, "Other claims"),
        Bullets([*_on_other_networks(first), *_on_stability(on_stability)]),
    ]


def _final(first: Verdict, again: Mapping[str, Verdict]) -> Verdict:
    """Return the verdict of the second stage where it has spoken, else that of the first."""
    second = again.get(first.claim.id)
    return second if second and second.may_be_tested else first


def _other_settings(verdicts: Sequence[Verdict]) -> str:
    """Return the settings behind some verdicts that differ from the paper's."""
    found = sorted({words for verdict in verdicts for words in evidence.deviations(verdict)})
    return f" Where it says “{OTHER_SETTINGS}”: {'; '.join(found)}." if found else ""


def _decided(verdicts: Sequence[Verdict]) -> list[Block]:
    """Return a line per verdict, by what the verdicts rest on."""
    lines: dict[str, list[Text]] = {name: [] for name in RESTS_ON}
    for verdict in verdicts:
        rests_on = POST_HOC if evidence.is_post_hoc(verdict) else BEFOREHAND
        lines[CONFIRMATORY if verdict.fresh else rests_on].append(_line(verdict))
    return [
        block
        for name, own in lines.items()
        if own
        for block in (_lead(name, RESTS_ON[name]), Bullets(own))
    ]


def _unknown(
    verdicts: Sequence[Verdict],
    again: Mapping[str, Verdict],
    done: Collection[hours.Name],
    costs: hours.Costs,
) -> list[Block]:
    """Return what is open by what would settle it, with the hours that this takes."""
    lacking = [verdict for verdict in verdicts if _lacks_seeds(verdict)]
    others = [verdict for verdict in verdicts if not _lacks_seeds(verdict)]
    planned = [v for v in others if not v.fresh and v.claim.id in again]
    undecided = [v for v in others if v.fresh or v.claim.id not in again]
    low, high = hours.SECONDS_PER_EPOCH
    return [
        Paragraph(
            [f"Hours are of two cores: {costs.training:.0f} s per training, the steps of a round "
             "times the time of a step in the largest population of ", Code(hours.BENCHMARK),
             f"; {low:g} to {high:g} s per epoch of a learned mask; {hours.SECONDS_OF_MASKS:g} s "
             "per seed of one-shot masks. Claims that are still to run share trainings. ",
             Code("experiments/FIGURES.md"), " has the commands."]
        ),
        *_to_judge_again(planned, [again[v.claim.id] for v in planned], done, costs),
        *_to_run(lacking, done, costs),
        *_undecided(undecided, costs),
    ]  # fmt: skip


def _to_judge_again(
    verdicts: Sequence[Verdict],
    fresh: Sequence[Verdict],
    done: Collection[hours.Name],
    costs: hours.Costs,
) -> list[Block]:
    """Return the claims whose fresh seeds are still to run, and the hours for all of them."""
    if not verdicts:
        return []
    trainings: hours.Work = {}
    for verdict in fresh:
        trainings |= hours.work(verdict.claim.sides, verdict.fresh, costs, done)
    seeds = (f"; fresh seeds {verdict.fresh[0]} to {verdict.fresh[-1]}" for verdict in fresh)
    return [
        _lead(
            "Second stage, not finished",
            f": {_num_claims(verdicts)}, whose fresh seeds are fixed. The trainings that are left "
            f"take about {hours.in_words(trainings)}.",
        ),
        Bullets([[*_open_line(v), words] for v, words in zip(verdicts, seeds, strict=True)]),
    ]


def _to_run(
    verdicts: Sequence[Verdict], done: Collection[hours.Name], costs: hours.Costs
) -> list[Block]:
    """Return a line per experiment that lacks seeds: what has to train, its hours, its claims."""
    if not verdicts:
        return []
    figures = {experiment: figure for figure, experiment in FIGURES.items()}
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        last = _lacking(verdict, done, costs)[-1]
        groups[figures[hours.experiment(last)]].append(verdict)
    lines: list[Text] = []
    for figure, own in groups.items():
        sides = dict.fromkeys(side for verdict in own for side in _lacking(verdict, done, costs))
        names: list[Inline] = []
        for name in dict.fromkeys(map(evidence.name_of, sides)):
            names += [", ", Code(name)]
        time = hours.in_words(hours.work(sides, range(NUM_SEEDS), costs, done))
        texts = "; ".join(verdict.claim.text for verdict in own)
        lines.append([_link(figure, own), f", {time} for ", *names[1:], f": {texts}"])
    text = (
        f": {_num_claims(verdicts)}. What stands first has not been trained, or not on all of "
        f"{evidence.FIRST_SEEDS}:"
    )
    return [_lead("Not run", text), Bullets(lines)]


def _undecided(verdicts: Sequence[Verdict], costs: hours.Costs) -> list[Block]:
    """Return the claims that the seeds of their stages left open, with new seeds and hours."""
    if not verdicts:
        return []
    return [
        _lead(
            "Inconclusive, no more seeds planned",
            f": {_num_claims(verdicts)}. New seeds would settle a claim with probability {POWER:g} "
            "if the difference and its spread are as found.",
        ),
        Bullets([[*_open_line(verdict), f"; {_needed(verdict, costs)}"] for verdict in verdicts]),
    ]


def _lacks_seeds(verdict: Verdict) -> bool:
    """Return whether seeds of the first stage are still to run."""
    return not verdict.fresh and len({*verdict.seeds, *verdict.diverged}) < NUM_SEEDS


def _lacking(verdict: Verdict, done: Collection[hours.Name], costs: hours.Costs) -> list[Side]:
    """Return the sides that lack trainings of the first stage."""
    sides = verdict.claim.sides
    return [s for s in sides if hours.work([s], range(NUM_SEEDS), costs, done)] or sides


def _needed(verdict: Verdict, costs: hours.Costs) -> str:
    """Return how many new seeds would settle an inconclusive claim, and their hours."""
    number = verdict.seeds_needed or MOST_SEEDS
    time = hours.in_words(hours.work(verdict.claim.sides, range(number), costs))
    if verdict.seeds_needed is None:
        return f"more than {number} new seeds, over {time}"
    return f"{number} new seeds, {time}"


def _line(verdict: Verdict) -> list[Inline]:
    """Return a claim with its source, its difference and its seeds."""
    claim = verdict.claim
    margin = {
        ">": "",
        ">=": f", where -{claim.margin.points:g} counts as no worse",
        "~": f", where ± {claim.margin.points:g} counts as the same",
    }
    words = f"{'fresh ' if verdict.fresh else ''}seeds"
    differing = f", {OTHER_SETTINGS}" if evidence.deviations(verdict) else ""
    place = f"{REPORT}#{evidence.rows_anchor(verdict)}" if verdict.rows else REPORT
    return [
        Link(claim.text, place),
        f" ({claim.source} [{claim.trust}]): {evidence.difference(verdict)}"
        f"{margin[claim.relation]}; {len(verdict.seeds)} {words}{differing}",
    ]


def _open_line(verdict: Verdict) -> list[Inline]:
    """Return the same, and whether rows were there before the claim."""
    return [*_line(verdict), f", {evidence.POST_HOC}" if evidence.is_post_hoc(verdict) else ""]


def _on_other_networks(verdicts: Sequence[Verdict]) -> list[Text]:
    """Return a line per network other than NETWORK."""
    lines: list[Text] = []
    for network, dataset in NETWORKS.items():
        if network != NETWORK:
            own = [verdict for verdict in verdicts if verdict.claim.network == network]
            sources = evidence.listed(dict.fromkeys(verdict.claim.source for verdict in own))
            lines.append([_link(f"{network} ({dataset})", own), f" of {sources}: {_counts(own)}"])
    return lines


def _on_stability(verdicts: Sequence[Verdict]) -> list[Text]:
    """Return a line on linear mode connectivity; none before it was run."""
    if all(verdict.status == NOT_RUN for verdict in verdicts):
        return []
    name = "Linear mode connectivity"
    place = Link(f"{name}, {_num_claims(verdicts)}", f"{REPORT}#{anchor(name)}")
    return [[place, f" of {verdicts[0].claim.source}: {_counts(verdicts)}"]]


def _lead(name: str, text: str) -> Paragraph:
    return Paragraph([Mark(name, INCONCLUSIVE), text])


def _link(name: str, verdicts: Sequence[Verdict]) -> Link:
    """Return a link to claims on one network, where the report has those that were not run."""
    is_folded = any(verdict.status == NOT_RUN for verdict in verdicts)
    place = f"{'not-run' if is_folded else 'claims-on'}-{verdicts[0].claim.network}"
    return Link(f"{name}, {_num_claims(verdicts)}", f"{REPORT}#{place}")


def _num_claims(verdicts: Sequence[Verdict]) -> str:
    return f"{len(verdicts)} claim{'s' if len(verdicts) > 1 else ''}"


def _counts(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.status for verdict in verdicts)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES)
