"""Join the tables of one or more runs into one table under results/.

    python -m tools.collect runs/a runs/b --output=results/mask_criteria_lenet300_mnist

writes results/mask_criteria_lenet300_mnist.csv with the rows of all finished rounds, and beside
it .config.json (the settings that the runs share, with all their variants and seeds),
.environment.json (what each ran on), of iterative runs .analysis.csv and of learned masks
.curves.parquet. The runs may differ only in what they list (variants, seeds, initial logits, ...)
and in the number of rounds.

The slices of one sweep join into the table that a single run would have written; of the overlaps
in .analysis.csv those of members in different runs are missing.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags

from experiments import mask_analysis, records, results
from experiments.command_line import fail, given, parse_flags
from experiments.learned import CURVES
from experiments.runners import RUNNERS
from supermask_jax.trees import lookup

OUTPUT = flags.DEFINE_string("output", None, "Path of the table without its suffix.", required=True)


def main(arguments: list[str]) -> None:
    """Join the runs named on the command line."""
    try:
        rows = collect([Path(folder) for folder in arguments[1:]], Path(given(OUTPUT)))
    except (ValueError, OSError) as error:
        fail(error)
    print(f"{len(rows)} rows in {OUTPUT.value}.csv")


def collect(workdirs: Sequence[Path], output: Path) -> list[results.Row]:
    """Join the tables of `workdirs` and write them to `output` with three suffixes.

    Raises:
      ValueError: no run, runs of different settings, or two different rows of one member.
    """
    if not workdirs:
        raise ValueError("name at least one folder of a run.")
    configs = [_read_config(folder) for folder in workdirs]
    runner = lookup("runner", configs[0]["runner"], RUNNERS)
    config = join_configs(configs, runner.LISTS)
    tables = [records.read_table(folder / records.RESULTS, runner.COLUMNS) for folder in workdirs]
    check_slices(configs, tables)
    rows: dict[tuple[Any, ...], results.Row] = {}
    for folder, table in zip(workdirs, tables, strict=True):
        for row in table:
            if results.DIRTY in row["code_version"]:
                raise ValueError(f"{folder} was run by changed files; commit them and run again.")
            member = tuple(row[name] for name in results.columns_between(row, "id", "density"))
            numbers = ["density", *results.columns_between(row, "density", "code_version")]
            known = rows.setdefault(member, row)
            if [repr(row[name]) for name in numbers] != [repr(known[name]) for name in numbers]:
                raise ValueError(
                    f"{folder} has other numbers for row {known['id']} than before, by "
                    f"{row['code_version']}."
                )
    if not rows:
        raise ValueError(f"{', '.join(map(str, workdirs))}: nothing has finished there yet.")
    complete = math.prod(len(config[name]) for name in runner.LISTS)
    if "slice" in configs[0] and "num_rounds" not in config and len(rows) < complete:
        raise ValueError(f"the slices have {len(rows)} of {complete} rows; finish them first.")
    whole = sorted(rows.values(), key=runner.row_key(config))
    environments = [e for f in workdirs for e in results.read_json(f / "environment.json")]
    results.write_rows(output.with_name(output.name + ".csv"), whole, runner.COLUMNS)
    results.write_json(output.with_name(output.name + ".config.json"), config)
    distinct = [e for i, e in enumerate(environments) if e not in environments[:i]]
    results.write_json(output.with_name(output.name + ".environment.json"), distinct)
    for suffix in (".analysis.csv", ".curves.parquet"):  # an earlier table's
        output.with_name(output.name + suffix).unlink(missing_ok=True)
    if analysed := _join_analyses(workdirs):
        path = output.with_name(output.name + ".analysis.csv")
        results.write_rows(path, analysed, mask_analysis.COLUMNS)
    curves = [folder / CURVES for folder in workdirs if (folder / CURVES).exists()]
    if curves:
        joined = _join_curves(curves)
        path = output.with_name(output.name + ".curves.parquet")
        results.replace_file(path, lambda temporary: pq.write_table(joined, temporary))
    return whole


def _join_curves(paths: Sequence[Path]) -> pa.Table:
    """The curves of all runs; those of a member of two runs count once."""
    joined = pa.concat_tables([pq.read_table(path) for path in paths])
    about = [name for name in joined.column_names if not name.startswith(("train_", "validation_"))]
    first = [(name, "first") for name in joined.column_names if name not in about]
    grouped = joined.group_by(about, use_threads=False).aggregate(first)
    return grouped.rename_columns([name.removesuffix("_first") for name in grouped.column_names])


def _join_analyses(workdirs: Sequence[Path]) -> list[results.Row]:
    """The rows of all runs by round; what two runs both looked at counts once."""
    columns, file = mask_analysis.COLUMNS, mask_analysis.FILE
    rows = [row for folder in workdirs for row in records.read_table(folder / file, columns)]
    distinct = {tuple(row[name] for name in columns if name != "value"): row for row in rows}
    return sorted(distinct.values(), key=lambda row: row["round"])


def join_configs(configs: Sequence[dict[str, Any]], lists: Sequence[str]) -> dict[str, Any]:
    """One configuration with the members and rounds of all.

    Args:
      configs: of the runs.
      lists: settings that list members, in which runs may differ.

    Raises:
      ValueError: if another setting differs; names it.
    """
    first = configs[0]
    may_differ = (*lists, "slice", *results.MAY_CHANGE)
    for other in configs[1:]:
        for name in sorted(first.keys() | other.keys()):
            if name not in may_differ and first.get(name) != other.get(name):
                raise ValueError(
                    f"the runs differ in {name}: {first.get(name)!r} and {other.get(name)!r}."
                )
    joined = {
        name: list(dict.fromkeys(item for config in configs for item in config[name]))
        for name in lists
    }
    if any(config["seeds"] != first["seeds"] for config in configs):
        joined["seeds"] = sorted(joined["seeds"])
    if "num_rounds" in first:
        joined["num_rounds"] = max(config["num_rounds"] for config in configs)
    shared = {name: value for name, value in first.items() if name not in ("format", "slice")}
    return shared | joined


def check_slices(configs: Sequence[dict[str, Any]], tables: Sequence[list[results.Row]]) -> None:
    """Make sure that slices are all there and equally far.

    Raises:
      ValueError: if one is missing or behind; names it.
    """
    rounds = {
        config["slice"]: max((row.get("round", 0) for row in rows), default=-1)
        for config, rows in zip(configs, tables, strict=True)
        if "slice" in config
    }
    for count in {part.partition("/")[2] for part in rounds}:
        expected = [f"{index}/{count}" for index in range(int(count))]
        if missing := [part for part in expected if part not in rounds]:
            raise ValueError(f"of {count} slices {', '.join(missing)} are missing.")
        last = max(rounds[part] for part in expected)
        if behind := [part for part in expected if rounds[part] < last]:
            raise ValueError(f"slices {', '.join(behind)} have not finished round {last}.")


def _read_config(folder: Path) -> dict[str, Any]:
    config = results.read_json(folder / "config.json")
    if not isinstance(config, dict) or "runner" not in config:
        raise ValueError(f"{folder / 'config.json'} is not the configuration of a run.")
    return config


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
