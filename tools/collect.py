"""Join the tables of one or more runs into one table under results/.

    python -m tools.collect runs/a runs/b --output=results/mask_criteria_lenet300_mnist

This writes results/mask_criteria_lenet300_mnist.csv, which has the rows of all finished rounds.
Beside it stand .config.json (the settings that the runs share, with all variants and seeds),
.environment.json (the machines), .analysis.csv for iterative runs and .curves.parquet for learned
masks. The runs may differ only in the members that they list (variants, seeds, initial logits, ...
and numbers of the optimizer and of pruning, such as the learning rate) and in the number of rounds.

An existing table can be joined like a run, also into itself, so the folders of its runs are not
needed any more:

    python -m tools.collect results/NAME runs/c --output=results/NAME

The slices of a sweep give the table that a single run would have written, except that
.analysis.csv lacks the overlaps between members of different slices.

Rows of several versions of the code are joined only with --allow_code_change; .config.json then
names the versions. Rows of uncommitted code are refused: nobody could make them again.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from experiments.command_line import (
    define_allow_code_change,
    define_file,
    fail,
    path_of,
    run_program,
)
from experiments.runners import hyperparameters, mask_analysis
from experiments.runners.hyperparameters import listed
from experiments.runners.registry import RUNNERS, Runner
from experiments.runners.settings import Settings, defaults
from experiments.storage import records, results, run_folder
from experiments.storage.code import identify, is_by_sources
from experiments.storage.files import read_json, replace_file, write_json
from supermask_jax.checks import lookup
from tools.table_files import Files, of_run, of_table

OUTPUT = define_file("output", None, "Path of the table without its suffix.", required=True)
ALLOW_CODE_CHANGE = define_allow_code_change()
flags.declare_key_flag(ALLOW_CODE_CHANGE.name)

ROUNDS = {"num_rounds", "rounds"}  # settings of runs that finish round by round
DIRTY = "dirty"  # in the versions of rows that uncommitted code made before versions told sources


def main(arguments: list[str]) -> None:
    """Join the runs named on the command line."""
    try:
        sources = [path_of(source) for source in arguments[1:]]
        rows = collect(sources, Path(OUTPUT.value), ALLOW_CODE_CHANGE.value)
    except (ValueError, OSError) as error:
        fail(error)
    print(f"{len(rows)} rows in {OUTPUT.value}.csv")


def collect(
    sources: Sequence[Path], output: Path, allow_code_change: bool = False
) -> list[results.Row]:
    """Join the folders of runs, and tables named without their suffix, into a table at `output`.

    Args:
      sources: the folders and the tables.
      output: the path of the table, without its suffix.
      allow_code_change: join rows of several versions of the code.

    Raises:
      ValueError: if there is no source, if one is neither a run nor a table or has files of another
        run, if settings differ, if rows come from uncommitted code or from several versions of the
        code, or if two rows of one member differ.
    """
    if not sources:
        raise ValueError("name at least one folder of a run.")
    files = [_find(source) for source in sources]
    configs = [_read_config(file.config) for file in files]
    runner = lookup("runner", configs[0]["runner"], RUNNERS)
    config = join_configs(configs, runner)
    tables = [
        hyperparameters.filled(_read_table(file.rows, runner.COLUMNS), runner.Settings, own)
        for file, own in zip(files, configs, strict=True)
    ]
    environments = [read_json(file.environment) for file in files]
    for source, table, machines in zip(sources, tables, environments, strict=True):
        _check_committed(source, table, machines)
    check_slices(configs, tables)
    rows = _join_rows(dict(zip(sources, tables, strict=True)))
    lists = (*runner.LISTS, *runner.NUMBERS)
    complete = math.prod(len(listed(config.get(name))) for name in lists)
    sliced = any("slice" in source for source in configs)
    if sliced and not ROUNDS & config.keys() and len(rows) < complete:
        raise ValueError(f"the slices have {len(rows)} of {complete} rows; finish them first.")
    whole = sorted(rows, key=runner.row_key(config))
    config |= _codes(whole, allow_code_change)
    machines = [machine for several in environments for machine in several]
    distinct = [machine for i, machine in enumerate(machines) if machine not in machines[:i]]
    analysed = _join_analyses(files, configs, runner.Settings)
    several = [name for name in runner.NUMBERS if len(listed(config.get(name))) > 1]
    curves = _join_curves(
        [
            _with_numbers(pq.read_table(file.curves), several, runner.Settings, own)
            for file, own in zip(files, configs, strict=True)
            if _has_curves(file)
        ]
    )

    table = of_table(output)
    results.write_rows(table.rows, whole, runner.COLUMNS)
    write_json(table.config, config)
    write_json(table.environment, distinct)
    table.analysis.unlink(missing_ok=True)  # an earlier table's
    table.curves.unlink(missing_ok=True)
    if analysed:
        results.write_rows(table.analysis, analysed, mask_analysis.COLUMNS)
    if curves:
        replace_file(table.curves, lambda temporary: pq.write_table(curves, temporary))
    return whole


def _find(source: Path) -> Files:
    if source.is_dir():
        return of_run(source)
    table = of_table(source)
    if not table.config.exists():
        raise ValueError(f"{source} is neither the folder of a run nor a table: no {table.config}.")
    return table


def _read_table(table: Path, columns: results.Columns) -> list[results.Row]:
    """Read a table, and check that its part files are of the run in its folder."""
    in_run = (table.parent / run_folder.CONFIG).exists()
    identity = run_folder.existing(table.parent).identity if in_run else None
    return records.read_table(table, columns, identity)


def _check_committed(
    source: Path, rows: Sequence[results.Row], environments: Sequence[Mapping[str, Any]]
) -> None:
    """Check that the code of all rows was committed when it made them, or is by now."""
    for version in dict.fromkeys(row["code_version"] for row in rows):
        told = [e["uncommitted"] for e in environments if e.get("code_version") == version
                and "uncommitted" in e]  # fmt: skip
        changed = bool(told) and all(told)
        if changed and (here := identify()).version == version:
            changed = bool(here.uncommitted)
        if changed or DIRTY in version:
            raise ValueError(
                f"{source} has rows of uncommitted code ({version}); commit that code and run the "
                "same command again."
            )


def _codes(rows: Sequence[results.Row], allowed: bool) -> dict[str, list[str]]:
    """Return the versions of the code of a table, as an entry of its settings.

    Tables whose rows tell only commits have no such entry.
    """
    versions = list(dict.fromkeys(row["code_version"] for row in rows))
    if not any(map(is_by_sources, versions)):
        return {}
    if len(versions) > 1 and not allowed:
        raise ValueError(
            f"the rows were made by {len(versions)} versions of the code ({', '.join(versions)}); "
            "--allow_code_change lets them stand in one table."
        )
    return {"code": versions}


def _join_rows(tables: Mapping[Path, list[results.Row]]) -> list[results.Row]:
    """Return all rows, each member and round once."""
    rows: dict[tuple[Any, ...], results.Row] = {}
    for source, table in tables.items():
        for row in table:
            member = tuple(row[name] for name in results.columns_between(row, "id", "density"))
            numbers = ["density", *results.columns_between(row, "density", "code_version")]
            known = rows.setdefault(member, row)
            if [repr(row[name]) for name in numbers] != [repr(known[name]) for name in numbers]:
                raise ValueError(
                    f"{source} has other numbers for row {known['id']} than an earlier source (its "
                    f"code is {row['code_version']})."
                )
    if not rows:
        raise ValueError(f"{', '.join(map(str, tables))}: no round is finished there yet.")
    return list(rows.values())


def _has_curves(files: Files) -> bool:
    """Return whether a source has curves; those that are damaged are named and left out."""
    try:
        records.check_file(files.rows, files.curves)
    except ValueError as error:
        print(f"{error}; the table has no curves of that run", file=sys.stderr)
        return False
    return files.curves.exists()


def _with_numbers(
    curves: pa.Table, names: Sequence[str], kind: type[Settings], config: Mapping[str, Any]
) -> pa.Table:
    """Return curves with columns for the numbers that runs differ in, before their seeds."""
    config = defaults(kind) | dict(config)
    for name in names:
        if name in curves.column_names:
            continue
        [number] = listed(config[name])
        column = pa.array([float(number)] * len(curves))
        curves = curves.add_column(curves.column_names.index("seed"), name, column)
    about = [name for name in curves.column_names if name not in names]
    place = about.index("seed")
    return curves.select([*about[:place], *names, *about[place:]])


def _join_curves(curves: Sequence[pa.Table]) -> pa.Table | None:
    """Return the curves of all runs, each member once; None if there are none."""
    if not curves:
        return None
    joined = pa.concat_tables(curves)
    about = [name for name in joined.column_names if not name.startswith(("train_", "validation_"))]
    first = [(name, "first") for name in joined.column_names if name not in about]
    grouped = joined.group_by(about, use_threads=False).aggregate(first)
    return grouped.rename_columns([name.removesuffix("_first") for name in grouped.column_names])


def _join_analyses(
    files: Sequence[Files], configs: Sequence[Mapping[str, Any]], kind: type[Settings]
) -> list[results.Row]:
    """Return the rows of all analyses, by round and each once."""
    columns = mask_analysis.COLUMNS
    rows = [
        row
        for file, config in zip(files, configs, strict=True)
        for row in hyperparameters.filled(_read_table(file.analysis, columns), kind, config)
    ]
    distinct = {tuple(row[name] for name in columns if name != "value"): row for row in rows}
    return sorted(distinct.values(), key=lambda row: row["round"])


def join_configs(configs: Sequence[dict[str, Any]], runner: Runner) -> dict[str, Any]:
    """Return one configuration that has the members and the rounds of all.

    Args:
      configs: those of the runs.
      runner: theirs; its settings that list members, or numbers of members, may differ.

    Raises:
      ValueError: if another setting differs; the message names it.
    """
    first = configs[0]
    may_differ = (*runner.LISTS, *runner.NUMBERS, "slice", "code", *run_folder.MAY_CHANGE)
    for other in configs[1:]:
        for name in sorted(first.keys() | other.keys()):
            if name not in may_differ and first.get(name) != other.get(name):
                raise ValueError(
                    f"the runs differ in {name}: {first.get(name)!r} and {other.get(name)!r}."
                )
    joined = {
        name: list(dict.fromkeys(item for config in configs for item in config[name]))
        for name in runner.LISTS
    }
    younger = defaults(runner.Settings)
    for name in runner.NUMBERS:
        told = [listed(config.get(name, younger.get(name))) for config in configs]
        if any(numbers != told[0] for numbers in told):
            joined[name] = sorted({number for numbers in told for number in numbers})
    if any(config["seeds"] != first["seeds"] for config in configs):
        joined["seeds"] = sorted(joined["seeds"])
    if "num_rounds" in first:
        joined["num_rounds"] = max(config["num_rounds"] for config in configs)
    shared = {name: value for name, value in first.items() if name not in ("slice", "code")}
    return shared | joined


def check_slices(configs: Sequence[dict[str, Any]], tables: Sequence[list[results.Row]]) -> None:
    """Check that all slices are there and have finished the same round.

    Raises:
      ValueError: if a slice is missing or behind; the message names it.
    """
    rounds = {
        config["slice"]: _last_round(config, rows)
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


def _last_round(config: dict[str, Any], rows: Sequence[results.Row]) -> int:
    """Return the last round of a slice, 0 if it does not finish by rounds, -1 if it has no rows."""
    return max((row["round"] if ROUNDS & config.keys() else 0 for row in rows), default=-1)


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if not isinstance(config, dict) or "runner" not in config:
        raise ValueError(f"{path} is not the configuration of a run.")
    return config


if __name__ == "__main__":
    run_program(main)
