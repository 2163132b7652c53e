import pytest

from experiments.storage import records
from experiments.storage.records import Records
from tests.experiments import tiny
from tests.experiments.test_checkpoints import DAMAGES, damage

COLUMNS = {"round": int, "seed": int, "accuracy": float}


def make_rows(round, accuracy=0.5):
    return [{"round": round, "seed": seed, "accuracy": accuracy} for seed in (3, 0)]


def key(row):
    return row["round"], row["seed"]


def open_records(table):
    return Records(tiny.folder(table.parent), table.name, COLUMNS, key)


@pytest.fixture
def table(tmp_path):
    """A table of three rounds, in a folder with another table."""
    Records(tiny.folder(tmp_path), "other.csv", COLUMNS, key).add("round_5", make_rows(5))
    kept = open_records(tmp_path / "results.csv")
    for round in (0, 2, 1):
        kept.add(f"round_{round}", make_rows(round))
    return tmp_path / "results.csv"


def test_all_rows_are_in_the_table_in_order(table):
    kept = open_records(table)
    assert kept.rows() == sorted(make_rows(0) + make_rows(1) + make_rows(2), key=key)
    assert records.read_table(table, COLUMNS) == kept.rows()
    assert "round_1" in kept and kept.part("round_1") == make_rows(1)
    assert "round_3" not in kept and kept.part("round_3") == []


def test_a_part_written_again_replaces_the_first(table):
    open_records(table).add("round_1", make_rows(1, 0.75))
    kept = open_records(table)
    assert kept.part("round_1") == make_rows(1, 0.75)
    assert len(kept.rows()) == 6


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_table_is_reported_and_rewritten(table, capsys, how):
    whole = table.read_bytes()
    damage(table, how)
    with pytest.raises(ValueError, match=str(table.parent)):
        records.read_table(table, COLUMNS)
    assert len(open_records(table).rows()) == 6
    assert table.read_bytes() == whole
    said = capsys.readouterr().err
    parts = table.with_name("parts") / "results"
    assert said == f"{table} does not match {parts}; it is rewritten\n"
    open_records(table)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_part_is_reported_and_ignored(table, capsys, how):
    whole, part = table.read_bytes(), table.with_name("parts") / "results" / "round_1.json"
    damage(part, how)
    with pytest.raises(ValueError, match=str(table.parent)):
        records.read_table(table, COLUMNS)
    kept = open_records(table)
    assert "round_1" not in kept and len(kept.rows()) == 4
    said = capsys.readouterr().err.splitlines()
    if how != "deleted":
        assert said[0] == f"{part} is damaged; its rows will be computed again"
    kept.add("round_1", make_rows(1))
    assert table.read_bytes() == whole
    assert records.read_table(table, COLUMNS) == kept.rows()


@pytest.mark.parametrize(
    "content", ["3", "[]", '{"rows": 3, "sha256": ""}', '{"rows": "", "sha256": ""}', "\x00"]
)
def test_no_content_of_a_part_breaks_anything(table, capsys, content):
    (table.with_name("parts") / "results" / "round_1.json").write_text(content)
    assert len(open_records(table).rows()) == 4
    assert "round_1.json is damaged" in capsys.readouterr().err
