import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.runners import mask_analysis
from experiments.runners.registry import read_table
from experiments.storage import results
from experiments.storage.files import read_json
from tests.experiments import tiny
from tests.tools.test_pages import Reader
from tools.report import __main__ as program
from tools.report import accuracy_tables, document, hours, pages, provenance, tables, writing
from tools.report.claims import CLAIMS, SECOND_STAGE, STABILITY
from tools.report.verdicts import STATUSES

ROOT = Path(__file__).parent.parent.parent
COMMITTED = ROOT / "results"
PRUNING = "mask_criteria_lenet300_mnist"


@pytest.fixture
def folder(tmp_path):
    """A folder that contains only the table of iterative pruning."""
    for path in COMMITTED.glob(f"{PRUNING}.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def change_rows(folder, change):
    path = folder / f"{PRUNING}.csv"
    rows = read_table(path)
    results.write_rows(path, [change(row) for row in rows], dict.fromkeys(rows[0], str))


def page_of(folder):
    return Reader(pages.html(document.report(tables.read_tables(folder)), "", "../results/"))


@pytest.fixture(scope="module")
def committed():
    return document.report(tables.read_tables(COMMITTED))


def test_the_page_links_every_verdict_to_its_figure_and_rows(committed):
    page = Reader(pages.html(committed, document.TITLE, "../results/"))
    assert len(page.ids) == len(set(page.ids))
    inside = [target[1:] for target in page.targets if target.startswith("#")]
    assert set(inside) <= set(page.ids)
    rows = [name for name in page.ids if name.startswith("rows-")]
    assert rows and set(rows) <= set(inside)
    for target in page.targets:
        if target.startswith("../results/"):
            assert (COMMITTED / target.removeprefix("../results/")).exists()


def test_links_of_the_markdown_lead_somewhere(committed):
    text = pages.markdown(committed)
    names = {pages.anchor(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")}
    names |= set(re.findall(r'<details id="([^"]+)"', text))
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert {target[1:] for target in targets if target.startswith("#")} <= names
    files = [target for target in targets if not target.startswith(("#", "https:"))]
    assert files and all((COMMITTED / target).exists() for target in files)


def test_convergence_and_the_analysis_of_masks_are_shown_where_they_are_known(folder):
    name = "mask_criteria-lenet300-mnist"
    ids = page_of(folder).ids
    assert f"{name}-convergence" in ids and f"{name}-masks" not in ids
    analysed = [
        {"experiment": "mask_criteria", "network": "lenet300", "dataset": "mnist", "round": round}
        | {"variant": "large_final", "seed": seed, "other_variant": "", "other_seed": None}
        | {"layer": layer, "quantity": quantity, "value": 0.5}
        for round in (1, 2)
        for seed in (0, 1)
        for layer in ("dense1/kernel", results.ALL_LAYERS)
        for quantity in ("density", "shrunk_pruned", "sign_agreement_kept")
    ]
    results.write_rows(folder / f"{PRUNING}.analysis.csv", analysed, mask_analysis.COLUMNS)
    assert f"{name}-masks" in page_of(folder).ids


def test_the_same_tables_make_the_same_bytes(folder):
    first, again = (
        pages.html(document.report(tables.read_tables(folder)), "", "") for _ in range(2)
    )
    assert first == again


def test_every_claim_is_shown_with_commands_and_machine(folder):
    text = pages.markdown(document.report(tables.read_tables(folder)))
    for claim in CLAIMS:
        assert claim.text in text
    for row in read_table(folder / f"{PRUNING}.csv"):
        assert row["command"] in text
    [environment] = read_json(folder / f"{PRUNING}.environment.json")
    assert environment["processor"] in text


def test_what_is_corrected_and_what_is_recalled_is_said_above_each_table_of_verdicts(committed):
    places = [place for place, block in enumerate(committed) if isinstance(block, pages.Table)]
    verdicts = {"verdict", "confirmatory verdict"}
    judged = [committed[i - 1 : i + 1] for i in places if verdicts.intersection(committed[i].head)]
    num_claims = sum(claim.network == "lenet300" for claim in CLAIMS)
    families = [
        *[f"corrected for the {num_claims} claims on lenet300"] * 3,
        f"corrected for the {len(SECOND_STAGE)} claims below",
        f"a family of {len(STABILITY)} claims with its own correction",
    ]
    for (paragraph, table), family in zip(judged, families, strict=True):
        assert f"{family}; intervals are not corrected" in paragraph.text
        cells = pages.markdown([table])
        marks = {letter for found in re.findall(r" \[([PNRM]+)\]", cells) for letter in found}
        assert marks == set(re.findall(r"\[([PNRM])\]", paragraph.text)) != set()


def test_stability_was_claimed_before_its_runs_and_the_rest_only_in_part(committed):
    places = [place for place, block in enumerate(committed) if isinstance(block, pages.Table)]
    judged = [committed[i] for i in places if "verdict" in committed[i].head]
    is_post_hoc = ["post hoc" in pages.markdown([table]) for table in judged]
    assert is_post_hoc == [True, True, True, False]


def test_both_stages_are_shown_side_by_side(folder):
    before = pages.markdown(document.report(tables.read_tables(folder)))
    heading = "### Second stage on lenet300"
    columns = "| claim | seeds 0 to 4 | fresh seeds | confirmatory verdict |"
    line = r"dense network: 97.92 % .*? \| \*\*(.*?)\*\* \| 5 to 10 \| \*\*(.*?)\*\*(.*?) \|"
    assert heading in before and columns in before
    assert re.findall(line, before) == [("inconclusive", "not run", "")]

    def fresh(row):
        return row | {"seed": row["seed"] + 5, "id": f"fresh{row['id']}"}

    path = folder / f"{PRUNING}.csv"
    rows = read_table(path)
    results.write_rows(path, [*rows, *map(fresh, rows)], dict.fromkeys(rows[0], str))
    after = pages.markdown(document.report(tables.read_tables(folder)))
    [(first, again, notes)] = re.findall(line, after)
    assert (first, again) == ("inconclusive", "inconclusive")
    figure, rows = "#mask_criteria-lenet300-mnist", "#rows-lenet300-rerun-1-fresh"
    assert notes == f"; unfinished: seed 10 ([figure]({figure}), [rows]({rows}))"
    short = pages.markdown(document.readme(tables.read_tables(folder)))
    assert "(confirmatory): 0 reproduced, 0 not reproduced, 3 inconclusive, 10 not run." in short


def test_an_empty_folder_has_a_page_too(tmp_path):
    page = page_of(tmp_path)
    assert "There are no tables yet." in page.words
    assert f"Not run: {sum(c.network == 'conv2' for c in CLAIMS)} claims on conv2" in page.words
    assert "svg" not in page.tags


def test_missing_rounds_and_diverged_members_are_reported(folder):
    def change(row):
        diverged = (row["variant"], row["seed"], row["round"]) == ("random", 1, 12)
        return row | ({"test_accuracy": math.nan} if diverged else {})

    change_rows(folder, change)
    assert "; diverged: seed 1;" in " ".join(page_of(folder).words)


def test_a_variant_with_fewer_rounds_leaves_cells_empty(folder):
    rows = read_table(folder / f"{PRUNING}.csv")
    rows = [row for row in rows if row["variant"] != "random" or row["round"] <= 8]
    assert "" in accuracy_tables.table(rows).lines[-1]


def test_mask_actions_are_shown_beside_the_ticket_of_another_experiment():
    known = tables.read_tables(COMMITTED)
    shown = {e.name: e.rows for e in provenance.by_experiment(known) if e.network == "lenet300"}
    ticket = [r for r in shown["mask_zero_actions"] if r["variant"] == "large_final"]
    own = [r for r in shown["mask_zero_actions"] if r["variant"] != "large_final"]
    assert {(r["experiment"], r["seed"]) for r in ticket} == {
        ("mask_criteria", r["seed"]) for r in own
    }
    assert sorted({r["round"] for r in ticket}) == list(range(1, max(r["round"] for r in own) + 1))
    assert {r["experiment"] for r in shown["mask_criteria"]} == {"mask_criteria"}


def test_pruning_at_a_glance_is_in_the_last_round_that_all_variants_have(folder):
    rows = read_table(folder / f"{PRUNING}.csv")
    rows = [row for row in rows if row["variant"] != "random" or row["round"] <= 8]
    [text] = pages.markdown([pages.Paragraph(accuracy_tables.at_a_glance(rows))]).splitlines()
    values = {
        variant: [100 * r["test_accuracy"] for r in rows if (r["variant"], r["round"]) == at]
        for variant, number in (("dense", 0), ("large_final", 8), ("random", 8))
        for at in [(variant, number)]
    }
    shown = {
        name: f"{np.mean(found):.2f} ± {np.ptp(found) / 2:.2f}" for name, found in values.items()
    }
    assert text == (
        f"dense {shown['dense']}, at 16.88 % of the weights `large_final` {shown['large_final']}, "
        f"`random` {shown['random']} (mean ± half the range, 3 to 5 seeds)"
    )


@pytest.fixture
def main():
    """Run the program with flags, as on the command line."""

    def main(*arguments, **given):
        flags.FLAGS.mark_as_parsed()
        with flagsaver.flagsaver(**given):
            program.main(["tools.report", *map(str, arguments)])

    return main


def test_all_forms_are_written(main, folder, capsys):
    shutil.copy(COMMITTED / hours.BENCHMARK, folder)
    readme = folder / "root" / "README.md"
    conclusions = folder / "docs" / "results.md"
    for path in (readme, conclusions):
        path.parent.mkdir()
        path.write_text(f"before\n{writing.BEGIN}\nold\n{writing.END}\nafter\n")
    page = folder / "report" / "index.html"
    main(folder, page=str(page), readme=str(readme), conclusions=str(conclusions))
    assert capsys.readouterr().out.splitlines() == [
        str(page),
        str(folder / "README.md"),
        str(readme),
        str(conclusions),
    ]
    pictures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert pictures == {
        f"mask_criteria-lenet300-mnist-{kind}" for kind in ("figure", "convergence")
    }
    assert f'href="../{PRUNING}.csv"' in page.read_text()
    text, concluded = readme.read_text(), conclusions.read_text()
    for written, first in ((text, "* "), (concluded, "Of ")):
        assert written.startswith(f"before\n{writing.BEGIN}\n\n{first}")
        assert written.endswith(f"\n{writing.END}\nafter\n") and "\nold\n" not in written
    assert all(status in text for status in STATUSES)
    assert "](../README.md#not-run-lenet300)" in concluded
    (folder / "figures" / "of_an_earlier_page.png").write_bytes(b"")
    main(folder, page=str(page), readme=str(readme))
    assert readme.read_text() == text
    assert {path.stem for path in (folder / "figures").glob("*")} == pictures


def test_one_table_is_printed(main, capsys):
    path = COMMITTED / f"{PRUNING}.csv"
    main(path)
    lines = capsys.readouterr().out.splitlines()
    rounds = {row["round"] for row in read_table(path)}
    assert len(lines) == 2 + len(rounds)


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        ("nowhere", {}, "there is no folder"),
        ("figures", {}, "figures has no table of tools.collect"),
        ("", {"readme": "plain.md"}, "plain.md lacks the lines"),
        ("", {"readme": "none.md"}, "there is no file .*none.md"),
        ("", {"conclusions": "none.md"}, "there is no file .*none.md"),
        ("", {"conclusions": "marked.md"}, f"there is no file .*{hours.BENCHMARK}, from which"),
        ("alone.analysis.csv", {}, "has no accuracies; tools.figure draws it"),
        ("other.csv", {}, "other.csv is not a table of this version"),
    ],
)
def test_mistakes_get_one_line(main, folder, source, given, message):
    (folder / "figures").mkdir()
    (folder / "plain.md").write_text("no marks\n")
    (folder / "marked.md").write_text(f"{writing.BEGIN}\n{writing.END}\n")
    (folder / "other.csv").write_text("a,b\n")
    analysed = [tiny.blank_row(mask_analysis.COLUMNS)]
    results.write_rows(folder / "alone.analysis.csv", analysed, mask_analysis.COLUMNS)
    given = {name: str(folder / path) for name, path in {"page": "page.html", **given}.items()}
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        main(folder / source, **given)
