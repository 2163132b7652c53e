"""The folder of a run: which run may go on in it, and what it records of code and machine."""

import json
import platform
import re
from pathlib import Path

import jax
import pytest

from experiments.storage import environment, run_folder
from experiments.storage.code import Code
from experiments.storage.files import read_json, write_json
from tests.bad_input import check_one_line

ROOT = Path(__file__).resolve().parents[2]
CODE, OTHER = (Code(f"0.1.0+s{digit * 10}", digit * 10, ()) for digit in "ab")
CONFIG = {"learning_rate": 0.1, "num_rounds": 2, "seeds": (0, 1), "dataset": "digits"}


def open_workdir(folder, config, part=None, data=None, code=CODE, **options):
    """Open a folder and begin its run."""
    opened = run_folder.open_workdir(str(folder), config, part, data, code, **options)
    (opened.path / "under_way").mkdir(exist_ok=True)
    return opened


@pytest.mark.parametrize("changes", [{}, {"num_rounds": 5}, {"chunk_evals": 1}, {"seeds": [0, 1]}])
def test_a_folder_is_reopened_by_the_same_run(tmp_path, changes):
    for config in (CONFIG, CONFIG | changes):
        workdir = open_workdir(tmp_path / "a" / "b", config).path
    assert workdir == tmp_path / "a" / "b"
    files = sorted(file.name for file in workdir.iterdir() if file.is_file())
    assert files == ["config.json", "environment.json"]
    config = read_json(workdir / "config.json")
    of_folder = {"format": run_folder.FORMAT, "code": [CODE.version]}
    assert config == json.loads(json.dumps(CONFIG | changes | of_folder))


def test_a_folder_is_reopened_with_the_same_numbers_written_otherwise(tmp_path):
    identities = {
        open_workdir(tmp_path, CONFIG | {"rates": (("output/kernel", rate),)}).identity
        for rate in (0, 0.0, -0.0)
    }
    assert len(identities) == 1


def test_a_folder_records_every_environment_of_its_run(tmp_path, monkeypatch):
    names = ["one", "two", "one", "two"]
    for name in names:
        monkeypatch.setattr(environment, "environment", lambda *_, name=name: {"processor": name})
        open_workdir(tmp_path, CONFIG)
    recorded = read_json(tmp_path / "environment.json")
    assert recorded == [{"processor": "one"}, {"processor": "two"}]
    (tmp_path / "environment.json").write_text("{")
    open_workdir(tmp_path, CONFIG)
    assert read_json(tmp_path / "environment.json") == [{"processor": "two"}]


@pytest.mark.parametrize("content", ["", "{", "3", "[1]", "\x00"])
def test_a_damaged_config_is_named(tmp_path, content):
    open_workdir(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'config.json'} is damaged")):
        open_workdir(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == content


def test_a_folder_of_another_version_is_refused(tmp_path):
    open_workdir(tmp_path, CONFIG)
    settings = read_json(tmp_path / "config.json")
    del settings["format"]
    write_json(tmp_path / "config.json", settings | {"old_setting": 1})
    with pytest.raises(ValueError) as caught:
        open_workdir(tmp_path, CONFIG)
    assert str(caught.value) == (
        f"{tmp_path} was made by another version (format: not set -> {run_folder.FORMAT}); "
        "continue it with the version that its environment.json names, or choose another --workdir."
    )


def test_asking_for_fewer_rounds_forgets_none(tmp_path):
    for rounds in (5, 3):
        open_workdir(tmp_path, CONFIG | {"num_rounds": rounds})
    assert read_json(tmp_path / "config.json")["num_rounds"] == 5


def test_a_folder_needs_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--workdir is empty"):
        open_workdir("", CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.2}, "(learning_rate: 0.1 -> 0.2)"),
        (
            {"seeds": (1,), "num_rounds": 3, "dataset": "mnist"},
            "(dataset: 'digits' -> 'mnist', seeds: [0, 1] -> [1])",
        ),
        ({"extra": 1}, "(extra: not set -> 1)"),
        ({"data": "other"}, "(data: 'own' -> 'other')"),
        ({"slice": "0/2"}, "(slice: not set -> '0/2')"),
    ],
)
def test_a_folder_refuses_another_run_and_stays_as_it_is(tmp_path, changes, message):
    workdir = open_workdir(tmp_path, CONFIG, data="own").path
    before = (workdir / "config.json").read_bytes()
    part, data = changes.pop("slice", None), changes.pop("data", "own")
    with pytest.raises(ValueError) as caught:
        open_workdir(tmp_path, CONFIG | changes, part, data)
    assert f"{tmp_path} holds a run with other settings {message}" in str(caught.value)
    assert (workdir / "config.json").read_bytes() == before


def test_a_folder_in_which_nothing_was_made_is_free(tmp_path):
    for changes in ({"num_rounds": 10**9}, {"learning_rate": 5.0}, {}):
        run_folder.open_workdir(str(tmp_path), CONFIG | changes, code=OTHER)
    run_folder.open_workdir(str(tmp_path), CONFIG, code=CODE)
    of_folder = {"format": run_folder.FORMAT, "code": [CODE.version]}
    assert read_json(tmp_path / "config.json") == json.loads(json.dumps(CONFIG | of_folder))


def test_other_code_is_refused_or_allowed_and_recorded(tmp_path, capsys):
    first = open_workdir(tmp_path, CONFIG)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError) as caught:
        open_workdir(tmp_path, CONFIG, code=OTHER)
    check_one_line(caught.value)
    message = f"{tmp_path} was begun by other code ({CODE.version} -> {OTHER.version}); go back"
    assert str(caught.value).startswith(message) and "--allow_code_change" in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == before
    for code, codes in ((OTHER, (CODE, OTHER)), (OTHER, (CODE, OTHER)), (CODE, (OTHER, CODE))):
        folder = open_workdir(tmp_path, CONFIG, code=code, allow_code_change=True)
        versions = [one.version for one in codes]
        assert read_json(tmp_path / "config.json")["code"] == versions
        assert folder.identity == first.identity._replace(codes=tuple(versions))
        assert folder.code_version == code.version
    assert f"{tmp_path} goes on with other code: {CODE.version} -> " in capsys.readouterr().err
    told = [e["code_version"] for e in read_json(tmp_path / "environment.json")]
    assert told == [OTHER.version, CODE.version]


def test_a_changed_package_is_named(tmp_path):
    open_workdir(tmp_path, CONFIG)
    machines = read_json(tmp_path / "environment.json")
    machines[0]["packages"]["jax"] = "0.0.1"
    write_json(tmp_path / "environment.json", machines)
    with pytest.raises(ValueError, match=rf"b, jax 0\.0\.1 -> {re.escape(jax.__version__)}\); go"):
        open_workdir(tmp_path, CONFIG, code=OTHER)


def test_a_folder_of_the_time_before_code_was_recorded_goes_on(tmp_path):
    open_workdir(tmp_path, CONFIG)
    config = read_json(tmp_path / "config.json")
    del config["code"]
    write_json(tmp_path / "config.json", config)
    folder = open_workdir(tmp_path, CONFIG)
    assert folder.identity.codes == ("unknown", CODE.version)
    folder.identity.check(tmp_path / "parts" / "results" / "round_01.json", None)


FILES = ["parts/results/round_00.json", "checkpoints/round_00.json", "dense/checkpoints/x.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_without_its_config_goes_on_only_with_its_own_settings(tmp_path, name):
    folder = open_workdir(tmp_path, CONFIG)
    file = tmp_path / name
    write_json(file, {"made_by": folder.identity.stamp(file)})
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError) as caught:
        open_workdir(tmp_path, CONFIG | {"learning_rate": 0.2})
    check_one_line(caught.value)
    assert str(caught.value) == (
        f"{tmp_path / 'config.json'} is missing, and {file} was made with other settings, seeds or "
        "data; restore it or choose another --workdir."
    )
    assert not (tmp_path / "config.json").exists()
    assert open_workdir(tmp_path, CONFIG).identity == folder.identity
    assert read_json(tmp_path / "config.json")["code"] == [CODE.version]


def test_a_table_without_its_config_is_not_overwritten(tmp_path):
    (tmp_path / "results.csv").write_text("mine")
    with pytest.raises(ValueError, match="is missing, but there is a results"):
        open_workdir(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_is_not_a_folder(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        open_workdir(f"{tmp_path}/file{below}", CONFIG)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "recorded"),
    [("fpu avx2 avx", "Chip 9, 2 cores, avx2"), ("avx512f avx avx2", "Chip 9, 2 cores, avx512f"),
     ("fpu", "Chip 9, 2 cores")],
)  # fmt: skip
def test_the_processor_is_recorded_with_its_widest_vectors(monkeypatch, flags, recorded):
    core = f"processor : 0\nmodel name\t: Chip 9\nflags\t\t: {flags}\n\n"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda _: 2 * core)
        processor = environment.processor()
    assert processor == recorded


def test_the_environment_names_neither_user_nor_host(monkeypatch):
    monkeypatch.setenv("LOGNAME", "somebody")
    recorded = environment.environment(CODE)
    assert set(recorded) == {
        "code_version",
        "commit",
        "uncommitted",
        "python",
        "packages",
        "platform",
        "processor",
        "backend",
        "devices",
    }
    assert recorded["backend"] == "cpu" and len(recorded["devices"]) == 4
    assert recorded["packages"]["jax"] == jax.__version__
    assert list(recorded["packages"]) == [*environment.PACKAGES]
    assert environment.environment(CODE, ("jax", "no-such-package"))["packages"] == {
        "jax": jax.__version__
    }
    text = json.dumps(recorded)
    for secret in ("somebody", platform.node(), str(Path.home()), str(ROOT)):
        assert not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text)
