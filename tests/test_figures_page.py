"""experiments/FIGURES.md has every figure and config, and its times follow from measurements."""

import csv
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from experiments.plots import FIGURES
from tests.experiments.test_configs import NAMES, PAPER_STEPS
from tests.tools import simulated
from tools.report import schedule
from tools.report.claims import CLAIMS, NUM_SEEDS
from tools.report.hours import SECONDS_PER_EPOCH
from tools.report.tables import pool, read_tables
from tools.report.verdicts import NOT_RUN, judge, judge_again

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "experiments" / "FIGURES.md").read_text()
TABLE = [[cell.strip() for cell in re.findall(r"[^|]+", line)] for line in PAGE.splitlines()]
NUM_LACKING = 15  # claims on lenet300 that the commands of the first stage decide
SWEEPS = [row for row in TABLE if len(row) == 5 and ", 24 rounds" in row[4]]


def measured():
    """Return the milliseconds per member-step of the largest population on both cores."""
    fastest = {}
    for name in ("lenet300", "convolutions"):
        with (ROOT / "results" / f"benchmark_{name}.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["mapping"] == "map/2"]
        for row in sorted(rows, key=lambda row: int(row["members"])):
            fastest[row["network"]] = float(row["ms_per_member_step"])
    return fastest


@pytest.mark.parametrize("names", [FIGURES, NAMES], ids=["figures", "configs"])
def test_every_name_is_there(names):
    missing = [name for name in names if f"| `{name}` |" not in PAGE]
    assert names and not missing


def test_commands_name_what_exists():
    commands = re.findall(r"`(python -m .*?)`", PAGE)
    assert len(commands) > len(NAMES)
    for command in commands:
        module = command.split()[2]
        files = re.findall(r"(?:experiments/configs|results)/[a-z_0-9]+\.(?:py|csv)", command)
        assert importlib.util.find_spec(module), command
        assert all((ROOT / name).exists() for name in files), command
        if module == "tools.figure" and "NAME" not in command:
            assert command.split()[3] in {*FIGURES, "mask_analysis"}


def test_time_of_a_round_follows_from_the_benchmark():
    for network, ms in measured().items():
        steps = PAPER_STEPS[network]
        seconds = ms * steps / 1000
        time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        assert f"| {network} | {steps:,} | {ms:.3g} | {time} |" in PAGE
    assert measured().keys() == PAPER_STEPS.keys()


@pytest.mark.parametrize("row", SWEEPS, ids=lambda row: row[2])
def test_time_of_a_sweep_follows_from_that_of_a_round(row):
    config = importlib.import_module(f"experiments.configs.{row[2].strip('`')}").get_config()
    members = len(config.variants) * len(config.seeds)
    trainings = members * config.num_rounds + len(config.seeds)
    hours = trainings * measured()["lenet300"] * PAPER_STEPS["lenet300"] / 3.6e6
    assert row[4] == f"{members} members, {config.num_rounds} rounds: {hours:.0f} hours"


def test_all_sweeps_are_checked():
    assert len(SWEEPS) == 4


def config_of(command):
    """The settings of a command on lenet300."""
    flags = [word.removeprefix("--").partition("=")[::2] for word in shlex.split(command)[3:]]
    (_, file), *changes = flags
    name = re.fullmatch(r"experiments/configs/(\w+)\.py:lenet300", file)[1]
    config = importlib.import_module(f"experiments.configs.{name}").get_config("lenet300")
    for flag, text in changes:
        setting = flag.removeprefix("config.")
        parse = int if re.fullmatch(r"[\d,]+", text) else str
        is_list = isinstance(config[setting], tuple)
        config[setting] = tuple(map(parse, text.split(","))) if is_list else parse(text)
    return config


def stage(heading):
    """The settings and the time of each command of a section, by what it is for."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.*) \| `(python .*)` \| (.*) \|$", section, flags=re.M)
    return {claims: (config_of(command), time) for claims, command, time in lines}


REST, SECOND_STAGE = stage("The rest of the first stage"), stage("The second stage")


def simulated_rows(config):
    """Rows of the members of a run."""

    def accuracy(*_):
        return 80.0

    seeds = config.seeds
    if config.runner == "iterative":
        rounds = range(1, config.num_rounds + 1)
        return simulated.pruning_rows(
            accuracy, seeds=seeds, variants=config.variants, rounds=rounds
        )
    if config.runner == "learned":
        logits = config.initial_logits
        return simulated.learned_rows(
            accuracy, seeds=seeds, variants=config.variants, logits=logits
        )
    rows = simulated.heuristic_rows(accuracy, seeds=seeds, powers=config.powers)
    return [row for row in rows if row["weights"] in config.weights]


@pytest.fixture(scope="module")
def committed():
    return [table for table in read_tables(ROOT / "results") if table.is_judged]


def test_the_commands_of_the_first_stage_train_what_its_claims_lack(committed):
    trained = {variant for config, _ in REST.values() for variant in config.variants}
    others = [row for row in pool(committed) if row.get("variant") not in trained]
    rows = [row for config, _ in REST.values() for row in simulated_rows(config)]
    claims = [claim for claim in CLAIMS if claim.network == "lenet300"]
    all_seeds = [*range(NUM_SEEDS)]
    assert sum(v.status == NOT_RUN for v in judge(claims, others)) == NUM_LACKING
    assert all(verdict.seeds == all_seeds for verdict in judge(claims, [*others, *rows]))
    for config, _ in REST.values():
        for name in config.variants:
            last = {"variant": name, "round": config.num_rounds}
            fewer = [row for row in rows if not last.items() <= row.items()]
            found = judge(claims, [*others, *fewer])
            assert any(verdict.seeds != all_seeds for verdict in found), f"{name}: a round too many"


@pytest.mark.parametrize("claims", REST)
def test_the_rest_of_the_first_stage_has_the_settings_of_the_paper(claims):
    config, _ = REST[claims]
    assert schedule.deviations(config.to_dict()) == {}
    assert [*config.seeds] == [*range(NUM_SEEDS)]


def test_the_hours_of_the_first_stage_are_those_of_its_commands():
    trainings = sum(int(time.partition(" ")[0]) for _, time in REST.values())
    hours = trainings * measured()["lenet300"] * PAPER_STEPS["lenet300"] / 3.6e6
    assert f"in {hours:.1f} hours on two cores" in " ".join(PAGE.split())


def test_the_commands_of_the_second_stage_train_what_it_needs():
    rows = {claims: simulated_rows(config) for claims, (config, _) in SECOND_STAGE.items()}
    found = judge_again(CLAIMS, [row for own in rows.values() for row in own])
    assert all(verdict.seeds == [*verdict.fresh] for verdict in found)
    for claims, (config, _) in SECOND_STAGE.items():
        fewer = [r for r in rows[claims] if r["seed"] < max(config.seeds)]
        others = [r for other, own in rows.items() if other != claims for r in own]
        found = judge_again(CLAIMS, [*others, *fewer])
        assert any(verdict.unfinished for verdict in found), f"{claims}: a seed too many"


@pytest.mark.parametrize("claims", SECOND_STAGE)
def test_the_second_stage_has_the_settings_of_the_first(claims, committed):
    config, _ = SECOND_STAGE[claims]
    tables = [
        table
        for table in committed
        if table.config["experiment"] == config.experiment
        and {*config.get("variants", ())} <= {row.get("variant") for row in table.rows}
    ]
    known = {tuple(sorted(table.deviations.values())) for table in tables}
    assert known == {tuple(sorted(schedule.deviations(config.to_dict()).values()))}


@pytest.mark.parametrize("claims", REST | SECOND_STAGE)
def test_times_of_both_stages_follow_from_those_that_are_known(claims):
    config, time = (REST | SECOND_STAGE)[claims]
    if config.runner == "iterative":
        trainings = len(config.seeds) * (1 + len(config.variants) * config.num_rounds)
        hours = trainings * measured()["lenet300"] * PAPER_STEPS["lenet300"] / 3.6e6
        assert time == f"{trainings} trainings: {hours:.1f} hours"
    elif config.runner == "learned":
        epochs = len(config.seeds) * len(config.variants) * config.epochs
        low, high = (seconds * epochs / 3600 for seconds in SECONDS_PER_EPOCH)
        assert time == f"{epochs} epochs: {low:.1f} to {high:.1f} hours"
    else:
        assert time.startswith(f"{len(config.seeds)} dense networks")
