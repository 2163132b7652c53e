import pytest

from experiments import records
from experiments.records import Records
from tests.experiments.test_checkpoints import DAMAGES, damage

COLUMNS = {"round": int, "seed": int, "accuracy": float}


def make_rows(round, accuracy=0.5):
    return [{"round": round, "seed": seed, "accuracy": accuracy} for seed in (3, 0)]


def key(row):
    return row["round"], row["seed"]


@pytest.fixture
def workdir(tmp_path):
    """Of three rounds."""
    kept = Records(tmp_path, COLUMNS, key)
    for round in (0, 2, 1):
        kept.add(f"round_{round}", make_rows(round))
    return tmp_path


def table(workdir):
    return (workdir / "results.csv").read_bytes()


def test_all_rows_are_in_the_table_in_order(workdir):
    kept = Records(workdir, COLUMNS, key)
    assert kept.rows() == sorted(make_rows(0) + make_rows(1) + make_rows(2), key=key)
    assert records.read_table(workdir, COLUMNS) == kept.rows()
    assert "round_1" in kept and kept.part("round_1") == make_rows(1)
    assert "round_3" not in kept and kept.part("round_3") == []


def test_a_part_again_takes_the_place_of_the_first(workdir):
    Records(workdir, COLUMNS, key).add("round_1", make_rows(1, 0.75))
    kept = Records(workdir, COLUMNS, key)
    assert kept.part("round_1") == make_rows(1, 0.75)
    assert len(kept.rows()) == 6


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_table_is_named_and_written_anew(workdir, capsys, how):
    whole = table(workdir)
    damage(workdir / "results.csv", how)
    with pytest.raises(ValueError, match=str(workdir)):
        records.read_table(workdir, COLUMNS)
    assert len(Records(workdir, COLUMNS, key).rows()) == 6
    assert table(workdir) == whole
    said = capsys.readouterr().err
    assert said == (
        f"{workdir / 'results.csv'} is not what rows/ beside it tells; it is written anew\n"
    )
    Records(workdir, COLUMNS, key)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_part_is_named_and_missing(workdir, capsys, how):
    whole, part = table(workdir), workdir / "rows" / "round_1.json"
    damage(part, how)
    with pytest.raises(ValueError, match=str(workdir)):
        records.read_table(workdir, COLUMNS)
    kept = Records(workdir, COLUMNS, key)
    assert "round_1" not in kept and len(kept.rows()) == 4
    said = capsys.readouterr().err.splitlines()
    if how != "deleted":
        assert said[0] == f"{part} is damaged; what it told is computed again"
    kept.add("round_1", make_rows(1))
    assert table(workdir) == whole
    assert records.read_table(workdir, COLUMNS) == kept.rows()


@pytest.mark.parametrize(
    "content", ["3", "[]", '{"rows": 3, "sha256": ""}', '{"rows": "", "sha256": ""}', "\x00"]
)
def test_no_content_of_a_part_breaks_anything(workdir, capsys, content):
    (workdir / "rows" / "round_1.json").write_text(content)
    assert len(Records(workdir, COLUMNS, key).rows()) == 4
    assert "round_1.json is damaged" in capsys.readouterr().err
