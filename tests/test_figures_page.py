"""experiments/FIGURES.md has every figure and config, and its times follow from measurements."""

import csv
import importlib.util
import re
from pathlib import Path

import pytest

from experiments.plots import FIGURES
from tests.experiments.test_configs import NAMES, PAPER_STEPS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "experiments" / "FIGURES.md").read_text()
TABLE = [[cell.strip() for cell in re.findall(r"[^|]+", line)] for line in PAGE.splitlines()]
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
