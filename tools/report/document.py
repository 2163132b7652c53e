"""The report, in full and in short, from the tables of a folder."""

from collections.abc import Sequence

from tools.report import accuracy_tables, claims, hours
from tools.report.claims import CLAIMS, CONNECTIVITY, STABILITY
from tools.report.conclusions import conclude
from tools.report.evidence import (
    in_words,
    network_verdicts,
    not_run,
    post_hoc,
    rows_behind,
    rule,
    second_stage,
    second_stage_in_words,
    stability,
    summary,
    table_1_in_words,
)
from tools.report.pages import Block, Bullets, Code, Heading, Inline, Link, Paragraph, Text, anchor
from tools.report.provenance import all_experiments, by_experiment
from tools.report.tables import Table, contradictions, pool
from tools.report.verdicts import NOT_RUN, Verdict, judge, judge_again

TITLE = "Deconstructing Lottery Tickets in JAX: results"
PAPER = Link("Zhou et al. 2019", "https://arxiv.org/abs/1905.01067")


def report(tables: Sequence[Table]) -> list[Block]:
    """Return the whole page."""
    judged = [table for table in tables if table.is_judged]
    rows = pool(judged)
    verdicts = judge(CLAIMS, rows)
    fresh = judge_again(CLAIMS, rows)
    on_stability = judge(STABILITY, rows, [CONNECTIVITY])
    notes = contradictions(tables)
    chapters: dict[str, list[Block]] = {
        "Verdicts": [
            summary(verdicts),
            Paragraph(post_hoc(verdicts)),
            Paragraph(second_stage_in_words(fresh)),
            *([Bullets(notes)] if notes else []),
            *(
                block
                for name in _run(verdicts)
                for block in (
                    *network_verdicts(name, verdicts, rows),
                    *second_stage(name, verdicts, fresh),
                )
            ),
            *stability(on_stability),
            *not_run(verdicts),
        ],
        "How claims are judged": rule(),
        "Experiments": all_experiments(tables),
        "Rows behind the verdicts": rows_behind([*verdicts, *fresh, *on_stability]),
    }
    links: list[Inline] = []
    for name in chapters:
        links += [" · ", Link(name, f"#{anchor(name)}")]
    return [
        Heading(1, TITLE),
        Paragraph(
            ["What the tables in this repository say about the claims of ", PAPER, ": verdicts by "
             "a fixed rule, then every experiment with its figures, its commands and the machines "
             "that it ran on. ", Code("make report"), " makes this page from the tables alone."]
        ),
        Paragraph(links[1:]),
        *(b for name, blocks in chapters.items() for b in (Heading(2, name), *blocks)),
    ]  # fmt: skip


def readme(tables: Sequence[Table]) -> list[Block]:
    """Return the results in the README: how many claims hold, Table 1, and pruning at a glance."""
    rows = pool([table for table in tables if table.is_judged])
    verdicts, fresh = judge(CLAIMS, rows), judge_again(CLAIMS, rows)
    curves: list[Text] = [
        [Code(found.name), f" on {found.network}: ", *accuracy_tables.at_a_glance(found.rows), "."]
        for found in by_experiment(tables)
        if found.name in claims.PRUNING and not found.note
    ]
    table_1 = [table_1_in_words(network, verdicts) for network in _run(verdicts)]
    second = [second_stage_in_words(fresh)] if _run(fresh) else []
    return [Bullets([in_words(verdicts), post_hoc(verdicts), *second, *table_1, *curves])]


def conclusions(tables: Sequence[Table], seconds: float) -> list[Block]:
    """Return what a reader may conclude.

    Args:
      tables: of a folder.
      seconds: of a training, see `hours.measured`.
    """
    judged = [table for table in tables if table.is_judged]
    rows = pool(judged)
    return conclude(
        judge(CLAIMS, rows),
        judge_again(CLAIMS, rows),
        judge(STABILITY, rows, [CONNECTIVITY]),
        rows,
        hours.costs(judged, seconds),
    )


def _run(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the networks on which any claim has rows."""
    return list(dict.fromkeys(v.claim.network for v in verdicts if v.status != NOT_RUN))
